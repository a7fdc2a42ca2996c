"""One cluster of two workers for all tests of this folder, and the run that all others must equal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the workers of `cluster` computed; see `worker_log`."""
    file = tmp_path_factory.mktemp("workers") / "log"
    os.environ["POLYREFUSE_TEST_LOG"] = str(file)
    yield file
    del os.environ["POLYREFUSE_TEST_LOG"]


@pytest.fixture
def stumble(log: Path) -> Iterator[Path]:
    """The file that names what fails; it is gone after the test."""
    file = log.with_name("stumble")
    yield file
    file.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def cluster(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two workers that log and fail as `worker_log` says, with a cache of their own."""
    pytest.importorskip("distributed", reason="the dask extra is not installed")
    from clusters import cluster_of

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYREFUSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        with cluster_of(2, preload=[str(HERE / "worker_log.py")]) as two:
            yield two


@pytest.fixture(scope="session")
def local(model_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run made in this process; its baselines are in `cache` beside it."""
    from runs_on_clusters import call, command

    out = tmp_path_factory.mktemp("local") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYREFUSE_CACHE", str(out.parent / "cache"))
        result = call(*command(model_folder, data_folder, out))
    assert result.exit_code == 0, result.output
    return out
