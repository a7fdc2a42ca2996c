"""What runs on a worker of a cluster: it keeps one loaded model, and computes one task at a time with it.

Imported by name on workers, only where distributed is installed.
"""

from __future__ import annotations

import gc
import platform
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from distributed import WorkerPlugin, get_worker

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.version import __version__

PLUGIN = "polyrefuse-model"


class Keeper:
    """Holds one loaded model: what was loaded before is dropped before another is loaded."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.key: str | None = None
        self.load_seconds = 0.0
        self._model: Any = None
        self._close: Callable[[Any], None] | None = None

    def model(self, key: str, load: Callable[[], Any], close: Callable[[Any], None] | None = None) -> Any:
        """Return the model `key`, loaded by `load` unless it is held already; `close` is called on it
        before the next is loaded."""
        if self.key != key:
            self.drop()
            begun = time.perf_counter()
            self._model = load()
            self.load_seconds += time.perf_counter() - begun
            self.key, self._close = key, close
        return self._model

    def drop(self) -> None:
        """Forget the model, and give its memory back to the device."""
        model, close = self._model, self._close
        self.key = self._model = self._close = None
        if model is None:
            return
        if close is not None:
            close(model)
        del model
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()


class KeeperPlugin(WorkerPlugin):  # type: ignore[misc]
    """Gives each worker a `Keeper`, also those that join later."""

    name = PLUGIN
    idempotent = True

    def __init__(self) -> None:
        self.keeper: Keeper | None = None

    def setup(self, worker: Any) -> None:
        """Called by a worker when it starts, or when the plugin is registered."""
        self.keeper = Keeper()

    def teardown(self, worker: Any) -> None:
        """Called by a worker when it ends."""
        if self.keeper is not None:
            self.keeper.drop()


class Work(Protocol):
    """Something to compute with the model that a worker keeps; it is pickled on its way there."""

    def __call__(self, keeper: Keeper) -> Any: ...


@dataclass(frozen=True)
class Done:
    """What a task brought back: its result, who computed it, and the seconds without loading the model; or,
    in one line, why there is no result. Rounding depends on `processor`."""

    result: Any
    worker: str
    seconds: float
    load_seconds: float
    processor: str
    error: str | None = None


def run_work(work: Work) -> Done:
    """Compute `work` on this worker, alone, with the model that it keeps.

    What goes wrong comes back as a line: not every error and its traceback can be read where they arrive.
    """
    worker = get_worker()
    keeper = worker.plugins[PLUGIN].keeper
    with keeper.lock:
        loading = keeper.load_seconds
        begun = time.perf_counter()
        result = error = None
        try:
            result = work(keeper)
        except Exception as fault:
            error = in_one_line(fault)
        seconds = time.perf_counter() - begun
        loading = keeper.load_seconds - loading
        return Done(result, worker.address, seconds - loading, loading, processor_name(), error)


def in_one_line(error: BaseException) -> str:
    """Return what an error says, with its kind where it is none of ours."""
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, PolyRefuseError) else f"{type(error).__name__}: {text}"


def processor_name() -> str:
    """Return the name of the GPU that torch uses in this process, else of its CPU."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def versions_here() -> dict[str, str | None]:
    """Return the versions that results and pickles depend on; None of what is not installed."""
    found: dict[str, str | None] = {"polyrefuse": __version__}
    for name in ("torch", "transformers", "distributed"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def worker_facts(resource: str, dask_worker: Any = None) -> dict[str, Any]:
    """Return the versions of this worker, and how much of `resource` it offers (Dask gives the worker)."""
    offered = dask_worker.state.total_resources.get(resource, 0)
    return {"versions": versions_here(), "gpus": offered}
