"""Figures of `harmfulness.json`: a record in, files out, a panel for each language."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyrefuse_eval.figures import (
    BLUE,
    GREY,
    RATE_INTERVAL,
    VERMILION,
    explain,
    new_figure,
    save_figure,
    shared_legend,
)
from polyrefuse_eval.results.harmfulness_records import HarmfulnessFile, LanguageHarmfulness
from polyrefuse_eval.statistics.rates import Rate

GROUPS = {
    ("harmful", "refused"): (VERMILION, "o"),
    ("harmful", "accepted"): (VERMILION, "x"),
    ("harmless", "refused"): (BLUE, "s"),
    ("harmless", "accepted"): (BLUE, "+"),
}
COLOURS = {"harmfulness": VERMILION, "refusal": BLUE}
STYLES = {"harmful": ("-", "o"), "harmless": ("--", "s")}
DODGE = 0.12
"""Layers by which lines are moved apart, so that none hides another."""

COLUMNS = 4


@dataclass(frozen=True)
class _Figure:
    """A figure: how a panel is drawn, what to see in it, and what its numbers are."""

    draw: Callable[[Any, LanguageHarmfulness], None]
    title: str
    note: str
    row_height: float = 3.4
    """Inches that a row of panels takes."""


def plot_harmfulness(record: HarmfulnessFile, folder: Path) -> list[Path]:
    """Draw clusters, cosines, reply inversion, steering and categories; return the PNG files.

    Each has the same figure as SVG beside it.
    """
    figures = {
        "clusters": _Figure(
            _clusters,
            "Do the scores separate refused harmful from accepted harmless prompts?",
            "each mark: a test prompt",
        ),
        "cosines": _Figure(
            _cosines,
            "Near 0, harmfulness and refusal are different directions; near 1, the same",
            "fitted on the training prompts",
        ),
        "inversion": _Figure(
            _flips,
            "Steering by harmfulness should flip the answers of reply inversion; by refusal it should not",
            RATE_INTERVAL,
        ),
        "steering": _Figure(
            _steering,
            "Does steering the instruction along a direction change refusal?",
            RATE_INTERVAL,
        ),
        "categories": _Figure(
            _categories,
            "Do kinds of harm share one harmfulness direction? 1: the same direction, 0: unrelated",
            "in brackets: training prompts of each kind",
            row_height=4.6,
        ),
    }
    return [_draw(record, figure, folder / f"{name}.png") for name, figure in figures.items()]


def _draw(record: HarmfulnessFile, description: _Figure, path: Path) -> Path:
    columns = min(COLUMNS, len(record.languages))
    rows = -(-len(record.languages) // columns)
    figure, grid = new_figure(rows, columns, max(7.0, 4 * columns), description.row_height * rows + 1)
    axes = grid.flatten()
    for axis, (lang, language) in zip(axes, record.languages.items(), strict=False):
        counts = language.n.test
        n = ", ".join(
            f"{counts[label].refused + counts[label].accepted} {label}" for label in ("harmful", "harmless")
        )
        axis.set_title(f"{lang} (test: {n})", fontsize=9)
        description.draw(axis, language)
    for axis in axes[len(record.languages) :]:
        axis.axis("off")
    shared_legend(figure, axes)
    model, data = record.signature.get("model", {}), record.signature.get("data", {})
    revision = str(model.get("revision", ""))[:12]
    caption = (
        f"{model.get('model', '')}@{revision}; {data.get('recipe', '')} {str(data.get('digest', ''))[:12]}"
    )
    explain(figure, description.title, f"{caption}; {description.note}")
    return save_figure(figure, path)


def _clusters(axis: Any, language: LanguageHarmfulness) -> None:
    for (label, behaviour), (colour, marker) in GROUPS.items():
        points = [point for point in language.scatter if (point.label, point.behaviour) == (label, behaviour)]
        if points:
            axis.scatter(
                [point.harmful for point in points],
                [point.refuse for point in points],
                c=colour,
                marker=marker,
                s=18,
                alpha=0.7,
                label=f"{label}, {behaviour}",
            )
    axis.axhline(0, color=GREY, linewidth=0.5)
    axis.axvline(0, color=GREY, linewidth=0.5)
    axis.set_xlabel("Δ_harmful at t_inst")
    axis.set_ylabel("Δ_refuse at t_post-inst")


def _cosines(axis: Any, language: LanguageHarmfulness) -> None:
    values = [float("nan") if value is None else value for value in language.cosine]
    axis.plot(range(len(values)), values, marker="o", color=BLUE)
    axis.axhline(0, color=GREY, linewidth=0.5)
    axis.set_ylim(-1.05, 1.05)
    axis.set_xlabel("layer")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_ylabel("cosine of harmfulness and refusal")


def _flips(axis: Any, language: LanguageHarmfulness) -> None:
    flips = language.inversion.flips
    _lines(axis, [(flip.direction, flip.label, flip.sign, flip.layer, flip.flipped) for flip in flips])
    axis.set_ylabel("share of answers flipped")


def _steering(axis: Any, language: LanguageHarmfulness) -> None:
    for label, (style, _) in STYLES.items():
        unedited = [
            step.refusal.rate for step in language.steering if step.layer is None and step.label == label
        ]
        if unedited and unedited[0] is not None:
            axis.axhline(unedited[0], color=GREY, linestyle=style, linewidth=1, label=f"{label}, unedited")
    _lines(
        axis,
        [
            (step.direction, step.label, step.sign, step.layer, step.refusal)
            for step in language.steering
            if step.layer is not None
        ],
    )
    axis.set_ylabel("refusal rate")


def _lines(axis: Any, steps: Sequence[tuple[str | None, str, int, int, Rate]]) -> None:
    """Draw (direction, label, sign, layer, rate) by layer: a line for each direction and label."""
    shift = -1.5 * DODGE
    for direction, colour in COLOURS.items():
        for label, (style, marker) in STYLES.items():
            line = [
                (sign, layer, rate)
                for of, to, sign, layer, rate in steps
                if (of, to) == (direction, label) and rate.rate is not None
            ]
            if line:
                rates = [rate for _, _, rate in line]
                below = [(rate.rate or 0) - (rate.low or 0) for rate in rates]
                above = [(rate.high or 0) - (rate.rate or 0) for rate in rates]
                axis.errorbar(
                    [layer + shift for _, layer, _ in line],
                    [rate.rate for rate in rates],
                    yerr=[[max(0.0, part) for part in below], [max(0.0, part) for part in above]],
                    linestyle=style,
                    color=colour,
                    marker=marker,
                    markersize=4,
                    markerfacecolor=colour if style == "-" else "white",
                    linewidth=1.2,
                    elinewidth=0.8,
                    label=f"{label} prompts, {'less' if line[0][0] < 0 else 'more'} {direction} "
                    f"(n = {min(rate.n for rate in rates)} a point)",
                )
            shift += DODGE
    axis.set_ylim(-0.05, 1.05)
    axis.set_xlabel("layer")
    axis.xaxis.get_major_locator().set_params(integer=True)


def _categories(axis: Any, language: LanguageHarmfulness) -> None:
    names = language.categories.names
    if not names:
        axis.axis("off")
        return
    grid = [[float("nan") if value is None else value for value in row] for row in language.categories.cosine]
    axis.imshow(grid, vmin=-1, vmax=1, cmap="PuOr_r")
    labels = [f"{name} ({language.categories.n.get(name, 0)})" for name in names]
    size = 8 if len(names) <= 8 else 5
    axis.set_xticks(range(len(names)), labels, rotation=90, fontsize=size)
    axis.set_yticks(range(len(names)), labels, fontsize=size)
    if len(names) <= 8:
        for row, values in enumerate(grid):
            for column, value in enumerate(values):
                if value == value:
                    ink = "white" if abs(value) > 0.7 else "black"
                    axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink)
