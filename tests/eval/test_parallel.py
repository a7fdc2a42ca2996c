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
from tiny import tiny_model, tokenizer

from polyrefuse_eval.chat import ChatModel
from polyrefuse_eval.errors import ChatModelError


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_two_processes_measure_what_one_does(family: str, tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    tiny_model(family).save_pretrained(model)
    tokenizer().save_pretrained(model)
    out.mkdir()
    (out / "before").touch()
    here = str(Path(__file__).parent)
    # In a session of its own: what it starts must not outlive a timeout.
    process = subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            f"{here}/parallel_worker.py", str(model), str(out),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=150)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, said[-2000:]
    assert sorted(path.name for path in out.iterdir()) == ["0.pt", "before"], "only the first process writes"
    parallel = torch.load(out / "0.pt", weights_only=True)
    alone = measured(ChatModel.load(str(model), dtype="float32"))
    assert parallel.pop("answers") == alone.pop("answers")
    for name, value in alone.items():
        torch.testing.assert_close(parallel[name], value, atol=1e-4, rtol=1e-4)


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
