"""The files of what the conditions of a run cost: each answer's by language, and their means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from polyrefuse_eval.results.cost_records import AnswerCostRecord, ConditionCost
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.validation import read_records, write_records

COSTS_FILE = "costs.jsonl"
COSTS_TABLE = "costs.md"
ANSWER_COSTS = "costs"
"""The folder of what conditions cost on single answers, a file a language."""


def answer_costs_file(folder: RunFolder, lang: str) -> Path:
    """Return the file of what conditions cost on the answers in `lang`."""
    return folder.path / ANSWER_COSTS / f"{lang}.jsonl"


def read_answer_costs(folder: RunFolder) -> dict[str, list[AnswerCostRecord]]:
    """Return what conditions cost on single answers by language, nothing where it was not measured."""
    files = sorted((folder.path / ANSWER_COSTS).glob("*.jsonl"))
    return {file.stem: read_records(AnswerCostRecord, file) for file in files}


def read_costs(folder: RunFolder) -> list[ConditionCost]:
    """Return what conditions cost in the mean, nothing where it was not measured."""
    return read_records(ConditionCost, folder.path / COSTS_FILE)


def write_costs(folder: RunFolder, costs: Sequence[ConditionCost]) -> None:
    """Write what conditions cost in the mean, whole or not at all."""
    write_records(folder.path / COSTS_FILE, costs)
