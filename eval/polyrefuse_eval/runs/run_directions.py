"""The directions of one run: what finds each of them, and which of them its conditions use."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from polyrefuse_eval.directions.finder import stored_directions
from polyrefuse_eval.directions.fit import Direction
from polyrefuse_eval.directions.harm_gate import HarmGate
from polyrefuse_eval.directions.places import direction_file, gate_file
from polyrefuse_eval.directions.span import Span
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.results.interventions import INTERVENTIONS
from polyrefuse_eval.results.settings import LABELS, Condition, RunSettings
from polyrefuse_eval.results.sources import (
    CONTROLS,
    base_of,
    is_span,
    languages_of,
    members,
    span_rank,
    takes_all_languages,
)
from polyrefuse_eval.runs.plan import RunPlan
from polyrefuse_eval.runs.tasks import FindDirection, ModelLoader, SentPrompts, read_files


def search_of(plan: RunPlan, loader: ModelLoader, source: str, *, control: bool = False) -> FindDirection:
    """Return what finds the direction of `source`, which is no span, or its `control`.

    Raises `DirectionError` for one without over-refusal where the plan has no pairs to fit that on.
    """
    settings, data = plan.settings, plan.direction_data
    langs, base = languages_of(source, settings.langs), base_of(source)
    if base is not None and plan.fitted_pairs is None:
        raise DirectionError(f"'{source}' needs contrast pairs: give the plan of the run `fitted_pairs`")
    limits = {"train": settings.n_train, "validation": settings.n_validation}
    rows = {
        (lang, split, label): data.prompts(lang, split, label, limit)
        for lang in langs
        for split, limit in limits.items()
        for label in LABELS
    }
    names = [f"refusal_tokens/{lang}.json" for lang in langs]
    if control or settings.has_gates:
        names.append(direction_file(source))
    if base is not None:
        names.append(direction_file(base))
    return FindDirection(
        loader=loader,
        lang=source,
        prompts=SentPrompts(data.digest, rows),
        settings=settings,
        files=read_files(plan.out, names),
        control=control,
        looking_harmful={}
        if base is None or plan.fitted_pairs is None
        else {lang: plan.fitted_pairs.safe(lang) for lang in langs},
    )


def is_found(plan: RunPlan, source: str) -> bool:
    """Return whether the folder of a run holds the direction of `source`, and its gate where needed."""
    files = [direction_file(source), *([gate_file(source)] if plan.settings.has_gates else [])]
    return all((plan.out / file).is_file() for file in files)


def gate_of(plan: RunPlan, condition: Condition) -> HarmGate | None:
    """Return what tells the prompts on which `condition` edits; None where it edits on all."""
    if condition.source is None or not INTERVENTIONS[condition.intervention].where_harmful:
        return None
    return HarmGate.load(plan.out / gate_file(condition.source))


def directions_of(
    plan: RunPlan, without: Mapping[str, str], say: Callable[[str], None]
) -> dict[str, Direction | Span]:
    """Return the directions that the run has found by source, then the controls of the first.

    `without` are the sources that gave none, and why; `say` gets a line for each span that cannot be made of
    the others. Raises `DirectionError` where nothing is left.
    """
    settings = plan.settings
    fitted = [source for source in settings.fitted_sources if source not in without]
    if not fitted:
        return {}
    obstacles = {source: _obstacle(source, settings, without) for source in settings.direction_langs}
    real = [source for source, obstacle in obstacles.items() if obstacle is None]
    for source, obstacle in obstacles.items():
        if obstacle is not None and is_span(source):
            say(f"no span '{source}', which is left out: {obstacle}")
    if not real:
        raise DirectionError("; ".join(f"'{source}': {obstacle}" for source, obstacle in obstacles.items()))
    controls = [name for name in CONTROLS if settings.controls and name not in without]
    return stored_directions(plan.out, [*real, *controls], fitted[0], settings.seed, settings.langs)


def _obstacle(source: str, settings: RunSettings, without: Mapping[str, str]) -> str | None:
    """Return why there is no direction of `source`; None where there is one."""
    if not is_span(source):
        return without.get(source)
    parts = members(source, settings.langs)
    missing = [part for part in parts if part in without]
    if not takes_all_languages(source):
        return f"no direction from {', '.join(missing)}" if missing else None
    left, needed = len(parts) - len(missing), max(2, span_rank(source) or 0)
    return None if left >= needed else f"{left} of {len(parts)} languages give a direction"
