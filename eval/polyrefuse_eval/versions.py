"""Versions that a number depends on, without importing what they are of."""

from __future__ import annotations

from importlib.metadata import version

from polyrefuse_data.version import __version__


def versions() -> dict[str, str]:
    """Return the versions of polyrefuse, torch and transformers."""
    return {"polyrefuse": __version__, "torch": version("torch"), "transformers": version("transformers")}
