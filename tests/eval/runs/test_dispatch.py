"""Tasks for workers: who gets which, what is tried again, and when it is given up. No model is loaded."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("distributed", reason="the dask extra is not installed")

from clusters import cluster_of
from distributed import Client

import polyrefuse_data.cluster.dispatch as dispatch_module
import polyrefuse_data.cluster.worker as worker_module
from polyrefuse_data.cluster.connect import Cluster, ClusterOptions
from polyrefuse_data.cluster.dispatch import DaskExecutor
from polyrefuse_data.cluster.tasks import ModelSlot, Observer, Outcome, Task
from polyrefuse_data.core.errors import ClusterError

KILL, FAIL, FAIL_HERE, ELSEWHERE = "kill", "fail", "fail here", "elsewhere"


@dataclass(frozen=True)
class Pretence:
    """Load a model by its name, sleep, and say where; or fail, kill the worker, or pretend to compute on
    another processor."""

    model: str
    does: str = ""
    seconds: float = 0.02

    def __call__(self, slot: ModelSlot) -> str:
        slot.get(self.model, lambda: time.sleep(0.001))
        time.sleep(self.seconds)
        if self.does == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.does == FAIL or self.does == f"{FAIL_HERE} {os.getpid()}":
            raise ValueError("it\nfails")
        if self.does == ELSEWHERE:
            worker_module.processor_name = lambda: f"processor {os.getpid()}"
        return f"{os.getpid()} {self.model}"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with cluster_of(2, allowed_failures=0) as two:
        yield two.scheduler_address


def task(name: str, compute: Pretence, first: bool = False) -> Task:
    return Task(name=name, model=compute.model, compute=compute, first=first)


def tasks_of(computations: Iterable[Pretence]) -> deque[Task]:
    return deque(task(f"{number} {compute.does}", compute) for number, compute in enumerate(computations))


def run(
    address: str, computations: list[Pretence], observer: Observer | None = None, **options: Any
) -> list[Outcome]:
    with DaskExecutor(ClusterOptions(scheduler=address, **options)) as executor:
        return list(executor.run(tasks_of(computations), observer))


def results(outcomes: list[Outcome]) -> list[str]:
    return [outcome.result for outcome in outcomes if outcome.error is None]


class Recorder(Observer):
    """Keep what was retried, and the lines."""

    def __init__(self) -> None:
        self.retries: list[str] = []
        self.lines: list[str] = []

    def retried(self, task: Task, error: str) -> None:
        self.retries.append(f"{task.name}: {error}")

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_a_loaded_model_is_used_up_before_it_is_dropped(address: str) -> None:
    outcomes = run(address, [Pretence(model) for _ in range(12) for model in "abcd"])
    assert len(results(outcomes)) == 48
    loads = sum(outcome.load_seconds > 0 for outcome in outcomes)
    # One after another in this order, each would be loaded 24 times; four models on two workers need four,
    # and at the end of each both may be at one.
    assert 4 <= loads <= 7
    assert len({result.split()[0] for result in results(outcomes)}) == 2


def test_what_others_wait_for_goes_first(address: str) -> None:
    tasks = deque(task(str(number), Pretence("a"), first=number == 9) for number in range(10))
    with DaskExecutor(ClusterOptions(scheduler=address)) as executor:
        names = [outcome.task.name for outcome in executor.run(tasks)]
    assert names.index("9") < 4
    assert sorted(names) == sorted(map(str, range(10)))


def test_tasks_can_be_added_while_others_run(address: str) -> None:
    tasks = deque([task("0", Pretence("a"))])
    names = []
    with DaskExecutor(ClusterOptions(scheduler=address)) as executor:
        for outcome in executor.run(tasks):
            names.append(outcome.task.name)
            if len(names) < 5:
                tasks.append(task(str(len(names)), Pretence("a")))
    assert names == ["0", "1", "2", "3", "4"]


def test_a_task_that_fails_is_tried_elsewhere_and_then_reported(address: str) -> None:
    observer = Recorder()
    with Client(address, set_as_default=False) as client:
        process = next(iter(client.run(os.getpid).values()))
    computations = [Pretence("a", FAIL), Pretence("a", f"{FAIL_HERE} {process}"), *[Pretence("a")] * 6]
    outcomes = run(address, computations, observer)
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    assert [(outcome.error, outcome.tries) for outcome in failed] == [("ValueError: it fails", 3)]
    assert len(results(outcomes)) == 7
    assert observer.retries.count("0 fail: ValueError: it fails") == 2
    # Where it does not fail, the other has done it, at the second try at the latest.
    assert sum(line.startswith("1 ") for line in observer.retries) <= 1


def test_a_task_that_kills_is_told_from_those_beside_it(address: str) -> None:
    computations = [Pretence("a"), Pretence("a"), Pretence("a", KILL), *[Pretence("a")] * 8]
    outcomes = run(address, computations)
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    assert [(outcome.task.name, outcome.error, outcome.tries) for outcome in failed] == [
        ("2 kill", "its worker died: out of memory, or killed", 3)
    ]
    assert len(results(outcomes)) == 10


def test_tasks_go_only_where_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    with cluster_of(3, resources=[{}, {"GPU": 2}, {"GPU": 1}]) as own:
        outcomes = run(own.scheduler_address, [Pretence("a")] * 8, gpus_per_worker=2)
        assert len({result.split()[0] for result in results(outcomes)}) == 1
        # Of three workers, one has another version of what results depend on.
        inspect = Cluster._inspect

        def refuse_one(cluster: Cluster, new: list[str]) -> None:
            inspect(cluster, new)
            if new:
                cluster._gpus_of.pop(max(new))
                cluster._refused[max(new)] = "the worker has other versions"

        monkeypatch.setattr(Cluster, "_inspect", refuse_one)
        outcomes = run(own.scheduler_address, [Pretence("a")] * 12)
        assert len({result.split()[0] for result in results(outcomes)}) == 2


def test_different_processors_are_mentioned_once() -> None:
    observer = Recorder()
    with cluster_of(3) as own, DaskExecutor(ClusterOptions(scheduler=own.scheduler_address)) as executor:
        assert len(list(executor.run(tasks_of([Pretence("a")] * 6), observer))) == 6
        assert observer.lines == [], "all are of one kind"
        assert len(list(executor.run(tasks_of([Pretence("a", ELSEWHERE, 0.2)] * 9), observer))) == 9
    (line,) = observer.lines
    assert line.startswith("workers compute on different processors (processor ")


def slow_tasks(count: int, seconds: float) -> deque[Task]:
    return tasks_of([Pretence("a", seconds=seconds)] * count)


def test_workers_that_are_gone_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch_module, "WORKER_SECONDS", 0.5)
    monkeypatch.setattr(dispatch_module, "POLL_SECONDS", 0.1)
    observer = Recorder()
    with cluster_of(1) as own:
        with DaskExecutor(ClusterOptions(scheduler=own.scheduler_address)) as executor:
            outcomes = executor.run(slow_tasks(50, 0.2), observer)
            next(outcomes)
            own.scale(0)
            with pytest.raises(ClusterError, match=r"all workers at .* have left; start others"):
                list(outcomes)
        assert observer.lines[-1].startswith("no worker is left")


@pytest.mark.parametrize("question", ["nthreads", "processing"])
def test_a_scheduler_that_no_longer_answers_is_gone(monkeypatch: pytest.MonkeyPatch, question: str) -> None:
    """Before its client knows: the first question after the end finds nobody there."""
    monkeypatch.setattr(dispatch_module, "POLL_SECONDS", 0.01)

    def refused(*_: object, **__: object) -> None:
        raise OSError("Timed out trying to connect")

    with (
        cluster_of(1) as own,
        DaskExecutor(ClusterOptions(scheduler=own.scheduler_address)) as executor,
    ):
        outcomes = executor.run(slow_tasks(50, 0.1))
        next(outcomes)
        assert executor.cluster is not None
        if question == "processing":  # is asked about tasks whose worker is not in the list
            monkeypatch.setattr(executor.cluster, "workers", lambda: [])
        monkeypatch.setattr(executor.cluster.client, question, refused)
        with pytest.raises(ClusterError, match=r"is gone; run the same command again"):
            list(outcomes)


def test_a_scheduler_that_is_gone_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch_module, "POLL_SECONDS", 0.1)
    with cluster_of(1) as own, DaskExecutor(ClusterOptions(scheduler=own.scheduler_address)) as executor:
        outcomes = executor.run(slow_tasks(50, 0.2))
        next(outcomes)
        own.close()
        with pytest.raises(ClusterError, match=r"is gone.*; run the same command again|have left; start"):
            list(outcomes)
