"""Plots of `harmfulness.json`: a record in, files out; matplotlib is loaded when used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from polyrefuse_data.core.files import replacing
from polyrefuse_eval.errors import require

GROUPS = {
    ("harmful", "refused"): ("tab:red", "o"),
    ("harmful", "accepted"): ("tab:red", "x"),
    ("harmless", "refused"): ("tab:blue", "o"),
    ("harmless", "accepted"): ("tab:blue", "x"),
}
STYLES = {"harmfulness": "tab:red", "refusal": "tab:blue"}
COLUMNS = 4

Draw = Callable[[Any, Mapping[str, Any]], None]


def plot_harmfulness(record: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw clusters, cosines, reply inversion, steering and categories, a panel for each language."""
    pictures: dict[str, Draw] = {
        "clusters": _clusters,
        "cosines": _cosines,
        "inversion": _flips,
        "steering": _steering,
        "categories": _categories,
    }
    return [_draw(record["languages"], draw, folder / f"{name}.png") for name, draw in pictures.items()]


def _draw(languages: Mapping[str, Any], draw: Draw, path: Path) -> Path:
    require("matplotlib", "eval")
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(languages))
    rows = -(-len(languages) // columns)
    figure = Figure(figsize=(4 * columns, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (lang, found) in zip(axes, languages.items(), strict=False):
        axis.set_title(lang)
        draw(axis, found)
    for axis in axes[len(languages) :]:
        axis.axis("off")
    # Without matplotlib's version, the same numbers give the same file.
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return path


def _clusters(axis: Any, found: Mapping[str, Any]) -> None:
    for (label, behaviour), (colour, marker) in GROUPS.items():
        points = [one for one in found["scatter"] if (one["label"], one["behaviour"]) == (label, behaviour)]
        if points:
            axis.scatter(
                [one["harmful"] for one in points],
                [one["refuse"] for one in points],
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


def _cosines(axis: Any, found: Mapping[str, Any]) -> None:
    values = [float("nan") if value is None else value for value in found["cosine"]]
    axis.plot(range(len(values)), values, marker=".")
    axis.axhline(0, color="grey", linewidth=0.5)
    axis.set_ylim(-1.05, 1.05)
    axis.set_xlabel("layer")
    axis.set_ylabel("cosine of harmfulness and refusal")


def _flips(axis: Any, found: Mapping[str, Any]) -> None:
    _lines(axis, found["inversion"]["flips"], "flipped")
    axis.set_ylabel("share of answers flipped")


def _steering(axis: Any, found: Mapping[str, Any]) -> None:
    _lines(axis, [step for step in found["steering"] if step["layer"] is not None], "refusal")
    axis.set_ylabel("refusal rate, steered")


def _lines(axis: Any, steps: list[Mapping[str, Any]], value: str) -> None:
    for direction, colour in STYLES.items():
        for label, line in (("harmful", "-"), ("harmless", "--")):
            mine = [
                step
                for step in steps
                if (step["direction"], step["label"]) == (direction, label)
                and step[value]["rate"] is not None
            ]
            if mine:
                sign = "-" if mine[0]["sign"] < 0 else "+"
                axis.plot(
                    [step["layer"] for step in mine],
                    [step[value]["rate"] for step in mine],
                    line,
                    color=colour,
                    marker=".",
                    label=f"{label}, {sign} {direction}",
                )
    axis.set_ylim(-0.05, 1.05)
    axis.set_xlabel("layer")
    axis.legend(fontsize=6)


def _categories(axis: Any, found: Mapping[str, Any]) -> None:
    names = found["categories"]["names"]
    if not names:
        axis.axis("off")
        return
    grid = [[0.0 if value is None else value for value in row] for row in found["categories"]["cosine"]]
    axis.imshow(grid, vmin=-1, vmax=1, cmap="coolwarm")
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=5)
    axis.set_yticks(range(len(names)), names, fontsize=5)
