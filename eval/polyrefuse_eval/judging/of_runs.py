"""Judges over the completions of a run: verdicts are kept as they come, and none is asked for twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from tqdm import tqdm

from polyrefuse_eval.judging.base import Advance, Judge, JudgeInput, opened
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.records import Completion, VerdictRecord

PromptsOf = Callable[[str], Mapping[str, str]]
"""Language to the prompts of its rows by id; empty where they are not at hand."""


def judge_completions(
    folder: RunFolder,
    judges: Sequence[Judge],
    langs: Sequence[str],
    prompts: PromptsOf,
    *,
    progress: bool = False,
    on_finished: Callable[[], None] = lambda: None,
) -> None:
    """Let each of `judges` read what it has not read yet in `langs`, and keep its verdicts.

    A judge is loaded only where something is left for it; the caller unloads the target model before.
    For the one writer of the folder, after `RunFolder.mend`. Calls `on_finished` after each cell.
    """
    for judge in judges:
        left = {lang: found for lang in langs if (found := unread(folder, judge.name, lang))}
        if not left:
            continue
        with opened(judge):
            for lang, completions in left.items():
                texts = prompts(lang)
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
                one.key,
                one.id,
                one.group,
                lang,
                one.label,
                one.condition,
                judge.name,
                verdict.refused,
                verdict.reason,
                verdict.response_lang,
                verdict.coherent,
                verdict.harmful,
                verdict.score,
            )
            for one, verdict in zip(part, verdicts, strict=True)
        ]


def unread(folder: RunFolder, judge: str, lang: str) -> list[Completion]:
    """Return the completions without a verdict of `judge`; verdicts on other completions are dropped."""
    completions = folder.completions(lang)
    keys = {completion.key for completion in completions}
    verdicts = folder.verdicts(judge, lang)
    dropped = cells_of([verdict for verdict in verdicts if verdict.key not in keys])
    for cell in dropped:
        folder.drop_verdicts(judge, lang, *cell)
    read = {verdict.key for verdict in verdicts if (verdict.label, verdict.condition) not in dropped}
    left = [completion for completion in completions if completion.key not in read]
    for cell in cells_of(completions) - cells_of(left):
        folder.verdicts_done(judge, lang, *cell)
    return left


def cells_of(records: Sequence[Completion | VerdictRecord]) -> set[tuple[str, str]]:
    """Return label and condition of the cells of `records`."""
    return {(record.label, record.condition) for record in records}
