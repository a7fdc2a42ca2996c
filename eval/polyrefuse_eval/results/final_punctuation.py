"""Read prompts as they are, or without the punctuation at their end, which may give their label away."""

from __future__ import annotations

from collections.abc import Callable

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.unicode_text import without_final_punctuation

KEPT, REMOVED = "kept", "removed"
"""Whether prompts are read with the punctuation at their end, or without it."""


def prompt_reader(final_punctuation: object) -> Callable[[str], str]:
    """Return what a prompt is read through: as it is (`kept`), or without its final punctuation (`removed`).

    Raises `PolyRefuseError` for anything else.
    """
    if final_punctuation not in (KEPT, REMOVED):
        raise PolyRefuseError(f"final punctuation is {final_punctuation!r}; expected {KEPT} or {REMOVED}")
    return without_final_punctuation if final_punctuation == REMOVED else str
