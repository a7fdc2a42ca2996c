"""What a run of `polyrefuse eval harmfulness` measures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from polyrefuse_eval.harmfulness.behaviour import ANSWER_TOKENS
from polyrefuse_eval.results.final_punctuation import KEPT

OWN = "own"
"""Measure each language with its own directions."""


@dataclass(frozen=True)
class HarmfulnessSettings:
    """What is measured; all of it belongs to the signature.

    `layers` are steered and inverted (None: all), `layer` is that of the category cosines (None: the middle
    one). `test_seed` draws the test prompts that `n_test` takes (`results.prompt_draw`), None takes the
    first.
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
    test_seed: int | None = None

    def signature(self) -> dict[str, Any]:
        """Return the settings as a signature holds them: the draw of test prompts where there is one."""
        settings = asdict(self)
        if self.test_seed is None:
            del settings["test_seed"]
        return settings
