"""Halves of surrogate pairs, in texts that JavaScript cut inside an emoji: no encoding can write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

REPLACEMENT = "\ufffd"
"""U+FFFD, what stands where a character was lost."""

_SURROGATE = re.compile("[\ud800-\udfff]")


def without_surrogates(value: Any) -> Any:
    """Return `value` with U+FFFD for each half of a pair in its texts; the same object if there is none."""
    if isinstance(value, str):
        return _SURROGATE.sub(REPLACEMENT, value) if _SURROGATE.search(value) else value
    if isinstance(value, Mapping):
        pairs = {without_surrogates(key): without_surrogates(inner) for key, inner in value.items()}
        same = all(key in value and value[key] is inner for key, inner in pairs.items())
        return value if same and len(pairs) == len(value) else pairs
    if isinstance(value, list):
        items = [without_surrogates(inner) for inner in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    return value
