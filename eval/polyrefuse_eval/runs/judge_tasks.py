"""The task of a judge: read the completions of a run in one language. Imports torch for models alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from polyrefuse_data.cluster.tasks import ModelSlot
from polyrefuse_data.core.progress import Progress
from polyrefuse_eval.errors import JudgeError
from polyrefuse_eval.judging.base import Judge
from polyrefuse_eval.judging.of_runs import verdict_records
from polyrefuse_eval.processes import set_torch_threads
from polyrefuse_eval.results.records import Completion, VerdictRecord


@dataclass(frozen=True, eq=False, kw_only=True)
class JudgeCompletions:
    """Let the judge called `name` read completions in a language; `prompts` are by the id of their row.

    A judge that is a model computes with `threads` of torch; None for other judges.
    """

    judge: Callable[[], Judge]
    name: str
    threads: int | None
    lang: str
    completions: Sequence[Completion]
    prompts: Mapping[str, str]

    def __call__(self, slot: ModelSlot) -> Iterator[list[VerdictRecord]]:
        """Yield the verdicts on as many completions as the judge takes at a time."""
        if self.threads is not None:
            set_torch_threads(self.threads)
        judge: Judge = slot.get(judge_key(self.name), self._load, lambda judge: judge.close())
        step = f"{self.name} {self.lang}" if slot.progress else None
        with Progress(len(self.completions), "verdicts", step) as progress:
            yield from verdict_records(judge, self.lang, self.completions, self.prompts, progress.advance)

    def _load(self) -> Judge:
        judge = self.judge()
        if judge.name != self.name:
            raise JudgeError(f"the judge that was loaded is {judge.name}, and that of the run {self.name}")
        judge.load()
        return judge


def judge_key(name: str) -> str:
    """Return the key of a judge in a slot."""
    return f"judge {name}"
