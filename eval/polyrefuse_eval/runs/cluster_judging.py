"""Verdicts of judges that are models, read elsewhere: says what is unread, and keeps what comes back."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from polyrefuse_data.cluster.dispatch import Job, Outcome
from polyrefuse_eval.judging.of_runs import cells_of, unread
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.records import VerdictRecord
from polyrefuse_eval.results.timings import Failure, write_failures
from polyrefuse_eval.runs.local_run import prompts_by_id
from polyrefuse_eval.runs.plan import RunPlan
from polyrefuse_eval.runs.progress import GridProgress
from polyrefuse_eval.runs.tasks import JudgeAnswers


@dataclass
class DrivenJudging:
    """The judges of `plan` that are models: `start` gives the jobs, one a judge and language."""

    plan: RunPlan
    threads: int
    progress: GridProgress
    stack: ExitStack
    """Holds the lock of the folder."""
    failures: list[Failure] = field(default_factory=list)

    def start(self) -> list[Job]:
        """Return the jobs for what is unread."""
        folder = RunFolder(self.plan.out)
        self.stack.enter_context(folder.locked())
        folder.mend()
        jobs = []
        for judge, spec in self.plan.judge_specs.items():
            for lang in self.plan.settings.langs:
                completions = unread(folder, judge, lang)
                if completions:
                    prompts = prompts_by_id(self.plan.data, lang)
                    work = JudgeAnswers(spec, judge, self.threads, lang, completions, prompts)
                    jobs.append(Job(f"{self.plan.name}: {judge} {lang}", f"judge {judge}", work))
                    self.progress.expect(1, len(completions))
        return jobs

    def take(self, outcome: Outcome) -> list[Job]:
        """Keep the verdicts that a job brought."""
        self.progress.end(failed=outcome.done is None)
        if outcome.done is None:
            self.failures.append(
                Failure(
                    outcome.job.name.removeprefix(f"{self.plan.name}: "), str(outcome.error), outcome.tries
                )
            )
            return []
        records: list[VerdictRecord] = outcome.done.result
        self.progress.advance(len(records))
        folder, lang, judge = RunFolder(self.plan.out), records[0].lang, records[0].judge
        folder.append_verdicts(judge, lang, records)
        for cell in cells_of(records):
            folder.verdicts_done(judge, lang, *cell)
        self.plan.on_finished()
        return []

    def close(self) -> None:
        """Tell in the folder what failed."""
        write_failures(self.plan.out, self.failures)
