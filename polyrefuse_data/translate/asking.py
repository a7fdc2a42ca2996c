"""Ask a backend a question within its limits, judge the answer, and try again.

This runs in a worker thread; the queue and the memory are the runner's (see `runner`).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import tenacity

from polyrefuse_data.core.languages import language
from polyrefuse_data.http.faults import Fault, Rejected, excerpt
from polyrefuse_data.http.limits import Breaker, BreakerSettings, TokenBucket
from polyrefuse_data.translate.answers import EARLY, Judge, tidy
from polyrefuse_data.translate.backends.base import Answer, Backend
from polyrefuse_data.translate.chunks import mask, unmask
from polyrefuse_data.translate.memory.store import Question, Reply

SAME_BAD_ANSWER = 4
"""The same bad answer this often in a row ends the tries of a question: the service will repeat it."""


@dataclass(frozen=True)
class RunSettings:
    """How a run asks; None takes the backend's own limit.

    A question gets `attempts` tries in a round, with waits of `backoff` seconds, doubled each time, with
    jitter and at most `longest_wait`; if all fail it gets a second round after all other questions.
    """

    connections: int | None = None
    requests_per_second: float | None = None
    characters_per_second: float | None = None
    attempts: int = 6
    backoff: float = 0.5
    longest_wait: float = 60.0
    breaker: BreakerSettings = field(default_factory=BreakerSettings)


OnRetry = Callable[[Question, Fault], None]

OnPause = Callable[[Fault, float], None]
"""Takes the last fault and the seconds for which nothing is asked."""


class Asker:
    """Ask one backend. Safe to share between threads; `stop` ends all waiting."""

    def __init__(
        self,
        backend: Backend,
        settings: RunSettings,
        judge: Judge,
        stop: threading.Event,
        on_retry: OnRetry,
        on_pause: OnPause,
    ) -> None:
        limits = backend.limits
        self.backend = backend
        self.breaker = Breaker(f"translator {backend.name}", settings.breaker)
        self._requests = TokenBucket(settings.requests_per_second or limits.requests_per_second, burst=1)
        self._characters = TokenBucket(settings.characters_per_second or limits.characters_per_second)
        self._judge = judge
        self._stop = stop
        self._on_retry = on_retry
        self._on_pause = on_pause
        self._settings = settings
        self._random = random.Random()
        self._backoff = tenacity.wait_exponential(settings.backoff, settings.longest_wait)
        self._tries = tenacity.Retrying(  # threads share it: the state of a call is thread-local
            stop=tenacity.stop_after_attempt(settings.attempts) | tenacity.stop_when_event_set(stop),
            wait=self._wait,
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, Fault) and not isinstance(error, Rejected)
            ),
            sleep=tenacity.sleep_using_event(stop),
            reraise=True,
        )

    def ask(self, question: Question) -> Reply:
        """Return the reply to `question`; raise the `Fault` of the last try, or `TranslatorError`."""
        bad: list[tuple[str, str | None]] = []
        masked = False
        last: Fault | None = None
        for attempt in self._tries:
            if last is not None:
                self._on_retry(question, last)
            with attempt:
                self._wait_for_turn(question.text)
                answered: str | None = None
                try:
                    text, parts = mask(question.text) if masked else (question.text, [])
                    answer = self._translate([text], question)[0]
                    answered = answer.text
                    reply = self.judged(question, answer, parts)
                except Fault as fault:
                    last = fault
                    fault.sample = fault.sample or excerpt(answered or "")
                    self._note(fault)
                    masked = masked or fault.reason == "protected"
                    bad.append((fault.reason, answered))
                    if answered is not None and bad[-SAME_BAD_ANSWER:] == [bad[-1]] * SAME_BAD_ANSWER:
                        raise Rejected(fault.reason, fault.detail, sample=fault.sample) from None
                    raise
                self.breaker.success()
                return reply
        raise AssertionError("tenacity returns or raises")

    def _note(self, fault: Fault) -> None:
        """Count a failure; raise `TranslatorError` if the backend is given up."""
        pause = self.breaker.failure(fault)
        if pause is not None:
            self._on_pause(fault, pause)
        if self.breaker.given_up is not None:
            raise self.breaker.given_up from None

    def ask_batch(self, questions: Sequence[Question]) -> list[Reply | Fault]:
        """Return the replies to questions of one language pair, sent once in one request."""
        self._wait_for_turn("".join(question.text for question in questions))
        answers = self._translate([question.text for question in questions], questions[0])
        replies: list[Reply | Fault] = []
        for question, answer in zip(questions, answers, strict=True):
            try:
                replies.append(self.judged(question, answer, []))
            except Fault as fault:
                fault.sample = excerpt(answer.text)
                replies.append(fault)
        return replies

    def judged(self, question: Question, answer: Answer, parts: Sequence[str]) -> Reply:
        """Return `answer` as a reply with its doubts; raise `Fault` for a wrong answer.

        `parts` are the protected parts that signs stood for in the request.
        """
        text: str | None = tidy(question.text, answer.text)
        if parts and text is not None:
            text = unmask(text, parts)
            if text is None:
                raise Fault("protected")
        source, target = language(question.source), language(question.target)
        doubts = self._judge.judge(question.text, str(text), source, target)
        if doubts in ([], [EARLY]):
            self._judge.ratios.add(source.code, target.code, question.text, str(text))
        return Reply(str(text), 1, answer.proven, ",".join(doubts))

    def _translate(self, texts: Sequence[str], question: Question) -> list[Answer]:
        return self.backend.translate(texts, language(question.source), language(question.target))

    def _wait_for_turn(self, text: str) -> None:
        """Wait until the breaker and both token buckets allow a request of `text`; raise if stopped."""
        while True:
            wait = self.breaker.wait()
            if not wait:
                break
            self._sleep(wait)
        self._sleep(max(self._requests.take(), self._characters.take(len(text))))

    def _sleep(self, seconds: float) -> None:
        if self._stop.is_set() or (seconds > 0 and self._stop.wait(seconds)):
            raise Rejected("stopped")

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        wait = float(self._backoff(state)) * self._random.uniform(0.5, 1.0)
        if isinstance(error, Fault) and error.retry_after is not None:
            if error.retry_after > self._settings.breaker.patience:  # a mistake, unless it comes again
                return self._settings.longest_wait
            return error.retry_after + self._random.uniform(0.0, min(1.0, self._settings.backoff))
        return wait
