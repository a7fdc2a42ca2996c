"""Draw docs/images/transfer.svg from runs of two organisms: `python docs/pictures.py SHARED SEPARATE`.

The runs are those of `polyrefuse eval run --model organism` and `--model organism-per-language`, both with
`--langs de,en,ja,yo --directions de,en,ja,yo --rule mediating`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from polyrefuse_eval.figures import explain, new_figure, save_figure
from polyrefuse_eval.report.transfer_figure import draw_matrix, rates_of
from polyrefuse_eval.results.folder import RunFolder

IMAGES = Path(__file__).parent / "images"
TITLES = ("one direction for all languages", "a direction for each language")


def main(runs: list[Path]) -> None:
    """Draw the transfer matrices of the runs side by side."""
    figure, axes = new_figure(1, len(runs), 9, 4)
    for axis, run, title in zip(axes[0], runs, TITLES, strict=True):
        results = RunFolder.existing(run).results()
        langs = sorted({row.lang for row in results})
        draw_matrix(axis, rates_of(results, "harmful", "ablation"), ["baseline", *langs], langs)
        axis.set_title(f"{RunFolder.existing(run).signature['model']['model']}: {title}", fontsize=9)
        axis.set_xlabel("language of the prompt")
    axes[0][0].set_ylabel("language of the ablated direction")
    explain(
        figure,
        "% of harmful prompts that are refused: does a direction work in other languages?",
        f"n = {max(row.n for row in results)} a cell; small: 95 % Wilson intervals; embedded sample",
    )
    save_figure(figure, IMAGES / "transfer.svg")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
