"""Check that the files of a run belong together: answers, verdicts, results, summary.

What is not there is not checked: a published run has no completions, and the leaderboard reads no verdicts
of a run at an address.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.results.condition_files import (
    BEGUN_ENDING,
    ENDING,
    condition_file_name,
    safe_name,
)
from polyrefuse_eval.results.files import read_content
from polyrefuse_eval.results.folder import RESULTS_FILE, SUMMARY_FILE, RunFolder
from polyrefuse_eval.results.records import Result, VerdictRecord
from polyrefuse_eval.results.summary_records import JudgeSummary, MadeFrom, Summary
from polyrefuse_eval.statistics.rates import Rate

SHOWN_PROBLEMS = 3
Cell = tuple[str, str, str]
"""(language, label, condition)."""


def made_from(folder: RunFolder, results: bytes, judges: Sequence[str]) -> MadeFrom:
    """Return what a summary is made from: `results`, the content of their file, and the files of the run.

    Verdicts of others than `judges` are in no result: those of a judge that has not read all answers yet.
    """
    return MadeFrom(
        results=hashlib.sha256(results).hexdigest(),
        verdicts=_verdicts_digest(folder.path, judges),
        answers=_answer_counts(folder.path),
    )


def verdicts_digest(files: Mapping[str, bytes]) -> str:
    """Return the sha256 of verdict `files`: of their names and the sha256 of their bytes, sorted."""
    lines = [f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in sorted(files.items())]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def verify_run(folder: RunFolder, *, answers: bool = False) -> None:
    """Raise `RunFolderError`, naming what does not hold, unless the files of a finished run belong together.

    With `answers`, look at each answer as well: whether the verdicts on it are of the answer that is there.
    """
    summary = folder.summary()
    problems = run_problems(folder, summary)
    if answers:
        problems = chain(problems, answer_problems(folder))
    refuse(folder, problems)


def refuse(folder: RunFolder, problems: Iterable[str]) -> None:
    """Raise `RunFolderError` naming the first of `problems`; do nothing where there are none."""
    first = list(islice(problems, SHOWN_PROBLEMS + 1))
    if first:
        more = "; and more" if len(first) > SHOWN_PROBLEMS else ""
        raise RunFolderError(
            f"'{folder.path}' does not hold together: {'; '.join(first[:SHOWN_PROBLEMS])}{more}"
        )


def answer_problems(folder: RunFolder) -> Iterator[str]:
    """Yield what is wrong with the verdicts on each answer: of another answer, of none, or given twice."""
    for lang in folder.languages():
        answers = {completion.key + completion.label: completion for completion in folder.completions(lang)}
        for judge in folder.judges():
            seen: set[str] = set()
            for verdict in folder.verdicts(judge, lang):
                key = verdict.key + verdict.label
                place = f"verdict of {judge} on {lang} {verdict.key}"
                if key in seen:
                    yield f"{place} is there twice"
                seen.add(key)
                if key not in answers:
                    yield f"{place} is of an answer that is not there"
                elif verdict.response_sha256 not in (None, answers[key].response_sha256):
                    yield f"{place} is of another answer than the one in completions/"


def unverified(verdicts: Iterable[VerdictRecord]) -> set[tuple[str, str]]:
    """Return label and condition of the cells with verdicts that carry no hash of their answer."""
    return {(verdict.label, verdict.condition) for verdict in verdicts if verdict.response_sha256 is None}


def unverified_notes(folder: RunFolder) -> Iterator[str]:
    """Yield a line for each judge whose verdicts carry no hash of their answers."""
    for judge in folder.judges():
        counted = sum(
            verdict.response_sha256 is None
            for lang in folder.judged_languages(judge)
            for verdict in folder.verdicts(judge, lang)
        )
        if counted:
            yield (
                f"unverified: {counted} verdicts of {judge} in '{folder.path}' carry no hash of their "
                f"answer; judge again with: polyrefuse eval rescore {folder.path} --judges NAME"
            )


def run_problems(folder: RunFolder, summary: Summary | None) -> Iterator[str]:
    """Yield in what results, verdicts, answers and `summary` of a run contradict each other."""
    results = folder.results()
    judges = folder.signature.get("judges")
    yield from _result_problems(results, judges)
    if summary is not None:
        yield from _summary_problems(summary, results)
        if summary.made_from is not None:
            yield from _digest_problems(folder, summary.made_from)
            return
    yield from _count_problems(folder, results)


def _result_problems(results: Sequence[Result], judges: Sequence[str] | None) -> Iterator[str]:
    for name, count in Counter(_name(result) for result in results).items():
        if count > 1:
            yield f"{RESULTS_FILE} holds {name} {count} times"
    if judges is not None:
        for judge in dict.fromkeys(result.judge for result in results):
            if judge not in judges:
                yield (
                    f"{RESULTS_FILE} holds judge {judge}, which run.json does not name (if a rescore was "
                    "interrupted, run the same command again)"
                )


def _summary_problems(summary: Summary, results: Sequence[Result]) -> Iterator[str]:
    by_cell = {(result.judge, result.lang, result.label, result.condition): result for result in results}
    for judge, of_judge in summary.judges.items():
        for name, rate in _summarised_rates(of_judge):
            result = by_cell.get((judge, *name))
            stated = (rate.hits, rate.n, rate.n_unjudged)
            counted = (0, 0, 0) if result is None else (result.n_refused, result.n, result.n_unjudged)
            if stated != counted:
                place = f"{judge} on {' '.join(name)}"
                yield (
                    f"{SUMMARY_FILE} states {_counts(stated)} for {place}, and {RESULTS_FILE} states "
                    f"{_counts(counted)}"
                )


def _summarised_rates(of_judge: JudgeSummary) -> Iterator[tuple[Cell, Rate]]:
    for lang, language in of_judge.languages.items():
        yield (lang, "harmful", "baseline"), language.baseline
        yield (lang, "harmless", "baseline"), language.over_refusal


def _digest_problems(folder: RunFolder, stated: MadeFrom) -> Iterator[str]:
    again = f"; recompute it with: polyrefuse eval rescore {folder.path} (remove {SUMMARY_FILE} before)"
    if hashlib.sha256(read_content(folder.path / RESULTS_FILE)).hexdigest() != stated.results:
        yield f"{RESULTS_FILE} is not what {SUMMARY_FILE} was made from{again}"
    has_verdicts = (folder.path / "verdicts").is_dir()
    if has_verdicts and _verdicts_digest(folder.path, folder.judges()) != stated.verdicts:
        yield f"verdicts/ are not what {SUMMARY_FILE} was made from{again}"
    if (folder.path / "completions").is_dir():
        counted = _answer_counts(folder.path)
        for lang in sorted({*counted, *stated.answers}):
            there, expected = counted.get(lang, {}), stated.answers.get(lang, {})
            for cell in sorted({*there, *expected}):
                if there.get(cell, 0) != expected.get(cell, 0):
                    n, stated_n = there.get(cell, 0), expected.get(cell, 0)
                    yield f"completions/{lang}/{cell} holds {n} answers, and {SUMMARY_FILE} counts {stated_n}"


def _count_problems(folder: RunFolder, results: Sequence[Result]) -> Iterator[str]:
    """Yield in what results differ from verdicts and answers, for runs without a digest of them."""
    answers = _answer_counts(folder.path) if (folder.path / "completions").is_dir() else None
    counted = _verdict_counts(folder) if (folder.path / "verdicts").is_dir() else None
    for result in results:
        stated = (result.n_refused, result.n, result.n_unjudged)
        name = (result.lang, result.label, result.condition)
        if counted is not None:
            there = counted.pop((result.judge, *name), (0, 0, 0))
            if there != stated:
                place = f"{RESULTS_FILE} states {_counts(stated)} for {_name(result)}"
                yield f"{place}, and its verdicts {_counts(there)}"
        if answers is not None:
            n = answers.get(result.lang, {}).get(condition_file_name(result.label, result.condition), 0)
            if n != result.n + result.n_unjudged:
                yield (
                    f"{RESULTS_FILE} counts {result.n + result.n_unjudged} answers for {_name(result)}, and "
                    f"completions/ {n}"
                )
    for judge, *cell in counted or {}:
        yield f"verdicts of {judge} on {' '.join(cell)} are in no result"


def _verdict_counts(folder: RunFolder) -> dict[tuple[str, str, str, str], tuple[int, int, int]]:
    """Return (refused, judged, not judged) by judge, language, label and condition."""
    counts: dict[tuple[str, str, str, str], list[int]] = {}
    for judge in folder.judges():
        for lang in folder.judged_languages(judge):
            for verdict in folder.verdicts(judge, lang):
                cell = counts.setdefault((judge, lang, verdict.label, verdict.condition), [0, 0, 0])
                cell[0] += verdict.refused is True
                cell[1] += verdict.refused is not None
                cell[2] += verdict.refused is None
    return {name: (refused, judged, unjudged) for name, (refused, judged, unjudged) in counts.items()}


def _answer_counts(run: Path) -> dict[str, dict[str, int]]:
    """Return how many whole lines each cell of completions has, by language and name of the cell."""
    counts: dict[str, dict[str, int]] = {}
    for file in _cell_files(run / "completions", "*/*"):
        cell = file.name.removesuffix(BEGUN_ENDING).removesuffix(ENDING)
        counts.setdefault(file.parent.name, {})[cell] = read_content(file).count(b"\n")
    return counts


def _verdicts_digest(run: Path, judges: Sequence[str]) -> str:
    """Return the sha256 of the names and bytes of the verdict files of `judges`."""
    folder, names = run / "verdicts", set(map(safe_name, judges))
    files = [file for file in _cell_files(folder, "*/*/*") if file.parent.parent.name in names]
    return verdicts_digest({file.relative_to(folder).as_posix(): read_content(file) for file in files})


def _cell_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files of cells, without those that a kill left beside a finished one."""
    files = sorted(folder.glob(pattern + ENDING))
    for file in files:
        if not file.is_file():  # a pipe or a device would be read forever
            raise RunFolderError(f"'{file}' is not a file; remove it, or get the run again")
    finished = {file.with_name(file.name.removesuffix(ENDING)) for file in files}
    return [
        file
        for file in files
        if not file.name.endswith(BEGUN_ENDING)
        or file.with_name(file.name.removesuffix(BEGUN_ENDING)) not in finished
    ]


def _name(result: Result) -> str:
    return f"{result.judge} on {result.lang} {result.label} {result.condition}"


def _counts(counts: tuple[int, int, int]) -> str:
    refused, judged, unjudged = counts
    return f"{refused} of {judged} refused (+{unjudged} undecided)"
