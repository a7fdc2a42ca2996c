"""The runner of all backends: threads ask, and every answer is in the memory before it counts.

A thread commits the answer to its question before it asks the next. So a kill loses the requests that are
out, no more than there are connections, and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from polyrefuse_data.core.languages import language
from polyrefuse_data.http.faults import Fault, Rejected, TranslatorError
from polyrefuse_data.translate.answers import Judge
from polyrefuse_data.translate.asking import Asker, RunSettings
from polyrefuse_data.translate.backends.base import Backend, Expecting
from polyrefuse_data.translate.deciding import DOUBTED_TIMES, MOST_ASKS
from polyrefuse_data.translate.ledger import Ledger, unproven
from polyrefuse_data.translate.memory.store import Question, Reply, TranslationMemory
from polyrefuse_data.translate.tasks import Task, Watcher

ROUNDS = 2
"""How often a question whose tries all fail is taken up: now, and once more after all others."""

Request = list[Question]
"""The questions that go out together."""

Result = tuple[Question, Reply | Fault | TranslatorError]


class Runner:
    """Run tasks through one backend into the memory.

    Requests go out in waves: at first every question, then those that need another answer, then, one request
    at a time, those whose answers contradict each other.
    """

    def __init__(
        self,
        backend: Backend,
        memory: TranslationMemory,
        settings: RunSettings,
        watcher: Watcher,
        judge: Judge | None = None,
    ) -> None:
        self._backend = backend
        self._watcher = watcher
        self._ledger = Ledger(backend, memory, watcher)
        self._stop = threading.Event()
        self._asker = Asker(backend, settings, judge or Judge(), self._stop, watcher.retry, watcher.pause)
        self._connections = settings.connections or backend.limits.connections
        # All below belongs to the thread that holds `_turn`.
        self._turn = threading.Condition()
        self._wave: list[Request] = []  # the next request is the last
        self._width = 0  # how many requests of the wave may be out at a time
        self._again: list[Request] = []
        self._contested: list[Request] = []
        self._alone = False
        self._out: dict[int, Request] = {}
        self._company: dict[int, set[Question]] = {}  # what was out while a request was
        self._finished = False
        self._crash: Exception | None = None
        self._problem: TranslatorError | None = None

    def run(self, tasks: Sequence[Task]) -> tuple[dict[Task, str], TranslatorError | None]:
        """Translate `tasks`; return those without a translation and why, and why the backend was given up.

        Every translation is in the memory when this returns, also when it raises `KeyboardInterrupt`.
        """
        self._watcher.begin(self._backend.name, tasks)
        try:
            self._ledger.begin(tasks)
            self._drain(self._requests(list(self._ledger.open)))
        finally:
            self._stop.set()
        self._ledger.stop()
        self._watcher.end(self._problem.summary if self._problem else None)
        return self._ledger.failed, self._problem

    def _requests(self, questions: Sequence[Question]) -> list[Request]:
        """Return questions as requests: one each, or batches of a language pair, long texts first."""
        size = self._backend.limits.batch
        if size == 1:
            return [[question] for question in questions]
        ordered = sorted(
            questions,
            key=lambda question: (question.source, question.target, -len(question.text), question.text),
        )
        batches: list[Request] = []
        for question in ordered:
            pair = (question.source, question.target)
            if batches and len(batches[-1]) < size and (batches[-1][0].source, batches[-1][0].target) == pair:
                batches[-1].append(question)
            else:
                batches.append([question])
        return batches

    def _drain(self, wave: list[Request]) -> None:
        """Let threads ask until nothing is left; raise what went wrong with the memory."""
        self._expect(wave)
        self._wave, self._width = wave[::-1], self._connections
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._connections)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.5)  # with a timeout, so that Ctrl-C is heard
        finally:
            with self._turn:
                self._finished = True
                self._stop.set()
                self._turn.notify_all()
        if self._crash is not None:
            raise self._crash

    def _expect(self, wave: Sequence[Request]) -> None:
        """Tell a backend that computes ahead the requests to come, in order."""
        if isinstance(self._backend, Expecting):
            self._backend.expect(
                [
                    (
                        [question.text for question in request],
                        language(request[0].source),
                        language(request[0].target),
                    )
                    for request in wave
                ]
            )

    def _work(self) -> None:
        """Ask and commit until nothing is left: the body of a thread."""
        with self._turn:
            request = self._next()
        while request is not None:
            results = self._ask(request)
            with self._turn:
                company = self._return(request)
                try:
                    if not self._finished:
                        self._take(results, company)
                except Exception as error:
                    self._crash = self._crash or error
                    self._stop.set()
                self._turn.notify_all()
                request = self._next()

    def _send(self, request: Request) -> None:
        """Note that `request` goes out, in company of all that are out."""
        others: set[Question] = set()
        for key, company in self._company.items():
            company.update(request)
            others.update(self._out[key])
        self._company[id(request)] = others
        self._out[id(request)] = request

    def _return(self, request: Request) -> frozenset[Question]:
        """Note that `request` is back; return all questions that were out while it was."""
        del self._out[id(request)]
        return frozenset(self._company.pop(id(request)))

    def _next(self) -> Request | None:
        """Wait for the next request that may go out and return it; None at the end."""
        while not self._finished:
            given_up = self._problem is not None or self._crash is not None
            left = self._wave or self._again or self._contested
            if self._wave and len(self._out) < self._width and not given_up:
                request = self._wave.pop()
                self._send(request)
                return request
            if not self._out and (given_up or not left):
                self._finished = True
                self._turn.notify_all()
            elif not self._out and not self._wave:
                self._begin_wave()
                self._expect(self._wave[::-1])
                self._turn.notify_all()
            else:
                self._turn.wait()
        return None

    def _begin_wave(self) -> None:
        """Choose the requests of the next wave and how many of them may be out at a time.

        Two answers that were mixed up must not meet again: questions that were out at the same time are
        asked far from each other. Contested ones are asked alone, when there is nothing to be mixed up with.
        """
        self._alone = not self._again
        if self._alone:
            self._wave, self._contested, self._width = self._contested[::-1], [], 1
            return
        wave, self._again = self._again, []
        stride = 2 * self._connections
        self._width = self._connections
        if unproven(self._ledger.open[question] for request in wave for question in request):
            self._width = max(1, min(self._width, len(wave) // stride))
        spread = [request for start in range(stride) for request in wave[start::stride]]
        self._wave = spread[::-1]

    def _ask(self, request: Request) -> list[Result]:
        try:
            if self._backend.limits.batch == 1:
                return [(request[0], self._asker.ask(request[0]))]
            return list(zip(request, self._asker.ask_batch(request), strict=True))
        except (Fault, TranslatorError) as error:
            return [(question, error) for question in request]
        except Exception as error:
            failure = TranslatorError(f"translator {self._backend.name} failed: {type(error).__name__}")
            failure.__cause__ = error
            return [(question, failure) for question in request]

    def _take(self, results: Sequence[Result], company: frozenset[Question]) -> None:
        """Commit what came back; put what is left open into a later wave."""
        replies: list[tuple[Question, Reply]] = []
        for question, outcome in results:
            if isinstance(outcome, Reply):
                replies.append((question, self._weighed(outcome)))
            elif isinstance(outcome, Fault):
                self._retry_later(question, outcome)
            else:
                self._give_up(outcome)
        try:
            left_open = self._ledger.add(replies, company)
        except TranslatorError as error:
            self._give_up(error)
            return
        for question in left_open:
            answers = self._ledger.open[question].answers
            if answers.asked >= MOST_ASKS:
                self._ledger.close(question, Fault("differs"))
            elif answers.contested:
                self._contested.append([question])
            else:
                self._again.append([question])

    def _weighed(self, reply: Reply) -> Reply:
        """Return `reply` as it counts."""
        if self._alone:  # no other request was out whose answer it could be
            reply = replace(reply, proven=True)
        if self._backend.limits.batch > 1:  # a local model gives the same answer however often it is asked
            reply = replace(reply, times=DOUBTED_TIMES)
        return reply

    def _retry_later(self, question: Question, fault: Fault) -> None:
        """Take `question` up again after all others, or close it."""
        state = self._ledger.open[question]
        state.failed_rounds += 1
        last = isinstance(fault, Rejected) or self._backend.limits.batch > 1
        if last or state.failed_rounds >= ROUNDS:
            self._ledger.close(question, fault)
        else:
            self._again.append([question])

    def _give_up(self, problem: TranslatorError) -> None:
        """End the run with `problem`."""
        self._problem = self._problem or problem
        self._stop.set()
