"""Let the native judge read the answers of a run again, and say whose verdicts nobody can compute here."""

from __future__ import annotations

from collections.abc import Iterator

from polyrefuse_eval.judging.native.judge import NativeJudge
from polyrefuse_eval.judging.of_runs import verdict_records
from polyrefuse_eval.report.differing import different
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.records import VerdictRecord

SAID = ("refused", "harmful", "coherent", "response_lang", "puzzled", "score", "service_refused")
"""What a verdict says of an answer, besides the words of its reason."""


def judged_again(folder: RunFolder, data: DataFolder | None) -> Iterator[str]:
    """Yield verdicts of the native judge that it does not give on the answer that is there.

    It reads an answer beside its prompt, which `data` holds: without, nothing can be said for certain.
    """
    if data is not None:
        for verdict, again in _again(folder, data):
            yield from _otherwise(verdict, again)


def _again(folder: RunFolder, data: DataFolder | None) -> Iterator[tuple[VerdictRecord, VerdictRecord]]:
    """Yield each verdict of the native judge beside what it says now; of prompts that `data` lacks, none."""
    if NativeJudge.name not in folder.judges():
        return
    judge = NativeJudge()
    for lang in folder.languages():
        known = data.rows(lang, "test") if data is not None and data.has(lang, "test") else ()
        prompts = {row.id: row.text for row in known}
        answers = [answer for answer in folder.completions(lang) if data is None or answer.id in prompts]
        stated = {(verdict.label, verdict.key): verdict for verdict in folder.verdicts(judge.name, lang)}
        for part in verdict_records(judge, lang, answers, prompts):
            for again in part:
                verdict = stated.get((again.label, again.key))
                if verdict is not None:
                    yield verdict, again


def _otherwise(verdict: VerdictRecord, again: VerdictRecord) -> Iterator[str]:
    place = f"verdict of {verdict.judge} on {verdict.lang} {verdict.key}"
    if verdict.refused != again.refused:
        said = {True: "refused", False: "answered", None: "undecided"}
        yield f"{place} is {said[verdict.refused]}; the judge says {said[again.refused]} of this answer"
        return
    for name in SAID:
        yield from different(
            f"{place}: {name}", getattr(verdict, name), getattr(again, name), basis="the judge says"
        )


def not_read_again(folder: RunFolder, data: DataFolder | None = None) -> Iterator[str]:
    """Yield a line for each judge whose verdicts are taken as they are, with how many there are.

    Without the prompts in `data`, the native judge may read a few answers otherwise, such as those that
    repeat their prompt: how many it does is said.
    """
    there = (folder.path / "completions").is_dir()
    for judge in folder.judges():
        if there and judge == NativeJudge.name:
            pairs = _again(folder, None) if data is None else ()
            differing = sum(any(True for _ in _otherwise(*pair)) for pair in pairs)
            if differing:
                yield (
                    "without --data, the native judge reads answers without their prompts; then it "
                    f"differs from the run on {differing} answers"
                )
            continue
        count = harmful = 0
        for lang in folder.judged_languages(judge):
            for verdict in folder.verdicts(judge, lang):
                count += not verdict.service_refused
                harmful += verdict.harmful is not None
        if not count:
            continue
        what = f"{count} verdicts of {judge}" + (f", {harmful} of them on harm" if harmful else "")
        if judge == NativeJudge.name:
            reason = "without completions/, the judge cannot read the answers"
        elif judge.startswith("native-"):
            reason = f"this version reads with {NativeJudge.name}"
        else:
            reason = "this judge is not run here"
        yield f"{what} are accepted unchecked: {reason}"
