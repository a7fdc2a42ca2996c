"""Build, check, load and publish PolyRefuse: harmful and harmless prompts in 14 languages.

The names in `__all__` are what a user needs. Each is imported when it is first used, so importing the
package stays cheap. Functions do not share the names of the packages that hold them: `build` is a
package, `build_dataset` builds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.version import __version__

if TYPE_CHECKING:
    from polyrefuse_data.audit.audit import Report
    from polyrefuse_data.audit.audit import audit as audit_dataset
    from polyrefuse_data.build.loader import load
    from polyrefuse_data.build.pipeline import BuildRequest, BuildResult
    from polyrefuse_data.build.pipeline import build as build_dataset
    from polyrefuse_data.core.languages import LANGUAGES, Language
    from polyrefuse_data.publish.plan import PublishRequest
    from polyrefuse_data.publish.publish import PublishResult
    from polyrefuse_data.publish.publish import publish as publish_dataset

__all__ = [
    "LANGUAGES",
    "BuildRequest",
    "BuildResult",
    "Language",
    "PolyRefuseError",
    "PublishRequest",
    "PublishResult",
    "Report",
    "__version__",
    "audit_dataset",
    "build_dataset",
    "load",
    "publish_dataset",
]

_HOME = {
    "LANGUAGES": "core.languages.LANGUAGES",
    "BuildRequest": "build.pipeline.BuildRequest",
    "BuildResult": "build.pipeline.BuildResult",
    "Language": "core.languages.Language",
    "PublishRequest": "publish.plan.PublishRequest",
    "PublishResult": "publish.publish.PublishResult",
    "Report": "audit.audit.Report",
    "audit_dataset": "audit.audit.audit",
    "build_dataset": "build.pipeline.build",
    "load": "build.loader.load",
    "publish_dataset": "publish.publish.publish",
}
"""Where each name is, imported when it is first used."""


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOME[name].rpartition(".")
    value = getattr(import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
