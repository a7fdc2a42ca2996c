"""What every way of answering prompts shares: who answers, the prompts of a measurement, their records.

Imports no torch: models behind endpoints are measured without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polyrefuse_data.cluster.tasks import ModelSlot
from polyrefuse_data.core.schema import Row
from polyrefuse_eval.results.records import Completion, ServiceNote
from polyrefuse_eval.results.settings import Measurement


@dataclass(frozen=True)
class Identity:
    """What the numbers of a model depend on: its signature, and the versions of libraries."""

    signature: Mapping[str, str]
    versions: Mapping[str, str]


@dataclass(frozen=True, eq=False, kw_only=True)
class MeasuredPrompts:
    """The prompts of a measurement; `done` are the keys of its completions that are there."""

    measurement: Measurement
    rows: tuple[Row, ...]
    done: frozenset[str] = frozenset()

    def __call__(self, slot: ModelSlot) -> Any:
        """Return the completions that are not done, or yield them in parts."""
        raise NotImplementedError

    def key(self, row: Row) -> str:
        """Return the key of the completion of `row`."""
        return f"{row.id}/{self.measurement.condition.name}"

    @property
    def keys(self) -> frozenset[str]:
        """Keys of all completions of the measurement."""
        return frozenset(self.key(row) for row in self.rows)

    def completion(
        self,
        row: Row,
        response: str,
        n_tokens: int | None,
        ended: bool | None,
        reasoning: str | None = None,
        service: ServiceNote | None = None,
    ) -> Completion:
        """Return the record of a response to `row`."""
        return Completion(
            key=self.key(row),
            id=row.id,
            group=row.group,
            lang=row.lang,
            label=row.label,
            condition=self.measurement.condition.name,
            response=response,
            n_tokens=n_tokens,
            ended=ended,
            reasoning=reasoning,
            service=service,
        )
