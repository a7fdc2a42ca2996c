"""Runs on a Dask cluster of two processes: the same bytes as here, and what fails."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="the dask extra is not installed")

from runs_on_clusters import assert_same, call, command, dask, error
from tiny import tiny_model, tokenizer

from polyrefuse_eval.judging.local_model import LocalModel
from polyrefuse_eval.results.condition_files import safe_name
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.timings import read_timings

N_CELLS = 2 * (2 + 4 * 2 + 2 * 2 + 3)
"""Cells of the run below: baselines, two directions, two controls, three strengths; in two languages."""


def test_a_run_on_a_cluster_gives_the_bytes_of_a_run_here(
    cluster: Any, local: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = call(*command(model_folder, data_folder, out, *dask(cluster)))
    assert result.exit_code == 0, result.output + str(result.exception)
    assert_same(out, local)
    assert "harmful" in result.output
    timings = read_timings(out)
    assert sum(timing.part == "cell" for timing in timings) == N_CELLS
    assert sum(timing.answers for timing in timings) == sum(
        len(RunFolder(out).completions(lang)) for lang in ("en", "de")
    )
    # Each of two workers loads the model once, unless it has it from a command before.
    assert sum(timing.part == "load" for timing in timings) <= 2
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


def test_what_fails_is_named_while_the_rest_goes_on(
    cluster: Any, stumble: Path, local: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = command(model_folder, data_folder, out, *dask(cluster), "--retries", 1)
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
        assert "different versions (transformers" in fails(*dask(cluster))
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
