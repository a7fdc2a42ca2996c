"""Contrast pairs in two halves: one gives directions of over-refusal, the other is tested.

A pair falls into a half by the hash of its id, so it does in every language, whatever else a build holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_data.core.schema import Row
from polyrefuse_eval.results.data import DataFolder

DIGEST_LENGTH = 32

MINIMUM_PAIRS = 4
"""Pairs without which no direction of over-refusal is fitted: the least number of prompts of a mean."""


def is_fitted_on(pair: str | None) -> bool:
    """Return whether the prompts of a pair, named by its id, are fitted on: its sha256 begins with an even
    byte. Prompts that are in no pair never are."""
    return pair is not None and hashlib.sha256(pair.encode("utf-8")).digest()[0] % 2 == 0


@dataclass(frozen=True)
class TestedPairs(DataFolder):
    """A build without the prompts of the pairs that are fitted on."""

    __test__ = False  # no test class, whatever pytest thinks of its name

    def rows(self, lang: str, split: str) -> list[Row]:
        """Return the rows of one language and split that are tested, in published order."""
        return [row for row in super().rows(lang, split) if not is_fitted_on(row.pair)]


@dataclass(frozen=True)
class FittedPairs:
    """The half of the contrast pairs of `build` that directions of over-refusal are fitted on."""

    build: DataFolder

    @property
    def identity(self) -> str:
        """What settings hold of the build: `RECIPE:DIGEST`."""
        return f"{self.build.recipe}:{self.build.digest[:DIGEST_LENGTH]}"

    def safe(self, lang: str) -> tuple[Row, ...]:
        """Return the harmless prompts of these pairs in one language, in published order."""
        rows = self.build.rows(lang, "test")
        return tuple(row for row in rows if row.label == "harmless" and is_fitted_on(row.pair))

    def check(self, langs: Sequence[str]) -> None:
        """Raise `DatasetFolderError` where the build lacks one of `langs`, or has too few pairs in it."""
        self.build.require(langs)
        for lang in langs:
            pairs = {row.pair for row in self.safe(lang)}
            if len(pairs) < MINIMUM_PAIRS:
                raise DatasetFolderError(
                    f"--over-refusal '{self.build.path}' has {len(pairs)} contrast pairs in '{lang}' in the "
                    f"half that directions of over-refusal are fitted on, which needs {MINIMUM_PAIRS}; build "
                    "it with more"
                )
