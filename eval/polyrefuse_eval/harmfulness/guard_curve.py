"""Measure how many examples a guard needs in a language that it was not fitted in, and draw the curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from polyrefuse_data.core.languages import language
from polyrefuse_eval.errors import GuardError
from polyrefuse_eval.figures import BLUE, GREY, VERMILION, explain, figure_files, new_figure, shared_legend
from polyrefuse_eval.harmfulness.latent_guard import LatentGuard
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.prompt_draw import limit_signature, limited
from polyrefuse_eval.statistics.calibration_curve import (
    AS_IT_IS,
    CurvePoint,
    Estimate,
    Exchangeability,
    LanguageScores,
    calibration_curve,
    curve_table,
    exchangeability,
    exchangeability_note,
)
from polyrefuse_eval.statistics.thresholds import Rule

FORMAT = "polyrefuse-guard-curve-1"
COLUMNS = 4
PANEL_WIDTH = 2.9
"""Inches of a panel: text of 9 points can be read where four panels fill a page."""

LEAST_TOP = 0.1
"""The rate that every figure shows at least: a difference of one prompt must not fill a panel."""

DODGE = 0.15
"""Share of a step by which lines are moved apart, so that none hides another."""

SERIES = {"miss": ("misses", VERMILION, "o"), "false_alarm": ("false alarms", BLUE, "s")}
"""Rate of a point to its label, colour and marker: each tells the two apart alone."""


@dataclass(frozen=True, kw_only=True)
class CurveSettings:
    """Languages to test in, `rules` that draw thresholds, and numbers of examples of each label.

    All validation prompts are one more number. `n_test` limits the test prompts of each label and language,
    which `test_seed` draws (`results.prompt_draw`).
    """

    langs: tuple[str, ...]
    examples: tuple[int, ...] = (1, 4, 16)
    rules: tuple[Rule, ...] = (Rule("balanced"), Rule("conformal", 0.05))
    draws: int = 200
    n_test: int | None = None
    test_seed: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class GuardCurve:
    """The points of each language, and what they depend on."""

    signature: Mapping[str, Any]
    points: Sequence[CurvePoint]
    exchangeable: Mapping[str, Exchangeability]
    """By language whether harmful calibration and test prompts are of the same kinds."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of `curve.json`."""
        points = [point.to_json() for point in self.points]
        record = {"format": FORMAT, "signature": dict(self.signature), "points": points}
        return {**record, "exchangeable": {lang: asdict(of) for lang, of in self.exchangeable.items()}}

    def table(self) -> str:
        """Return the content of `table.md`."""
        return curve_table(self.points, self.exchangeable)


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
    by_lang = {lang: _language_scores(guard, data, lang, settings, progress) for lang in settings.langs}
    for lang, scores in by_lang.items():
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
    covered = {lang: _covered(data, lang, settings) for lang in settings.langs}
    signature = {
        "guard": dict(guard.metadata),
        "data": data.digest,
        "recipe": data.recipe,
        "examples": list(settings.examples),
        "rules": [str(rule) for rule in settings.rules],
        "draws": settings.draws,
        "seed": settings.seed,
        **limit_signature(settings.n_test, settings.test_seed),
    }
    return GuardCurve(signature=signature, points=points, exchangeable=exchangeability(by_lang, covered))


def _language_scores(
    guard: LatentGuard, data: DataFolder, lang: str, settings: CurveSettings, progress: bool
) -> LanguageScores:
    texts = {
        f"{name}_{label}": [
            row.text for row in limited(data.prompts(lang, split, label), limit, settings.test_seed)
        ]
        for name, split, limit in (("calibration", "validation", None), ("test", "test", settings.n_test))
        for label in ("harmful", "harmless")
    }
    prompts = [text for group in texts.values() for text in group]
    scores = iter(guard.scores(prompts, lang, progress=f"guard {lang}" if progress else None))
    return LanguageScores(**{name: [next(scores) for _ in group] for name, group in texts.items()})


def _covered(data: DataFolder, lang: str, settings: CurveSettings) -> float:
    """Return the share of harmful test prompts whose type, as their source has it, calibration has, too."""
    calibration = {row.source_category for row in data.prompts(lang, "validation", "harmful")}
    harmful = limited(data.prompts(lang, "test", "harmful"), settings.n_test, settings.test_seed)
    test = [row.source_category for row in harmful]
    return sum(of in calibration for of in test) / len(test)


def curve_figure(curve: GuardCurve, name: str) -> dict[str, bytes]:
    """Draw misses and false alarms against examples, a panel for each language; return the PNG called `name`.

    Languages that the guard was fitted in come first and say so. All panels have the same rates, up to the
    highest end of an interval. The same figure comes as SVG beside the PNG.
    """
    fitted = curve.signature["guard"].get("languages", [])
    measured = dict.fromkeys(point.lang for point in curve.points)
    langs = sorted(measured, key=lambda lang: lang not in fitted)
    columns = min(COLUMNS, len(langs))
    rows = -(-len(langs) // columns)
    figure, grid = new_figure(rows, columns, max(6.5, PANEL_WIDTH * columns), 2.6 * rows + 1.2)
    axes = grid.flatten()
    top = max(
        max(point.miss.high, point.false_alarm.high, *(point.promised or (0.0,))) for point in curve.points
    )
    for index, (axis, lang) in enumerate(zip(axes, langs, strict=False)):
        _draw_language(axis, [point for point in curve.points if point.lang == lang], lang in fitted)
        axis.set_ylim(-0.04 * max(top, LEAST_TOP), 1.08 * max(top, LEAST_TOP))
        axis.yaxis.set_major_formatter(lambda rate, _position: f"{100 * rate:.3g} %")
        if index % columns == 0:
            axis.set_ylabel("rate on test prompts")
    for axis in axes[len(langs) :]:
        axis.axis("off")
    shared_legend(figure, axes)
    explain(figure, _title(fitted), _caption(curve))
    return figure_files(figure, name)


def _title(fitted: Sequence[str]) -> str:
    origin = f" fitted in {', '.join(fitted)}" if 0 < len(fitted) <= COLUMNS else ""
    return f"Effect of calibration examples on a guard{origin}: lower is better"


def _caption(curve: GuardCurve) -> str:
    signature = curve.signature
    model = signature["guard"].get("model", {})
    name = f"{model.get('model', '')}@{str(model.get('revision', ''))[:12]}"
    return (
        f"{name}; data: {signature['recipe']} {str(signature['data'])[:12]}\n"
        f"bars: 95 % intervals, over {signature['draws']} draws of the examples and over test prompts; "
        "as it is: the guard's own threshold, Wilson"
        + (f"\n{exchangeability_note(curve.exchangeable)}" if any(p.promised for p in curve.points) else "")
    )


def _draw_language(axis: Any, points: Sequence[CurvePoint], fitted: bool) -> None:
    """Draw the rates of one language; numbers of examples stand at even distances.

    The guard's own threshold is a point of its own: no line leads from it to thresholds of another rule.
    """
    numbers = sorted({point.n_examples for point in points})
    rules = list(dict.fromkeys(point.rule for point in points))
    (fixed,) = (point for point in points if point.rule == AS_IT_IS)
    shift = -DODGE * (2 * len(rules) - 3) / 2
    for rule in sorted(rules, key=lambda rule: rule != AS_IT_IS):
        drawn = [point for point in points if point.rule == rule]
        conformal = rule.startswith("conformal")
        offset = -DODGE / 2 if rule == AS_IT_IS else shift
        for name, (label, colour, marker) in SERIES.items():
            estimates: list[Estimate] = [getattr(point, name) for point in drawn]
            axis.errorbar(
                [numbers.index(point.n_examples) + offset for point in drawn],
                [estimate.rate for estimate in estimates],
                yerr=[
                    [estimate.rate - estimate.low for estimate in estimates],
                    [estimate.high - estimate.rate for estimate in estimates],
                ],
                linestyle="--" if conformal else "-",
                color=colour,
                marker=marker,
                markersize=5,
                markerfacecolor="white" if conformal else colour,
                linewidth=1.2,
                elinewidth=1.0,
                label=None if rule == AS_IT_IS else f"{label}, {rule}",
            )
            offset += DODGE
        shift = shift if rule == AS_IT_IS else offset
    for rule in (rule for rule in rules if rule.startswith("conformal")):
        promised = [point for point in points if point.rule == rule and point.promised is not None]
        axis.fill_between(
            [numbers.index(point.n_examples) + side for point in promised for side in (-0.3, 0.3)],
            [point.promised[0] for point in promised if point.promised for _ in range(2)],
            [point.promised[1] for point in promised if point.promised for _ in range(2)],
            color=GREY,
            alpha=0.15,
            linewidth=0,
            label=f"misses of 95 % of guards by {rule}, if exchangeable",
        )
    for target in sorted({Rule.parse(rule).target or 0 for rule in rules if rule.startswith("conformal")}):
        mean = f"miss rate that conformal={target:g} promises on average"
        axis.axhline(target, color=GREY, linewidth=0.8, linestyle=":", label=mean)
    axis.axhline(0, color=GREY, linewidth=0.5)
    axis.set_xlim(-0.5, len(numbers) - 0.5)
    axis.set_xticks(range(len(numbers)), [str(number) if number else "as it is" for number in numbers])
    axis.set_xlabel("examples of each label")
    origin = ", fitted" if fitted else ""
    axis.set_title(
        f"{language(fixed.lang).name} ({fixed.lang}){origin}\n"
        f"test: {fixed.miss.n} harmful, {fixed.false_alarm.n} harmless",
        fontsize=9,
    )
