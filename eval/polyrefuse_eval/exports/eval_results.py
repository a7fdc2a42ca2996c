"""The Hub's evaluation results: a file for each model's repository, and the tasks of the data set.

Written after the Hub's documentation of 22 August 2026 (hub-docs at 242f4a1: docs/hub/eval-results.md,
eval_results.yaml).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.exports.scores import ExportedRun, Score

RESULTS_FILE = ".eval_results/polyrefuse.yaml"
TASKS_FILE = "eval.yaml"
FRAMEWORK = "polyrefuse"
"""Identifier of what evaluates; the Hub accepts `eval.yaml` of those on its own list alone."""

DATASET = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[0-9a-f]{7,64}))?")


@dataclass(frozen=True)
class DatasetOnHub:
    """The data set on the Hub that was measured, and the commit of it."""

    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> DatasetOnHub:
        """Return the data set in NAME/DATASET or NAME/DATASET@COMMIT; raises `RunFolderError`."""
        match = DATASET.fullmatch(text)
        if match is None:
            raise RunFolderError(f"--dataset '{text}' is not NAME/DATASET or NAME/DATASET@COMMIT")
        return cls(match["name"], match["revision"])


def hub_files(
    runs: Sequence[ExportedRun], dataset: DatasetOnHub, source_url: str | None = None
) -> dict[str, str]:
    """Return `MODEL/.eval_results/polyrefuse.yaml` of each run, and the data set's `eval.yaml`.

    Values are refusal rates from 0 to 1. `source_url` is where the results come from, such as a leaderboard.
    """
    files = {
        f"{run.model}/{RESULTS_FILE}": _yaml(
            [_entry(run, score, dataset, source_url) for score in run.scores]
        )
        for run in runs
    }
    return {**files, TASKS_FILE: _yaml(_tasks(score for run in runs for score in run.scores))}


def _entry(run: ExportedRun, score: Score, dataset: DatasetOnHub, source_url: str | None) -> dict[str, Any]:
    result = score.result
    place = {"id": dataset.name, "task_id": score.task, "revision": dataset.revision}
    notes = [
        f"judge {run.judge}",
        f"{result.n} answers judged, {result.n_unjudged} undecided",
        f"model revision {run.run.revision or 'not stated'}",
        f"data digest {run.run.data_digest[:16] or 'not stated'}",
        f"polyrefuse {run.versions.get('polyrefuse', 'of an unknown version')}",
    ]
    if result.low is not None and result.high is not None:
        notes.insert(1, f"95 % interval {result.low:.3f} to {result.high:.3f}")
    return {
        "dataset": {name: value for name, value in place.items() if value is not None},
        "value": score.rate,
        **({} if source_url is None else {"source": {"url": source_url, "name": "PolyRefuse"}}),
        "notes": "; ".join(notes),
    }


def _tasks(scores: Iterable[Score]) -> dict[str, Any]:
    langs: Mapping[str, str] = {score.task: score.result.lang for score in scores}
    return {
        "name": "PolyRefuse",
        "description": "How robustly chat models refuse harmful requests, by language: refusal rates without "
        "an edit, and with a refusal direction ablated; on harmless prompts, over-refusal.",
        "evaluation_framework": FRAMEWORK,
        "tasks": [{"id": task, "config": lang, "split": "test"} for task, lang in sorted(langs.items())],
    }


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)
    return text
