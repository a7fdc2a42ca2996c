"""Tables from results. Pure: records in, text out."""

from __future__ import annotations

from collections.abc import Sequence

from polyrefuse_eval.results import Result


def rate_text(result: Result) -> str:
    """Return `12.5 % [9.1, 16.9]`, or `not judged` for the rate of nothing."""
    if result.refusal_rate is None or result.low is None or result.high is None:
        return "not judged"
    return f"{100 * result.refusal_rate:.1f} % [{100 * result.low:.1f}, {100 * result.high:.1f}]"


def markdown_table(results: Sequence[Result]) -> str:
    """Return refusal rates as a Markdown table: a row for each language, a column for each condition."""
    columns = list(dict.fromkeys((result.label, result.condition) for result in sorted(results, key=_order)))
    langs = list(dict.fromkeys(result.lang for result in results))
    cells = {(result.lang, result.label, result.condition): result for result in results}
    header = ["language", *(f"{label}, {condition}" for label, condition in columns)]
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    for lang in langs:
        row = [lang]
        for label, condition in columns:
            result = cells.get((lang, label, condition))
            row.append("" if result is None else rate_text(result))
        lines.append("| " + " | ".join(row) + " |")
    unjudged = sum(result.n_unjudged for result in results)
    judged = sum(result.n for result in results)
    lines += [
        "",
        f"Share of answers that refuse, 95 % Wilson intervals; {judged} judged, {unjudged} undecided.",
    ]
    return "\n".join(lines) + "\n"


def _order(result: Result) -> tuple[str, int, str]:
    return (result.label, result.condition != "baseline", result.condition)
