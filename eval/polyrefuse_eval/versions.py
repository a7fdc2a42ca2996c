"""Versions that a number depends on, without importing what they are of."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from polyrefuse_data.version import __version__
from polyrefuse_eval.errors import MissingExtraError


def versions() -> dict[str, str]:
    """Return the versions of polyrefuse, torch and transformers.

    Raises `MissingExtraError` where one is not installed.
    """
    found = {"polyrefuse": __version__}
    for name in ("torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            raise MissingExtraError(
                f"{name} is not installed; install it with: pip install 'polyrefuse[eval]'"
            ) from None
    return found
