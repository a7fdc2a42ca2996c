"""Choose the worst rows of a build by the scores of one check: its columns, or a file of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import regex

from polyrefuse_data.build.package import read_manifest
from polyrefuse_data.checks.recorded import RECORDED_CHECKS, badness
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.schema import Row
from polyrefuse_data.quality.scores_file import ScoresFile

_SHARE = regex.compile(r"(\d+(?:\.\d+)?) ?%")


def parse_share(text: str) -> float:
    """Return the share that `5%` names, between 0 and 1; raises `PolyRefuseError` for anything else."""
    match = _SHARE.fullmatch(text.strip())
    if match is None or not 0 < float(match[1]) <= 100:
        raise PolyRefuseError(f"--worst {text}: expected a share of the rows in percent, as 5%")
    return float(match[1]) / 100


@dataclass(frozen=True, kw_only=True)
class WorstRows:
    """The worst `share` of each language's rows that have a score of `check`, from a file of `scores` or the
    build's columns."""

    share: float
    check: str
    scores: Path | None = None

    def of(self, folder: Path, rows: Sequence[Row]) -> list[Row]:
        """Return the worst of `rows` by language, the worst first; raises where no row has a score."""
        scored = self._from_file(rows) if self.scores else self._from_columns(folder, rows)
        if not scored:
            raise PolyRefuseError(
                f"no row of {folder} has a score of '{self.check}'; score it with `polyrefuse audit {folder} "
                "--quality ... --scores FILE`, and name the file with --scores"
            )
        chosen: list[Row] = []
        for lang in dict.fromkeys(row.lang for row, _ in scored):
            own = [(row, bad) for row, bad in scored if row.lang == lang]
            own.sort(key=lambda pair: -pair[1])
            chosen += [row for row, _ in own[: ceil(self.share * len(own))]]
        return chosen

    def _from_columns(self, folder: Path, rows: Sequence[Row]) -> list[tuple[Row, float]]:
        models = read_manifest(folder).get("models", {}).get(self.check, {})
        model_of = {lang: model for model, langs in models.items() for lang in langs}
        return [
            (row, self._bad(model_of.get(row.lang, ""), score))
            for row in rows
            if (score := row.scores.get(self.check)) is not None
        ]

    def _from_file(self, rows: Sequence[Row]) -> list[tuple[Row, float]]:
        file = ScoresFile(self.scores)
        scored = []
        for lang in dict.fromkeys(row.lang for row in rows):
            own = [row for row in rows if row.lang == lang]
            recorded = file.recorded(lang, [row.text_en for row in own], [row.text for row in own])
            if self.check in recorded:
                column = recorded[self.check]
                scored += [
                    (row, self._bad(column.model, score))
                    for row, score in zip(own, column.scores, strict=True)
                    if score is not None
                ]
        return scored

    def _bad(self, model: str, score: float) -> float:
        return badness(self.check, model, score) if self.check in RECORDED_CHECKS else -score
