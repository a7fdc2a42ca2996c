"""Measure how many examples a guard needs in a language that it was not fitted in, and draw the curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyrefuse_eval.errors import GuardError
from polyrefuse_eval.figures import BLUE, GREY, VERMILION, explain, new_figure, save_figure, shared_legend
from polyrefuse_eval.harmfulness.latent_guard import LatentGuard
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.statistics.calibration_curve import (
    AS_IT_IS,
    CurvePoint,
    Estimate,
    LanguageScores,
    calibration_curve,
    curve_table,
)
from polyrefuse_eval.statistics.thresholds import Rule

FORMAT = "polyrefuse-guard-curve-1"
COLUMNS = 4
DODGE = 0.08
"""Share of a step by which lines are moved apart, so that none hides another."""


@dataclass(frozen=True, kw_only=True)
class CurveSettings:
    """Languages to test in, `rules` that draw thresholds, and numbers of examples of each label.

    All validation prompts are one more number. `n_test` limits the test prompts of each label and language.
    """

    langs: tuple[str, ...]
    examples: tuple[int, ...] = (1, 4, 16)
    rules: tuple[Rule, ...] = (Rule("balanced"), Rule("conformal", 0.05))
    draws: int = 200
    n_test: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class GuardCurve:
    """The points of each language, and what they depend on."""

    signature: Mapping[str, Any]
    points: Sequence[CurvePoint]

    def to_json(self) -> dict[str, Any]:
        """Return the content of `curve.json`."""
        points = [point.to_json() for point in self.points]
        return {"format": FORMAT, "signature": dict(self.signature), "points": points}

    def table(self) -> str:
        """Return the content of `table.md`."""
        return curve_table(self.points)


def parse_examples(text: str) -> tuple[int, ...]:
    """Return the numbers in `1,4,16`, ascending; raises `GuardError` for anything else."""
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise GuardError(f"--examples '{text}': expected numbers of at least 1, such as 1,4,16")
    return tuple(numbers)


def measure_curve(
    guard: LatentGuard, data: DataFolder, settings: CurveSettings, *, progress: bool = False
) -> GuardCurve:
    """Return misses and false alarms on the test prompts against calibration examples, by language.

    Each prompt is scored once: thresholds change nothing in a score. Raises `DatasetFolderError` where the
    build lacks prompts, and what scoring raises.
    """
    points: list[CurvePoint] = []
    for lang in settings.langs:
        scores = _language_scores(guard, data, lang, settings.n_test, progress)
        every = min(len(scores.calibration_harmful), len(scores.calibration_harmless))
        points += calibration_curve(
            lang,
            scores,
            guard.thresholds.get(lang, guard.default).alpha,
            settings.rules,
            sorted({n for n in settings.examples if n < every} | {every}),
            draws=settings.draws,
            seed=settings.seed,
        )
    signature = {
        "guard": dict(guard.metadata),
        "data": data.digest,
        "recipe": data.recipe,
        "examples": list(settings.examples),
        "rules": [str(rule) for rule in settings.rules],
        "draws": settings.draws,
        "seed": settings.seed,
    }
    return GuardCurve(signature=signature, points=points)


def _language_scores(
    guard: LatentGuard, data: DataFolder, lang: str, n_test: int | None, progress: bool
) -> LanguageScores:
    texts = {
        f"{name}_{label}": [row.text for row in data.prompts(lang, split, label, limit)]
        for name, split, limit in (("calibration", "validation", None), ("test", "test", n_test))
        for label in ("harmful", "harmless")
    }
    prompts = [text for group in texts.values() for text in group]
    scores = iter(guard.scores(prompts, lang, progress=f"guard {lang}" if progress else None))
    return LanguageScores(**{name: [next(scores) for _ in group] for name, group in texts.items()})


def plot_curve(curve: GuardCurve, path: Path) -> Path:
    """Draw misses and false alarms against examples, a panel for each language; return the PNG at `path`.

    The same figure is written as SVG beside it.
    """
    langs = list(dict.fromkeys(point.lang for point in curve.points))
    columns = min(COLUMNS, len(langs))
    rows = -(-len(langs) // columns)
    figure, grid = new_figure(rows, columns, max(7.0, 4 * columns), 3.2 * rows + 1)
    axes = grid.flatten()
    for axis, lang in zip(axes, langs, strict=False):
        _draw_language(axis, [point for point in curve.points if point.lang == lang])
    for axis in axes[len(langs) :]:
        axis.axis("off")
    shared_legend(figure, axes)
    model = curve.signature["guard"].get("model", {})
    caption = (
        f"{model.get('model', '')}@{str(model.get('revision', ''))[:12]}; {curve.signature['recipe']} "
        f"{str(curve.signature['data'])[:12]}; bars: 95 % intervals over {curve.signature['draws']} draws"
    )
    explain(figure, "How many examples a guard needs in each language", caption)
    return save_figure(figure, path)


def _draw_language(axis: Any, points: Sequence[CurvePoint]) -> None:
    """Draw the lines of one language; numbers of examples stand at even distances."""
    numbers = sorted({point.n_examples for point in points})
    rules = [rule for rule in dict.fromkeys(point.rule for point in points) if rule != AS_IT_IS]
    (fixed,) = (point for point in points if point.rule == AS_IT_IS)
    shift = -DODGE * (2 * len(rules) - 1) / 2
    for rule in rules:
        drawn = [fixed, *(point for point in points if point.rule == rule)]
        style = "--" if rule.startswith("conformal") else "-"
        for name, colour in (("miss", VERMILION), ("false_alarm", BLUE)):
            estimates: list[Estimate] = [getattr(point, name) for point in drawn]
            axis.errorbar(
                [numbers.index(point.n_examples) + shift for point in drawn],
                [estimate.rate for estimate in estimates],
                yerr=[
                    [estimate.rate - estimate.low for estimate in estimates],
                    [estimate.high - estimate.rate for estimate in estimates],
                ],
                linestyle=style,
                color=colour,
                marker="o" if name == "miss" else "s",
                markersize=4,
                markerfacecolor=colour if style == "-" else "white",
                linewidth=1.2,
                elinewidth=0.8,
                label=f"{'misses' if name == 'miss' else 'false alarms'}, {rule}",
            )
            shift += DODGE
    axis.axhline(0, color=GREY, linewidth=0.5)
    axis.set_ylim(-0.05, 1.05)
    axis.set_xticks(range(len(numbers)), [str(number) if number else "as it is" for number in numbers])
    axis.set_xlabel("examples of each label")
    axis.set_ylabel("rate")
    axis.set_title(
        f"{points[0].lang} (test: {fixed.miss.n} harmful, {fixed.false_alarm.n} harmless)", fontsize=9
    )
