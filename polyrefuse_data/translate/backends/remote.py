"""A local translation model on the workers of a cluster, which keep it loaded.

The runner sends requests in order, as to a model in this process, and names in advance those to come. Workers
translate ahead; answers are taken in the order of the requests, so the memory is the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from polyrefuse_data.cluster.connect import ClusterOptions
from polyrefuse_data.cluster.dispatch import DaskExecutor
from polyrefuse_data.cluster.tasks import ModelSlot, Outcome, Task
from polyrefuse_data.core.errors import ClusterError
from polyrefuse_data.core.languages import Language
from polyrefuse_data.http.faults import TranslatorError
from polyrefuse_data.translate.backends.base import Answer
from polyrefuse_data.translate.backends.local import (
    BATCH,
    BEAMS,
    LIMITS,
    LocalModel,
    LocalSpec,
    folder_digest,
    local_hardware,
)
from polyrefuse_data.translate.memory.store import Translator

Request = tuple[tuple[str, ...], str, str]
"""Texts, and the codes of source and target language."""


Method = Literal["code", "translates", "translate"]


@dataclass(frozen=True)
class ModelCall:
    """A call of `LocalModel` on the model of `spec`, which a worker keeps loaded."""

    spec: LocalSpec
    method: Method
    arguments: tuple[Any, ...]

    def __call__(self, slot: ModelSlot) -> Any:
        """Return the result; raise `TranslatorError` where the worker's folder holds other weights."""
        model = slot.get(f"translator {self.spec}", self._load)
        self.spec.set_threads()
        return getattr(model, self.method)(*self.arguments)

    def _load(self) -> LocalModel:
        if self.spec.digest is not None and folder_digest(self.spec.place) != self.spec.digest:
            raise TranslatorError(f"the weights in '{self.spec.place}' on this worker differ from those here")
        return self.spec.load()


class RemoteModel:
    """The backend `hf` on a cluster, which is opened by the first question. For one thread."""

    name = "hf"

    def __init__(self, spec: LocalSpec, options: ClusterOptions) -> None:
        self._spec = replace(spec, threads=local_hardware().threads if spec.threads is None else spec.threads)
        self._executor = DaskExecutor(options, lambda: local_hardware().gpus)
        self._tasks: deque[Task] = deque()
        self._outcomes: Iterator[Outcome] = iter(())
        self._expected: dict[Request, Task] = {}
        self._ended: dict[Task, Outcome] = {}
        self._codes: dict[str, str | None] = {}
        self._directions: dict[tuple[str, str], bool] = {}
        self.limits = replace(LIMITS, batch=BATCH)
        self.translator = Translator("hf", spec.identity, f"beams:{BEAMS}")

    def code(self, language: Language) -> str | None:
        """Return the model's name for `language`, None where its vocabulary has no token for it."""
        if language.code not in self._codes:
            task = self._queued(f"name of {language.code}", "code", language)
            self._codes[language.code] = self._result(task)
        return self._codes[language.code]

    def translates(self, source: Language, target: Language) -> bool:
        """Return whether the model translates from `source` to `target`."""
        direction = (source.code, target.code)
        if direction not in self._directions:
            task = self._queued(f"direction {source.code}->{target.code}", "translates", source, target)
            self._directions[direction] = bool(self._result(task))
        return self._directions[direction]

    def expect(self, requests: Sequence[tuple[Sequence[str], Language, Language]]) -> None:
        """Let workers begin with `requests`, which `translate` will get in this order."""
        for texts, source, target in requests:
            request = (tuple(texts), source.code, target.code)
            if request not in self._expected:
                self._expected[request] = self._translation(request[0], source, target)

    def translate(self, texts: Sequence[str], source: Language, target: Language) -> list[Answer]:
        """Return the answers to `texts`; raise `TranslatorError` where workers failed too often."""
        task = self._expected.pop((tuple(texts), source.code, target.code), None)
        answers: list[Answer] = self._result(task or self._translation(tuple(texts), source, target))
        return answers

    def close(self) -> None:
        """Close the cluster."""
        self._outcomes = iter(())
        self._tasks.clear()
        self._executor.__exit__(None, None, None)

    def _translation(self, texts: tuple[str, ...], source: Language, target: Language) -> Task:
        name = f"{len(texts)} texts {source.code}->{target.code}"
        return self._queued(name, "translate", texts, source, target)

    def _queued(self, name: str, method: Method, *arguments: Any) -> Task:
        compute = ModelCall(self._spec, method, arguments)
        task = Task(name=f"hf: {name}", model=self._spec.identity, compute=compute)
        self._tasks.append(task)
        return task

    def _result(self, task: Task) -> Any:
        """Return the result of `task`; keep those of others that end before it."""
        try:
            while task not in self._ended:
                outcome = next(self._outcomes, None)
                if outcome is None:
                    self._outcomes = self._executor.run(self._tasks)
                else:
                    self._ended[outcome.task] = outcome
        except ClusterError as error:
            raise TranslatorError(str(error)) from None
        outcome = self._ended.pop(task)
        if outcome.error is not None:
            raise TranslatorError(f"translator hf failed {outcome.tries} times: {outcome.error}")
        return outcome.result
