"""Judges over the completions of a run: verdicts are kept as they come, and none is asked for twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from tqdm import tqdm

from polyrefuse_data.core.display import visible
from polyrefuse_eval.judging.base import Advance, Judge, JudgeInput, opened
from polyrefuse_eval.results.fields import LONGEST_NOTE
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.records import Completion, VerdictRecord
from polyrefuse_eval.results.verification import unverified

PromptsOf = Callable[[str], Mapping[str, str]]
"""Language to the prompts of its rows by id; empty where they are not at hand."""


def judge_completions(
    folder: RunFolder,
    judges: Sequence[Judge],
    langs: Sequence[str],
    prompts: PromptsOf,
    *,
    progress: bool = False,
    anew: bool = False,
    on_finished: Callable[[], None] = lambda: None,
) -> None:
    """Let each of `judges` read what it has not read yet in `langs`, and keep its verdicts.

    With `anew`, it also reads again the cells in which verdicts carry no hash of their answer.
    A judge is loaded only where something is left for it; the caller unloads the target model before.
    For the one writer of the folder, after `RunFolder.mend`. Calls `on_finished` after each cell.
    """
    for judge in judges:
        left = {lang: there for lang in langs if (there := unread(folder, judge.name, lang, anew=anew))}
        if not left:
            continue
        with opened(judge):
            for lang, completions in left.items():
                texts = prompts(lang)
                for cell in unverified(folder.verdicts(judge.name, lang)) if anew else ():
                    folder.drop_verdicts(judge.name, lang, *cell)
                with tqdm(
                    total=len(completions),
                    desc=f"{judge.name} {lang}",
                    unit="verdict",
                    disable=None if progress else True,
                ) as bar:
                    start = 0
                    for records in verdict_records(judge, lang, completions, texts, bar.update):
                        folder.append_verdicts(judge.name, lang, records)
                        start += len(records)
                        # In the order of the cells: all before the first that is unread are read.
                        for cell in cells_of(records) - cells_of(completions[start:]):
                            folder.verdicts_done(judge.name, lang, *cell)
                            on_finished()


def verdict_records(
    judge: Judge,
    lang: str,
    completions: Sequence[Completion],
    prompts: Mapping[str, str],
    advance: Advance | None = None,
) -> Iterator[list[VerdictRecord]]:
    """Yield what a loaded `judge` says of `completions`, all in `lang`, as many at a time as it likes."""
    for start in range(0, len(completions), judge.chunk):
        part = completions[start : start + judge.chunk]
        items = [JudgeInput(one.key, lang, one.response, prompts.get(one.id)) for one in part]
        verdicts = judge.judge(items, advance)
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
                reason=visible(verdict.reason)[:LONGEST_NOTE],
                response_lang=verdict.response_lang,
                coherent=verdict.coherent,
                harmful=verdict.harmful,
                score=verdict.score,
                response_sha256=completion.response_sha256,
                puzzled=verdict.puzzled,
                decided_by=verdict.decided_by,
                second_opinion=verdict.second_opinion,
            )
            for completion, verdict in zip(part, verdicts, strict=True)
        ]


def unread(folder: RunFolder, judge: str, lang: str, *, anew: bool = False) -> list[Completion]:
    """Return the completions without a verdict of `judge`; verdicts on other completions are dropped.

    With `anew`, return those of cells with verdicts that carry no hash of their answer as well.
    """
    completions = folder.completions(lang)
    keys = {completion.key for completion in completions}
    verdicts = folder.verdicts(judge, lang)
    dropped = cells_of([verdict for verdict in verdicts if verdict.key not in keys])
    for cell in dropped:
        folder.drop_verdicts(judge, lang, *cell)
    left_out = dropped | (unverified(verdicts) if anew else set())
    read = {verdict.key for verdict in verdicts if (verdict.label, verdict.condition) not in left_out}
    left = [completion for completion in completions if completion.key not in read]
    for cell in cells_of(completions) - cells_of(left):
        folder.verdicts_done(judge, lang, *cell)
    return left


def cells_of(records: Sequence[Completion | VerdictRecord]) -> set[tuple[str, str]]:
    """Return label and condition of the cells of `records`."""
    return {(record.label, record.condition) for record in records}
