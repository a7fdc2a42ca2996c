"""A model in two processes, on CPUs: the same directions, edits and answers as in one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from parallel_worker import measured
from tiny import assert_mostly_equal, tiny_model, tokenizer

from polyrefuse_eval.errors import ChatModelError
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.folder import RunFolder

HERE = Path(__file__).parent


def in_two_processes(*command: object) -> str:
    """Run a program under torchrun; return what it says on standard output."""
    # In a session of its own: what it starts must not outlive a timeout.
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *map(str, command),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"},
    )
    try:
        output, errors = process.communicate(timeout=150)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors[-2000:]
    return output


@pytest.mark.parametrize("family", ["llama", pytest.param("gemma2", marks=pytest.mark.slow)])
def test_two_processes_measure_what_one_does(family: str, tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    tiny_model(family).save_pretrained(model)
    tokenizer().save_pretrained(model)
    out.mkdir()
    (out / "before").touch()
    in_two_processes(f"{HERE}/parallel_worker.py", model, out)
    assert sorted(path.name for path in out.iterdir()) == ["0.pt", "before"], "only the first process writes"
    parallel = torch.load(out / "0.pt", weights_only=True)
    alone = measured(ChatModel.load(str(model), dtype="float32"))
    assert_mostly_equal(parallel.pop("answers"), alone.pop("answers"))
    for name, value in alone.items():
        torch.testing.assert_close(parallel[name], value, atol=1e-4, rtol=1e-4)


def responses(run: Path) -> dict[str, str]:
    return {completion.key: completion.response for completion in RunFolder(run).completions("de")}


@pytest.mark.slow
def test_a_run_in_two_processes_answers_as_one_does_and_goes_on(
    model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    command = (
        *("eval", "run", "--model", model_folder, "--data", data_folder, "--langs", "de", "-q"),
        *("--refusal-tokens", "40,41", "--no-filter", "--max-new-tokens", 4, "--dtype", "float32"),
    )
    alone, parallel = tmp_path / "alone", tmp_path / "parallel"
    subprocess.run(
        [sys.executable, "-m", "polyrefuse_data.cli", *map(str, command), "--out", alone], check=True
    )
    spread = ("-m", "polyrefuse_data.cli", *command, "--tensor-parallel", "--out", parallel)
    table = in_two_processes(*spread)
    assert table.count("\nde ") == 1, "said once"
    assert {path.name for path in parallel.iterdir()} == {path.name for path in alone.iterdir()}
    cells = sorted(file.relative_to(alone) for file in (alone / "completions").glob("*/*.jsonl"))
    assert len(cells) == 13
    assert_mostly_equal(responses(alone), responses(parallel))
    before = (parallel / "results.jsonl").read_bytes()
    (parallel / "answered.json").unlink()
    cut, *others = (parallel / "completions" / "de").glob("*.jsonl")
    cut.write_text("".join(cut.read_text().splitlines(keepends=True)[:2]))
    for file in others[:3]:
        file.unlink()
    assert in_two_processes(*spread) == table
    assert (parallel / "results.jsonl").read_bytes() == before


def test_without_its_launcher_one_line_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    tiny_model("llama").save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ChatModelError, match="torchrun --nproc-per-node"):
        ChatModel.load(str(tmp_path), tensor_parallel=True)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ChatModelError, match="leave out --quantization"):
        ChatModel.load(str(tmp_path), tensor_parallel=True, quantization="8bit")
