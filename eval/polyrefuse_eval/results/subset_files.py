"""The files of a run about some of its prompts: what the prompts are, rates by source and type, pairs."""

from __future__ import annotations

from collections.abc import Iterable

from polyrefuse_data.core.schema import Row
from polyrefuse_eval.results.folder import RUN_FILE, RunFolder
from polyrefuse_eval.results.subset_records import ContrastResult, PromptRecord, SubsetResult
from polyrefuse_eval.results.validation import read_records, write_records

PROMPTS_FILE = "prompts.jsonl"
SUBSETS_FILE = "subsets.jsonl"
CONTRASTS_FILE = "contrasts.jsonl"
OVER_REFUSAL = "over_refusal"
"""The folder inside a run's that holds its run on prompts that look harmful and are not."""
USER_PROMPTS = "user_prompts"
"""The folder inside a run's that holds its run on a user's own prompts."""


def write_prompts(folder: RunFolder, rows: Iterable[Row]) -> None:
    """Write what the test prompts in `rows`, of any language, are; without their texts."""
    by_id = {row.id: row for row in rows}
    write_records(folder.path / PROMPTS_FILE, (prompt_record(row) for _, row in sorted(by_id.items())))


def prompt_record(row: Row) -> PromptRecord:
    """Return what the prompt in `row` is; without its text."""
    return PromptRecord(
        id=row.id,
        group=row.group,
        label=row.label,
        source=row.source,
        type=row.source_category or None,
        pair=row.pair,
    )


def read_prompts(folder: RunFolder) -> dict[str, PromptRecord]:
    """Return what the test prompts are by the id of their row; nothing in runs of older versions."""
    return {prompt.id: prompt for prompt in read_records(PromptRecord, folder.path / PROMPTS_FILE)}


def read_subsets(folder: RunFolder) -> list[SubsetResult]:
    """Return rates by source and by type, none where they were not made."""
    return read_records(SubsetResult, folder.path / SUBSETS_FILE)


def read_contrasts(folder: RunFolder) -> list[ContrastResult]:
    """Return how contrast pairs were answered, nothing where there are none."""
    return read_records(ContrastResult, folder.path / CONTRASTS_FILE)


def over_refusal_run(folder: RunFolder) -> RunFolder | None:
    """Return the run on prompts that look harmful, which lies inside `folder`; None where there is none."""
    inner = folder.path / OVER_REFUSAL
    return RunFolder(inner) if (inner / RUN_FILE).is_file() else None


def inner_runs(folder: RunFolder) -> list[RunFolder]:
    """Return the runs that lie inside `folder`: those of other prompts with its directions."""
    places = [folder.path / name for name in (OVER_REFUSAL, USER_PROMPTS)]
    return [RunFolder(place) for place in places if (place / RUN_FILE).is_file()]
