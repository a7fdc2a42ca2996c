"""What runs on a worker of a cluster: keep one loaded model, and compute one task at a time with it.

Imported by name on workers, only where distributed is installed.
"""

from __future__ import annotations

import platform
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin, get_worker

from polyrefuse_data.cluster.tasks import Computation, ModelSlot, collect, in_one_line
from polyrefuse_data.core.version import __version__

PLUGIN = "polyrefuse-model"


class ModelPlugin(WorkerPlugin):  # type: ignore[misc]
    """Give each worker a `ModelSlot`, also those that join later."""

    name = PLUGIN
    idempotent = True

    def __init__(self) -> None:
        self.slot: ModelSlot | None = None
        self.lock: threading.Lock | None = None

    def setup(self, worker: Any) -> None:
        """Make the slot; a worker calls this when it starts, or when the plugin is registered."""
        self.slot, self.lock = ModelSlot(), threading.Lock()

    def teardown(self, worker: Any) -> None:
        """Empty the slot; a worker calls this when it ends."""
        if self.slot is not None:
            self.slot.clear()


@dataclass(frozen=True, kw_only=True)
class WorkerResult:
    """The result of a computation, the seconds that it took without loading the model, and its error.

    Rounding depends on `processor`.
    """

    result: Any
    seconds: float
    load_seconds: float
    processor: str
    error: str | None = None


def run_on_worker(compute: Computation) -> WorkerResult:
    """Call `compute` alone on this worker, with the model that it holds.

    An error comes back as a line, since its type may not unpickle where it arrives.
    """
    plugin = get_worker().plugins[PLUGIN]
    slot: ModelSlot = plugin.slot
    with plugin.lock:
        loading, begun = slot.load_seconds, time.perf_counter()
        result = error = None
        try:
            result = collect(compute(slot))
        except Exception as fault:
            error = in_one_line(fault)
        seconds, loading = time.perf_counter() - begun, slot.load_seconds - loading
    return WorkerResult(
        result=result,
        seconds=seconds - loading,
        load_seconds=loading,
        processor=processor_name(),
        error=error,
    )


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
    """Return the versions that results and pickles depend on; None for what is not installed."""
    versions: dict[str, str | None] = {"polyrefuse": __version__}
    for name in ("torch", "transformers", "distributed"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def worker_facts(resource: str, dask_worker: Any = None) -> dict[str, Any]:
    """Return the versions of this worker, and how much of `resource` it offers (Dask passes the worker)."""
    offered = dask_worker.state.total_resources.get(resource, 0)
    return {"versions": versions_here(), "gpus": offered}
