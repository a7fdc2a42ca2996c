"""The file of a Latent Guard: what its header says, and whether it fits a model that is not loaded yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from polyrefuse_eval.errors import GuardError
from polyrefuse_eval.models.spec import ModelSpec
from polyrefuse_eval.models.tensor_files import model_signature, other_shape, read_tensors
from polyrefuse_eval.results.tensor_headers import GUARD_FORMAT, GuardHeader

POOLED = "pooled"
"""Key of the contrast of a guard that is fitted on the prompts of several languages together."""

FIT_AGAIN = "fit it again for this one"


def contrast_key(keys: Sequence[str], lang: str | None) -> str | None:
    """Return which of a guard's contrast `keys` serves `lang`: its own, `pooled`, the only one, or None."""
    if lang is not None and lang in keys:
        return lang
    if POOLED in keys:
        return POOLED
    return keys[0] if len(keys) == 1 else None


def require_contrast(keys: Sequence[str], lang: str | None) -> str:
    """Return `contrast_key`; raise `GuardError` where several languages have contrasts, and `lang` none."""
    key = contrast_key(keys, lang)
    if key is None:
        raise GuardError(
            f"the guard was fitted in {', '.join(keys)}, one guard for each, and is asked about "
            f"{'an unnamed language' if lang is None else repr(lang)}; name one of these, or fit it "
            "with --pooled"
        )
    return key


def check_before_loading(path: Path, model: ModelSpec) -> None:
    """Raise `GuardError`, saying what differs, unless the guard in `path` has the shape of `model`.

    Width, number of layers and template are compared; the weights of `model` are not read. Raises
    `ChatModelError` where there is no such model.
    """
    theirs = model_signature(path, guard_header(path).metadata, GuardError, FIT_AGAIN)
    differing = other_shape(theirs, model)
    if differing:
        raise GuardError(
            f"'{path}' is for a model of a different shape or template than '{model.name}': {differing}; "
            f"{FIT_AGAIN}"
        )


def guard_header(path: Path) -> GuardHeader:
    """Return what the guard in `path` says of itself; raises `GuardError` for a file that is no guard."""
    return read_guard(path)[1]


def read_guard(path: Path) -> tuple[dict[str, Tensor], GuardHeader]:
    """Return the tensors and the header of the guard in `path`; raises `GuardError` for any other file."""
    return read_tensors(path, GuardHeader, GUARD_FORMAT, GuardError, "polyrefuse eval guard fit")
