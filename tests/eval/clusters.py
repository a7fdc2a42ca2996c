"""Dask clusters for tests: processes on the loopback address, one thread each, no dashboard."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def cluster_of(
    workers: int,
    *,
    preload: Sequence[str] = (),
    resources: Sequence[Mapping[str, float]] = (),
    allowed_failures: int = 3,
) -> Iterator[Any]:
    """A scheduler and `workers` processes, for the time of a `with` block; `resources` of each worker.

    A task survives `allowed_failures` deaths of its worker before the scheduler gives it up.
    """
    from distributed import Nanny, Scheduler, SpecCluster

    options = {
        "nthreads": 1,
        "host": "127.0.0.1",
        "dashboard": False,
        "memory_limit": 0,
        "preload": list(preload),
        "silence_logs": logging.CRITICAL,
    }
    spec = {
        number: {
            "cls": Nanny,
            "options": {**options, "resources": dict(resources[number]) if resources else {}},
        }
        for number in range(workers)
    }
    scheduler = {
        "cls": Scheduler,
        "options": {
            "host": "127.0.0.1",
            "port": 0,
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
            "allowed_failures": allowed_failures,
        },
    }
    with SpecCluster(workers=spec, scheduler=scheduler, silence_logs=logging.CRITICAL) as cluster:
        yield cluster
