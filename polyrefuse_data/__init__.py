"""Build, check and load PolyRefuse: harmful and harmless prompts in 14 languages."""

from __future__ import annotations

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.version import __version__

__all__ = ["PolyRefuseError", "__version__", "load"]


def __getattr__(name: str) -> object:
    # `load` pulls in Arrow; importing the package alone must stay cheap.
    if name == "load":
        from polyrefuse_data.build.loader import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
