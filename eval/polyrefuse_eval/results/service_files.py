"""What a service said of its answers, counted: `service.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from polyrefuse_eval.results.records import Completion, ServiceFile, ServiceNote, ServiceVersion

SERVICE_FILE = "service.json"
"""What answered, how often, and how many tokens it counted: there when all completions are."""


def service_notes(completions: Iterable[Completion]) -> list[ServiceNote]:
    """Return what a service says of those of `completions` that are its own."""
    return [completion.service for completion in completions if completion.service is not None]


def service_file(completions: Iterable[Completion]) -> ServiceFile:
    """Return what the service says of `completions`, counted."""
    notes = service_notes(completions)
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
