"""The numbers of a run that matter, in a table for a terminal of 80 columns. Pure: records in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polyrefuse_data.core.display import visible
from polyrefuse_eval.results.records import Result
from polyrefuse_eval.results.settings import BASELINE_CONDITION, own_source
from polyrefuse_eval.results.summary_records import Summary

HEADER = ("", "harmful", "ablated", "harmless", "added", "robustness")
NOTE = (
    "% refused with 95 % intervals: harmful prompts as they are and with the\n"
    "language's direction ablated, harmless ones as they are and with it added.\n"
)


def brief_table(results: Sequence[Result], summary: Summary | None, sources: Sequence[str] = ()) -> str:
    """Return a table for each judge with a row a language; `sources` are the run's directions in order."""
    judges = list(dict.fromkeys(result.judge for result in results))
    parts = [
        _of_judge(judge, [result for result in results if result.judge == judge], summary, sources)
        for judge in judges
    ]
    return "\n".join([*parts, NOTE])


def _of_judge(judge: str, results: Sequence[Result], summary: Summary | None, sources: Sequence[str]) -> str:
    rates = {(result.lang, result.label, result.condition): result for result in results}
    measured = {result.source for result in results}
    directions = [source for source in sources if source in measured]
    rows = []
    for lang in dict.fromkeys(result.lang for result in results):
        own = own_source(lang, directions)
        cells = (
            ("harmful", BASELINE_CONDITION.name),
            ("harmful", f"ablation:{own}"),
            ("harmless", BASELINE_CONDITION.name),
            ("harmless", f"addition:{own}"),
        )
        rows.append([lang, *(_rate(rates, lang, *cell) for cell in cells), _robustness(summary, judge, lang)])
    widths = [max(len(row[column]) for row in [HEADER, *rows]) for column in range(len(HEADER))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [HEADER, *rows]
    ]
    return "".join(f"{line}\n" for line in [visible(f"judge {judge}"), *lines])


def _rate(rates: Mapping[tuple[str, str, str], Result], lang: str, label: str, condition: str) -> str:
    result = rates.get((lang, label, condition))
    if result is None or result.refusal_rate is None or result.low is None or result.high is None:
        return "-"
    return f"{100 * result.refusal_rate:.0f} [{100 * result.low:.0f}, {100 * result.high:.0f}]"


def _robustness(summary: Summary | None, judge: str, lang: str) -> str:
    of_judge = summary.judges.get(judge) if summary is not None else None
    language = of_judge.languages.get(lang) if of_judge is not None else None
    if language is None or language.robustness.value is None:
        return "-"
    robustness = language.robustness
    ends = "" if robustness.low is None else f" [{robustness.low:.2f}, {robustness.high:.2f}]"
    return f"{robustness.value:.2f}{ends}"
