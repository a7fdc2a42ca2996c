"""What a service computes for a run: which version of a model answers, and answers. Loads no weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from polyrefuse_data.cluster.tasks import ModelSlot
from polyrefuse_data.core.schema import Row
from polyrefuse_data.core.version import __version__
from polyrefuse_eval.endpoint.reading import ServiceAnswer
from polyrefuse_eval.endpoint.spec import EndpointSpec
from polyrefuse_eval.errors import EndpointError
from polyrefuse_eval.results.records import Completion
from polyrefuse_eval.runs.measured_prompts import Identity, MeasuredPrompts

PROBE = "Name a colour."
"""The first prompt for a service: its reply shows that it can be asked, and which version answers."""


@dataclass(frozen=True, eq=False, kw_only=True)
class AskService:
    """Ask the service of `endpoint` for the answers to prompts, each on its own.

    An `essential` task is of no use without all of its answers.
    """

    endpoint: EndpointSpec
    essential: bool = False

    @property
    def prompts(self) -> Sequence[str]:
        """The prompts that have no answer yet."""
        raise NotImplementedError

    def result(self, index: int, answer: ServiceAnswer) -> Any:
        """Return what the task makes of the answer to prompt number `index`."""
        raise NotImplementedError

    def __call__(self, slot: ModelSlot) -> Any:
        """Raise `EndpointError`: an executor for models asks no service."""
        raise EndpointError(f"{self.endpoint.label} is asked from the process that was started alone")


@dataclass(frozen=True, eq=False, kw_only=True)
class IdentifyService(AskService):
    """Ask once, and return which model in which version answers."""

    essential: bool = True

    @property
    def prompts(self) -> Sequence[str]:
        """A single prompt."""
        return (PROBE,)

    def result(self, index: int, answer: ServiceAnswer) -> Identity:
        """Return the identity of what answered."""
        return Identity(
            {
                **self.endpoint.signature(),
                "revision": answer.note.model or "not stated",
                "system_fingerprint": answer.note.system_fingerprint or "not stated",
            },
            {"polyrefuse": __version__},
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class AskPrompts(MeasuredPrompts, AskService):
    """Ask for the answers to those prompts of a measurement that are not done."""

    @property
    def prompts(self) -> Sequence[str]:
        """The texts of the rows without a completion."""
        return [row.text for row in self._missing]

    def result(self, index: int, answer: ServiceAnswer) -> Completion:
        """Return the completion of missing row number `index`."""
        return self.completion(
            self._missing[index],
            answer.text,
            answer.n_tokens,
            answer.ended,
            answer.reasoning,
            answer.note,
        )

    @cached_property
    def _missing(self) -> Sequence[Row]:
        return [row for row in self.rows if self.key(row) not in self.done]
