"""The completions of one run: from what is missing to tasks, and from their outcomes to files.

Refusal tokens and directions come first, and with them the baselines, which need no direction; then all other
measurements, in any order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from polyrefuse_data.cluster.tasks import Computation, Outcome, Task
from polyrefuse_data.core.schema import Row
from polyrefuse_eval.directions.finder import control_file, direction_file
from polyrefuse_eval.errors import ChatModelError, DirectionError
from polyrefuse_eval.models.interventions import EditDirection
from polyrefuse_eval.models.spec import ModelSpec
from polyrefuse_eval.processes import world_size
from polyrefuse_eval.results.baseline_cache import BaselineCache, prompt_hash
from polyrefuse_eval.results.folder import ANSWERED_FILE, RUN_FILE, write_json
from polyrefuse_eval.results.growth import open_run
from polyrefuse_eval.results.records import Completion
from polyrefuse_eval.results.settings import (
    BASELINE_CONDITION,
    LABELS,
    Measurement,
    baselines,
    grid,
)
from polyrefuse_eval.results.sources import SHUFFLED
from polyrefuse_eval.results.subset_files import write_prompts
from polyrefuse_eval.results.timings import Timing
from polyrefuse_eval.runs.plan import RunPlan, signature_of
from polyrefuse_eval.runs.progress import GridProgress
from polyrefuse_eval.runs.run_directions import directions_of, search_of
from polyrefuse_eval.runs.stage import Stage
from polyrefuse_eval.runs.tasks import (
    AnswerPrompts,
    CheckPrompts,
    DirectionFiles,
    FindDirection,
    IdentifyModel,
    Identity,
    MeasuredPrompts,
    ModelLoader,
    edits_of,
    long_prompts,
    take_directions,
    write_files,
)


class AnswerStage(Stage):
    """Make the completions of the run `plan` with `threads` of torch."""

    def __init__(self, plan: RunPlan, progress: GridProgress, threads: int) -> None:
        super().__init__(plan, progress)
        self.loader = ModelLoader(load=plan.load, key=f"run {plan.out}", threads=threads)
        self._cache: BaselineCache | None = None
        self._searched: set[str] = set()
        """Languages whose directions were found, or cannot be; and the control."""
        self._without: dict[str, str] = {}
        """Languages that give no direction, and why."""
        self._control_asked = False
        self._sources: list[str] | None = None
        """Sources of all directions; None until all measurements are known."""
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

    def start(self) -> list[Task]:
        """Return the first tasks: of a run that has begun, all that is known to be missing.

        The plan is one that has `grown`, so a run that is there with a request is of the same model.
        """
        if isinstance(self.plan.load, ModelSpec):
            spec = self.plan.load.settled()
            self.loader = replace(self.loader, load=spec, key=spec.key)
        begun = (self.plan.out / RUN_FILE).is_file() and self.plan.request is not None
        if begun and self.folder.request is not None:
            signature = self.folder.signature
            return self._open(Identity(signature["model"], signature["versions"]))
        return [self._task("model", self._identifying(), first=True)]

    def _identifying(self) -> Computation:
        """Return what finds the identity of the model."""
        return IdentifyModel(self.loader)

    def succeeded(self, outcome: Outcome) -> list[Task]:
        """Write what a task made, and return the tasks that it makes possible."""
        compute, tasks = outcome.task.compute, []
        if isinstance(outcome.result, Identity):
            tasks = self._open(outcome.result)
        elif isinstance(compute, FindDirection):
            self.time(Timing("direction", outcome.seconds, lang=compute.lang))
            tasks = self._add_direction(compute, outcome.result)
        elif isinstance(compute, MeasuredPrompts):
            self._add_completions(compute, outcome)
        if outcome.load_seconds:
            self.time(Timing("load", outcome.load_seconds))
        return tasks

    def failed(self, outcome: Outcome) -> None:
        """Record what failed; raises `ChatModelError` where the model cannot be had or read a prompt."""
        if isinstance(outcome.task.compute, IdentifyModel | CheckPrompts):
            raise ChatModelError(str(outcome.error))
        super().failed(outcome)

    def _task(self, name: str, compute: Computation, *, first: bool = False, size: int | None = None) -> Task:
        return Task(name=self.task_name(name), model=self.loader.key, compute=compute, first=first, size=size)

    def _open(self, identity: Identity) -> list[Task]:
        """Open the run of this model; return the tasks for its directions and baselines."""
        plan, settings = self.plan, self.plan.settings
        if plan.direction_source is not None:
            plan.direction_source.check_model(identity.signature)
        signature = signature_of(identity.signature, plan.data, settings, plan.judge_names, identity.versions)
        open_run(plan.out, signature, plan.request)
        self.lock()
        self.folder.mark_incomplete()
        self.loader = replace(self.loader, identity=identity)
        self._cache = self._baseline_cache(identity)
        if plan.direction_source is not None:
            plan.direction_source.copy(plan.out, settings.fitted_sources)
        for lang in settings.langs:
            self._have[lang] = {completion.key for completion in self.folder.completions(lang)}
        limited = [self._test_rows(lang, label) for lang in settings.langs for label in LABELS]
        write_prompts(self.folder, (row for rows in limited for row in rows[: settings.n_test]))
        if plan.directions_from is not None:
            self._without = take_directions(plan.directions_from, plan.out, settings.fitted_sources)
        self._searched = set(self._without) | {
            source for source in settings.fitted_sources if (plan.out / direction_file(source)).is_file()
        }
        tasks = [
            self._direction_task(source) for source in settings.fitted_sources if source not in self._searched
        ]
        tasks += self._answer_tasks(baselines(settings), {}) + self._after_search()
        return [*self._checks(), *tasks] if tasks else []

    def _checks(self) -> list[Task]:
        """Return what is checked with the model before anything is computed."""
        prompts = long_prompts(self.plan.data, self.plan.settings.data_langs)
        return [self._task("prompts", CheckPrompts(self.loader, prompts), first=True)] if prompts else []

    def _baseline_cache(self, identity: Identity) -> BaselineCache | None:
        """Return the cache of the model's baselines; None where there is to be none."""
        if world_size() > 1:
            return None  # processes that share a model must all do the same, whatever another run adds
        return BaselineCache(identity.signature, self.plan.settings.max_new_tokens)

    # Directions

    def _direction_task(self, source: str, control: bool = False) -> Task:
        name = f"{'control' if control else 'direction'} {source}"
        return self._task(name, search_of(self.plan, self.loader, source, control=control), first=True)

    def _add_direction(self, compute: FindDirection, direction: DirectionFiles) -> list[Task]:
        write_files(self.plan.out, direction.files)
        self.plan.on_finished()
        for line in direction.messages:
            self.progress.say(line)
        name = SHUFFLED if compute.control else compute.lang
        self._searched.add(name)
        if direction.error is not None:
            self._without[name] = direction.error
            self.progress.say(
                f"no control from shuffled labels: {direction.error}"
                if compute.control
                else f"no direction from '{name}', which is left out: {direction.error}"
            )
        return self._after_search()

    def _after_search(self) -> list[Task]:
        """Return the control of the first direction once that is known, and all measurements once all
        directions are; raises `DirectionError` where no language gives one."""
        settings = self.plan.settings
        if not settings.direction_langs:
            return self._all_answers()
        fitted = settings.fitted_sources
        first = next((source for source in fitted if source not in self._without), None)
        if first is None:
            raise DirectionError(list(self._without.values())[-1])
        tasks: list[Task] = []
        wanted = set(fitted)
        if settings.controls:
            wanted.add(SHUFFLED)
            if first in self._searched and not self._control_asked:
                self._control_asked = True
                if (self.plan.out / control_file(first)).is_file():
                    self._searched.add(SHUFFLED)
                else:
                    tasks.append(self._direction_task(first, control=True))
        return tasks + (self._all_answers() if self._searched >= wanted else [])

    # Completions

    def _all_answers(self) -> list[Task]:
        """Return the tasks of all measurements but the baselines."""
        settings = self.plan.settings
        directions = directions_of(self.plan, self._without, self.progress.say)
        measurements = [
            measurement
            for lang in settings.langs
            for measurement in grid(lang, list(directions), settings)
            if measurement.condition != BASELINE_CONDITION
        ]
        tasks = self._answer_tasks(measurements, directions)
        self._sources = list(directions)
        for lang in settings.langs:
            self._note_complete(lang)
        return tasks

    def _answer_tasks(
        self, measurements: Sequence[Measurement], directions: Mapping[str, EditDirection]
    ) -> list[Task]:
        """Return the tasks of those of `measurements` that are not complete."""
        tasks = []
        for measurement in measurements:
            if not self._test_rows(measurement.lang, measurement.label):
                continue  # a gap of the data, said at the start
            compute = self._take_from_cache(self._computation(measurement, directions))
            missing = len(compute.keys - self._have[measurement.lang])
            if missing:
                self._missing[measurement.lang] += 1
                tasks.append(self._task(str(measurement), compute, size=missing))
            else:
                self._finish(measurement)
        self.progress.expect(tasks, complete=len(measurements) - len(tasks))
        return tasks

    def _computation(
        self, measurement: Measurement, directions: Mapping[str, EditDirection]
    ) -> MeasuredPrompts:
        lang = measurement.lang
        rows = tuple(self._test_rows(lang, measurement.label)[: measurement.limit])
        compute = self._answering(measurement, rows, directions)
        if measurement.condition == BASELINE_CONDITION:
            self._baselines[lang].update((compute.key(row), row.text) for row in compute.rows)
        return replace(compute, done=compute.keys & self._have[lang])

    def _answering(
        self, measurement: Measurement, rows: tuple[Row, ...], directions: Mapping[str, EditDirection]
    ) -> MeasuredPrompts:
        """Return what answers the prompts `rows` of a measurement."""
        return AnswerPrompts(
            loader=self.loader,
            measurement=measurement,
            rows=rows,
            edits=edits_of(measurement.condition, directions),
            max_new_tokens=self.plan.settings.max_new_tokens,
            batch_size=self.plan.settings.batch_size,
        )

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
