"""One model on several processes: tensor parallelism under `torchrun`, one process a GPU.

Every process takes the same steps and holds its part of each matrix. The input of a layer, and the outputs of
its attention and MLP, are whole and the same in all processes (which sum their last matrices), so each edits
the residual stream as if it were alone. Only the first process writes; the others work in a temporary folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polyrefuse_eval.errors import ChatModelError

LAUNCH = "torchrun --nproc-per-node N -m polyrefuse_data.cli eval run … --tensor-parallel"


def world_size() -> int:
    """Return the number of processes that `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def torch_threads() -> int:
    """Return how many threads torch takes in this process."""
    import torch

    return torch.get_num_threads()


def set_torch_threads(threads: int) -> None:
    """Let torch take `threads` in this process."""
    import torch

    torch.set_num_threads(threads)


def require_processes() -> None:
    """Raise `ChatModelError` unless `torchrun` started this process."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        raise ChatModelError(f"tensor parallelism needs one process a GPU; start it with: {LAUNCH}")


@contextmanager
def folder_of_this_process(out: Path) -> Iterator[Path]:
    """Yield `out` in the first process, and in the others a copy of it that is removed at the end.

    All processes wait for each other before they copy, since the first may have to download `out`, and
    before the first continues, so that all begin with the same files.
    """
    if world_size() == 1:
        yield out
        return
    own = out if rank() == 0 else Path(tempfile.mkdtemp(prefix="polyrefuse-rank-")) / out.name
    try:
        _wait_for_all()
        if rank() > 0 and out.is_dir():
            shutil.copytree(out, own)
        _wait_for_all()
        yield own
    finally:
        if rank() > 0:
            shutil.rmtree(own.parent, ignore_errors=True)


def _wait_for_all() -> None:
    import torch
    from torch import distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not distributed.is_initialized():
        distributed.init_process_group()
    distributed.barrier()
