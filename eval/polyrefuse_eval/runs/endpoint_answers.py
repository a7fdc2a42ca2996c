"""The completions of a run of a model behind an endpoint: its baselines, as the service gives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from polyrefuse_data.cluster.tasks import Computation, Outcome, Task
from polyrefuse_data.core.schema import Row
from polyrefuse_eval.endpoint.prices import counted_tokens
from polyrefuse_eval.endpoint.spec import EndpointSpec
from polyrefuse_eval.results.records import Completion, ServiceFile, ServiceNote, ServiceVersion
from polyrefuse_eval.results.settings import Measurement
from polyrefuse_eval.results.validation import write_record
from polyrefuse_eval.runs.answers import AnswerStage
from polyrefuse_eval.runs.endpoint_tasks import AskPrompts, IdentifyService
from polyrefuse_eval.runs.measured_prompts import MeasuredPrompts
from polyrefuse_eval.runs.plan import RunPlan
from polyrefuse_eval.runs.progress import GridProgress

SERVICE_FILE = "service.json"
"""What answered, how often, and how many tokens it counted: there when all completions are."""

Version = tuple[str | None, str | None]
"""A service's name of the model that answered, and its fingerprint; None where it states none."""


class EndpointAnswerStage(AnswerStage):
    """Get the completions of the run `plan` from the service of `endpoint`.

    None comes from a cache: what a service answered once is no proof of what it answers now.
    """

    def __init__(self, plan: RunPlan, endpoint: EndpointSpec, progress: GridProgress) -> None:
        super().__init__(plan, progress)
        self._endpoint = endpoint
        self._versions: set[Version] = set()
        """Versions that answered so far."""

    def start(self) -> list[Task]:
        """Return the first tasks; what the completions that are there cost is spent."""
        completions = list(self._completions())
        self._note_versions(completions)
        price = self._endpoint.price
        if price is not None:
            tokens = [counted_tokens(note) for note in map(_service, completions) if note is not None]
            spent = sum(price.cost(counted) for counted in tokens if counted is not None)
            self._endpoint = replace(self._endpoint, spent=spent)
        return super().start()

    def _identifying(self) -> Computation:
        return IdentifyService(endpoint=self._endpoint)

    def _answering(self, measurement: Measurement, rows: tuple[Row, ...]) -> AskPrompts:
        return AskPrompts(endpoint=self._endpoint, measurement=measurement, rows=rows)

    def _add_completions(self, compute: MeasuredPrompts, outcome: Outcome) -> None:
        self._note_versions(completion for part in outcome.result for completion in part)
        super()._add_completions(compute, outcome)

    def _note_versions(self, completions: Iterable[Completion]) -> None:
        """Say where another version of the service begins to answer."""
        for note in map(_service, completions):
            if note is None or note.model is None or (note.model, note.system_fingerprint) in self._versions:
                continue
            if self._versions:
                self.progress.say(
                    f"{self._endpoint.label} changes: '{note.model}' answers now (system_fingerprint "
                    f"{note.system_fingerprint or 'not stated'}), and another version did before; "
                    f"{SERVICE_FILE} counts the answers of each"
                )
            self._versions.add((note.model, note.system_fingerprint))

    def _note_complete(self, lang: str) -> None:
        if self._sources is not None and not self._missing.total():
            write_record(self.plan.out / SERVICE_FILE, service_file(self._completions()))
        super()._note_complete(lang)

    def _completions(self) -> Iterable[Completion]:
        return (
            completion for lang in self.plan.settings.langs for completion in self.folder.completions(lang)
        )


def service_file(completions: Iterable[Completion]) -> ServiceFile:
    """Return what the service says of `completions`, counted."""
    notes = [note for note in map(_service, completions) if note is not None]
    versions = Counter((note.model, note.system_fingerprint) for note in notes)
    return ServiceFile(
        versions=tuple(
            ServiceVersion(model=model, system_fingerprint=fingerprint, answers=answers)
            for (model, fingerprint), answers in sorted(versions.items(), key=lambda item: str(item[0]))
        ),
        refusals=dict(sorted(Counter(note.refusal for note in notes if note.refusal is not None).items())),
        prompt_tokens=sum(note.prompt_tokens or 0 for note in notes),
        completion_tokens=sum(note.completion_tokens or 0 for note in notes),
    )


def _service(completion: Completion) -> ServiceNote | None:
    return completion.service
