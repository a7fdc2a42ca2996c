"""Judges over the completions of a run: verdicts are kept as they come, and none is asked for twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tqdm import tqdm

from polyrefuse_eval.judges.base import Judge, JudgeInput, opened
from polyrefuse_eval.records import Completion, VerdictRecord
from polyrefuse_eval.results import RunFolder

PromptsOf = Callable[[str], Mapping[str, str]]
"""Language to the prompts of its rows by id; empty where they are not at hand."""


def judge_completions(
    folder: RunFolder,
    judges: Sequence[Judge],
    langs: Sequence[str],
    prompts: PromptsOf,
    *,
    progress: bool = False,
) -> None:
    """Let each of `judges` read what it has not read yet in `langs`, and keep its verdicts.

    A judge is loaded only where something is left for it; the caller unloads the target model before.
    For the one writer of the folder, after `RunFolder.mend`.
    """
    for judge in judges:
        left = {lang: found for lang in langs if (found := _unread(folder, judge.name, lang))}
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
                    for start in range(0, len(completions), judge.chunk):
                        part = completions[start : start + judge.chunk]
                        items = [JudgeInput(one.key, lang, one.response, texts.get(one.id)) for one in part]
                        verdicts = judge.judge(items, bar.update)
                        records = [
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
                        folder.append_verdicts(judge.name, lang, records)
                        # In the order of the cells: all before the first that is unread are read.
                        begun = _cells(completions[start + judge.chunk :])
                        for cell in _cells(part) - begun:
                            folder.verdicts_done(judge.name, lang, *cell)


def _unread(folder: RunFolder, judge: str, lang: str) -> list[Completion]:
    """Return the completions without a verdict of `judge`; verdicts on other completions are dropped."""
    completions = folder.completions(lang)
    keys = {completion.key for completion in completions}
    verdicts = folder.verdicts(judge, lang)
    dropped = _cells([verdict for verdict in verdicts if verdict.key not in keys])
    for cell in dropped:
        folder.drop_verdicts(judge, lang, *cell)
    read = {verdict.key for verdict in verdicts if (verdict.label, verdict.condition) not in dropped}
    unread = [completion for completion in completions if completion.key not in read]
    for cell in _cells(completions) - _cells(unread):
        folder.verdicts_done(judge, lang, *cell)
    return unread


def _cells(records: Sequence[Completion | VerdictRecord]) -> set[tuple[str, str]]:
    """Return label and condition of the cells of `records`."""
    return {(record.label, record.condition) for record in records}
