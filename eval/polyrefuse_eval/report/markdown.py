"""Tables from results. Pure: records in, text out."""

from __future__ import annotations

from collections.abc import Sequence

from polyrefuse_data.core.display import visible
from polyrefuse_eval.results.interventions import INTERVENTIONS
from polyrefuse_eval.results.records import Result
from polyrefuse_eval.results.settings import own_source
from polyrefuse_eval.results.sources import CONTROLS
from polyrefuse_eval.results.summary_records import RefusalGap, Summary
from polyrefuse_eval.statistics.rates import Rate

COMPREHENSION_COLUMNS = {
    "in_language": "in the language",
    "in_english": "in English",
    "incoherent": "incoherent",
    "puzzled": "puzzled",
    "cut": "cut off",
}
"""Shares of a `Comprehension` and their headings."""


def rate_text(result: Result) -> str:
    """Return `12.5 % [9.1, 16.9]`, or `not judged` for the rate of nothing."""
    if result.refusal_rate is None or result.low is None or result.high is None:
        return "not judged"
    return f"{100 * result.refusal_rate:.1f} % [{100 * result.low:.1f}, {100 * result.high:.1f}]"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; what others named is visible and stays in its cell."""
    shown = [[visible(cell).replace("|", "\\|") for cell in cells] for cells in (header, *rows)]
    lines = [shown[0], ["---"] * len(header), *shown[1:]]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def markdown_table(results: Sequence[Result], sources: Sequence[str] = ()) -> str:
    """Return refusal rates as Markdown, judge by judge.

    One table has a row a language; where directions come from several languages, each intervention has
    a table of its own for each label, with a row a direction and a column a language. `sources` are the
    run's directions in its order: the first stands in for a language that has none.
    """
    judges = list(dict.fromkeys(result.judge for result in results))
    return "\n".join(
        _of_judge(judge, [result for result in results if result.judge == judge], sources) for judge in judges
    )


def comprehension_tables(summary: Summary) -> str:
    """Return what the unedited answers show of each language as Markdown, judge by judge.

    The gap is the refusal rate on harmful prompts minus that on harmless ones, in points.
    """
    header = ["language", "gap, points", *COMPREHENSION_COLUMNS.values(), ""]
    parts = []
    for judge, of_judge in summary.judges.items():
        rows = [
            [
                lang,
                _gap_text(comprehension.gap),
                *(_share_text(getattr(comprehension, name)) for name in COMPREHENSION_COLUMNS),
                "mostly incoherent: not ranked" if comprehension.mostly_incoherent else "",
            ]
            for lang, language in of_judge.languages.items()
            if (comprehension := language.comprehension) is not None
        ]
        parts += [
            f"Judge: {judge}\n",
            table(header, rows),
            "Gap: refused harmful minus refused harmless prompts, no edit, 95 % bootstrap interval. Shares "
            "are of the answers to both, no edit.\n",
        ]
    return "\n".join(parts)


def _gap_text(gap: RefusalGap) -> str:
    if gap.value is None or gap.low is None or gap.high is None:
        return "not measured"
    return f"{100 * gap.value:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"


def _share_text(share: Rate) -> str:
    return "not judged" if share.rate is None else f"{100 * share.rate:.1f} %"


def _of_judge(judge: str, results: Sequence[Result], sources: Sequence[str]) -> str:
    measured = list(dict.fromkeys(result.source for result in results if result.source is not None))
    ordered = [source for source in sources if source in measured]
    ordered += [source for source in measured if source not in sources]
    directions = [source for source in ordered if source not in CONTROLS]
    parts = [f"Judge: {judge}\n", _by_language(results, directions)]
    if len(directions) > 1:
        meant = [(row.name, row.moves) for row in INTERVENTIONS.values()]
        crossed = [(row.name, row.cross_checks) for row in INTERVENTIONS.values()]
        for intervention, label in [*meant, *crossed]:
            matrix = [
                result
                for result in results
                if (result.intervention, result.label) == (intervention, label)
                and result.source in directions
                and "@" not in result.condition
            ]
            if matrix:
                parts.append(
                    f"{label} prompts, {intervention} of the direction of (row) in (column), % refused:\n"
                )
                rows = {result.source for result in matrix}
                parts.append(_matrix(matrix, [source for source in directions if source in rows]))
    service = sum(result.n_service_refused for result in results)
    withheld = f" {service} refusals are the service's, not in the model's words." if service else ""
    parts.append(
        f"Share of answers that refuse, 95 % Wilson intervals; {_undecided_text(results)}.{withheld}\n"
    )
    undecided = [result for result in sorted(results, key=_order) if result.n_unjudged]
    if undecided:
        parts.append(_undecided_table(undecided))
    second = sum(result.n_second or 0 for result in results)
    if any(result.n_second is not None for result in results):
        answers = sum(result.n + result.n_unjudged for result in results)
        sampled = sum(result.n_sampled or 0 for result in results)
        same = sum(result.n_sampled_same or 0 for result in results)
        parts.append(
            f"Cascade: the second judge decided {second} of {answers} answers ({second / answers:.1%}); of a "
            f"sample of {sampled} others it agrees on {same}.\n"
        )
    return "\n".join(parts)


def _undecided_text(results: Sequence[Result]) -> str:
    """Return `90 judged, 10 undecided (3 puzzled, 2 incoherent, 1 truncated in their reasoning)`."""
    judged = sum(result.n for result in results)
    undecided = sum(result.n_unjudged for result in results)
    counts = {
        "puzzled": sum(result.n_puzzled for result in results),
        "incoherent": sum(result.n_incoherent for result in results),
        "truncated in their reasoning": sum(result.n_unfinished for result in results),
    }
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
    return f"{judged} judged, {undecided} undecided" + (f" ({reasons})" if reasons else "")


def _undecided_table(results: Sequence[Result]) -> str:
    """Return how many answers of each of `results` are undecided, why, and the rates that they leave open."""
    header = ["language", "prompts, condition", "undecided", "puzzled", "cut in reasoning", "least", "most"]
    rows = [
        [
            result.lang,
            f"{result.label}, {result.condition}",
            f"{result.n_unjudged} of {result.n + result.n_unjudged}",
            str(result.n_puzzled),
            str(result.n_unfinished),
            *(f"{100 * (bound or 0.0):.1f} %" for bound in (result.refusal_least, result.refusal_most)),
        ]
        for result in results
    ]
    return (
        table(header, rows)
        + "\nLowest and highest: the refusal rate if no undecided answer is a refusal, and if all are.\n"
    )


def _by_language(results: Sequence[Result], directions: Sequence[str]) -> str:
    langs = list(dict.fromkeys(result.lang for result in results))
    shown = {
        (result.lang, _column(result, directions)): result
        for result in sorted(results, key=_order)
        if len(directions) < 2
        or result.source not in directions
        or result.source == own_source(result.lang, directions)
    }
    columns = list(dict.fromkeys(column for _, column in shown))
    rows = [
        [lang, *(rate_text(shown[lang, column]) if (lang, column) in shown else "" for column in columns)]
        for lang in langs
    ]
    return table(["language", *columns], rows)


def _column(result: Result, directions: Sequence[str]) -> str:
    """Return label and condition; of several directions the one of the row's language is `own`."""
    condition = result.condition
    if len(directions) > 1 and result.source in directions:
        condition = condition.replace(f":{result.source}", ":own")
    return f"{result.label}, {condition}"


def _matrix(results: Sequence[Result], directions: Sequence[str]) -> str:
    langs = list(dict.fromkeys(result.lang for result in results))
    cells = {(result.source, result.lang): result.refusal_rate for result in results}

    def percent(source: str, lang: str) -> str:
        value = cells.get((source, lang))
        return "" if value is None else f"{100 * value:.1f}"

    return table(
        ["", *langs], [[source, *(percent(source, lang) for lang in langs)] for source in directions]
    )


def _order(result: Result) -> tuple[str, str, bool, float, str]:
    first = "" if result.intervention == "baseline" else result.intervention
    return (result.label, first, result.source in CONTROLS, -(result.coefficient or 0.0), result.condition)
