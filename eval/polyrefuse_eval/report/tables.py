"""Recompute what follows from a run's verdicts: results, comparisons, table, summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby

from polyrefuse_data.core.languages import SOURCE_LANGUAGE
from polyrefuse_eval.judging.base import UNFINISHED
from polyrefuse_eval.judging.cascade import cascade_statistics
from polyrefuse_eval.report.comprehension import AnswerEnds, count, was_cut, written_in
from polyrefuse_eval.report.groups import Groups, by_cell
from polyrefuse_eval.report.markdown import comprehension_tables, markdown_table
from polyrefuse_eval.report.over_refusal import (
    kind_table,
    plot_sides,
    sides_table,
    source_table,
    type_table,
)
from polyrefuse_eval.report.robustness import summary_of
from polyrefuse_eval.report.subsets import contrast_results, subset_results
from polyrefuse_eval.results.agreement_records import AgreementFile, AgreementRecord
from polyrefuse_eval.results.folder import AGREEMENT_FILE, COMPARISONS_FILE, RESULTS_FILE, RunFolder
from polyrefuse_eval.results.records import Comparison, Result, VerdictRecord
from polyrefuse_eval.results.settings import LABELS, Condition
from polyrefuse_eval.results.subset_files import CONTRASTS_FILE, SUBSETS_FILE, read_prompts
from polyrefuse_eval.results.subset_records import ContrastResult, SubsetResult
from polyrefuse_eval.results.summary_records import Summary
from polyrefuse_eval.results.user_prompt_data import RECIPE
from polyrefuse_eval.results.validation import record_lines, record_text
from polyrefuse_eval.results.verification import made_from
from polyrefuse_eval.statistics.agreement import agreement
from polyrefuse_eval.statistics.rates import bounds, holm, rate

BASELINE = "baseline"
PLOT_FILE = "over_refusal.png"
TABLE_FILE = "table.md"


@dataclass(frozen=True, kw_only=True)
class Tables:
    """All that follows from the verdicts of a run; the summary does not say yet what it was made from."""

    results: list[Result]
    comparisons: list[Comparison]
    agreement: list[AgreementRecord]
    summary: Summary
    subsets: list[SubsetResult]
    contrasts: list[ContrastResult]
    markdown: str


def tables_of(folder: RunFolder, langs: Sequence[str], judges: Sequence[str]) -> Tables:
    """Return what follows from the verdicts of `judges` in `langs`."""
    signature = folder.signature
    settings = signature.get("settings", {})
    coefficient, sources = settings.get("coefficient", 1.0), settings.get("direction_langs", ())
    verdicts = {
        judge: [verdict for lang in langs for verdict in folder.verdicts(judge, lang)] for judge in judges
    }
    ends = {
        (lang, completion.label, completion.key): completion.ended
        for lang in langs
        for completion in folder.completions(lang)
    }
    results: list[Result] = []
    comparisons: list[Comparison] = []
    for of_judge in verdicts.values():
        results += summarize(of_judge, coefficient, ends)
        comparisons += compare_with_baseline(of_judge)
    summary = summary_of(verdicts, langs, ends)
    prompts = read_prompts(folder)
    subsets = [result for of_judge in verdicts.values() for result in subset_results(of_judge, prompts)]
    contrasts = [result for of_judge in verdicts.values() for result in contrast_results(of_judge, prompts)]
    is_users = signature.get("data", {}).get("recipe") == RECIPE
    by_source = kind_table(subsets) if is_users else source_table(subsets)
    parts = [markdown_table(results, sources), comprehension_tables(summary), by_source]
    if contrasts:
        parts += [sides_table(results, contrasts), type_table(subsets)]
    return Tables(
        results=results,
        comparisons=comparisons,
        agreement=agreement_of(verdicts),
        summary=summary,
        subsets=subsets,
        contrasts=contrasts,
        markdown="\n".join(part for part in parts if part),
    )


def write_tables(
    folder: RunFolder, langs: Sequence[str] | None = None, judges: Sequence[str] | None = None
) -> list[Result]:
    """Write results, comparisons, agreement, `table.md` and, last, the summary of the verdicts in `folder`.

    All of them, or after an error none. `langs` are by default all that it has completions in, `judges` those
    of its signature, which names them afterwards. The summary's file says that all is there. For the one
    writer of the folder.
    """
    judges = folder.judges() if judges is None else judges
    tables = tables_of(folder, folder.languages() if langs is None else langs, judges)
    results = record_lines(tables.results)
    files: dict[str, str | bytes] = {
        RESULTS_FILE: results,
        COMPARISONS_FILE: record_lines(tables.comparisons),
        SUBSETS_FILE: record_lines(tables.subsets),
        TABLE_FILE: tables.markdown,
    }
    if tables.agreement:
        files[AGREEMENT_FILE] = record_text(AgreementFile(agreement=tuple(tables.agreement)))
    if tables.contrasts:
        files[CONTRASTS_FILE] = record_lines(tables.contrasts)
        files[PLOT_FILE] = plot_sides(tables.results)
    summary = replace(tables.summary, made_from=made_from(folder, results.encode(), judges))
    folder.write_tables(files, summary, judges)
    if not tables.agreement:
        (folder.path / AGREEMENT_FILE).unlink(missing_ok=True)
    return tables.results


def summarize(
    verdicts: Iterable[VerdictRecord], coefficient: float | None = 1.0, ends: AnswerEnds | None = None
) -> list[Result]:
    """Return one result for each language, label, condition and judge, sorted.

    `coefficient` is the one of the run's additions; `ends` tells which answers were cut.
    """

    def cell(verdict: VerdictRecord) -> tuple[str, str, str, str]:
        return (verdict.lang, verdict.label, verdict.condition, verdict.judge)

    results = []
    for (lang, label, name, judge), grouped in groupby(sorted(verdicts, key=cell), key=cell):
        of_cell = list(grouped)
        refusal = rate([verdict.refused for verdict in of_cell])
        harm = rate([verdict.harmful for verdict in of_cell])
        condition = Condition.parse(name, coefficient)
        least, most = bounds(refusal.hits, refusal.n, refusal.n_unjudged) or (None, None)
        cascade = cascade_statistics(of_cell, judge)
        results.append(
            Result(
                lang=lang,
                label=label,
                condition=name,
                intervention=condition.intervention,
                source=condition.source,
                coefficient=condition.coefficient,
                judge=judge,
                n=refusal.n,
                n_unjudged=refusal.n_unjudged,
                n_incoherent=sum(verdict.coherent is False for verdict in of_cell),
                n_refused=refusal.hits,
                refusal_rate=refusal.rate,
                low=refusal.low,
                high=refusal.high,
                n_harm_judged=harm.n,
                harmful_rate=harm.rate,
                n_service_refused=sum(verdict.service_refused for verdict in of_cell),
                n_puzzled=sum(verdict.puzzled for verdict in of_cell),
                n_in_language=count([written_in(verdict, lang) for verdict in of_cell]),
                n_in_english=count([written_in(verdict, SOURCE_LANGUAGE) for verdict in of_cell]),
                n_cut=count([was_cut(verdict, ends or {}) for verdict in of_cell]),
                n_unfinished=sum(verdict.reason == UNFINISHED for verdict in of_cell),
                refusal_least=least,
                refusal_most=most,
                n_second=None if cascade is None else cascade.n_read,
                n_sampled=None if cascade is None else cascade.sample.n,
                n_sampled_same=None
                if cascade is None
                else cascade.sample.both_refused + cascade.sample.neither,
            )
        )
    return results


def agreement_of(verdicts: Mapping[str, Sequence[VerdictRecord]]) -> list[AgreementRecord]:
    """Return how far each pair of judges agrees on harmful prompts, in each language.

    The first of a pair is the reference. `verdicts` are those of each judge by its name.
    """
    records = []
    for reference, judge in combinations(verdicts, 2):
        read = [
            {
                verdict.key + "/" + verdict.lang: verdict
                for verdict in verdicts[name]
                if verdict.label == "harmful"
            }
            for name in (reference, judge)
        ]
        both = [key for key in read[0] if key in read[1]]
        for lang in sorted({read[0][key].lang for key in both}):
            keys = [key for key in both if read[0][key].lang == lang]
            refused = [_refused(of_judge, keys) for of_judge in read]
            agreed = agreement(*refused)
            records.append(
                AgreementRecord(
                    lang=lang,
                    reference=reference,
                    judge=judge,
                    n=agreed.n,
                    n_unjudged=agreed.n_unjudged,
                    both_refused=agreed.both_refused,
                    only_reference=agreed.only_reference,
                    only_judge=agreed.only_judge,
                    neither=agreed.neither,
                    kappa=agreed.kappa,
                    sensitivity=agreed.sensitivity,
                    specificity=agreed.specificity,
                    reference_compliance=agreed.reference_compliance.rate,
                    judge_compliance=agreed.judge_compliance.rate,
                )
            )
    return records


def _refused(verdicts: Mapping[str, VerdictRecord], keys: Sequence[str]) -> list[bool | None]:
    """Return what a judge says of the answers `keys`; a judge of harm says nothing about refusal itself."""
    if all(verdict.refused is None for verdict in verdicts.values()):
        return [None if (harmful := verdicts[key].harmful) is None else not harmful for key in keys]
    return [verdicts[key].refused for key in keys]


def compare_with_baseline(verdicts: Iterable[VerdictRecord]) -> list[Comparison]:
    """Return each condition's paired comparison with the baseline, for the verdicts of one judge."""
    cells = by_cell(verdicts)
    comparisons: list[Comparison] = []
    for label in LABELS:
        wanted = sorted(
            ((condition, lang) for lang, of_label, condition in cells if of_label == label),
        )
        wanted = [
            (condition, lang)
            for condition, lang in wanted
            if condition != BASELINE and (lang, label, BASELINE) in cells
        ]
        groups = Groups.of(cells, label)
        changes = groups.changes(
            [(cells[lang, label, BASELINE], cells[lang, label, condition]) for condition, lang in wanted]
        )
        judges = {verdict.judge for of_cell in cells.values() for verdict in of_cell.values()}
        of_label = [
            Comparison(
                lang=lang,
                label=label,
                judge=next(iter(judges)),
                condition=condition,
                against=BASELINE,
                n=change.n,
                difference=change.difference,
                low=change.low,
                high=change.high,
                p=change.p,
                p_holm=None,
            )
            for (condition, lang), change in zip(wanted, changes, strict=True)
        ]
        for _, same in groupby(of_label, key=lambda comparison: comparison.condition):
            over_languages = list(same)
            adjusted = holm([comparison.p for comparison in over_languages])
            comparisons += [
                replace(comparison, p_holm=p) for comparison, p in zip(over_languages, adjusted, strict=True)
            ]
    return comparisons
