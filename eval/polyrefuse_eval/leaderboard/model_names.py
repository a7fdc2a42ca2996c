"""Read a model's family and size from its name, so that a page can be filtered by them."""

from __future__ import annotations

import re

SIZES = ("up to 1 billion", "1 to 10 billion", "10 to 100 billion", "over 100 billion")
NOT_STATED = "not stated"

_FAMILY = re.compile(r"[a-z]{3,}")
_SIZE = re.compile(r"(?<![a-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([mbt])(?![a-z0-9])")
_BILLIONS = {"m": 1e-3, "b": 1.0, "t": 1e3}


def family_of(model: str) -> str:
    """Return the first word of a model's name: `gemma` of `google/gemma-2-9b-it`.

    Words have at least three letters, `meta` before `llama` is the maker's name; the whole last part of the
    name where there is none.
    """
    name = model.rpartition("/")[2].lower()
    words = _FAMILY.findall(name.removeprefix("meta-"))
    return words[0] if words else name


def billions_of(model: str) -> float | None:
    """Return the billions of parameters that a model's name states: 9 of `gemma-2-9b`, 56 of `8x7b`."""
    stated = _SIZE.findall(model.rpartition("/")[2].lower())
    if not stated:
        return None
    experts, number, unit = stated[0]
    return int(experts or 1) * float(number) * _BILLIONS[unit]


def size_of(model: str) -> str:
    """Return which of `SIZES` a model has by its name, or `NOT_STATED`."""
    billions = billions_of(model)
    if billions is None:
        return NOT_STATED
    return SIZES[sum(billions > limit for limit in (1, 10, 100))]
