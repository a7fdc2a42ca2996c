"""What a run states to others: refusal rates without an edit, and with a direction ablated.

Controls and prompts that an intervention is not meant for check the measurement itself, and are not stated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polyrefuse_data.core.errors import unknown_name
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.leaderboard.runs import Run
from polyrefuse_eval.results.condition_files import safe_name
from polyrefuse_eval.results.interventions import ABLATION
from polyrefuse_eval.results.records import Result
from polyrefuse_eval.results.settings import BASELINE_CONDITION
from polyrefuse_eval.results.sources import CONTROLS

HARMFUL = "harmful"


@dataclass(frozen=True)
class ExportedRun:
    """A run, its model's name elsewhere, and the scores that one judge gives it."""

    run: Run
    model: str
    judge: str
    scores: Sequence[Score]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that the scores depend on."""
        settings = self.run.signature.get("settings")
        return settings if isinstance(settings, Mapping) else {}

    @property
    def versions(self) -> Mapping[str, Any]:
        """The versions of the libraries that the run was made with."""
        versions = self.run.signature.get("versions")
        return versions if isinstance(versions, Mapping) else {}

    @property
    def model_signature(self) -> Mapping[str, str]:
        """What identifies the model besides its name, as texts; nothing in runs that do not state it."""
        model = self.run.signature.get("model")
        if not isinstance(model, Mapping):
            return {}
        return {str(key): str(value) for key, value in model.items() if key not in ("model", "name")}


@dataclass(frozen=True)
class Score:
    """A result under the name that tasks of the data set have elsewhere: `de.harmful.ablation-en`."""

    result: Result
    rate: float

    @property
    def task(self) -> str:
        """The name of the task: language, label, and the condition where there is one."""
        name = f"{self.result.lang}.{self.result.label}"
        if self.result.condition == BASELINE_CONDITION.name:
            return name
        return f"{name}.{safe_name(self.result.condition)}"

    @property
    def description(self) -> str:
        """What the score is, in a sentence."""
        edit = "" if self.result.source is None else f", with the direction from {self.result.source} ablated"
        return f"Share of {self.result.label} test prompts in '{self.result.lang}' that are refused{edit}"


def exported_runs(
    runs: Sequence[Run], judge: str | None = None, names: Mapping[str, str] | None = None
) -> list[ExportedRun]:
    """Return `runs` with the scores of `judge`, by default the first judge of each run.

    `names` are those of models elsewhere, by the name of a run's folder. Raises `RunFolderError` for a test
    organism, for two runs of one model, and for a run without a rate by that judge.
    """
    unknown = sorted(set(names or {}) - {run.name for run in runs})
    if unknown:
        raise unknown_name("run in --model-name", unknown[0], [run.name for run in runs])
    exported: dict[str, ExportedRun] = {}
    for run in runs:
        if run.is_organism:
            raise RunFolderError(
                f"'{run.name}' measured a test organism, which says nothing about real models; "
                "export runs of real models"
            )
        model = (names or {}).get(run.name, run.model)
        if model in exported:
            raise RunFolderError(
                f"'{exported[model].run.name}' and '{run.name}' both measured '{model}'; export one of them"
            )
        reader = judge or next(iter(run.judges), "")
        scores = list(_scores(run.results, reader))
        if not scores:
            raise RunFolderError(
                f"'{run.name}' has no refusal rates by the judge '{reader}'; its judges: "
                f"{', '.join(run.judges) or 'none'}"
            )
        exported[model] = ExportedRun(run=run, model=model, judge=reader, scores=scores)
    return list(exported.values())


def _scores(results: Iterable[Result], judge: str) -> Iterable[Score]:
    for result in results:
        ablated = (
            result.intervention == ABLATION.name
            and result.label == HARMFUL
            and result.coefficient == 1.0
            and result.source not in CONTROLS
        )
        stated = ablated or result.condition == BASELINE_CONDITION.name
        if result.judge == judge and stated and result.refusal_rate is not None:
            yield Score(result, result.refusal_rate)
