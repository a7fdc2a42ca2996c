"""Open a Dask cluster: one that runs, processes started here, or jobs of Slurm.

distributed is imported when a cluster is opened. Its processes trust each other: they exchange pickles, and
whoever reaches the scheduler can run code on the workers (see docs/how-to/cluster.md).
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from polyrefuse_data.core.errors import ClusterError

GPU = "GPU"
"""The name of the resource that workers offer and tasks take."""

HOST = "127.0.0.1"
KEEP_MEMORY = {"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}
"""Let workers that are started here keep freed memory, as any other process does."""

SCHEMES = ("tcp", "tls", "ucx", "ws", "wss")
CONNECT_SECONDS = 10.0
WORKER_SECONDS = 60.0
"""How long to wait for the first worker of a cluster; Slurm jobs may stand in a queue for any time."""

VERSIONS_THAT_MATTER = ("polyrefuse", "torch", "transformers", "distributed")
Say = Callable[[str], None]


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster, and what its workers must have.

    `scheduler` is the address of one that runs, `slurm` a file with the arguments of
    `dask_jobqueue.SLURMCluster`; without both, `workers` processes are started on this machine: by default
    one for each GPU, without GPUs two. A task is tried again `retries` times.
    """

    scheduler: str | None = None
    slurm: Path | None = None
    workers: int | None = None
    gpus_per_worker: int | None = None
    retries: int = 2


@dataclass
class Cluster:
    """An open cluster: its client, the GPUs that a task takes, and how long to wait for workers."""

    client: Any
    place: str
    gpus: int
    retries: int
    worker_seconds: float | None
    say: Say
    mixed: bool = False
    """Whether some workers cannot take tasks."""
    _gpus_of: dict[str, float] = field(default_factory=dict)
    """Address of a worker that passed its inspection to its GPUs."""
    _refused: dict[str, str] = field(default_factory=dict)
    """Address of a worker that did not pass to the reason."""

    def workers(self) -> list[str]:
        """Return the addresses of the workers that can take tasks; inspect each once.

        Raises `ClusterError` where there are workers, and none can take tasks.
        """
        present = list(self.client.nthreads())
        self._inspect([worker for worker in present if worker not in {*self._gpus_of, *self._refused}])
        fit = [worker for worker in present if worker in self._gpus_of]
        able = [worker for worker in fit if self._gpus_of[worker] >= self.gpus]
        refused = [self._refused[worker] for worker in present if worker in self._refused]
        if fit and not able:
            raise ClusterError(
                f"--gpus-per-worker {self.gpus} is more than any worker at {self.place} offers (the most is "
                f"{max(self._gpus_of[worker] for worker in fit):g}); start workers with: dask worker ADDRESS "
                f"--nthreads 1 --resources '{GPU}={self.gpus}'"
            )
        if refused and not fit:
            raise ClusterError(refused[0])
        self.mixed = len(able) < len(present)
        return able

    def _inspect(self, new: list[str]) -> None:
        from polyrefuse_data.cluster.worker import worker_facts

        replies = self.client.run(worker_facts, GPU, workers=new, on_error="return") if new else {}
        for address, facts in replies.items():
            if isinstance(facts, (OSError, TimeoutError)):
                continue  # it has left meanwhile
            fault = (
                f"cannot run polyrefuse tasks ({facts}); install the same version there as here"
                if isinstance(facts, Exception)
                else _other_versions(facts["versions"])
            )
            if fault is None:
                self._gpus_of[address] = facts["gpus"]
            else:
                self._refused[address] = f"the worker {address} {fault}"
                self.say(f"{self._refused[address]}; it gets no tasks")

    def wait_for_workers(self) -> None:
        """Wait for a worker that can take tasks; raises `ClusterError` as `workers` does, and when none has
        come in time."""
        begun = said = time.monotonic()
        while not self.workers():
            now = time.monotonic()
            if self.worker_seconds is not None and now - begun > self.worker_seconds:
                raise ClusterError(
                    f"no worker at {self.place} for {self.worker_seconds:.0f} s; start some with: dask "
                    "worker ADDRESS --nthreads 1, then run the same command again"
                )
            if now - said > WORKER_SECONDS:
                said = now
                self.say(f"waiting for workers at {self.place}")
            time.sleep(0.2)


@contextmanager
def open_cluster(
    options: ClusterOptions, *, gpus_here: Callable[[], int] = lambda: 0, say: Say = lambda _line: None
) -> Iterator[Cluster]:
    """Connect to the cluster of `options`, or start it; disconnect, or stop it, at the end of the block.

    `gpus_here` counts the GPUs of this machine. Raises `ClusterError` in one line where Dask is not
    installed, no scheduler answers, a worker has other versions, or more GPUs are asked for than there are.
    """
    distributed = require_dask()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        gpus = options.gpus_per_worker or 0
        seconds: float | None = WORKER_SECONDS
        if options.scheduler is not None:
            address, place = options.scheduler, options.scheduler
        elif options.slurm is not None:
            from polyrefuse_data.cluster.slurm import start_slurm

            address = start_slurm(stack, options.slurm, gpus)
            place, seconds = "Slurm", None
        else:
            available = gpus_here()
            gpus = min(1, available) if options.gpus_per_worker is None else gpus
            workers = options.workers or (available // gpus if gpus and available >= gpus else 2)
            address = _start_here(stack, distributed, workers, gpus, available)
            place = "this machine"
        client = stack.enter_context(_connect(distributed, address))
        cluster = Cluster(client, place, gpus, options.retries, seconds, say)
        _inspect_scheduler(client, place)
        cluster.wait_for_workers()
        yield cluster


def require_dask() -> ModuleType:
    """Return the module `distributed`; raises `ClusterError` with the pip command where it is missing."""
    try:
        return importlib.import_module("distributed")
    except ImportError:
        raise ClusterError("Dask is not installed; install it with: pip install 'polyrefuse[dask]'") from None


@contextmanager
def _connect(distributed: ModuleType, address: str) -> Iterator[Any]:
    try:
        _check_listening(address)
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at '{address}' ({error or type(error).__name__}); expected an "
            "address such as tcp://HOST:8786, where `dask scheduler` runs"
        ) from None
    try:
        yield client
    finally:
        client.close(timeout=CONNECT_SECONDS)


def _check_listening(address: str) -> None:
    """Raise `OSError` or `ValueError` where nothing listens at `address`.

    A client without a scheduler would go on trying, and log errors when it is collected.
    """
    from distributed.comm import get_address_host_port, normalize_address

    whole = normalize_address(address)
    scheme = whole.partition("://")[0]
    if scheme not in SCHEMES:
        raise ValueError(f"the scheme {scheme}:// is not known")
    if scheme in ("tcp", "tls"):
        place = get_address_host_port(whole, strict=True)
        socket.create_connection(place, timeout=CONNECT_SECONDS).close()


def _start_here(stack: ExitStack, distributed: ModuleType, workers: int, gpus: int, available: int) -> str:
    """Start a scheduler and `workers` processes on the loopback address; return the scheduler's address."""
    if gpus * workers > available and gpus:
        raise ClusterError(
            f"--workers {workers} with --gpus-per-worker {gpus} take {gpus * workers} GPUs, and this machine "
            f"has {available}; ask for fewer"
        )
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = given.split(",") if given else [str(number) for number in range(available)]
    spec = {}
    for number in range(workers):
        visible = ",".join(devices[number * gpus : (number + 1) * gpus])
        spec[number] = {
            "cls": distributed.Nanny,
            "options": {
                "nthreads": 1,
                "host": HOST,
                "dashboard": False,
                # No limit: Dask would stop a worker whose model takes more than a share of the memory.
                "memory_limit": 0,
                "resources": {GPU: gpus} if gpus else {},
                "env": {"CUDA_VISIBLE_DEVICES": visible} if gpus else {},
                "silence_logs": logging.CRITICAL,
            },
        }
    scheduler = {
        "cls": distributed.Scheduler,
        "options": {
            "host": HOST,
            "port": 0,
            "dashboard": False,
            "dashboard_address": f"{HOST}:0",
            # Report a death at once: the executor tries the task again.
            "allowed_failures": 0,
        },
    }
    # By default Dask makes processes give memory back at once, and every matrix product ask for it anew.
    with importlib.import_module("dask").config.set(KEEP_MEMORY):
        cluster = distributed.SpecCluster(
            workers=spec, scheduler=scheduler, silence_logs=logging.CRITICAL, name="polyrefuse"
        )
    stack.enter_context(cluster)
    return str(cluster.scheduler_address)


def _inspect_scheduler(client: Any, place: str) -> None:
    """Raise `ClusterError` unless the scheduler can read our tasks: it unpickles what it passes on."""
    from polyrefuse_data.cluster.worker import versions_here

    try:
        versions = client.run_on_scheduler(versions_here)
    except (ImportError, AttributeError) as error:
        raise ClusterError(
            f"the scheduler at {place} cannot read tasks of polyrefuse ({error}); start it in the "
            "environment of the workers"
        ) from None
    fault = _other_versions(versions)
    if fault is not None:
        raise ClusterError(f"the scheduler at {place} {fault}")


def _other_versions(there: Mapping[str, str | None]) -> str | None:
    """Return in which versions that results depend on a process differs from this one; None for none."""
    from polyrefuse_data.cluster.worker import versions_here

    here = versions_here()
    differing = [
        f"{name} {there[name]} there, {here[name]} here"
        for name in VERSIONS_THAT_MATTER
        if here[name] and there.get(name) and public(there[name]) != public(here[name])
    ]
    if not differing:
        return None
    return (
        f"has different versions ({'; '.join(differing)}) and would give different results; install the same "
        "everywhere"
    )


def public(version: str | None) -> str | None:
    """Return a version without its build, 2.6.0 for 2.6.0+cu124."""
    return None if version is None else version.partition("+")[0]
