"""Versions that a number depends on, without importing what they are of."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from polyrefuse_data.core.version import __version__
from polyrefuse_eval.errors import MissingExtraError


def versions() -> dict[str, str]:
    """Return the versions of polyrefuse, torch and transformers; raises as `installed` does."""
    return {"polyrefuse": __version__, **{name: installed(name) for name in ("torch", "transformers")}}


def installed(name: str) -> str:
    """Return the version of the package `name`; raises `MissingExtraError` where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        raise MissingExtraError(
            f"{name} is not installed; install it with: pip install 'polyrefuse[eval]'"
        ) from None
