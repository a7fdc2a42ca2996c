"""The executor that asks services: the prompts of many tasks at a time, few of each service's at once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any

from polyrefuse_data.cluster.tasks import Observer, Outcome, Task
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.http.faults import Fault
from polyrefuse_eval.endpoint.client import EndpointClient
from polyrefuse_eval.endpoint.reading import ServiceAnswer
from polyrefuse_eval.endpoint.spec import EndpointSpec
from polyrefuse_eval.errors import EndpointError
from polyrefuse_eval.runs.endpoint_tasks import AskService

MakeClient = Callable[[EndpointSpec], EndpointClient[str]]


@dataclass(eq=False, kw_only=True)
class _OpenTask:
    """A task that is asked for: how many of its prompts are out or wait, and how many have no answer."""

    task: Task
    compute: AskService
    left: int
    begun: float = field(default_factory=time.perf_counter)
    failed: int = 0
    fault: Fault | None = None


@dataclass(eq=False, kw_only=True)
class _Service:
    """A service: its client, and the prompts that wait for it."""

    client: EndpointClient[str]
    waiting: deque[tuple[_OpenTask, int, str]] = field(default_factory=deque)
    out: int = 0


class EndpointExecutor:
    """Ask services for the answers that tasks need; pass on each as it comes.

    Tasks hold an `AskService`. The prompts of a service's next task follow at once on those of its last, so
    that its connections stay busy. A prompt without an answer after all tries fails its task when all others
    are answered. `make_client` opens the connections to a service.
    """

    def __init__(self, make_client: MakeClient = EndpointClient) -> None:
        self._make_client = make_client
        self._services: dict[str, _Service] = {}
        self._out: dict[Future[ServiceAnswer], tuple[_Service, _OpenTask, int]] = {}

    def __enter__(self) -> EndpointExecutor:
        return self

    def __exit__(self, *_unused: object) -> None:
        """End all requests, and the connections."""
        for service in self._services.values():
            service.client.close()
        self._services.clear()
        self._out.clear()

    def run(self, tasks: deque[Task], observer: Observer | None = None) -> Iterator[Outcome]:
        """See `Executor`."""
        observer = observer or Observer()
        while True:
            yield from self._open(tasks, observer)
            for service in self._services.values():
                self._fill(service)
            if not self._out:
                if not tasks:
                    return
                continue
            done, _ = wait(self._out, return_when=FIRST_COMPLETED)
            yield from self._take(done)

    def _open(self, tasks: deque[Task], observer: Observer) -> Iterator[Outcome]:
        """Take those of `tasks` whose service has a connection to spare."""
        for task in list(tasks):
            compute = task.compute
            if not isinstance(compute, AskService):
                raise TypeError(f"{task.name} asks no service")
            try:
                service = self._service(compute.endpoint)
            except PolyRefuseError as error:
                tasks.remove(task)
                observer.started(task)
                yield Outcome(task=task, error=str(error), exception=error)
                continue
            if len(service.waiting) + service.out >= compute.endpoint.pace.connections:
                continue
            tasks.remove(task)
            observer.started(task)
            prompts = compute.prompts
            opened = _OpenTask(task=task, compute=compute, left=len(prompts))
            if not prompts:
                yield self._ended(opened)
            service.waiting.extend((opened, index, prompt) for index, prompt in enumerate(prompts))

    def _service(self, endpoint: EndpointSpec) -> _Service:
        if endpoint.slot not in self._services:
            self._services[endpoint.slot] = _Service(client=self._make_client(endpoint))
        return self._services[endpoint.slot]

    def _fill(self, service: _Service) -> None:
        """Send prompts that wait, up to the number of connections."""
        while service.waiting and service.out < service.client.spec.pace.connections:
            opened, index, prompt = service.waiting.popleft()
            self._out[service.client.ask(prompt)] = (service, opened, index)
            service.out += 1

    def _take(self, done: Iterable[Future[ServiceAnswer]]) -> Iterator[Outcome]:
        """Yield what answers, and failures, mean for their tasks.

        The answers to a task that came together are one outcome, and no connection is given to another prompt
        before they are written: after a kill, at most as many are lost as there are connections.
        """
        answers: dict[_OpenTask, list[Any]] = {}
        failures: list[tuple[_Service, _OpenTask, BaseException]] = []
        for future in done:
            service, opened, index = self._out.pop(future)
            service.out -= 1
            opened.left -= 1
            error = future.exception()
            if error is None:
                answers.setdefault(opened, []).append(opened.compute.result(index, future.result()))
            else:
                failures.append((service, opened, error))
        # Answers before errors: what is there is written whatever ends the run.
        for opened, results in answers.items():
            if opened.compute.essential:
                yield Outcome(task=opened.task, result=results[0], seconds=time.perf_counter() - opened.begun)
            else:
                yield Outcome(task=opened.task, result=[results], ended=False)
        dropped = set()
        for service, opened, error in failures:
            if isinstance(error, Fault):
                opened.failed += 1
                opened.fault = error
                if opened.compute.essential:
                    error = EndpointError(f"{opened.compute.endpoint.label} gave no answer ({error})")
            if isinstance(error, EndpointError) and service not in dropped:
                dropped.add(service)
                self._drop(service)
                yield Outcome(task=opened.task, error=str(error), exception=error)
            elif not isinstance(error, Fault | EndpointError):
                raise error
        given_up = {opened for service, opened, _ in failures if service in dropped}
        for opened in dict.fromkeys([*answers, *(opened for _, opened, _ in failures)]):
            if not (opened.left or opened.compute.essential or opened in given_up):
                yield self._ended(opened)

    def _ended(self, opened: _OpenTask) -> Outcome:
        seconds = time.perf_counter() - opened.begun
        if not opened.failed:
            return Outcome(task=opened.task, result=[], seconds=seconds)
        tries = opened.compute.endpoint.pace.tries
        error = f"{opened.failed} prompts have no answer; the last: {opened.fault}"
        return Outcome(task=opened.task, error=error, seconds=seconds, tries=tries)

    def _drop(self, service: _Service) -> None:
        """Give up all that waits for a service."""
        service.waiting.clear()
        service.out = 0
        for future in [future for future, (other, _, _) in self._out.items() if other is service]:
            del self._out[future]
            future.cancel()
