"""Which versions of a service answered: said when they change, and counted in `service.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

from polyrefuse_data.cluster.tasks import Outcome
from polyrefuse_eval.results.records import Completion
from polyrefuse_eval.results.service_files import SERVICE_FILE, service_file, service_notes
from polyrefuse_eval.results.validation import write_record
from polyrefuse_eval.runs.answers import AnswerStage
from polyrefuse_eval.runs.measured_prompts import MeasuredPrompts

Version = tuple[str | None, str | None]
"""A service's name of the model that answered, and its fingerprint; None where it states none."""


class ServiceVersions:
    """The versions of the service `label` that answered so far; `say` gets a line where another begins."""

    def __init__(self, label: str, say: Callable[[str], None]) -> None:
        self._label = label
        self._say = say
        self._versions: set[Version] = set()

    def note(self, completions: Iterable[Completion]) -> None:
        """Say where another version of the service begins to answer."""
        for note in service_notes(completions):
            if note.model is None or (note.model, note.system_fingerprint) in self._versions:
                continue
            if self._versions:
                self._say(
                    f"{self._label} changes: '{note.model}' answers now (system_fingerprint "
                    f"{note.system_fingerprint or 'not stated'}), and another version did before; "
                    f"{SERVICE_FILE} counts the answers of each"
                )
            self._versions.add((note.model, note.system_fingerprint))


class ServiceAnswerStage(AnswerStage):
    """A stage some of whose completions a service makes: notes its versions, and counts them at the end."""

    _service: ServiceVersions

    def _add_completions(self, compute: MeasuredPrompts, outcome: Outcome) -> None:
        self._service.note(chain.from_iterable(outcome.result))
        super()._add_completions(compute, outcome)

    def _note_complete(self, lang: str) -> None:
        if self._sources is not None and not self._missing.total():
            write_service_file(self.plan.out, self._completions())
        super()._note_complete(lang)


def write_service_file(run: Path, completions: Iterable[Completion]) -> None:
    """Write what the service says of `completions`, counted, into the folder of the run."""
    write_record(run / SERVICE_FILE, service_file(completions))
