"""What must hold on either executor: the bytes of a run, whatever fails, is there already, or is killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from children import started
from runs_on_clusters import assert_same, call, call_in_child, command, dask, files

from polyrefuse_eval.directions.finder import DirectionFinder
from polyrefuse_eval.results.timings import read_timings

EXECUTORS = ("local", "dask")
N_CONDITIONS = 2 * (2 + 4 * 2 + 2 * 2 + 3)
"""Of `command`: baselines, two directions, two controls, three strengths; in two languages."""


@pytest.fixture
def where(request: pytest.FixtureRequest, executor: str) -> tuple[object, ...]:
    """The options that choose `executor`."""
    return dask(request.getfixturevalue("cluster")) if executor == "dask" else ()


@pytest.mark.parametrize(
    ("fault", "message", "missing"),
    [
        ("direction de", "no direction from 'de', which is left out: too few prompts are left", ":de"),
        ("control de", "no control from shuffled labels: too few prompts are left", ":shuffled"),
    ],
)
def test_a_direction_that_cannot_be_had_leaves_the_same_run(
    fault: str,
    message: str,
    missing: str,
    cluster: Any,
    stumble: Path,
    model_folder: Path,
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from worker_log import failing_extract

    monkeypatch.setattr(DirectionFinder, "extract", failing_extract)
    stumble.write_text(fault)
    for name, options in {"local": (), "dask": dask(cluster)}.items():
        monkeypatch.setenv("POLYREFUSE_CACHE", str(tmp_path / f"cache-{name}"))
        result = call(*command(model_folder, data_folder, tmp_path / name, "--strengths", "none", *options))
        assert result.exit_code == 0, result.output + str(result.exception)
        assert message in result.stderr
    assert_same(tmp_path / "local", tmp_path / "dask")
    content = files(tmp_path / "local")
    assert not [name for name in content if missing.replace(":", "-") in name]
    assert missing not in content["results.jsonl"].decode()
    assert b"ablation:en" in content["results.jsonl"]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_only_what_is_missing_is_computed(
    executor: str,
    where: tuple[object, ...],
    local: Path,
    model_folder: Path,
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A condition of which half is there, one that is gone, and baselines that another run answered."""
    out = tmp_path / "run"
    shutil.copytree(local, out)
    monkeypatch.setenv("POLYREFUSE_CACHE", str(local.parent / "cache"))
    for name in ("summary.json", "answered.json"):
        (out / name).unlink()
    half = out / "completions" / "de" / "harmful.ablation-en.jsonl"
    begun = half.with_name("harmful.ablation-en.begun.jsonl")
    half.replace(begun)
    content = begun.read_bytes()
    begun.write_bytes(content[: content.index(b"\n", content.index(b"\n") + 1) + 30])
    (out / "completions" / "en" / "harmless.addition-random.jsonl").unlink()
    for label in ("harmful", "harmless"):
        (out / "completions" / "en" / f"{label}.baseline.jsonl").unlink()
    before = len(read_timings(out))
    result = call(*command(model_folder, data_folder, out, *where))
    assert result.exit_code == 0, result.output + str(result.exception)
    assert_same(out, local)
    computed = {(timing.lang, timing.condition) for timing in read_timings(out)[before:] if timing.answers}
    assert computed == {("de", "ablation:en"), ("en", "addition:random")}


def wait_for(condition: Callable[[], bool], driver: BaseProcess) -> None:
    """Wait until `condition` holds, as long as `driver` lives."""
    deadline = time.monotonic() + 240
    while not condition():
        assert driver.is_alive(), driver.exitcode
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_run_killed_at_any_moment_resumes_to_the_same_bytes(
    executor: str,
    times: int,
    where: tuple[object, ...],
    local: Path,
    log: Path,
    model_folder: Path,
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Kill the driver, and on a cluster a worker before it; nothing is lost but what was in flight."""
    draw = random.Random(times)
    for number in range(times):
        out = tmp_path / f"run-{number}"
        monkeypatch.setenv("POLYREFUSE_CACHE", str(tmp_path / f"cache-{number}"))
        arguments = command(model_folder, data_folder, out, *where)
        log.write_text("")
        driver = started(call_in_child, *arguments)

        def written() -> int:
            return len(list((out / "completions").glob("*/*.jsonl")))  # noqa: B023

        if executor == "dask":
            wait_for(lambda: written() >= 2, driver)
            os.kill(next(iter(workers_of(request.getfixturevalue("cluster")).values())), signal.SIGKILL)
        last = draw.randrange(4, N_CONDITIONS - 6)
        wait_for(lambda: written() >= last, driver)  # noqa: B023
        time.sleep(draw.uniform(0, 0.1))
        driver.kill()
        driver.join()
        assert not (out / "summary.json").exists()
        time.sleep(1)  # what was in flight may still end
        result = call(*arguments)
        assert result.exit_code == 0, result.output + str(result.exception)
        assert_same(out, local)
        if executor == "dask":
            counts = Counter(
                line.partition(" ")[2] for line in log.read_text().splitlines() if "begun" in line
            )
            assert len(counts) == N_CONDITIONS
            # In flight when the worker died: two conditions; when the driver died: two for each worker.
            assert sum(counts.values()) - N_CONDITIONS <= 2 + 4


def workers_of(cluster: Any) -> dict[str, int]:
    """Return the addresses of the workers and their process ids."""
    from distributed import Client

    with Client(cluster.scheduler_address, set_as_default=False) as client:
        processes: dict[str, int] = client.run(os.getpid)
        return processes
