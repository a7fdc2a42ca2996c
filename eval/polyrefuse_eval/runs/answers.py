"""The completions of one run: from what is missing to tasks, and from their outcomes to files.

Imports no torch: `model_answers` adds what a model needs that is loaded here, `endpoint_answers` what a
service needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from polyrefuse_data.cluster.tasks import Computation, Outcome, Task
from polyrefuse_data.core.schema import Row
from polyrefuse_eval.results.baseline_cache import BaselineCache, prompt_hash
from polyrefuse_eval.results.folder import ANSWERED_FILE, RUN_FILE, write_json
from polyrefuse_eval.results.growth import open_run
from polyrefuse_eval.results.prompt_draw import limited
from polyrefuse_eval.results.records import Completion
from polyrefuse_eval.results.settings import BASELINE_CONDITION, LABELS, Measurement, baselines, grid
from polyrefuse_eval.results.subset_files import write_prompts
from polyrefuse_eval.results.timings import Timing
from polyrefuse_eval.runs.dry_run import PlannedMeasurement, planned_measurements
from polyrefuse_eval.runs.measured_prompts import Identity, MeasuredPrompts
from polyrefuse_eval.runs.plan import RunPlan, signature_of
from polyrefuse_eval.runs.progress import GridProgress
from polyrefuse_eval.runs.stage import Stage


class AnswerStage(Stage):
    """Make the completions of the run `plan`; `key` is that of the model in tasks."""

    def __init__(self, plan: RunPlan, progress: GridProgress) -> None:
        super().__init__(plan, progress)
        self._cache: BaselineCache | None = None
        self._sources: list[str] | None = None
        """Sources of all directions; None until all measurements are known."""
        self._planned: list[PlannedMeasurement] = []
        """Measurements whose tasks are not known yet."""
        self._have: dict[str, set[str]] = {}
        """Language to the keys of its completions."""
        self._missing: Counter[str] = Counter()
        """Language to how many of its measurements are not complete."""
        self._tokens: Counter[Measurement] = Counter()
        """Tokens that were generated for a measurement."""
        self._baselines: dict[str, dict[str, str]] = {lang: {} for lang in plan.settings.langs}
        """Language to the prompts of its baselines by the key of their completion."""
        self._rows: dict[tuple[str, str], list[Row]] = {}
        """Language and label to test prompts."""

    @property
    def key(self) -> str:
        """Key of the model in tasks."""
        return f"run {self.plan.out}"

    def start(self) -> list[Task]:
        """Return the first tasks: of a run that has begun, all that is known to be missing.

        The plan is one that has `grown`, so a run that is there with a request is of the same model.
        """
        self._foresee(planned_measurements(self.plan))
        identity = self._known_identity()
        if identity is not None:
            return self._open(identity)
        return [self._task("model", self._identifying(), first=True)]

    def succeeded(self, outcome: Outcome) -> list[Task]:
        """Write what a task made, and return the tasks that it makes possible."""
        tasks = []
        if isinstance(outcome.result, Identity):
            tasks = self._open(outcome.result)
        elif isinstance(outcome.task.compute, MeasuredPrompts):
            self._add_completions(outcome.task.compute, outcome)
        if outcome.load_seconds:
            self.time(Timing("load", outcome.load_seconds))
        return tasks

    def _known_identity(self) -> Identity | None:
        """Return the identity of the model in a run that has begun; None where it must be found."""
        begun = (self.plan.out / RUN_FILE).is_file() and self.plan.request is not None
        if not begun or self.folder.request is None:
            return None
        signature = self.folder.signature
        return Identity(signature["model"], signature["versions"])

    def _identifying(self) -> Computation:
        """Return what finds the identity of the model."""
        raise NotImplementedError

    def _answering(self, measurement: Measurement, rows: tuple[Row, ...]) -> MeasuredPrompts:
        """Return what answers the prompts `rows` of a measurement."""
        raise NotImplementedError

    def _task(self, name: str, compute: Computation, *, first: bool = False, size: int | None = None) -> Task:
        return Task(name=self.task_name(name), model=self.key, compute=compute, first=first, size=size)

    def _open(self, identity: Identity) -> list[Task]:
        """Open the run of this model; return the tasks for its baselines, and what else it begins with."""
        self._open_folder(identity)
        self._foresee_others()
        return self._answer_tasks(baselines(self.plan.settings)) + self._all_answers([])

    def _open_folder(self, identity: Identity) -> None:
        """Start or resume the run in its folder, lock it, and look what is there."""
        plan, settings = self.plan, self.plan.settings
        signature = signature_of(identity.signature, plan.data, settings, plan.judge_names, identity.versions)
        open_run(plan.out, signature, plan.request)
        self.lock()
        self.folder.mark_incomplete()
        for lang in settings.langs:
            self._have[lang] = {completion.key for completion in self.folder.completions(lang)}
        tested = [self._test_rows(lang, label) for lang in settings.langs for label in LABELS]
        write_prompts(
            self.folder,
            (row for rows in tested for row in limited(rows, settings.n_test, settings.test_seed)),
        )

    def _all_answers(self, sources: Sequence[str]) -> list[Task]:
        """Return the tasks of all measurements but the baselines, with the directions of `sources`."""
        settings = self.plan.settings
        self._foresee([])
        measurements = [
            measurement
            for lang in settings.langs
            for measurement in grid(lang, sources, settings)
            if measurement.condition != BASELINE_CONDITION
        ]
        tasks = self._answer_tasks(measurements)
        self._sources = list(sources)
        for lang in settings.langs:
            self._note_complete(lang)
        return tasks

    def _foresee(self, planned: Sequence[PlannedMeasurement]) -> None:
        """Count what is missing of `planned` in the progress, until its tasks are known."""
        self._planned = [row for row in planned if row.answered < row.prompts]
        answers = sum(row.prompts - row.answered for row in self._planned)
        self.progress.foresee(str(self.plan.out), len(self._planned), answers)

    def _foresee_others(self) -> None:
        """Count only what waits for directions: the tasks of the baselines are known now."""
        self._foresee([row for row in self._planned if row.measurement.condition != BASELINE_CONDITION])

    def _answer_tasks(self, measurements: Sequence[Measurement]) -> list[Task]:
        """Return the tasks of those of `measurements` that are not complete."""
        tasks = []
        for measurement in measurements:
            if not self._test_rows(measurement.lang, measurement.label):
                continue  # a gap of the data, said at the start
            compute = self._take_from_cache(self._computation(measurement))
            missing = len(compute.keys - self._have[measurement.lang])
            if missing:
                self._missing[measurement.lang] += 1
                tasks.append(self._task(str(measurement), compute, size=missing))
            else:
                self._finish(measurement)
        self.progress.expect(tasks, complete=len(measurements) - len(tasks))
        return tasks

    def _computation(self, measurement: Measurement) -> MeasuredPrompts:
        lang = measurement.lang
        of_label = self._test_rows(lang, measurement.label)
        rows = tuple(limited(of_label, measurement.limit, self.plan.settings.test_seed))
        compute = self._answering(measurement, rows)
        if measurement.condition == BASELINE_CONDITION:
            self._baselines[lang].update((compute.key(row), row.text) for row in compute.rows)
        return replace(compute, done=compute.keys & self._have[lang])

    def _test_rows(self, lang: str, label: str) -> list[Row]:
        """Return the test prompts; none where the data have a gap."""
        if (lang, label) not in self._rows:
            rows = self.plan.data.rows(lang, "test")
            self._rows[lang, label] = [row for row in rows if row.label == label]
        return self._rows[lang, label]

    def _take_from_cache(self, compute: MeasuredPrompts) -> MeasuredPrompts:
        """Write the baselines that another run made of the same prompts; return what remains."""
        lang = compute.measurement.lang
        if compute.measurement.condition != BASELINE_CONDITION or self._cache is None:
            return compute
        if compute.done == compute.keys:
            return compute
        known = self._cache.load(lang)
        cached: list[Completion] = []
        remaining: list[Row] = []
        for row in compute.rows:
            answer = known.get(prompt_hash(row.text))
            if answer is None:
                remaining.append(row)
            elif compute.key(row) not in compute.done:
                cached.append(
                    compute.completion(row, answer.response, answer.n_tokens, answer.ended, answer.reasoning)
                )
        self._write(lang, cached)
        return replace(compute, rows=tuple(remaining))

    def _add_completions(self, compute: MeasuredPrompts, outcome: Outcome) -> None:
        measurement = compute.measurement
        completions = [completion for part in outcome.result for completion in part]
        self._write(measurement.lang, completions)
        self._tokens[measurement] += sum(completion.n_tokens or 0 for completion in completions)
        if not outcome.ended:
            return
        self._finish(measurement)
        place = (measurement.lang, measurement.label, measurement.condition.name)
        size, tokens = outcome.task.size or 0, self._tokens[measurement]
        self.time(Timing("cell", outcome.seconds, *place, size, tokens))
        self._missing[measurement.lang] -= 1
        self._note_complete(measurement.lang)

    def _write(self, lang: str, completions: Sequence[Completion]) -> None:
        self.folder.append(lang, completions)
        self._have[lang] |= {completion.key for completion in completions}

    def _finish(self, measurement: Measurement) -> None:
        self.folder.finish_completions(measurement.lang, measurement.label, measurement.condition.name)
        self.plan.on_finished()

    def _completions(self) -> Iterator[Completion]:
        """Yield all completions that are there."""
        for lang in self.plan.settings.langs:
            yield from self.folder.completions(lang)

    def _note_complete(self, lang: str) -> None:
        """Cache the baselines of a language that is complete, and note when all languages are.

        Not before: a run that is resumed must find the cache as it left it.
        """
        if self._sources is None or self._missing[lang]:
            return
        if self._cache is not None:
            self._cache.add_completions(lang, self.folder.completions(lang), self._baselines[lang])
        if not self._missing.total():
            counts = {lang: len(keys) for lang, keys in self._have.items()}
            write_json(self.plan.out / ANSWERED_FILE, {"answers": counts, "directions": self._sources})
