"""Processes that a test kills: forked from a new interpreter without threads, never from the test's own.

A fork of a process with threads inherits locks that no thread will release. The interpreter that is
forked here has imported what a run needs and started nothing, so that a child starts in milliseconds.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        *("polyrefuse_eval.cli.main", "polyrefuse_eval.models.chat"),
        *("transformers.models.llama.modeling_llama", "openai"),
    ]
)


def started(target: Callable[..., None], *arguments: object) -> BaseProcess:
    """Start a process with this environment that calls `target(*arguments)`; return when the call begins.

    `target` is a function of a module that can be imported by name.
    """
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_call, args=(sender, dict(os.environ), target, arguments), daemon=True)
    process.start()
    sender.close()
    receiver.recv()
    return process


def _call(
    begun: object, environment: Mapping[str, str], target: Callable[..., None], arguments: tuple[object, ...]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    import torch

    torch.set_num_threads(1)
    begun.send(None)  # type: ignore[attr-defined]
    target(*arguments)
