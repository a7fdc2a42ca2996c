"""How well cues of form together tell harmful prompts: a logistic model, on unseen prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from polyrefuse_data.checks.logistic import Array, Mask, out_of_fold_scores
from polyrefuse_data.core.statistics import auroc

FOLDS = 5
LEAST_PROMPTS = 2 * FOLDS
"""Prompts of each label that the model needs."""


def area_together(texts: Sequence[Sequence[str]], cues: Sequence[Sequence[Sequence[bool]]]) -> float | None:
    """Return the area under the ROC curve of a logistic model on prompts that it was not fitted on.

    `texts` are the harmful and the harmless prompts, and each of `cues` says of both which have it; the
    logarithm of the length and its square are features, too. Equal texts are in one fold, and each label is
    spread evenly over the folds. None where a label has fewer than `LEAST_PROMPTS` prompts.
    """
    if min(len(side) for side in texts) < LEAST_PROMPTS:
        return None
    harmful = np.array([True] * len(texts[0]) + [False] * len(texts[1]))
    lengths = np.log1p([len(text) for side in texts for text in side])
    columns = np.array([*([*of[0], *of[1]] for of in cues), lengths], dtype=float).T
    folds = np.array([*_folds(texts[0]), *_folds(texts[1])])

    def features(training: Mask) -> Array:
        """Return the features of all prompts, scaled as the `training` ones ask."""
        spread = columns[training].std(axis=0)
        scaled = (columns - columns[training].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        return np.column_stack([scaled, scaled[:, -1] ** 2])

    # Rounded, so that prompts of one form tie on every machine, whatever its sums round to.
    scores = np.round(out_of_fold_scores(features, harmful, folds), 6)
    area = auroc(list(scores[harmful]), list(scores[~harmful]))
    return None if area is None else round(area, 3)


def _folds(texts: Sequence[str]) -> list[int]:
    """Return the fold of each text: by the order of their hashes, equal ones in one."""
    hashes = {text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts}
    order = {text: rank for rank, text in enumerate(sorted(hashes, key=hashes.__getitem__))}
    return [order[text] % FOLDS for text in texts]
