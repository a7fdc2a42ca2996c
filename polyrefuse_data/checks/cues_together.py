"""How well all surface cues together tell harmful prompts: a logistic model, on unseen prompts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from polyrefuse_data.checks.logistic import Array, Mask, out_of_fold_scores
from polyrefuse_data.core.statistics import auroc

FOLDS = 5
LEAST_PROMPTS = 2 * FOLDS
"""Prompts of each label that the model needs."""

MOST_WORDS, LEAST_USES = 100, 3
"""First words that the model knows: the most frequent ones, each in so many training prompts."""


def area_together(
    texts: Sequence[Sequence[str]],
    has: Mapping[str, Sequence[Sequence[bool]]],
    words: Sequence[Sequence[str]],
    lengths: Sequence[Sequence[float]],
) -> float | None:
    """Return the area under the ROC curve of a logistic model of all cues on prompts that it has not seen.

    Equal texts are in one fold, and each label is spread evenly over the folds.
    """
    if min(len(side) for side in texts) < LEAST_PROMPTS:
        return None
    both = [*texts[0], *texts[1]]
    harmful = np.array([True] * len(texts[0]) + [False] * len(texts[1]))
    dense = np.array(
        [[*of[0], *of[1]] for of in has.values()] + [np.log1p([*lengths[0], *lengths[1]])], dtype=float
    ).T
    opening = [*words[0], *words[1]]
    folds = np.array([*_folds(texts[0]), *_folds(texts[1])])

    def features(training: Mask) -> Array:
        """Return the features of all prompts, scaled and with the first words of the `training` ones."""
        spread = dense[training].std(axis=0)
        scaled = (dense - dense[training].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        uses = Counter(word for word, known in zip(opening, training, strict=True) if known)
        frequent = sorted(uses, key=lambda word: (-uses[word], word))[:MOST_WORDS]
        known_words = [word for word in frequent if uses[word] >= LEAST_USES]
        indicators = [[float(word == known) for known in known_words] for word in opening]
        return np.hstack([scaled, np.array(indicators).reshape(len(both), len(known_words))])

    scores = out_of_fold_scores(features, harmful, folds)
    area = auroc(list(scores[harmful]), list(scores[~harmful]))
    return None if area is None else round(area, 3)


def _folds(texts: Sequence[str]) -> list[int]:
    """Return the fold of each text: by the order of their hashes, equal ones in one."""
    hashes = {text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts}
    order = {text: rank for rank, text in enumerate(sorted(hashes, key=hashes.__getitem__))}
    return [order[text] % FOLDS for text in texts]
