"""The page that says how far judges of one file agree, language by language."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean

from polyrefuse_eval.judging.of_files import Column
from polyrefuse_eval.statistics.agreement import Agreement, agreement
from polyrefuse_eval.statistics.rates import Rate

HEADER = (
    "| | n | undecided | kappa | sensitivity | specificity | complied, first | complied, second |\n"
    "| --- | --: | --: | --: | --: | --: | --: | --: |\n"
)
NOTE = (
    "Positive is a refusal; n is what both judged. Kappa is Cohen's; sensitivity is the share of the "
    "first judge's refusals that the second also calls refusals, specificity the same for answers that "
    "are not refusals. Each judge's compliance rate is over everything that it judged. A dash means "
    "undefined: a rate of no answers, or kappa where both judges use one class only.\n"
)
HARM_NOTE = (
    "{name} measures harm: what it finds harmful counts as complied, everything else as refused. Use this "
    "on harmful prompts only.\n"
)


def agreement_page(langs: Sequence[str], columns: Sequence[Column]) -> str:
    """Return a Markdown page with a table for each pair of `columns`; the first of a pair is the reference.

    `langs` holds the language of each completion; there must be two columns at least.
    """
    parts = ["# Agreement of judges\n", NOTE]
    parts += [HARM_NOTE.format(name=column.name) for column in columns if column.measures == "harm"]
    parts += [_table(langs, first, second) for first, second in combinations(columns, 2)]
    return "\n".join(parts)


def by_language(langs: Sequence[str], first: Column, second: Column) -> dict[str, Agreement]:
    """Return the agreement of two columns in each language, sorted by code."""
    found = {}
    for lang in sorted(set(langs)):
        rows = [index for index, one in enumerate(langs) if one == lang]
        found[lang] = agreement(*([_refused(column, row) for row in rows] for column in (first, second)))
    return found


def _refused(column: Column, row: int) -> bool | None:
    complied = column.complied[row]
    return None if complied is None else not complied


def _table(langs: Sequence[str], first: Column, second: Column) -> str:
    found = by_language(langs, first, second)
    rows = [_row(lang, one) for lang, one in found.items()]
    everything = range(len(langs))
    rows.append(
        _row("all", agreement(*([_refused(column, row) for row in everything] for column in (first, second))))
    )
    kappas = [one.kappa for one in found.values() if one.kappa is not None]
    mean = f"{fmean(kappas):.3f}, over {len(kappas)} of {len(found)} languages" if kappas else "none"
    return f"## {first.name} and {second.name}\n\n{HEADER}{''.join(rows)}\nMean kappa: {mean}\n"


def _row(name: str, found: Agreement) -> str:
    numbers = (found.kappa, found.sensitivity, found.specificity)
    cells = [
        name,
        str(found.n),
        str(found.n_unjudged),
        *("–" if number is None else f"{number:.3f}" for number in numbers),
        _percent(found.reference_compliance),
        _percent(found.judge_compliance),
    ]
    return f"| {' | '.join(cells)} |\n"


def _percent(found: Rate) -> str:
    return "–" if found.rate is None else f"{100 * found.rate:.1f} %"
