"""Runs on a Dask cluster of two processes: the same bytes as here, and what happens when things fail."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="the dask extra is not installed")

from click.testing import CliRunner, Result
from clusters import cluster_of
from tiny import tiny_model, tokenizer

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.judging.local_model import LocalModel
from polyrefuse_eval.results.condition_files import safe_name
from polyrefuse_eval.results.files import LOCK_FILE
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.timings import TIMINGS_FILE, read_timings

HERE = Path(__file__).parents[1]
TOKENS = ("--refusal-tokens", "40,41", "--no-filter")
N_CELLS = 2 * (2 + 4 * 2 + 2 * 2 + 3)
"""Cells of the run below: baselines, two directions, two controls, three strengths; in two languages."""


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the workers of `cluster` computed: a line a cell when it begins, and one when it has ended.

    Beside it, `stumble` may name cells that fail.
    """
    return tmp_path_factory.mktemp("workers") / "log"


@pytest.fixture(scope="session")
def cluster(log: Path) -> Iterator[Any]:
    os.environ["POLYREFUSE_TEST_LOG"] = str(log)
    with cluster_of(2, preload=[str(HERE / "worker_log.py")]) as two:
        yield two
    del os.environ["POLYREFUSE_TEST_LOG"]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(eval_group, [str(argument) for argument in arguments])


def error(*arguments: object) -> str:
    """The one line with which a command fails; anything but a PolyRefuseError is a bug."""
    result = call(*arguments)
    if not isinstance(result.exception, PolyRefuseError):
        pytest.fail(f"{result.exception!r}: {result.output}")
    message = str(result.exception)
    assert "\n" not in message
    return message


def files(folder: Path) -> dict[str, bytes]:
    """The results of a run: all but how long it took."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (LOCK_FILE, TIMINGS_FILE)
    }


def command(model: object, data: Path, out: Path, *more: object) -> list[object]:
    return [
        *("run", "--model", model, "--data", data, "--langs", "en,de", "--directions", "en,de"),
        *(*TOKENS, "--max-new-tokens", 4, "--crossed", 2, "--batch-size", 3, "--out", out, "-q", *more),
    ]


@pytest.fixture(scope="session")
def local(model_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that all others must equal, made here."""
    out = tmp_path_factory.mktemp("local") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYREFUSE_CACHE", str(out.parent / "cache"))
        result = call(*command(model_folder, data_folder, out))
    assert result.exit_code == 0, result.output
    return out


def dask(cluster: Any) -> tuple[object, ...]:
    return ("--executor", "dask", "--scheduler", cluster.scheduler_address)


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = files(one), files(other)
    assert ours.keys() == theirs.keys()
    assert [name for name, content in ours.items() if theirs[name] != content] == []


def test_a_run_on_a_cluster_gives_the_bytes_of_a_run_here(
    cluster: Any, local: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = call(*command(model_folder, data_folder, out, *dask(cluster)))
    assert result.exit_code == 0, result.output + str(result.exception)
    assert_same(out, local)
    assert "harmful, baseline" in result.output
    timings = read_timings(out)
    assert sum(timing.part == "cell" for timing in timings) == N_CELLS
    assert sum(timing.answers for timing in timings) == sum(
        len(RunFolder(out).completions(lang)) for lang in ("en", "de")
    )
    # Each of two workers loads the model once.
    assert 1 <= sum(timing.part == "load" for timing in timings) <= 2
    # Another run of the same model finds its baselines, and takes them over.
    again = tmp_path / "again"
    before = read_timings(out)
    assert call(*command(model_folder, data_folder, again, *dask(cluster))).exit_code == 0
    assert_same(again, local)
    assert not [timing for timing in read_timings(again) if timing.condition == "baseline"]
    assert read_timings(out) == before
    # Done, it does nothing, without a cluster.
    unreachable = ("--executor", "dask", "--scheduler", "tcp://127.0.0.1:9")
    assert call(*command(model_folder, data_folder, again, *unreachable)).stdout == result.stdout


def workers_of(cluster: Any) -> dict[str, int]:
    """Addresses of the workers and their process ids."""
    from distributed import Client

    with Client(cluster.scheduler_address, set_as_default=False) as client:
        found: dict[str, int] = client.run(os.getpid)
        return found


def test_killed_workers_and_drivers_lose_nothing_but_cells_in_flight(
    cluster: Any, log: Path, local: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    log.write_text("")
    program = [sys.executable, "-m", "polyrefuse_data.cli", "eval"]
    arguments = [str(word) for word in command(model_folder, data_folder, out, *dask(cluster))]
    environment = {**os.environ, "POLYREFUSE_CACHE": str(tmp_path / "own"), "OMP_NUM_THREADS": "1"}

    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*program, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def wait_until_done(cells: int, driver: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 120
        while sum("done" in line for line in log.read_text().splitlines()) < cells:
            assert driver.poll() is None, driver.stdout.read().decode() if driver.stdout else ""
            assert time.monotonic() < deadline
            time.sleep(0.01)

    driver = started()
    wait_until_done(4, driver)
    os.kill(next(iter(workers_of(cluster).values())), signal.SIGKILL)
    wait_until_done(12, driver)
    driver.kill()
    driver.communicate()
    there = len(list((out / "completions").glob("*/*.jsonl")))
    assert 4 <= there < N_CELLS
    assert not (out / "summary.json").exists()
    time.sleep(1)  # what was in flight may still end
    driver = started()
    output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, output.decode()
    assert_same(out, local)
    counts = Counter(line.partition(" ")[2] for line in log.read_text().splitlines() if "begun" in line)
    assert len(counts) == N_CELLS
    # In flight when the worker died: two cells; when the driver died: two for each of two workers.
    assert sum(counts.values()) - N_CELLS <= 2 + 4


def test_what_fails_is_named_while_the_rest_goes_on(
    cluster: Any, log: Path, local: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = command(model_folder, data_folder, out, *dask(cluster), "--retries", 1)
    stumble = log.with_name("stumble")
    stumble.write_text("de/harmless/ablation:en\nen/harmful/addition:de\n")
    result = call(*arguments)
    assert result.exit_code == 3, result.output + str(result.exception)
    for cell in ("de harmless ablation:en", "en harmful addition:de"):
        assert f"run: {cell} is tried again: ValueError: stumbled\n" in result.stderr
        assert f"failed: run: {cell}: ValueError: stumbled (tried 2 times)\n" in result.stderr
    failed = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    assert len(failed) == 2
    assert all(failure["tries"] == 2 for failure in failed)
    assert not (out / "summary.json").exists()
    assert len(list((out / "completions").glob("*/*.jsonl"))) == N_CELLS - 2
    stumble.unlink()
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    assert_same(out, local)
    assert sum(timing.part == "cell" for timing in read_timings(out)) == N_CELLS


def test_workers_read_for_judges_that_are_models(
    cluster: Any, model_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = tmp_path / "judge"
    tiny_model("llama", layers=2, max_position_embeddings=8192).save_pretrained(judge)
    tokenizer().save_pretrained(judge)
    further = (
        *("--judges", "native,wildguard", "--judge-model", f"wildguard={judge}"),
        *("--langs", "en", "--directions", "en"),
    )
    here, there = tmp_path / "here", tmp_path / "there"
    for out, how in ((here, ()), (there, dask(cluster))):
        result = call(*command(model_folder, data_folder, out, *further, *how))
        assert result.exit_code == 0, result.output + str(result.exception)
        # From now on whatever the workers do not read is missed.
        monkeypatch.setattr(LocalModel, "load", lambda _self: pytest.fail("the judge is loaded here"))
    assert_same(there, here)
    (name,) = (name for name in RunFolder(there).signature["judges"] if name.startswith("wildguard"))
    assert len(RunFolder(there).verdicts(name, "en")) == len(RunFolder(there).completions("en"))
    # A cell whose verdicts are lost is read again, and nothing else is.
    lost = there / "verdicts" / safe_name(name) / "en" / "harmful.baseline.jsonl"
    content = lost.read_bytes()
    lost.unlink()
    (there / "summary.json").unlink()
    before = read_timings(there)
    assert call(*command(model_folder, data_folder, there, *further, *dask(cluster))).exit_code == 0
    assert lost.read_bytes() == content
    assert_same(there, here)
    assert [timing.part for timing in read_timings(there)[len(before) :] if timing.part == "cell"] == []


def test_processes_started_here_end_with_the_command(
    local: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(local, out)
    (out / "summary.json").unlink()
    (out / "answered.json").unlink()
    (out / "completions" / "de" / "harmful.baseline.jsonl").unlink()
    result = call(*command(model_folder, data_folder, out, "--executor", "dask", "--workers", 1))
    assert result.exit_code == 0, result.output + str(result.exception)
    assert_same(out, local)


def test_a_cluster_that_cannot_serve_is_told_in_one_line(
    cluster: Any, model_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import polyrefuse_data.cluster.connect as cluster_module
    import polyrefuse_data.cluster.worker as worker_module

    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 0.5)
    out = tmp_path / "run"

    def fails(*more: object) -> str:
        told = error(*command(model_folder, data_folder, out, *more))
        assert not out.exists()
        return told

    assert "no Dask scheduler answers at 'tcp://127.0.0.1:9' (" in fails(
        "--executor", "dask", "--scheduler", "tcp://127.0.0.1:9"
    )
    assert "no Dask scheduler answers at 'nonsense'" in fails("--executor", "dask", "--scheduler", "nonsense")
    assert "--gpus-per-worker 2 is more than any worker" in fails(*dask(cluster), "--gpus-per-worker", 2)
    assert "take 4 GPUs, and this machine has 0" in fails(
        "--executor", "dask", "--workers", 2, "--gpus-per-worker", 2
    )
    assert "--scheduler and --workers need --executor dask" in fails("--scheduler", "x", "--workers", 2)
    assert "name different clusters" in fails(*dask(cluster), "--workers", 2)
    assert "--tensor-parallel takes one model" in fails(*dask(cluster), "--tensor-parallel")
    assert "no folder '/nowhere" in error(*command("/nowhere/x", data_folder, out, *dask(cluster)))
    with monkeypatch.context() as patch:
        here = worker_module.versions_here()
        patch.setattr(worker_module, "versions_here", lambda: {**here, "transformers": "4.0.0"})
        assert "other versions (transformers" in fails(*dask(cluster))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "distributed", None)
        assert "pip install 'polyrefuse[dask]'" in fails(*dask(cluster))


def test_two_drivers_on_one_folder(
    cluster: Any, local: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(local, out)
    (out / "summary.json").unlink()
    with RunFolder(out).locked():
        assert "is writing to" in error(*command(model_folder, data_folder, out, *dask(cluster)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_organisms_grid_is_the_same_on_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from polyrefuse_data.build.pipeline import BuildRequest, build
    from polyrefuse_eval.organisms import organism_path

    data = build(BuildRequest("sample", langs=["en", "de", "yo"], out=tmp_path / "sample")).folder
    monkeypatch.delenv("POLYREFUSE_CACHE")
    organism = organism_path()
    grid: list[object] = [
        *("run", "--model", organism, "--data", data, "--langs", "en,de,yo", "--directions", "en,yo"),
        *("--rule", "mediating", "--test", 96, "--batch-size", 64, "-q"),
    ]
    for name, more in {"here": (), "there": ("--executor", "dask", "--workers", 2)}.items():
        monkeypatch.setenv("POLYREFUSE_CACHE", str(tmp_path / f"cache-{name}"))
        result = call(*grid, "--out", tmp_path / name, *more)
        assert result.exit_code == 0, result.output
    assert_same(tmp_path / "there", tmp_path / "here")
    rates = [
        one.refusal_rate for one in RunFolder(tmp_path / "there").results() if one.condition == "ablation:yo"
    ]
    assert len(rates) == 6
