"""What a run of `polyrefuse eval harmfulness` measures."""

from __future__ import annotations

from dataclasses import dataclass

from polyrefuse_eval.harmfulness.behaviour import ANSWER_TOKENS
from polyrefuse_eval.results.final_punctuation import KEPT

OWN = "own"
"""Measure each language with its own directions."""


@dataclass(frozen=True)
class HarmfulnessSettings:
    """What is measured; all of it belongs to the signature.

    `layers` are steered and inverted (None: all), `layer` is that of the category cosines (None: the middle
    one).
    """

    langs: tuple[str, ...]
    directions: str = OWN
    behaviour: str = "answers"
    n_train: int = 100
    n_test: int | None = None
    n_steered: int = 16
    n_inverted: int = 32
    layers: tuple[int, ...] | None = None
    layer: int | None = None
    coefficient: float = 1.0
    scope: str = "instruction"
    refusal_tokens: str | None = None
    max_new_tokens: int = ANSWER_TOKENS
    final_punctuation: str = KEPT
