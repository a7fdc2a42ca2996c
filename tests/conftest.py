"""What all tests share: they assert no seconds, since on a busy machine anything may take long."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("polyrefuse", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("polyrefuse")
