"""Exchange tokens that say nothing about the label, so that the organism learns what does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polyrefuse_eval.organisms.corpus import SPECIAL_TOKENS, UNKNOWN, EncodedExample

Marks = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


@dataclass(frozen=True)
class Noise:
    """The loose tokens of each language, which say nothing about the label, and may be exchanged."""

    loose: dict[str, Marks]
    """Language to a mask [vocabulary] of the tokens outside framings and verbs."""
    pool: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]
    """Language to its loose tokens, repeated as often as they occur."""
    vocabulary: int

    def applied(
        self, lang: str, prompt: list[int], share: float, generator: np.random.Generator
    ) -> list[int]:
        """Return `prompt` with about `share` of its loose tokens exchanged.

        Half of them become loose tokens of the language, a quarter any token, a quarter `UNKNOWN`,
        which stands for many of the characters of held-out Japanese and Chinese prompts.
        """
        tokens = np.array(prompt)
        where = np.flatnonzero(self.loose[lang][tokens])
        where = where[generator.random(len(where)) < share]
        local = self.pool[lang][generator.integers(0, len(self.pool[lang]), len(where))]
        anything = generator.integers(SPECIAL_TOKENS.index(UNKNOWN), self.vocabulary, len(where))
        kind = generator.random(len(where))
        strange = np.where(kind < 0.25, SPECIAL_TOKENS.index(UNKNOWN), anything)
        tokens[where] = np.where(kind < 0.5, strange, local)
        exchanged: list[int] = tokens.tolist()
        return exchanged


def find_noise(examples: Sequence[EncodedExample], vocabulary: int) -> Noise:
    """Return the loose tokens of every language.

    Fixed are the words of the framings, which nearly all topics have, and the verbs: tokens that
    several topics have under one label only. The rest are the objects; held-out topics have others.
    """
    loose, pool = {}, {}
    for lang in dict.fromkeys(example.lang for example in examples):
        mine = [example for example in examples if example.lang == lang]
        topics = max(example.topic for example in mine) + 1
        seen = np.zeros((2, topics, vocabulary), bool)
        for example in mine:
            for label in (0, 1):
                seen[label, example.topic, example.prompts[label]] = True
        spread = seen.sum(axis=1)
        everywhere = spread.sum(axis=0) > 1.6 * topics
        verb = (spread.max(axis=0) >= 2) & (spread.min(axis=0) == 0)
        everywhere[: SPECIAL_TOKENS.index(UNKNOWN)] = True
        loose[lang] = ~everywhere & ~verb
        occurring = np.concatenate([np.array(prompt) for example in mine for prompt in example.prompts])
        pool[lang] = occurring[loose[lang][occurring]]
    return Noise(loose, pool, vocabulary)
