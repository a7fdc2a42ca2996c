"""Workers that are jobs of Slurm: a YAML file with the arguments of `dask_jobqueue.SLURMCluster`.

    jobs: 8
    queue: gpu
    cores: 8
    memory: 64GB
    walltime: "12:00:00"
    job_extra_directives: ["--gres=gpu:1"]

`jobs` is how many to submit; all other keys go to `SLURMCluster` as they are.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from polyrefuse_data.core.contents import read_utf8
from polyrefuse_data.core.errors import ClusterError, unknown_name
from polyrefuse_data.core.parsing import parse_yaml

JOBS = "jobs"
RESERVED = ("self", "args", "kwargs", "base_class_kwargs", "job_kwargs", "n_workers", "job_cls", "loop",
        "asynchronous", "silence_logs", "scheduler", "name", "scheduler_cls", "config_name")  # fmt: skip
"""Arguments that a file may not hold: they belong to inner classes, or are set here."""


def start_slurm(stack: ExitStack, file: Path, gpus: int) -> str:
    """Submit the jobs of `file`, and cancel them when `stack` closes; return the scheduler's address.

    Raises `ClusterError` where dask-jobqueue or Slurm is missing, or Slurm refuses the jobs;
    `UnknownNameError` for an unknown argument.
    """
    try:
        jobqueue = importlib.import_module("dask_jobqueue")
    except ImportError:
        raise ClusterError(
            "dask-jobqueue is not installed; install it with: pip install 'polyrefuse[slurm]'"
        ) from None
    arguments = read_slurm(file, known_arguments(jobqueue))
    if shutil.which("sbatch") is None:
        raise ClusterError("there is no sbatch on this machine; run the command on a login node of Slurm")
    jobs, processes = arguments.pop(JOBS), arguments.setdefault("processes", 1)
    if gpus:
        arguments["worker_extra_args"] = [
            *(arguments.get("worker_extra_args") or []),
            "--resources",
            f"GPU={gpus}",
        ]
    options = {"dashboard": False, "dashboard_address": ":0", "allowed_failures": 0}
    arguments["scheduler_options"] = options | dict(arguments.get("scheduler_options") or {})
    try:
        cluster = jobqueue.SLURMCluster(**arguments, silence_logs=logging.CRITICAL)
        stack.callback(_close, cluster)
        cluster.scale(jobs * processes)
        cluster.sync(_submitted, cluster)
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        raise ClusterError(f"the Slurm jobs of '{file}' cannot be started: {error}") from None
    return str(cluster.scheduler_address)


def _close(cluster: Any) -> None:
    """Cancel the jobs, also those that never started, which Dask asserts against."""
    with contextlib.suppress(AssertionError):
        cluster.close()


async def _submitted(cluster: Any) -> None:
    """Wait until all jobs are submitted; raises the error with which Slurm refuses one."""
    # Dask drops the error of a submission, and logs its traceback; awaiting the job raises it.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    await cluster
    for job in list(cluster.workers.values()):
        await job


def known_arguments(jobqueue: ModuleType) -> list[str]:
    """Return the arguments that a file may hold."""
    makers: list[Callable[..., Any]] = [
        jobqueue.slurm.SLURMJob.__init__,
        jobqueue.core.Job.__init__,
        jobqueue.core.JobQueueCluster.__init__,
    ]
    names = {name for maker in makers for name in inspect.signature(maker).parameters}
    return sorted({JOBS, *names} - set(RESERVED))


def read_slurm(file: Path, known: list[str]) -> dict[str, Any]:
    """Return the arguments in `file`; raises `ClusterError` for unknown keys and for no number of jobs."""
    try:
        arguments = parse_yaml(read_utf8(file))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ClusterError(f"cannot read the Slurm file '{file}': {error}") from None
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        raise ClusterError(f"the Slurm file '{file}' holds no arguments; expected lines such as jobs: 8")
    for key in arguments:
        if key not in known:
            raise unknown_name(f"argument in the Slurm file '{file}'", key, known)
    jobs = arguments.get(JOBS)
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise ClusterError(f"the Slurm file '{file}' says jobs: {jobs}; expected how many jobs to submit")
    processes = arguments.get("processes", 1)
    if not isinstance(processes, int) or isinstance(processes, bool) or processes < 1:
        raise ClusterError(f"the Slurm file '{file}' says processes: {processes}; expected 1 or more")
    return dict(arguments)
