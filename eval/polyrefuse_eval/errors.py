"""Errors of the measuring side that a user can cause: one clear line each, exit status 2."""

from __future__ import annotations

import importlib
from types import ModuleType

from polyrefuse_data.core.errors import PolyRefuseError


class ChatModelError(PolyRefuseError):
    """A model that cannot be loaded, or that is no chat model of a known shape."""


class DirectionError(PolyRefuseError):
    """A direction that cannot be fitted, read, or used with this model."""


class EndpointError(PolyRefuseError):
    """A service that cannot be asked: its address, key, limits or budget, or what it was asked for."""


class GuardError(PolyRefuseError):
    """A Latent Guard that cannot be fitted, calibrated or used as asked, or prompts it cannot read."""


class InterventionError(PolyRefuseError):
    """An edit of the forward pass that does not fit the model or the batch."""


class RunFolderError(PolyRefuseError):
    """A run folder made with other settings, or files in it that cannot be read."""


class StorageError(PolyRefuseError):
    """An address that cannot be read or written."""


class TakenError(StorageError):
    """An address at which another driver is at work."""


class JudgeError(PolyRefuseError):
    """A judge that is not known, cannot be loaded or asked, or completions that it cannot read."""


class OutOfMemoryError(PolyRefuseError):
    """The device has no room even for a batch of one."""


class MissingExtraError(PolyRefuseError):
    """A package of an optional extra that is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Return the imported `module`; raises `MissingExtraError` with the pip command otherwise."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise MissingExtraError(
            f"{name} is not installed; install it with: pip install 'polyrefuse[{extra}]'"
        ) from error
