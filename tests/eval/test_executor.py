"""Runs on a Dask cluster of two processes: the same bytes as here, and what happens when things fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="the dask extra is not installed")

from click.testing import CliRunner, Result
from clusters import cluster_of

from polyrefuse_eval.cli import eval_group
from polyrefuse_eval.locks import LOCK_FILE
from polyrefuse_eval.timings import TIMINGS_FILE

TOKENS = ("--refusal-tokens", "40,41", "--no-filter")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    with cluster_of(2) as two:
        yield two


def call(*arguments: object) -> Result:
    return CliRunner().invoke(eval_group, [str(argument) for argument in arguments])


def files(folder: Path) -> dict[str, bytes]:
    """The results of a run: all but how long it took."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (LOCK_FILE, TIMINGS_FILE)
    }


def run_command(model: Path, data: Path, out: Path, *more: object) -> tuple[object, ...]:
    return (
        *("run", "--model", model, "--data", data, "--langs", "en,de", "--directions", "en,de"),
        *(*TOKENS, "--max-new-tokens", 4, "--crossed", 2, "--batch-size", 3, "--out", out, "-q", *more),
    )


def test_a_run_on_a_cluster_gives_the_bytes_of_a_run_here(
    cluster: Any, model_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {}
    for name, more in {
        "here": (),
        "there": ("--executor", "dask", "--scheduler", cluster.scheduler_address),
    }.items():
        monkeypatch.setenv("POLYREFUSE_CACHE", str(tmp_path / f"cache-{name}"))
        result = call(*run_command(model_folder, data_folder, tmp_path / name, *more))
        assert result.exit_code == 0, result.output + str(result.exception)
        made[name] = files(tmp_path / name)
    assert made["here"].keys() == made["there"].keys()
    different = [name for name, content in made["here"].items() if made["there"][name] != content]
    assert different == []
