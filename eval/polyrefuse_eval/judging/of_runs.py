"""Judge the completions of a run: verdicts are written as they come, and no completion is read twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from polyrefuse_data.core.progress import Progress
from polyrefuse_eval.judging.base import UNFINISHED, Advance, Judge, JudgeInput, Verdict, opened
from polyrefuse_eval.results.fields import as_note
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.records import Completion, VerdictRecord
from polyrefuse_eval.results.verification import unverified

PromptsOf = Callable[[str], Mapping[str, str]]
"""Language to its prompts by the id of their row; empty where they are not available."""


def judge_completions(
    folder: RunFolder,
    judges: Sequence[Judge],
    langs: Sequence[str],
    prompts: PromptsOf,
    *,
    progress: bool = False,
    reread_unverified: bool = False,
    on_finished: Callable[[], None] = lambda: None,
) -> None:
    """Let each of `judges` read the completions in `langs` that it has not read, and write its verdicts.

    With `reread_unverified`, it also reads again the conditions in which verdicts carry no hash of their
    answer; those verdicts stay until all of the condition are there. A judge without anything to read is not
    loaded. For the one writer of the folder, after `RunFolder.mend`. Calls `on_finished` whenever
    verdicts were written.
    """
    for judge in judges:
        by_lang = {
            lang: rest
            for lang in langs
            if (rest := unread(folder, judge.name, lang, reread_unverified=reread_unverified))
        }
        if not by_lang:
            continue
        with opened(judge):
            for lang, completions in by_lang.items():
                old = unverified(folder.verdicts(judge.name, lang)) if reread_unverified else set()
                writer = VerdictWriter(folder, judge.name, lang, completions, replaced=old)
                step = f"{judge.name} {lang}" if progress else None
                with Progress(len(completions), "verdicts", step) as shown:
                    for records in verdict_records(judge, lang, completions, prompts(lang), shown.advance):
                        writer.write(records)
                        on_finished()


class VerdictWriter:
    """Write the verdicts of `judge` on `completions` in `lang` as they come.

    Those of the conditions `replaced`, which take the place of older ones, are written when all are there.
    """

    def __init__(
        self,
        folder: RunFolder,
        judge: str,
        lang: str,
        completions: Sequence[Completion],
        *,
        replaced: Collection[tuple[str, str]] = (),
    ) -> None:
        self._folder = folder
        self._judge = judge
        self._lang = lang
        self._unread = Counter((completion.label, completion.condition) for completion in completions)
        self._replacing: dict[tuple[str, str], list[VerdictRecord]] = {cell: [] for cell in replaced}

    def write(self, records: Sequence[VerdictRecord]) -> None:
        """Append `records`, and finish the conditions that are read to their end."""
        appended: list[VerdictRecord] = []
        for record in records:
            self._replacing.get((record.label, record.condition), appended).append(record)
        self._folder.append_verdicts(self._judge, self._lang, appended)
        self._unread.subtract((record.label, record.condition) for record in records)
        for label, condition in conditions_of(records):
            if self._unread[label, condition]:
                continue
            if (label, condition) in self._replacing:
                self._folder.mark_incomplete()  # its summary is made from the older ones
                self._folder.write_verdicts(self._judge, self._lang, self._replacing[label, condition])
            else:
                self._folder.finish_verdicts(self._judge, self._lang, label, condition)


def verdict_records(
    judge: Judge,
    lang: str,
    completions: Sequence[Completion],
    prompts: Mapping[str, str],
    advance: Advance | None = None,
) -> Iterator[list[VerdictRecord]]:
    """Yield the verdicts of a loaded `judge` on `completions`, all in `lang`, `judge.chunk` at a time.

    A refusal of the service is one to every judge, an answer whose reasoning never ended undecided; both are
    given to none.
    """
    for start in range(0, len(completions), judge.chunk):
        part = completions[start : start + judge.chunk]
        settled = [_settled(completion) for completion in part]
        items = [
            JudgeInput(
                id=completion.key,
                lang=lang,
                response=completion.response,
                prompt=prompts.get(completion.id),
            )
            for completion, verdict in zip(part, settled, strict=True)
            if verdict is None
        ]
        if advance is not None and len(items) < len(part):
            advance(len(part) - len(items))
        read = iter(judge.judge(items, advance) if items else ())
        verdicts = [verdict or next(read) for verdict in settled]
        yield [
            VerdictRecord(
                key=completion.key,
                id=completion.id,
                group=completion.group,
                lang=lang,
                label=completion.label,
                condition=completion.condition,
                judge=judge.name,
                refused=verdict.refused,
                reason=as_note(verdict.reason),
                response_lang=verdict.response_lang,
                coherent=verdict.coherent,
                harmful=verdict.harmful,
                score=verdict.score,
                response_sha256=completion.response_sha256,
                puzzled=verdict.puzzled,
                decided_by=verdict.decided_by,
                second_opinion=verdict.second_opinion,
                service_refused=_is_service_refusal(completion),
            )
            for completion, verdict in zip(part, verdicts, strict=True)
        ]


def _settled(completion: Completion) -> Verdict | None:
    """Return the verdict on a completion that holds no words of an answer, None where a judge must read it.

    A service may refuse in the model's place, and reasoning may be cut before an answer.
    """
    if _is_service_refusal(completion) and completion.service is not None:
        return Verdict(refused=True, reason=f"refused by the service: {completion.service.refusal}")
    if completion.reasoning is not None and not completion.response.strip():
        return Verdict(refused=None, reason=UNFINISHED)
    return None


def _is_service_refusal(completion: Completion) -> bool:
    return completion.service is not None and completion.service.refusal is not None


def unread(folder: RunFolder, judge: str, lang: str, *, reread_unverified: bool = False) -> list[Completion]:
    """Return the completions without a verdict of `judge`; remove verdicts on other completions.

    With `reread_unverified`, also return those of conditions with verdicts without a hash of their answer.
    """
    completions = folder.completions(lang)
    keys = {completion.key for completion in completions}
    verdicts = folder.verdicts(judge, lang)
    stale = conditions_of([verdict for verdict in verdicts if verdict.key not in keys])
    for condition in stale:
        folder.drop_verdicts(judge, lang, *condition)
    ignored = stale | (unverified(verdicts) if reread_unverified else set())
    read = {verdict.key for verdict in verdicts if (verdict.label, verdict.condition) not in ignored}
    remaining = [completion for completion in completions if completion.key not in read]
    for condition in conditions_of(completions) - conditions_of(remaining):
        folder.finish_verdicts(judge, lang, *condition)
    return remaining


def conditions_of(records: Sequence[Completion | VerdictRecord]) -> set[tuple[str, str]]:
    """Return the labels and conditions of `records`."""
    return {(record.label, record.condition) for record in records}
