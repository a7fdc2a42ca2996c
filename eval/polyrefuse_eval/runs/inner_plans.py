"""Runs inside a run: further prompts under every condition, with the directions that the run finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_eval.results.data import DataFolder, open_data
from polyrefuse_eval.results.settings import RunSettings
from polyrefuse_eval.results.user_prompt_data import user_prompt_data
from polyrefuse_eval.results.user_prompts import UserPrompt
from polyrefuse_eval.runs.plan import RunPlan

Asked = Callable[[DataFolder, RunSettings], dict[str, Any]]
"""(data, settings) -> the request for a run of them with the model and judges of the outer run."""


def over_refusal_plan(plan: RunPlan, build: Path, asked: Asked, say: Callable[[str], None]) -> RunPlan:
    """Return the plan for the prompts of `build`: every condition of `plan` on both labels.

    Raises `DatasetFolderError` where it holds no contrast pairs, or lacks a language.
    """
    data = open_data(build, plan.settings.langs)
    if not any(row.pair is not None for row in data.rows(plan.settings.langs[0], "test")):
        raise DatasetFolderError(
            f"--over-refusal '{build}' holds no contrast pairs; build one with: polyrefuse build "
            "--recipe over-refusal (or over-refusal-sample, which needs no network)"
        )
    for lang, _, label in data.gaps(plan.settings.langs, ("test",)):
        say(f"no {label} over-refusal prompts in '{lang}': its rates on them will be missing")
    return _inner(plan, data, plan.settings, asked)


def user_prompts_plan(plan: RunPlan, prompts: Sequence[UserPrompt], asked: Asked) -> RunPlan:
    """Return the plan for a user's own `prompts`, all of them: every condition of `plan` on both labels.

    Raises `RunFolderError` where they are in languages that the run does not measure.
    """
    return _inner(
        plan, user_prompt_data(prompts, plan.settings.langs), replace(plan.settings, n_test=None), asked
    )


def _inner(plan: RunPlan, data: DataFolder, settings: RunSettings, asked: Asked) -> RunPlan:
    settings = replace(settings, strengths=(), addition_strengths=(), crossed=None, controls=False)
    return replace(plan, data=data, settings=settings, request=asked(data, settings))
