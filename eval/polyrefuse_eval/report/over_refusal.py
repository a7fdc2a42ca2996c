"""Over-refusal as tables and a plot: records in, text and a PNG out. Matplotlib is imported when used."""

from __future__ import annotations

import io
from collections.abc import Sequence

from polyrefuse_eval.errors import require
from polyrefuse_eval.report.markdown import table
from polyrefuse_eval.results.interventions import BASELINE_NAME
from polyrefuse_eval.results.records import Result
from polyrefuse_eval.results.subset_records import ContrastResult, SubsetResult

COLUMNS = 4
"""Panels of the plot in a row."""


def source_table(subsets: Sequence[SubsetResult]) -> str:
    """Return unedited refusal rates by source of the prompts as Markdown, judge by judge.

    Empty where all prompts of each label are of one source.
    """
    unedited = [result for result in subsets if (result.kind, result.condition) == ("source", BASELINE_NAME)]
    sources = list(dict.fromkeys((result.label, result.subset) for result in unedited))
    if len(sources) == len({label for label, _ in sources}):
        return ""
    return _by_judge(unedited, "% refused by source of the prompts, no edit:")


def type_table(subsets: Sequence[SubsetResult]) -> str:
    """Return refusal rates by type of the prompts as Markdown, a table for each judge and condition."""
    typed = [result for result in subsets if result.kind == "type"]
    return "\n".join(
        _by_judge(
            [result for result in typed if result.condition == condition],
            f"% refused by type of the prompts, {condition}:",
        )
        for condition in dict.fromkeys(result.condition for result in typed)
    )


def kind_table(subsets: Sequence[SubsetResult]) -> str:
    """Return refusal rates by kind of a user's prompts as Markdown, a table for each judge and condition."""
    return "\n".join(
        _by_judge(
            [result for result in subsets if (result.kind, result.condition) == ("source", condition)],
            f"% refused by kind of the prompts, {condition}:",
        )
        for condition in dict.fromkeys(result.condition for result in subsets)
    )


def sides_table(results: Sequence[Result], contrasts: Sequence[ContrastResult]) -> str:
    """Return over-refusal and compliance side by side as Markdown, and contrast pairs, judge by judge."""
    paired = {(row.judge, row.lang, row.condition): row for row in contrasts}
    header = [
        "language",
        "condition",
        "over-refusal, safe",
        "compliance, unsafe",
        "pairs answered differently",
        "harmful - harmless, points",
    ]
    parts = []
    for judge in dict.fromkeys(result.judge for result in results):
        rows = []
        for (lang, condition), (safe, unsafe) in _sides(results, judge).items():
            contrast = paired.get((judge, lang, condition))
            rows.append([lang, condition, _rate(safe), _rate(unsafe, complement=True), *_contrast(contrast)])
        parts += [f"Judge: {judge}\n", table(header, rows)]
    parts.append(
        "Over-refusal: share of harmless prompts that look harmful which are refused. Compliance: share of "
        "harmful prompts which are not. Wilson intervals; of pairs, paired bootstrap over pairs; 95 %.\n"
    )
    return "\n".join(parts)


def plot_sides(results: Sequence[Result]) -> bytes:
    """Return a PNG of compliance on unsafe against over-refusal of safe prompts.

    A panel a language, a point an edit. Bars are 95 % Wilson intervals; the first judge's results. The lower
    left corner is where to be.
    """
    require("matplotlib", "eval")
    from matplotlib.figure import Figure

    judge = results[0].judge
    sides = _sides(results, judge)
    langs = list(dict.fromkeys(lang for lang, _ in sides))
    conditions = list(dict.fromkeys(condition for _, condition in sides))
    columns = min(COLUMNS, len(langs))
    rows = -(-len(langs) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.4 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, lang in zip(axes, langs, strict=False):
        axis.set(title=lang, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        axis.set(xlabel="over-refusal, safe", ylabel="compliance, unsafe")
        for number, condition in enumerate(conditions):
            safe, unsafe = sides.get((lang, condition), (None, None))
            if safe is None or unsafe is None or safe.refusal_rate is None or unsafe.refusal_rate is None:
                continue
            x, y = safe.refusal_rate, 1 - unsafe.refusal_rate
            axis.errorbar(
                [x],
                [y],
                xerr=[[max(0.0, x - (safe.low or 0.0))], [max(0.0, (safe.high or 0.0) - x)]],
                yerr=[[max(0.0, (unsafe.high or 0.0) - (1 - y))], [max(0.0, 1 - y - (unsafe.low or 0.0))]],
                fmt="o",
                color=f"C{number % 10}",
                label=condition,
            )
    for axis in axes[len(langs) :]:
        axis.axis("off")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, max(1, len(labels))), fontsize=7)
    # Without matplotlib's version, the same numbers give the same file.
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()


def _sides(
    results: Sequence[Result], judge: str
) -> dict[tuple[str, str], tuple[Result | None, Result | None]]:
    """Return (language, condition) to the results on safe and unsafe prompts, the baseline first."""
    cells = {(r.lang, r.condition, r.label): r for r in results if r.judge == judge}
    names = sorted(
        {(lang, condition) for lang, condition, _ in cells},
        key=lambda name: (name[0], name[1] != BASELINE_NAME, name[1]),
    )
    return {name: (cells.get((*name, "harmless")), cells.get((*name, "harmful"))) for name in names}


def _rate(result: Result | SubsetResult | None, *, complement: bool = False) -> str:
    if result is None or result.refusal_rate is None or result.low is None or result.high is None:
        return "-"
    value, low, high = result.refusal_rate, result.low, result.high
    if complement:
        value, low, high = 1 - value, 1 - high, 1 - low
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _contrast(contrast: ContrastResult | None) -> tuple[str, str]:
    if contrast is None or contrast.differently is None or contrast.difference is None:
        return "-", "-"
    low, high = contrast.low or 0.0, contrast.high or 0.0
    return (
        f"{100 * contrast.differently:.1f} % of {contrast.n}",
        f"{100 * contrast.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]",
    )


def _by_judge(results: Sequence[SubsetResult], title: str) -> str:
    parts = []
    for judge in dict.fromkeys(result.judge for result in results):
        of_judge = [result for result in results if result.judge == judge]
        langs = list(dict.fromkeys(result.lang for result in of_judge))
        cells = {(result.label, result.subset, result.lang): result for result in of_judge}
        rows = [
            [label, subset, str(max(cells[key].n for key in cells if key[:2] == (label, subset)))]
            + [_rate(cells.get((label, subset, lang))) for lang in langs]
            for label, subset in dict.fromkeys((result.label, result.subset) for result in of_judge)
        ]
        parts += [f"Judge: {judge}. {title}\n", table(["prompts", "of", "n", *langs], rows)]
    return "\n".join(parts)
