"""A translation task, and who watches how a run of them goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from polyrefuse_data.core.languages import SOURCE_LANGUAGE
from polyrefuse_data.http.faults import Fault
from polyrefuse_data.translate.memory.store import BACK, Question


@dataclass(frozen=True)
class Task:
    """A text to translate as a whole: a prompt (forward), or a translation of one (back).

    `given` is the text; `english` and `lang` say which prompt and language it belongs to.
    """

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

    @property
    def pair(self) -> str:
        """Source and target language, as in `en->de`."""
        return f"{self.source}->{self.target}"


class Watcher(Protocol):
    """What a run reports to; all calls but `retry` and `pause` come one at a time."""

    def begin(self, backend: str, tasks: Sequence[Task]) -> None: ...
    def retry(self, question: Question, fault: Fault) -> None: ...
    def pause(self, fault: Fault, seconds: float) -> None: ...
    def done(self, task: Task) -> None: ...
    def failed(self, task: Task, reason: str, sample: str = "") -> None: ...
    def end(self, problem: str | None) -> None: ...
