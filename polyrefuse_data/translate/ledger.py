"""The state of a run: open questions, the tasks that wait for them, and what is in the memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from polyrefuse_data.core.languages import language
from polyrefuse_data.http.faults import Fault, TranslatorError
from polyrefuse_data.translate.backends.base import Backend
from polyrefuse_data.translate.chunks import Piece, cut, join
from polyrefuse_data.translate.deciding import Answers, RepeatedAnswers
from polyrefuse_data.translate.memory.store import BACK, Entry, Question, Reply, TranslationMemory
from polyrefuse_data.translate.tasks import Task, Watcher


@dataclass
class OpenQuestion:
    """A question that is not settled: its answers, the tasks that wait for it, and failed rounds of tries."""

    answers: Answers = field(default_factory=Answers)
    tasks: list[Task] = field(default_factory=list)
    failed_rounds: int = 0


@dataclass
class _PartialText:
    """A text under way: its pieces, and the translations that are there."""

    task: Task
    pieces: list[Piece]
    translations: dict[Question, str] = field(default_factory=dict)

    @cached_property
    def questions(self) -> list[Question]:
        """The pieces to translate, equal ones once."""
        source, target = self.task.source, self.task.target
        texts = [piece.text for piece in self.pieces if piece.translate]
        return list(dict.fromkeys(Question(source, target, text) for text in texts))

    def entry(self, backend: Backend) -> Entry:
        """Return the whole translation as an entry of the memory."""
        task = self.task
        translations = [
            self.translations[Question(task.source, task.target, piece.text)]
            for piece in self.pieces
            if piece.translate
        ]
        return Entry(
            english=task.english,
            lang=task.lang,
            translator=backend.translator,
            text=join(self.pieces, translations, language(task.target)),
            direction=task.direction,
            given=task.given if task.direction == BACK else None,
        )


class Ledger:
    """Turn replies into translations, each in the memory before it counts. For one thread at a time."""

    def __init__(self, backend: Backend, memory: TranslationMemory, watcher: Watcher) -> None:
        self._backend = backend
        self._memory = memory
        self._watcher = watcher
        self.open: dict[Question, OpenQuestion] = {}
        self.failed: dict[Task, str] = {}
        self._partial: dict[Task, _PartialText] = {}
        self._needed: Counter[Question] = Counter()  # how many unfinished tasks need a question
        self._stored: set[Question] = set()  # questions with replies in the memory
        self._repeated = RepeatedAnswers()

    def begin(self, tasks: Sequence[Task]) -> None:
        """Open the questions of `tasks`; settle those that the replies in the memory answer."""
        known = self._memory.replies(self._backend.translator)
        self._stored = set(known)
        without_questions = []
        for task in tasks:
            text = self._partial[task] = _PartialText(task, cut(task.given, self._backend.limits))
            self._needed.update(text.questions)
            for question in text.questions:
                state = self.open.setdefault(question, OpenQuestion())
                state.tasks.append(task)
                for reply in known.get(question, ()):
                    state.answers.replies.setdefault(reply.text, reply)
            if not text.questions:
                without_questions.append(task)
        for task in without_questions:
            self._finish([task])
        for question, state in list(self.open.items()):
            agreed = state.answers.agreed()
            if agreed is not None:
                self._finish(self._settle(question, agreed))

    def add(self, replies: Sequence[tuple[Question, Reply]], company: frozenset[Question]) -> list[Question]:
        """Take replies that came together; return the questions that they leave open.

        `company` are the questions that were out at the same time. Raise `TranslatorError` where the backend
        answers different texts alike.
        """
        kept: list[tuple[Question, Reply]] = []
        complete: list[Task] = []
        left_open: list[Question] = []
        together = {question for question, _ in replies}
        for question, reply in replies:
            state = self.open[question]
            counted = state.answers.add(reply, company | together - {question})
            agreed = state.answers.agreed()
            if agreed is None:
                kept.append((question, counted))
                left_open.append(question)
                continue
            if self._repeated.add(question, agreed.text, state.tasks):
                self._withdraw(agreed.text)
            completed = self._settle(question, agreed)
            complete += completed
            if any(task in self._partial and task not in completed for task in state.tasks):
                kept.append((question, agreed))  # other pieces of a text are still out
        self._finish(complete, kept)
        return left_open

    def _settle(self, question: Question, reply: Reply) -> list[Task]:
        """Close `question` with `reply`; return the tasks that it completes."""
        complete = []
        for task in self.open.pop(question).tasks:
            text = self._partial.get(task)
            if text is not None:
                text.translations[question] = reply.text
                if len(text.translations) == len(text.questions):
                    complete.append(task)
        return complete

    def _finish(self, tasks: Sequence[Task], kept: Sequence[tuple[Question, Reply]] = ()) -> None:
        """Commit the translations of `tasks`, which are complete, and replies to keep for a later run."""
        if not tasks and not kept:
            return
        texts = [self._partial[task] for task in tasks]
        self._stored.update(question for question, _ in kept)
        released = []
        for text in texts:
            self._needed.subtract(text.questions)
            released += [question for question in text.questions if not self._needed[question]]
        forgotten = [question for question in released if question in self._stored]
        entries = [text.entry(self._backend) for text in texts]
        self._memory.keep(self._backend.translator, kept, entries, forgotten)
        self._stored.difference_update(forgotten)
        for task in tasks:
            del self._partial[task]
            self._watcher.done(task)

    def _withdraw(self, answer: str) -> None:
        """Take back the translations that hold an answer given to different texts, and give up."""
        tasks = self._repeated.tasks(answer)
        translator = self._backend.translator
        self._memory.withdraw(translator, [(task.english, task.lang, task.direction) for task in tasks])
        doubtful = [question for question, state in self.open.items() if answer in state.answers.replies]
        self._memory.keep(translator, (), (), [*doubtful, *self._repeated.questions(answer)])
        for task in tasks:
            self.fail(task, "repeated", answer)
        raise TranslatorError(
            f"translator {self._backend.name} gives the same answer to different texts; those answers are "
            "not kept. Check the service, or use another",
            sample=answer,
        )

    def close(self, question: Question, fault: Fault) -> None:
        """Give `question` up, and the tasks that wait for it."""
        for task in self.open.pop(question).tasks:
            if task in self._partial:
                self.fail(task, fault.reason, fault.sample)

    def stop(self) -> None:
        """Give up all tasks that are left."""
        for task in list(self._partial):
            self.fail(task, "stopped")

    def fail(self, task: Task, reason: str, sample: str = "") -> None:
        """Note that `task` has no translation, for `reason`; `sample` is an answer that it got."""
        self._partial.pop(task, None)
        self.failed[task] = reason
        self._watcher.failed(task, reason, sample)


def unproven(questions: Iterable[OpenQuestion]) -> bool:
    """Return whether any of the replies to `questions` lacks a proof of its own."""
    return any(not reply.proven for state in questions for reply in state.answers.replies.values())
