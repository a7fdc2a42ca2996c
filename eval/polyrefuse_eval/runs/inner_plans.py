"""Runs inside a run: further prompts under every condition, with the directions that the run finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.results.contrast_pairs import FittedPairs, TestedPairs
from polyrefuse_eval.results.data import DataFolder, open_data
from polyrefuse_eval.results.prompt_draw import is_limited
from polyrefuse_eval.results.settings import RunSettings
from polyrefuse_eval.results.sources import base_of, languages_of
from polyrefuse_eval.results.user_prompt_data import user_prompt_data
from polyrefuse_eval.results.user_prompts import UserPrompt
from polyrefuse_eval.runs.plan import RunPlan

Asked = Callable[[DataFolder, RunSettings], dict[str, Any]]
"""(data, settings) -> the request for a run of them with the model and judges of the outer run."""


def over_refusal_plan(
    plan: RunPlan, build: Path, test_seed: int | None, asked: Asked, say: Callable[[str], None]
) -> RunPlan:
    """Return the plan for the prompts of `build`: every condition of `plan` on both labels.

    A limit draws them with `test_seed`, or takes the first where that is None. Prompts that directions of
    over-refusal are fitted on are left out. Raises `DatasetFolderError` where it holds no contrast pairs, or
    lacks a language.
    """
    data = open_contrast_pairs(build, plan.settings.langs)
    if plan.settings.over_refusal_from is not None:
        data = TestedPairs(data.path, data.digest, data.recipe)
    for lang, _, label in data.gaps(plan.settings.langs, ("test",)):
        say(f"no {label} over-refusal prompts in '{lang}': its rates on them will be missing")
    return _inner(plan, data, replace(plan.settings, test_seed=test_seed), asked)


def pairs_to_fit(settings: RunSettings, build: Path | None) -> FittedPairs | None:
    """Return the pairs of `build` that the directions of a run without over-refusal are fitted on.

    None where there are no such directions. Raises `DirectionError` without a build, and
    `DatasetFolderError` where the build has too few pairs in a language that one is fitted in.
    """
    sources = [source for source in settings.fitted_sources if base_of(source) is not None]
    if not sources:
        return None
    if build is None:
        raise DirectionError(
            f"the direction '{sources[0]}' is made orthogonal to over-refusal, which is fitted on contrast "
            "pairs: give a build of them with --over-refusal"
        )
    langs = tuple(dict.fromkeys(lang for source in sources for lang in languages_of(source, settings.langs)))
    pairs = FittedPairs(open_contrast_pairs(build, langs))
    pairs.check(langs)
    return pairs


def open_contrast_pairs(build: Path, langs: Sequence[str]) -> DataFolder:
    """Return the build in a folder; raises `DatasetFolderError` where it lacks pairs, or a language."""
    data = open_data(build, langs)
    if not any(row.pair is not None for row in data.rows(langs[0], "test")):
        raise DatasetFolderError(
            f"--over-refusal '{build}' holds no contrast pairs; build one with: polyrefuse build "
            "--recipe over-refusal (or over-refusal-sample, which needs no network)"
        )
    return data


def user_prompts_plan(plan: RunPlan, prompts: Sequence[UserPrompt], asked: Asked) -> RunPlan:
    """Return the plan for a user's own `prompts`, all of them: every condition of `plan` on both labels.

    Raises `RunFolderError` where they are in languages that the run does not measure.
    """
    return _inner(
        plan, user_prompt_data(prompts, plan.settings.langs), replace(plan.settings, n_test=None), asked
    )


def _inner(plan: RunPlan, data: DataFolder, settings: RunSettings, asked: Asked) -> RunPlan:
    settings = replace(settings, strengths=(), addition_strengths=(), crossed=None, controls=False)
    if not is_limited(data, settings):
        settings = replace(settings, test_seed=None)
    return replace(plan, data=data, settings=settings, request=asked(data, settings))
