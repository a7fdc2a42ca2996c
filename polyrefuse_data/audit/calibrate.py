"""Recompute the thresholds that depend on a language from a trusted folder.

Length ratios and round trips differ between languages; their bounds are quantiles of a folder whose
lists are parallel, widened by a margin. Bounds of checks of meaning and of models are chosen so that few
rows of such a folder are flagged, with confidence. The other thresholds follow from what a check means, and
are carried over.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from polyrefuse_data.audit.folders import AuditList, by_language, open_folder
from polyrefuse_data.checks.lists import alignment_findings
from polyrefuse_data.checks.recorded import RECORDED_CHECKS, higher_is_better, threshold_key
from polyrefuse_data.checks.rows import CHECKS, Batch
from polyrefuse_data.checks.thresholds import Bounds, Thresholds
from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_data.core.languages import SOURCE_LANGUAGE, language
from polyrefuse_data.quality.scores_file import ScoresFile

TAIL = 0.005
"""Share of a language's rows beyond each quantile."""

RATIO_MARGIN = 1.25
"""Length-ratio bounds are widened by this factor."""

LARGEST_RATE, CONFIDENCE = 0.005, 0.95
"""The share of rows that a check of `FLOORS` or a model's flags is below the rate, with this confidence."""

FLOORS = {"untranslated": 0.35, "fit": 0.005, "cut": 0.0}
"""Lowest upper bounds (share, share, log odds) of checks that `LARGEST_RATE` limits."""

LOW_MARGIN = 0.8
"""The lower bound of the round trip is multiplied by this."""

MINIMUM_ROWS = 200
"""A language with fewer rows keeps the bounds that it has."""

CALIBRATED = ("length_ratio", "round_trip", *FLOORS)


def calibrate(
    folder: Path,
    english: Path | None,
    back: Path | None,
    current: Thresholds,
    scores: Path | None = None,
) -> Thresholds:
    """Return `current` with the bounds of `CALIBRATED` recomputed from the parallel lists of `folder`.

    A list that raises the alignment alarm is not trusted. With a file of `scores`, the bounds of each model
    in it are set, too. Raises `DatasetFolderError` if nothing is left.
    """
    opened = open_folder(folder, english, back)
    thresholds = calibrate_lists(opened.lists, opened.title, current)
    if thresholds is None:
        raise DatasetFolderError(
            f"{folder}: no list is parallel to its English, so there is nothing to calibrate from"
        )
    return thresholds if scores is None else _with_models(thresholds, opened.lists, ScoresFile(scores))


def _with_models(thresholds: Thresholds, lists: Sequence[AuditList], scores: ScoresFile) -> Thresholds:
    """Return `thresholds` with bounds for every check and model of `scores` that scored enough rows."""
    checks: dict[str, dict[str, Bounds]] = {check: dict(langs) for check, langs in thresholds.checks.items()}
    trusted = [part for part in lists if part.lang != SOURCE_LANGUAGE and _trusted(part, thresholds)]
    models = set()
    for part in by_language(trusted):
        for check in RECORDED_CHECKS:
            for model in scores.models(check, part.lang):
                values = scores.scores(check, model, part.lang, part.english, part.texts)
                known = [value for value in values if value is not None]
                if len(known) >= MINIMUM_ROWS:
                    checks.setdefault(threshold_key(check, model), {})[part.lang] = _model_bounds(
                        check, model, known
                    )
                    models.add(model)
    if not models:
        raise DatasetFolderError(
            f"{scores.path} scores no language of the folder in {MINIMUM_ROWS} rows that are parallel to "
            "their English; score the folder first: polyrefuse audit FOLDER --quality ... --scores FILE"
        )
    named = ", ".join(sorted(models))
    provenance = f"{thresholds.provenance}; by models ({_rate_limit()}): {named}"
    return Thresholds(provenance, checks)


def _model_bounds(check: str, model: str, scores: list[float]) -> Bounds:
    if higher_is_better(check, model):
        return Bounds(low=-_limited(-score for score in scores))
    high, floor = _limited(scores), RECORDED_CHECKS[check].floor
    return Bounds(high=high if floor is None else max(high, floor))


def most_flagged(rows: int) -> int:
    """Return how many of `rows` may be flagged for the rate to be below `LARGEST_RATE` with `CONFIDENCE`.

    The largest number whose one-sided Clopper-Pearson bound is below the rate: 3 of 1,771 rows. 0 also where
    the rows are too few for that (under 598).
    """
    odds, none = math.log(LARGEST_RATE / (1 - LARGEST_RATE)), rows * math.log(1 - LARGEST_RATE)
    ways = (math.lgamma(rows + 1) - math.lgamma(k + 1) - math.lgamma(rows - k + 1) for k in range(rows + 1))
    at_most = accumulate(math.exp(none + way + k * odds) for k, way in enumerate(ways))
    return max(0, sum(chance < 1 - CONFIDENCE for chance in at_most) - 1)


def _limited(scores: Iterable[float]) -> float:
    """Return the bound, rounded up, that no more than `most_flagged` of `scores` are above."""
    ordered = sorted(scores)
    return math.ceil(10_000 * ordered[-1 - most_flagged(len(ordered))]) / 10_000


def _rate_limit() -> str:
    return f"under {1000 * LARGEST_RATE:g} of 1,000 rows flagged, with {100 * CONFIDENCE:g} % confidence"


def calibrate_lists(lists: Sequence[AuditList], title: str, current: Thresholds) -> Thresholds | None:
    """Return `current` recalibrated on the parallel ones of `lists`, which `title` names; None if none is."""
    values: dict[str, dict[str, list[float]]] = {check: defaultdict(list) for check in CALIBRATED}
    rows: dict[str, int] = defaultdict(int)
    trusted = [part for part in lists if part.lang != SOURCE_LANGUAGE and _trusted(part, current)]
    for part in by_language(trusted):
        rows[part.lang] = len(part.ids)
        batch = Batch(language(part.lang), part.texts, part.english, part.backs)
        for check in CALIBRATED:
            kept = part.kept_round_trip if check == "round_trip" else None
            scores = CHECKS[check].scorer(batch) if kept is None else kept
            values[check][part.lang] += [score for score in scores if score is not None]
    if not rows:
        return None
    checks: dict[str, dict[str, Bounds]] = {check: dict(langs) for check, langs in current.checks.items()}
    for check, scores_by_language in values.items():
        for lang, scores in sorted(scores_by_language.items()):
            if len(scores) >= MINIMUM_ROWS:
                checks.setdefault(check, {})[lang] = _bounds(check, scores)
    provenance = (
        f"{', '.join(CALIBRATED)} calibrated from {title}, {sum(rows.values())} parallel rows "
        f"({100 * TAIL:g} and {100 * (1 - TAIL):g} % quantiles, margins {RATIO_MARGIN:g} and "
        f"{LOW_MARGIN:g}; {', '.join(FLOORS)}: {_rate_limit()}); the others by definition"
    )
    return Thresholds(provenance, checks)


def _trusted(part: AuditList, thresholds: Thresholds) -> bool:
    if any(english is None for english in part.english):
        return False
    english = [text for text in part.english if text is not None]
    return not alignment_findings(english, part.texts, part.lang, part.label, part.split, thresholds)


def _bounds(check: str, scores: list[float]) -> Bounds:
    if check in FLOORS:
        return Bounds(high=max(FLOORS[check], _limited(scores)))
    low, high = (float(value) for value in np.quantile(scores, [TAIL, 1 - TAIL]))
    if check == "length_ratio":
        return Bounds(low=round(low / RATIO_MARGIN, 3), high=round(high * RATIO_MARGIN, 3))
    return Bounds(low=round(low * LOW_MARGIN, 3))


def thresholds_yaml(thresholds: Thresholds) -> str:
    """Return the thresholds as the data file has them."""
    checks: dict[str, Any] = {
        check: {lang: bounds.model_dump(exclude_none=True) for lang, bounds in sorted(langs.items())}
        for check, langs in thresholds.checks.items()
    }
    text: str = yaml.safe_dump(
        {"provenance": thresholds.provenance, "checks": checks},
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )
    return text
