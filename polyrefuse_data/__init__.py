"""Build, check and load PolyRefuse: harmful and harmless prompts in 14 languages."""

from __future__ import annotations

from polyrefuse_data.errors import PolyRefuseError
from polyrefuse_data.version import __version__

__all__ = ["PolyRefuseError", "__version__", "build", "load"]


def __getattr__(name: str) -> object:
    # `build` and `load` pull in Arrow; importing the package alone must stay cheap.
    if name in ("build", "load"):
        from polyrefuse_data.build import build
        from polyrefuse_data.load import load

        globals().update(build=build, load=load)
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
