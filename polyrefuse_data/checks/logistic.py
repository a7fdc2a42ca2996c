"""A ridge-penalised logistic regression, and the scores that it gives to what it was not fitted on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
Mask: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"
Folds: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"

PENALTY = 1.0
"""Of half the squared weights; the intercept has none."""

MOST_STEPS = 50
TOLERANCE = 1e-8


def fit_logistic(features: Array, positive: Mask) -> Array:
    """Return the weights [d + 1], the intercept last, of the least penalised log loss on `features` [n, d].

    Newton's method; a step that does not lower the loss is halved. The loss is convex and bounded below, so
    there is one minimum, also where the classes can be separated.
    """
    design = np.hstack([features, np.ones((len(features), 1))])
    penalty = np.append(np.full(features.shape[1], PENALTY), 0.0)
    weights = np.zeros(design.shape[1])
    loss = _loss(design, positive, weights, penalty)
    for _ in range(MOST_STEPS):
        share = _sigmoid(design @ weights)
        gradient = design.T @ (share - positive) + penalty * weights
        curvature = (design * (share * (1 - share))[:, None]).T @ design + np.diag(penalty + TOLERANCE)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > TOLERANCE:
            tried = _loss(design, positive, weights - size * step, penalty)
            if tried <= loss:
                break
            size /= 2
        if size <= TOLERANCE or loss - tried < TOLERANCE:
            break
        weights, loss = weights - size * step, tried
    return weights


def out_of_fold_scores(features: Callable[[Mask], Array], positive: Mask, folds: Folds) -> Array:
    """Return for each row the log odds of a model that was fitted on the rows of the other folds.

    `features` takes which rows are fitted on, and returns the features of all rows.
    """
    scores = np.zeros(len(positive))
    for fold in np.unique(folds):
        training = folds != fold
        of_all = features(training)
        weights = fit_logistic(of_all[training], positive[training])
        scores[~training] = of_all[~training] @ weights[:-1] + weights[-1]
    return scores


def _sigmoid(values: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(values, -500, 500)))


def _loss(design: Array, positive: Mask, weights: Array, penalty: Array) -> float:
    values = design @ weights
    return float(
        np.logaddexp(0, np.where(positive, -values, values)).sum() + (penalty * weights**2).sum() / 2
    )
