"""The options of commands that can compute on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from polyrefuse_data.cli.parts import file_argument
from polyrefuse_data.cluster.connect import ClusterOptions
from polyrefuse_data.core.errors import ClusterError

EXECUTOR_OPTIONS = (
    click.option(
        "--executor",
        type=click.Choice(["local", "dask"]),
        default="local",
        show_default=True,
        help="Compute in this process, or on the workers of a Dask cluster.",
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="With dask: address of a running cluster, e.g. tcp://HOST:8786.",
    ),
    click.option(
        "--slurm",
        type=file_argument,
        help="With dask: YAML file that describes the Slurm jobs of the workers.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(1),
        help="With dask and no cluster: processes to start on this machine.  [default: one a GPU, else 2]",
    ),
    click.option(
        "--gpus-per-worker",
        type=click.IntRange(0),
        help="With dask: GPUs for each model.  [default: 1 on this machine if it has any, else 0]",
    ),
    click.option(
        "--retries",
        type=click.IntRange(0),
        default=2,
        show_default=True,
        help="With dask: how often a failed task is repeated.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1),
        help="PyTorch threads per model; on a CPU, results depend on this.  [default: torch's own]",
    ),
)
"""Where, and with how many threads, a model computes."""


def executor_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add these options to a command."""
    for option in reversed(EXECUTOR_OPTIONS):
        command = option(command)
    return command


def take_cluster_options(options: dict[str, Any]) -> ClusterOptions | None:
    """Remove the options of `EXECUTOR_OPTIONS` from `options`; return None to compute here.

    Raises `ClusterError` for options that need `--executor dask`, or that exclude each other.
    """
    names = ("scheduler", "slurm", "workers", "gpus_per_worker", "retries")
    given = {name: options.pop(name) for name in names}
    if options.pop("executor") == "local":
        extra = [f"--{name.replace('_', '-')}" for name in names[:4] if given[name] is not None]
        if extra:
            raise ClusterError(f"{' and '.join(extra)} need --executor dask")
        return None
    chosen = [f"--{name}" for name in ("scheduler", "slurm", "workers") if given[name] is not None]
    if len(chosen) > 1:
        raise ClusterError(f"{' and '.join(chosen)} name different clusters; give one of them")
    return ClusterOptions(**given)
