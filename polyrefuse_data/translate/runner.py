"""The one runner for all backends: threads ask, and every answer is in the memory before it counts.

A thread commits the answer to its question before it asks the next: whoever kills the process loses what
is out, no more than there are connections, and nothing else.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from polyrefuse_data.core.languages import SOURCE_LANGUAGE, language
from polyrefuse_data.http.faults import Fault, Rejected, TranslatorError
from polyrefuse_data.translate.answers import Judge
from polyrefuse_data.translate.asking import Asker, RunSettings
from polyrefuse_data.translate.backends.base import Backend, Expecting
from polyrefuse_data.translate.chunks import Piece, cut, join
from polyrefuse_data.translate.deciding import DOUBTED_TIMES, MOST_ASKS, Answers
from polyrefuse_data.translate.memory.store import BACK, Entry, Question, Reply, TranslationMemory

GOES = 2
"""A question whose tries all failed is asked again after all others, so often in all."""


@dataclass(frozen=True)
class Work:
    """One text to translate whole: a prompt (forward), or a translation of it (back)."""

    english: str
    lang: str
    direction: str
    given: str

    @property
    def source(self) -> str:
        return self.lang if self.direction == BACK else SOURCE_LANGUAGE

    @property
    def target(self) -> str:
        return SOURCE_LANGUAGE if self.direction == BACK else self.lang


class Watcher(Protocol):
    """Is told what happens; all calls but `retry` and `pause` come one at a time."""

    def begin(self, backend: str, works: Sequence[Work]) -> None: ...
    def retry(self, question: Question, fault: Fault) -> None: ...
    def pause(self, fault: Fault, seconds: float) -> None: ...
    def done(self, work: Work) -> None: ...
    def failed(self, work: Work, reason: str) -> None: ...
    def end(self, problem: str | None) -> None: ...


@dataclass
class _Open:
    """A question that is not settled, and the works that wait for it."""

    answers: Answers = field(default_factory=Answers)
    works: list[Work] = field(default_factory=list)
    goes: int = 0


@dataclass
class _Whole:
    """A text under way: its pieces, and the translations that are there."""

    pieces: list[Piece]
    texts: dict[Question, str] = field(default_factory=dict)


Result = tuple[Question, Reply | Fault | TranslatorError]


class Runner:
    """Runs works through one backend into the memory."""

    def __init__(
        self,
        backend: Backend,
        memory: TranslationMemory,
        settings: RunSettings,
        watcher: Watcher,
        judge: Judge | None = None,
    ) -> None:
        self._backend = backend
        self._memory = memory
        self._watcher = watcher
        self._stop = threading.Event()
        self._asker = Asker(backend, settings, judge or Judge(), self._stop, watcher.retry, watcher.pause)
        self._connections = settings.connections or backend.limits.connections
        self._open: dict[Question, _Open] = {}
        self._whole: dict[Work, _Whole] = {}
        self._needed: Counter[Question] = Counter()  # by so many works that are not whole
        self._stored: set[Question] = set()  # with replies in the memory, not settled
        self._failed: dict[Work, str] = {}
        self._again: list[list[Question]] = []
        self._contested: list[list[Question]] = []
        self._alone = False
        self._wave: list[list[Question]] = []
        self._width = self._out = 0
        self._out_batches: dict[int, list[Question]] = {}
        self._company: dict[int, set[Question]] = {}
        self._finished = False
        self._crash: Exception | None = None
        self._turn = threading.Condition()
        self._problem: TranslatorError | None = None

    def run(self, works: Sequence[Work]) -> tuple[dict[Work, str], TranslatorError | None]:
        """Translate `works`; return those that stayed without, by reason, and why the backend was given up.

        Every translation is in the memory when this returns, also when it raises for Ctrl-C.
        """
        self._watcher.begin(self._backend.name, works)
        try:
            self._plan(works)
            self._drain(self._waves(list(self._open)))
        finally:
            self._stop.set()
        for work in list(self._whole):
            self._fail(work, "stopped")
        self._watcher.end(str(self._problem) if self._problem else None)
        return self._failed, self._problem

    def _plan(self, works: Sequence[Work]) -> None:
        known = self._memory.replies(self._backend.translator)
        self._stored = set(known)
        ready = []
        for work in works:
            whole = _Whole(cut(work.given, self._backend.limits))
            self._whole[work] = whole
            questions = self._questions(work)
            self._needed.update(questions)
            for question in questions:
                entry = self._open.setdefault(question, _Open())
                entry.works.append(work)
                for reply in known.get(question, ()):
                    entry.answers.replies.setdefault(reply.text, reply)
            if not questions:
                ready.append(work)
        for work in ready:
            self._finish_whole(work)
        for question in list(self._open):
            self._settle_if_agreed(question)

    def _questions(self, work: Work) -> list[Question]:
        pieces = self._whole[work].pieces
        return list(
            dict.fromkeys(Question(work.source, work.target, one.text) for one in pieces if one.translate)
        )

    def _waves(self, questions: Sequence[Question]) -> list[list[Question]]:
        """Return questions as requests: one each, or batches of one language pair, long texts first."""
        size = self._backend.limits.batch
        if size == 1:
            return [[question] for question in questions]
        ordered = sorted(questions, key=lambda one: (one.source, one.target, -len(one.text), one.text))
        batches: list[list[Question]] = []
        for question in ordered:
            pair = (question.source, question.target)
            if batches and len(batches[-1]) < size and (batches[-1][0].source, batches[-1][0].target) == pair:
                batches[-1].append(question)
            else:
                batches.append([question])
        return batches

    def _drain(self, wave: list[list[Question]]) -> None:
        """Let threads ask until nothing is left; raises what went wrong with the memory."""
        self._expect(wave)
        self._wave = wave[::-1]
        self._width = self._connections
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._connections)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.5)  # in steps, so that Ctrl-C is heard
        finally:
            with self._turn:
                self._finished = True
                self._stop.set()
                self._turn.notify_all()
        if self._crash is not None:
            raise self._crash

    def _expect(self, wave: Sequence[Sequence[Question]]) -> None:
        """Tell a backend that wants to know what it will be asked, in this order."""
        if isinstance(self._backend, Expecting):
            self._backend.expect(
                [
                    ([one.text for one in batch], language(batch[0].source), language(batch[0].target))
                    for batch in wave
                ]
            )

    def _work(self) -> None:
        """Ask and commit, again and again: what a thread does."""
        with self._turn:
            batch = self._next()
        while batch is not None:
            results = self._ask(batch)
            with self._turn:
                company = self._part(batch)
                try:
                    if not self._finished:
                        self._take(results, company)
                except Exception as error:
                    self._crash = self._crash or error
                    self._stop.set()
                self._out -= 1
                self._turn.notify_all()
                batch = self._next()

    def _meet(self, batch: list[Question]) -> None:
        """Note that `batch` goes out: it and all that are out already keep each other company."""
        others: set[Question] = set()
        for request, company in self._company.items():
            company.update(batch)
            others.update(self._out_batches[request])
        self._company[id(batch)] = others
        self._out_batches[id(batch)] = batch

    def _part(self, batch: list[Question]) -> frozenset[Question]:
        """Return all questions that were out while `batch` was."""
        del self._out_batches[id(batch)]
        return frozenset(self._company.pop(id(batch)))

    def _next(self) -> list[Question] | None:
        """Return the next request, once there is one and it may go out; None at the end."""
        while not self._finished:
            given_up = self._problem is not None or self._crash is not None
            if self._wave and self._out < self._width and not given_up:
                self._out += 1
                batch = self._wave.pop()
                self._meet(batch)
                return batch
            if not self._out and (given_up or not (self._wave or self._again or self._contested)):
                self._finished = True
                self._turn.notify_all()
            elif not self._out and not self._wave:
                self._wave, self._width = self._next_wave()
                self._expect(self._wave[::-1])
                self._turn.notify_all()
            else:
                self._turn.wait()
        return None

    def _next_wave(self) -> tuple[list[list[Question]], int]:
        """Return the requests to send next, the last first, and how many may be out at a time.

        Two answers that were mixed up must not meet again: questions that were out at the same time are
        asked far from each other. Contested ones are asked alone, when there is nothing to be mixed up with.
        """
        self._alone = not self._again
        if self._alone:
            wave, self._contested = self._contested, []
            return wave, 1
        wave, self._again = self._again, []
        stride = 2 * self._connections
        open_replies = [
            reply for request in wave for one in request for reply in self._open[one].answers.replies.values()
        ]
        width = self._connections
        if not all(reply.proven for reply in open_replies):
            width = max(1, min(width, len(wave) // stride))
        return [request for start in range(stride) for request in wave[start::stride]], width

    def _ask(self, batch: list[Question]) -> list[Result]:
        try:
            if self._backend.limits.batch == 1:
                return [(batch[0], self._asker.ask(batch[0]))]
            return list(zip(batch, self._asker.ask_batch(batch), strict=True))
        except (Fault, TranslatorError) as error:
            return [(question, error) for question in batch]
        except Exception as error:
            failure = TranslatorError(f"translator {self._backend.name} failed: {type(error).__name__}")
            failure.__cause__ = error
            return [(question, failure) for question in batch]

    def _take(self, results: Sequence[Result], company: frozenset[Question]) -> None:
        """Commit what came back, then let it count."""
        kept: list[tuple[Question, Reply]] = []
        entries: list[Entry] = []
        finished: list[Work] = []
        forget: list[Question] = []
        asked = {question for question, _ in results}
        for question, outcome in results:
            if isinstance(outcome, Reply):
                if self._alone:  # no other request was out whose answer this could be
                    outcome = replace(outcome, proven=True)
                if self._backend.limits.batch > 1:  # a model here says the same however often it is asked
                    outcome = replace(outcome, times=DOUBTED_TIMES)
                entry = self._open[question]
                reply = entry.answers.add(outcome, company | asked - {question})
                chosen = entry.answers.agreed()
                if chosen is None:
                    kept.append((question, reply))
                    self._ask_again(question)
                    continue
                wholes = self._settle(question, chosen)
                for work in wholes:
                    entries.append(self._entry(work))
                    forget += self._released(work)
                finished += wholes
                if any(work in self._whole and work not in wholes for work in entry.works):
                    kept.append((question, chosen))  # other pieces of a text are still out
            elif isinstance(outcome, TranslatorError):
                self._problem = self._problem or outcome
                self._stop.set()
            else:
                self._give_up(question, outcome)
        self._keep(kept, entries, forget)
        for work in finished:
            del self._whole[work]
            self._watcher.done(work)

    def _keep(
        self,
        replies: Sequence[tuple[Question, Reply]],
        settled: Sequence[Entry],
        questions: Sequence[Question],
    ) -> None:
        """Commit all of it, and forget the replies to `questions` if any are stored."""
        self._stored.update(question for question, _ in replies)
        forget = [question for question in questions if question in self._stored]
        self._memory.keep(self._backend.translator, replies, settled, forget)
        self._stored.difference_update(forget)

    def _released(self, work: Work) -> list[Question]:
        """Return the questions of `work`, which is whole, that no other work needs."""
        questions = self._questions(work)
        self._needed.subtract(questions)
        return [question for question in questions if not self._needed[question]]

    def _settle(self, question: Question, chosen: Reply) -> list[Work]:
        """Take `chosen` as the answer to `question`; return the works that it makes whole."""
        entry = self._open.pop(question)
        wholes = []
        for work in entry.works:
            whole = self._whole.get(work)
            if whole is not None:
                whole.texts[question] = chosen.text
                if len(whole.texts) == len(self._questions(work)):
                    wholes.append(work)
        return wholes

    def _settle_if_agreed(self, question: Question) -> None:
        chosen = self._open[question].answers.agreed()
        if chosen is not None:
            for work in self._settle(question, chosen):
                self._finish_whole(work)

    def _finish_whole(self, work: Work) -> None:
        self._keep((), [self._entry(work)], self._released(work))
        del self._whole[work]
        self._watcher.done(work)

    def _entry(self, work: Work) -> Entry:
        whole = self._whole[work]
        texts = [
            whole.texts[Question(work.source, work.target, piece.text)]
            for piece in whole.pieces
            if piece.translate
        ]
        text = join(whole.pieces, texts, language(work.target))
        given = work.given if work.direction == BACK else None
        return Entry(work.english, work.lang, self._backend.translator, text, work.direction, given)

    def _ask_again(self, question: Question) -> None:
        answers = self._open[question].answers
        if answers.asked >= MOST_ASKS:
            self._close(question, "differs")
        elif answers.contested:
            self._contested.append([question])
        else:
            self._again.append([question])

    def _give_up(self, question: Question, fault: Fault) -> None:
        entry = self._open[question]
        entry.goes += 1
        if isinstance(fault, Rejected) or entry.goes >= GOES or self._backend.limits.batch > 1:
            self._close(question, fault.reason)
        else:
            self._again.append([question])

    def _close(self, question: Question, reason: str) -> None:
        for work in self._open.pop(question).works:
            self._fail(work, reason)

    def _fail(self, work: Work, reason: str) -> None:
        if self._whole.pop(work, None) is not None:
            self._failed[work] = reason
            self._watcher.failed(work, reason)
