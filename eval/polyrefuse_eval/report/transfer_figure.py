"""Draw the transfer matrix of a run: refusal by language of the direction and of the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyrefuse_eval.figures import explain, new_figure, save_figure
from polyrefuse_eval.results.folder import RESULTS_FILE, RunFolder
from polyrefuse_eval.results.records import Result

PANELS = (
    ("harmful", "ablation", "harmful prompts, direction ablated"),
    ("harmless", "addition", "harmless prompts, direction added"),
)
"""Label, intervention and title of each panel: what each intervention is meant to move."""

CONTROLS = ("random", "shuffled")


def draw_transfer(run: Path) -> list[Path]:
    """Draw the transfer matrices of a run, by its first judge, into its folder `plots`; return the files.

    Return an empty list where nothing was measured yet.
    """
    folder = RunFolder.existing(run)
    results = folder.results() if (run / RESULTS_FILE).is_file() else []
    if not any(result.source for result in results):
        return []
    judge = results[0].judge
    path = run / "plots" / "transfer.png"
    return [plot_transfer([row for row in results if row.judge == judge], path, folder.signature)]


def plot_transfer(results: Sequence[Result], path: Path, signature: Mapping[str, Any]) -> Path:
    """Draw refusal rates by language of the direction (row) and of the prompt (column), with intervals.

    `results` are those of one judge. Controls stand in rows of their own below the languages.
    """
    langs = sorted({row.lang for row in results})
    sources = sorted(
        {row.source for row in results if row.source is not None}, key=lambda name: (name in CONTROLS, name)
    )
    width, height = 2.6 + 1.0 * len(langs), 1.6 + 0.62 * (len(sources) + 1)
    figure, axes = new_figure(1, len(PANELS), max(8.0, len(PANELS) * width), height)
    for axis, (label, intervention, title) in zip(axes[0], PANELS, strict=True):
        rates = rates_of(results, label, intervention)
        draw_matrix(axis, rates, ["baseline", *sources], langs)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("language of the prompt")
    axes[0][0].set_ylabel("language of the direction")
    model, data = signature["model"], signature["data"]
    largest = max(row.n for row in results)
    explain(
        figure,
        "% of answers that refuse: how far a direction of one language works in another",
        f"{model['model']}@{str(model.get('revision', ''))[:12]}; {data['recipe']} {data['digest'][:12]}; "
        f"judge {results[0].judge}; n up to {largest} a cell; small: 95 % Wilson intervals",
    )
    return save_figure(figure, path)


def rates_of(results: Sequence[Result], label: str, intervention: str) -> dict[tuple[str, str], Result]:
    """Return (source or `baseline`, language) to the result under `intervention` at full strength."""
    return {
        (row.source or "baseline", row.lang): row
        for row in results
        if row.label == label and row.intervention in ("baseline", intervention) and "@" not in row.condition
    }


def draw_matrix(
    axis: Any, rates: Mapping[tuple[str, str], Result], sources: Sequence[str], langs: Sequence[str]
) -> None:
    """Draw one matrix into a panel; the numbers stand in the cells, so that no shade has to be read."""
    nan = float("nan")
    cells = [[rates.get((source, lang)) for lang in langs] for source in sources]
    shades = [
        [nan if cell is None or cell.refusal_rate is None else cell.refusal_rate for cell in row]
        for row in cells
    ]
    axis.imshow(shades, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    axis.set_xticks(range(len(langs)), langs)
    axis.set_yticks(range(len(sources)), sources)
    for line, row in enumerate(cells):
        for column, cell in enumerate(row):
            if cell is None or cell.refusal_rate is None or cell.low is None or cell.high is None:
                continue
            ink = "black" if cell.refusal_rate > 0.5 else "white"
            axis.text(
                column, line - 0.12, f"{100 * cell.refusal_rate:.0f}", ha="center", va="center", color=ink
            )
            axis.text(
                column,
                line + 0.27,
                f"{100 * cell.low:.0f}-{100 * cell.high:.0f}",
                ha="center",
                va="center",
                color=ink,
                fontsize=6,
            )
