"""Jobs for workers: who gets which, what is tried again, and when it is given up. No model is loaded."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("distributed", reason="the dask extra is not installed")

from clusters import cluster_of

import polyrefuse_data.cluster.dispatch as dispatch_module
import polyrefuse_data.cluster.worker as worker_module
from polyrefuse_data.cluster.connect import Cluster, ClusterOptions, open_cluster
from polyrefuse_data.cluster.dispatch import Dispatcher, Job, Outcome
from polyrefuse_data.cluster.worker import Keeper
from polyrefuse_data.core.errors import ClusterError

KILL, FAIL, FAIL_HERE, ELSEWHERE = "kill", "fail", "fail here", "elsewhere"


@dataclass(frozen=True)
class Task:
    """Loads a model by its name, sleeps, and says where; or fails, or kills its worker, or lets it seem to
    compute on a processor of its own."""

    model: str
    does: str = ""
    seconds: float = 0.02

    def __call__(self, keeper: Keeper) -> str:
        keeper.model(self.model, lambda: time.sleep(0.001))
        time.sleep(self.seconds)
        if self.does == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.does == FAIL or self.does == f"{FAIL_HERE} {os.getpid()}":
            raise ValueError("it\nfails")
        if self.does == ELSEWHERE:
            worker_module.processor_name = lambda: f"processor {os.getpid()}"
        return f"{os.getpid()} {self.model}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with (
        cluster_of(2, allowed_failures=0) as two,
        open_cluster(ClusterOptions(scheduler=two.scheduler_address)) as opened,
    ):
        yield opened


def run(cluster: Cluster, tasks: list[Task], **more: Any) -> list[Outcome]:
    dispatcher = Dispatcher(cluster, **more)
    dispatcher.add(Job(f"{number} {task.does}", task.model, task) for number, task in enumerate(tasks))
    return list(dispatcher.outcomes())


def results(outcomes: list[Outcome]) -> list[str]:
    return [outcome.done.result for outcome in outcomes if outcome.done is not None]


def test_a_loaded_model_is_used_up_before_it_is_dropped(cluster: Cluster) -> None:
    tasks = [Task(model) for _ in range(12) for model in "abcd"]
    outcomes = run(cluster, tasks)
    assert len(results(outcomes)) == 48
    loads = sum(outcome.done.load_seconds > 0 for outcome in outcomes if outcome.done is not None)
    # One after another in this order, each would be loaded 24 times; four models on two workers need four,
    # and at the end of each both may be at one.
    assert 4 <= loads <= 7
    assert len({result.split()[0] for result in results(outcomes)}) == 2


def test_what_others_wait_for_goes_first(cluster: Cluster) -> None:
    dispatcher = Dispatcher(cluster)
    dispatcher.add(Job(str(number), "a", Task("a"), first=number == 9) for number in range(10))
    names = [outcome.job.name for outcome in dispatcher.outcomes()]
    assert names.index("9") < 4
    assert sorted(names) == sorted(map(str, range(10)))


def test_jobs_can_be_added_while_others_run(cluster: Cluster) -> None:
    dispatcher = Dispatcher(cluster)
    dispatcher.add([Job("0", "a", Task("a"))])
    names = []
    for outcome in dispatcher.outcomes():
        names.append(outcome.job.name)
        if len(names) < 5:
            dispatcher.add([Job(str(len(names)), "a", Task("a"))])
    assert names == ["0", "1", "2", "3", "4"]


def test_a_job_that_fails_is_tried_elsewhere_and_then_reported(cluster: Cluster) -> None:
    told: list[str] = []
    one = next(iter(cluster.client.run(os.getpid).values()))
    outcomes = run(
        cluster,
        [Task("a", FAIL), Task("a", f"{FAIL_HERE} {one}"), *[Task("a")] * 6],
        failed_once=lambda job, error: told.append(f"{job.name}: {error}"),
    )
    failed = [outcome for outcome in outcomes if outcome.done is None]
    assert [(outcome.error, outcome.tries) for outcome in failed] == [("ValueError: it fails", 3)]
    assert len(results(outcomes)) == 7
    assert told.count("0 fail: ValueError: it fails") == 2
    # Where it does not fail, the other has done it, at the second try at the latest.
    assert sum(line.startswith("1 ") for line in told) <= 1


def test_a_job_that_kills_is_told_from_those_beside_it(cluster: Cluster) -> None:
    outcomes = run(cluster, [Task("a"), Task("a"), Task("a", KILL), *[Task("a")] * 8])
    failed = [outcome for outcome in outcomes if outcome.done is None]
    assert [(one.job.name, one.error, one.tries) for one in failed] == [
        ("2 kill", "its worker died: out of memory, or killed", 3)
    ]
    assert len(results(outcomes)) == 10


def test_tasks_go_only_where_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with cluster_of(3, resources=[{}, {"GPU": 2}, {"GPU": 1}]) as own:
        options = ClusterOptions(scheduler=own.scheduler_address, gpus_per_worker=2)
        with open_cluster(options) as opened:
            assert len({result.split()[0] for result in results(run(opened, [Task("a")] * 8))}) == 1
        # Of three workers, one has another version of what results depend on.
        honest = Cluster._look_at

        def look_at(self: Cluster, new: list[str]) -> None:
            honest(self, new)
            if new:
                self._gpus_of.pop(max(new))
                self._refused[max(new)] = "the worker has other versions"

        monkeypatch.setattr(Cluster, "_look_at", look_at)
        with open_cluster(ClusterOptions(scheduler=own.scheduler_address), say=said.append) as opened:
            assert len({result.split()[0] for result in results(run(opened, [Task("a")] * 12))}) == 2


def test_a_cluster_of_several_kinds_of_processors_is_told_once() -> None:
    said: list[str] = []
    with (
        cluster_of(3) as own,
        open_cluster(ClusterOptions(scheduler=own.scheduler_address), say=said.append) as opened,
    ):
        assert len(results(run(opened, [Task("a")] * 6))) == 6
        assert said == [], "all are of one kind"
        assert len(results(run(opened, [Task("a", ELSEWHERE, 0.2)] * 9))) == 9
    assert len(said) == 1
    assert said[0].startswith("workers compute on different processors (processor ")


def test_workers_that_are_gone_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch_module, "WORKER_SECONDS", 0.5)
    monkeypatch.setattr(dispatch_module, "LOOK_SECONDS", 0.1)
    said: list[str] = []
    with cluster_of(1) as own:
        with open_cluster(ClusterOptions(scheduler=own.scheduler_address), say=said.append) as opened:
            dispatcher = Dispatcher(opened)
            dispatcher.add([Job(str(number), "a", Task("a", seconds=0.2)) for number in range(50)])
            outcomes = dispatcher.outcomes()
            next(outcomes)
            own.scale(0)
            with pytest.raises(ClusterError, match=r"all workers at .* have left; start others"):
                list(outcomes)
        assert said[-1].startswith("no worker is left")


@pytest.mark.parametrize("asked", ["nthreads", "processing"])
def test_a_scheduler_that_does_not_answer_any_more_is_gone(
    monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """Before its client knows: the first question after the end finds nobody there."""
    monkeypatch.setattr(dispatch_module, "LOOK_SECONDS", 0.01)

    def refused(*_: object, **__: object) -> None:
        raise OSError("Timed out trying to connect")

    with cluster_of(1) as own, open_cluster(ClusterOptions(scheduler=own.scheduler_address)) as opened:
        dispatcher = Dispatcher(opened)
        dispatcher.add([Job(str(number), "a", Task("a", seconds=0.1)) for number in range(50)])
        outcomes = dispatcher.outcomes()
        next(outcomes)
        if asked == "processing":  # is asked about tasks whose worker is not among those that there are
            monkeypatch.setattr(opened, "workers", lambda: [])
        monkeypatch.setattr(opened.client, asked, refused)
        with pytest.raises(ClusterError, match=r"is gone; run the same command again"):
            list(outcomes)


def test_a_scheduler_that_is_gone_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch_module, "LOOK_SECONDS", 0.1)
    with cluster_of(1) as own, open_cluster(ClusterOptions(scheduler=own.scheduler_address)) as opened:
        dispatcher = Dispatcher(opened)
        dispatcher.add([Job(str(number), "a", Task("a", seconds=0.2)) for number in range(50)])
        outcomes = dispatcher.outcomes()
        next(outcomes)
        own.close()
        with pytest.raises(ClusterError, match=r"is gone.*; run the same command again|have left; start"):
            list(outcomes)
