"""Verdicts by prompt group: the same groups are drawn in all languages and under all conditions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from polyrefuse_eval.results.records import VerdictRecord
from polyrefuse_eval.statistics.rates import SAMPLES, Array, interval, resampled_rates, resamples, sign_flip_p

CellName = tuple[str, str, str]
"""(language, label, condition)."""

Verdicts = Mapping[str, VerdictRecord]
"""The verdicts of one cell by the id of the prompt."""

BLOCK = 128
"""Columns that are resampled at once: 10,000 samples of them take 10 MB an array."""


@dataclass(frozen=True)
class Change:
    """What differs between two cells over the prompts judged in both; see `records.Comparison`."""

    n: int
    difference: float | None
    low: float | None
    high: float | None
    p: float | None


NO_CHANGE = Change(0, None, None, None, None)


def by_cell(verdicts: Iterable[VerdictRecord]) -> dict[CellName, dict[str, VerdictRecord]]:
    """Return the verdicts of one judge by cell, then by prompt."""
    cells: dict[CellName, dict[str, VerdictRecord]] = {}
    for verdict in verdicts:
        cells.setdefault((verdict.lang, verdict.label, verdict.condition), {})[verdict.id] = verdict
    return cells


class Groups:
    """The prompt groups of one label, and the bootstrap samples that are drawn of them."""

    def __init__(self, names: Iterable[str], samples: int = SAMPLES, seed: int = 0) -> None:
        self._index = {name: place for place, name in enumerate(sorted(set(names)))}
        self._samples = samples
        self._seed = seed
        self._weights: Array | None = None

    def __len__(self) -> int:
        return len(self._index)

    @classmethod
    def of(cls, cells: Mapping[CellName, Verdicts], label: str, seed: int = 0) -> Groups:
        """Return the groups of all prompts of `label` in `cells`."""
        names = (
            verdict.group
            for (_, of_label, _), verdicts in cells.items()
            if of_label == label
            for verdict in verdicts.values()
        )
        return cls(names, seed=seed)

    @property
    def weights(self) -> Array:
        """[samples, groups]: how often a sample holds a group; drawn once."""
        if self._weights is None:
            self._weights = resamples(len(self), self._samples, self._seed)
        return self._weights

    def sums(self, values: Iterable[tuple[str, float]]) -> tuple[Array, Array]:
        """Return the sum of values and their number in each group, [groups] each, from (group, value)."""
        total, count = np.zeros(len(self)), np.zeros(len(self))
        for group, value in values:
            place = self._index[group]
            total[place] += value
            count[place] += 1
        return total, count

    def rates(self, verdicts: Verdicts) -> tuple[float | None, Array]:
        """Return the refusal rate of a cell, and it in each bootstrap sample [samples]."""
        total, count = self.sums(
            (verdict.group, float(verdict.refused))
            for verdict in verdicts.values()
            if verdict.refused is not None
        )
        if not count.sum():
            return None, np.full(self._samples, np.nan)
        sampled = resampled_rates(self.weights, total[:, None], count[:, None])[:, 0]
        return float(total.sum() / count.sum()), sampled

    def changes(self, pairs: Sequence[tuple[Verdicts, Verdicts]]) -> list[Change]:
        """Return for each (first, second) what is different in the second."""
        columns = [self.sums(differences(first, second)) for first, second in pairs]
        changes: list[Change] = []
        for start in range(0, len(columns), BLOCK):
            part = columns[start : start + BLOCK]
            sums = np.stack([total for total, _ in part], 1)
            counts = np.stack([count for _, count in part], 1)
            sampled = resampled_rates(self.weights, sums, counts) if counts.any() else None
            for column, (total, count) in enumerate(part):
                n = int(count.sum())
                ends = interval(sampled[:, column]) if n and sampled is not None else None
                if ends is None:
                    changes.append(NO_CHANGE)
                    continue
                p = sign_flip_p([int(value) for value in total])
                changes.append(Change(n, float(total.sum() / n), *ends, p))
        return changes


def differences(first: Verdicts, second: Verdicts) -> Iterable[tuple[str, float]]:
    """Yield (group, refused in second - refused in first) of the prompts judged in both."""
    for prompt, before in first.items():
        after = second.get(prompt)
        if after is not None and before.refused is not None and after.refused is not None:
            yield before.group, float(after.refused) - float(before.refused)
