"""Rates over some of a run's prompts: by source, by type, and over contrast pairs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby

from polyrefuse_eval.report.groups import Groups, Verdicts, by_cell
from polyrefuse_eval.results.records import VerdictRecord
from polyrefuse_eval.results.subset_records import ContrastResult, PromptRecord, SubsetKind, SubsetResult
from polyrefuse_eval.statistics.rates import rate


def has_pairs(prompts: Iterable[PromptRecord]) -> bool:
    """Return whether there is a contrast pair among `prompts`."""
    return any(prompt.pair is not None for prompt in prompts)


def subset_results(
    verdicts: Iterable[VerdictRecord], prompts: Mapping[str, PromptRecord]
) -> list[SubsetResult]:
    """Return the refusal rates of one judge by source of the prompts, and by type where they are contrasts.

    `prompts` are by the id of their row; sorted by language, label, condition, kind and name.
    """
    typed = has_pairs(prompts.values())

    def subsets(prompt: PromptRecord) -> list[tuple[SubsetKind, str]]:
        by_source: list[tuple[SubsetKind, str]] = [("source", prompt.source)]
        return [*by_source, ("type", prompt.type)] if typed and prompt.type is not None else by_source

    keyed = [
        ((verdict.lang, verdict.label, verdict.condition, kind, name), verdict)
        for verdict in verdicts
        if verdict.id in prompts
        for kind, name in subsets(prompts[verdict.id])
    ]
    results = []
    for key, grouped in groupby(sorted(keyed, key=lambda pair: pair[0]), key=lambda pair: pair[0]):
        of_subset = [verdict for _, verdict in grouped]
        refusal = rate([verdict.refused for verdict in of_subset])
        lang, label, condition, kind, name = key
        results.append(
            SubsetResult(
                lang=lang,
                label=label,
                condition=condition,
                judge=of_subset[0].judge,
                kind=kind,
                subset=name,
                n=refusal.n,
                n_unjudged=refusal.n_unjudged,
                n_refused=refusal.hits,
                refusal_rate=refusal.rate,
                low=refusal.low,
                high=refusal.high,
            )
        )
    return results


def contrast_results(
    verdicts: Iterable[VerdictRecord], prompts: Mapping[str, PromptRecord]
) -> list[ContrastResult]:
    """Return how one judge's model answers contrast pairs, for each language and condition with both labels.

    The same pairs are drawn in every bootstrap sample of all languages and conditions.
    """
    cells = by_cell(verdicts)
    groups = Groups(prompt.pair for prompt in prompts.values() if prompt.pair is not None)
    wanted = sorted(
        (lang, condition)
        for lang, label, condition in cells
        if label == "harmless" and (lang, "harmful", condition) in cells
    )
    twins = [
        (
            _by_pair(cells[lang, "harmless", condition], prompts),
            _by_pair(cells[lang, "harmful", condition], prompts),
        )
        for lang, condition in wanted
    ]
    changes = groups.changes(twins)
    results = []
    for (lang, condition), (harmless, harmful), change in zip(wanted, twins, changes, strict=True):
        pairs = [(harmless[pair].refused, harmful[pair].refused) for pair in harmless if pair in harmful]
        if not pairs:
            continue
        judged = [(first, second) for first, second in pairs if first is not None and second is not None]
        differently = rate([first != second for first, second in judged])
        results.append(
            ContrastResult(
                lang=lang,
                condition=condition,
                judge=next(iter(harmless.values())).judge,
                n=len(judged),
                n_unjudged=len(pairs) - len(judged),
                both_refused=judged.count((True, True)),
                only_harmful_refused=judged.count((False, True)),
                only_harmless_refused=judged.count((True, False)),
                neither_refused=judged.count((False, False)),
                differently=differently.rate,
                difference=change.difference,
                low=change.low,
                high=change.high,
                p=change.p,
            )
        )
    return results


def _by_pair(verdicts: Verdicts, prompts: Mapping[str, PromptRecord]) -> dict[str, VerdictRecord]:
    """Return the verdicts on prompts of contrast pairs by pair, which is their group."""
    by_pair: dict[str, VerdictRecord] = {}
    for verdict in verdicts.values():
        prompt = prompts.get(verdict.id)
        if prompt is not None and prompt.pair is not None:
            by_pair.setdefault(prompt.pair, replace(verdict, group=prompt.pair))
    return by_pair
