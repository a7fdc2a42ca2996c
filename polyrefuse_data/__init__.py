"""Build, check and load PolyRefuse: harmful and harmless prompts in 14 languages."""

from __future__ import annotations

from polyrefuse_data.version import __version__

__all__ = ["__version__"]
