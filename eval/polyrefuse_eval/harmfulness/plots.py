"""Plots of `harmfulness.json`: a record in, files out. Load matplotlib when used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from polyrefuse_data.core.files import replacing
from polyrefuse_eval.errors import require
from polyrefuse_eval.results.harmfulness_records import HarmfulnessFile, LanguageHarmfulness
from polyrefuse_eval.statistics.rates import Rate

GROUPS = {
    ("harmful", "refused"): ("tab:red", "o"),
    ("harmful", "accepted"): ("tab:red", "x"),
    ("harmless", "refused"): ("tab:blue", "o"),
    ("harmless", "accepted"): ("tab:blue", "x"),
}
STYLES = {"harmfulness": "tab:red", "refusal": "tab:blue"}
COLUMNS = 4

Draw = Callable[[Any, LanguageHarmfulness], None]


def plot_harmfulness(record: HarmfulnessFile, folder: Path) -> list[Path]:
    """Draw clusters, cosines, reply inversion, steering and categories, a panel for each language."""
    pictures: dict[str, Draw] = {
        "clusters": _clusters,
        "cosines": _cosines,
        "inversion": _flips,
        "steering": _steering,
        "categories": _categories,
    }
    return [_draw(record.languages, draw, folder / f"{name}.png") for name, draw in pictures.items()]


def _draw(languages: Mapping[str, LanguageHarmfulness], draw: Draw, path: Path) -> Path:
    require("matplotlib", "eval")
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(languages))
    rows = -(-len(languages) // columns)
    figure = Figure(figsize=(4 * columns, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (lang, language) in zip(axes, languages.items(), strict=False):
        axis.set_title(lang)
        draw(axis, language)
    for axis in axes[len(languages) :]:
        axis.axis("off")
    # Without matplotlib's version, the same numbers give the same file.
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return path


def _clusters(axis: Any, language: LanguageHarmfulness) -> None:
    for (label, behaviour), (colour, marker) in GROUPS.items():
        points = [point for point in language.scatter if (point.label, point.behaviour) == (label, behaviour)]
        if points:
            axis.scatter(
                [point.harmful for point in points],
                [point.refuse for point in points],
                c=colour,
                marker=marker,
                s=12,
                label=f"{label}, {behaviour}",
            )
    axis.axhline(0, color="grey", linewidth=0.5)
    axis.axvline(0, color="grey", linewidth=0.5)
    axis.set_xlabel("Δ_harmful at t_inst")
    axis.set_ylabel("Δ_refuse at t_post-inst")
    axis.legend(fontsize=6)


def _cosines(axis: Any, language: LanguageHarmfulness) -> None:
    values = [float("nan") if value is None else value for value in language.cosine]
    axis.plot(range(len(values)), values, marker=".")
    axis.axhline(0, color="grey", linewidth=0.5)
    axis.set_ylim(-1.05, 1.05)
    axis.set_xlabel("layer")
    axis.set_ylabel("cosine of harmfulness and refusal")


def _flips(axis: Any, language: LanguageHarmfulness) -> None:
    flips = language.inversion.flips
    _lines(axis, [(flip.direction, flip.label, flip.sign, flip.layer, flip.flipped) for flip in flips])
    axis.set_ylabel("share of answers flipped")


def _steering(axis: Any, language: LanguageHarmfulness) -> None:
    _lines(
        axis,
        [
            (step.direction, step.label, step.sign, step.layer, step.refusal)
            for step in language.steering
            if step.layer is not None
        ],
    )
    axis.set_ylabel("refusal rate, steered")


def _lines(axis: Any, steps: Sequence[tuple[str | None, str, int, int, Rate]]) -> None:
    """Draw (direction, label, sign, layer, rate) as a line by layer for each direction and label."""
    for direction, colour in STYLES.items():
        for label, style in (("harmful", "-"), ("harmless", "--")):
            line = [
                (sign, layer, rate.rate)
                for of, to, sign, layer, rate in steps
                if (of, to) == (direction, label) and rate.rate is not None
            ]
            if line:
                mark = "-" if line[0][0] < 0 else "+"
                axis.plot(
                    [layer for _, layer, _ in line],
                    [share for _, _, share in line],
                    style,
                    color=colour,
                    marker=".",
                    label=f"{label}, {mark} {direction}",
                )
    axis.set_ylim(-0.05, 1.05)
    axis.set_xlabel("layer")
    axis.legend(fontsize=6)


def _categories(axis: Any, language: LanguageHarmfulness) -> None:
    names = language.categories.names
    if not names:
        axis.axis("off")
        return
    grid = [[0.0 if value is None else value for value in row] for row in language.categories.cosine]
    axis.imshow(grid, vmin=-1, vmax=1, cmap="coolwarm")
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=5)
    axis.set_yticks(range(len(names)), names, fontsize=5)
