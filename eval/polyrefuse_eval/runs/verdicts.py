"""The verdicts of one run: from what is missing to tasks, and from their outcomes to files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from polyrefuse_data.cluster.tasks import Outcome, Task
from polyrefuse_eval.judging.base import Judge
from polyrefuse_eval.judging.of_runs import VerdictWriter, unread
from polyrefuse_eval.runs.judge_tasks import JudgeCompletions, judge_key
from polyrefuse_eval.runs.plan import RunPlan
from polyrefuse_eval.runs.progress import GridProgress
from polyrefuse_eval.runs.stage import Stage


class VerdictStage(Stage):
    """Let `judges` read what they have not read of the run `plan`: one task for each judge and language."""

    def __init__(
        self, plan: RunPlan, progress: GridProgress, threads: int | None, judges: Sequence[Judge]
    ) -> None:
        super().__init__(plan, progress)
        self._threads = threads
        self._judges = judges
        self._writers: dict[Task, VerdictWriter] = {}

    def start(self) -> list[Task]:
        """Return the tasks for all that is unread."""
        self.lock()
        names = self.folder.judges()
        added = [judge.name for judge in self._judges if judge.name not in names]
        if added:
            self.folder.set_judges([*names, *added])
        for judge in self._judges:
            for lang in self.plan.settings.langs:
                completions = unread(self.folder, judge.name, lang)
                if completions:
                    task = Task(
                        name=self.task_name(f"{judge.name} {lang}"),
                        model=judge_key(judge.name),
                        compute=JudgeCompletions(
                            judge=self.plan.judge_specs.get(judge.name, partial(_same, judge)),
                            name=judge.name,
                            threads=self._threads,
                            lang=lang,
                            completions=completions,
                            prompts=self.plan.data.texts_by_id(lang, "test"),
                        ),
                        size=len(completions),
                    )
                    self._writers[task] = VerdictWriter(self.folder, judge.name, lang, completions)
        self.progress.expect(self._writers)
        return list(self._writers)

    def succeeded(self, outcome: Outcome) -> list[Task]:
        """Write the verdicts that a judge gave."""
        for records in outcome.result:
            self._writers[outcome.task].write(records)
        self.plan.on_finished()
        return []


def _same(judge: Judge) -> Judge:
    return judge
