"""The completions of a run of a model that is loaded here or on workers.

Refusal tokens and directions come first, and with them the baselines, which need no direction; then all other
measurements, in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from polyrefuse_data.cluster.tasks import Computation, Outcome, Task
from polyrefuse_data.core.schema import Row
from polyrefuse_eval.directions.obstacles import read_obstacle
from polyrefuse_eval.directions.places import control_file
from polyrefuse_eval.errors import ChatModelError, DirectionError
from polyrefuse_eval.models.interventions import EditDirection
from polyrefuse_eval.models.spec import ModelSpec
from polyrefuse_eval.processes import world_size
from polyrefuse_eval.results.baseline_cache import BaselineCache
from polyrefuse_eval.results.settings import Measurement, baselines
from polyrefuse_eval.results.sources import SHUFFLED, base_of
from polyrefuse_eval.results.timings import Timing
from polyrefuse_eval.runs.answers import AnswerStage
from polyrefuse_eval.runs.measured_prompts import Identity, MeasuredPrompts
from polyrefuse_eval.runs.plan import RunPlan
from polyrefuse_eval.runs.progress import GridProgress
from polyrefuse_eval.runs.run_directions import directions_of, gate_of, is_found, search_of
from polyrefuse_eval.runs.tasks import (
    AnswerPrompts,
    CheckPrompts,
    DirectionFiles,
    FindDirection,
    IdentifyModel,
    ModelLoader,
    edits_of,
    long_prompts,
    take_directions,
    write_files,
)


class ModelAnswerStage(AnswerStage):
    """Make directions and completions of the run `plan` with `threads` of torch."""

    def __init__(self, plan: RunPlan, progress: GridProgress, threads: int) -> None:
        super().__init__(plan, progress)
        self.loader = ModelLoader(load=plan.load, key=f"run {plan.out}", threads=threads)
        self._directions: Mapping[str, EditDirection] = {}
        """Source to its direction, once all are known."""
        self._searched: set[str] = set()
        """Languages whose directions were found, or cannot be; and the control."""
        self._without: dict[str, str] = {}
        """Languages that give no direction, and why."""
        self._asked: set[str] = set()
        """Sources whose search has begun."""
        self._control_asked = False

    @property
    def key(self) -> str:
        """Key of the loaded model in tasks."""
        return self.loader.key

    def start(self) -> list[Task]:
        """Return the first tasks; see `AnswerStage`."""
        if isinstance(self.plan.load, ModelSpec):
            spec = self.plan.load.settled()
            self.loader = replace(self.loader, load=spec, key=spec.key)
        return super().start()

    def succeeded(self, outcome: Outcome) -> list[Task]:
        """Write what a task made, and return the tasks that it makes possible."""
        tasks = super().succeeded(outcome)
        compute = outcome.task.compute
        if isinstance(compute, FindDirection):
            self.time(Timing("direction", outcome.seconds, lang=compute.lang))
            tasks = self._add_direction(compute, outcome.result)
        return tasks

    def failed(self, outcome: Outcome) -> None:
        """Record what failed; raises `ChatModelError` where the model cannot be had or read a prompt."""
        if isinstance(outcome.task.compute, IdentifyModel | CheckPrompts):
            raise ChatModelError(str(outcome.error))
        super().failed(outcome)

    def _identifying(self) -> Computation:
        return IdentifyModel(self.loader)

    def _open(self, identity: Identity) -> list[Task]:
        """Open the run of this model; return the tasks for its directions and baselines."""
        plan, settings = self.plan, self.plan.settings
        if plan.direction_source is not None:
            plan.direction_source.check_model(identity.signature)
        self._open_folder(identity)
        self.loader = replace(self.loader, identity=identity)
        self._cache = self._baseline_cache(identity)
        if plan.direction_source is not None:
            plan.direction_source.copy(plan.out, settings.fitted_sources)
        if plan.directions_from is not None:
            self._without = take_directions(plan.directions_from, plan.out, settings.fitted_sources)
        self._take_obstacles(settings.fitted_sources)
        self._searched = set(self._without) | {
            source for source in settings.fitted_sources if is_found(plan, source)
        }
        tasks = self._ready_searches()
        self._foresee_others()
        tasks += self._answer_tasks(baselines(settings)) + self._after_search()
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
            self._say_without(name, direction.error, control=compute.control)
        return self._ready_searches() + self._after_search()

    def _ready_searches(self) -> list[Task]:
        """Return the tasks of directions that wait for no other, as one without over-refusal does."""
        tasks = []
        for source in self.plan.settings.fitted_sources:
            base = base_of(source)
            if source in self._searched | self._asked:
                continue
            if base in self._without:
                self._searched.add(source)
                self._without[source] = f"no direction from '{base}'"
                self._say_without(source, self._without[source], control=False)
            elif base is None or base in self._searched:
                self._asked.add(source)
                tasks.append(self._direction_task(source))
        return tasks

    def _take_obstacles(self, sources: Sequence[str], *, control: bool = False) -> None:
        """Note which of `sources` (or their `control`) an earlier process searched in vain, and say so."""
        for source in sources:
            reason = read_obstacle(self.plan.out, source, control=control)
            if reason is not None and (control or source not in self._without):
                self._without[SHUFFLED if control else source] = reason
                self._say_without(source, f"{reason} (found before)", control=control)

    def _say_without(self, source: str, reason: str, *, control: bool) -> None:
        self.progress.say(
            f"no control from shuffled labels: {reason}"
            if control
            else f"no direction from '{source}', which is left out: {reason}"
        )

    def _after_search(self) -> list[Task]:
        """Return the control of the first direction once that is known, and all measurements once all
        directions are; raises `DirectionError` where no language gives one."""
        settings = self.plan.settings
        if not settings.direction_langs:
            return self._measured()
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
                self._take_obstacles([first], control=True)
                if SHUFFLED in self._without or (self.plan.out / control_file(first)).is_file():
                    self._searched.add(SHUFFLED)
                else:
                    tasks.append(self._direction_task(first, control=True))
        return tasks + (self._measured() if self._searched >= wanted else [])

    def _measured(self) -> list[Task]:
        """Return the tasks of all measurements but the baselines, once all directions are known."""
        self._directions = directions_of(self.plan, self._without, self.progress.say)
        return self._all_answers(list(self._directions))

    def _answering(self, measurement: Measurement, rows: tuple[Row, ...]) -> MeasuredPrompts:
        return AnswerPrompts(
            loader=self.loader,
            measurement=measurement,
            rows=rows,
            edits=edits_of(measurement.condition, self._directions),
            max_new_tokens=self.plan.settings.max_new_tokens,
            batch_size=self.plan.settings.batch_size,
            gate=gate_of(self.plan, measurement.condition),
        )
