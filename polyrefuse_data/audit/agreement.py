"""Measure how far two reviewers agree: Cohen's kappa on which rows to correct, and where they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from polyrefuse_data.audit.argilla import is_argilla, reviewers
from polyrefuse_data.audit.review import review_cells
from polyrefuse_data.audit.review_cells import ReviewError, read_review
from polyrefuse_data.core.display import counted

SAME, OTHER, ONE = "same correction", "other correction", "corrected by one"


@dataclass(frozen=True, kw_only=True)
class RowAgreement:
    """What two reviewers made of a row that one of them corrected at least."""

    id: str
    lang: str
    outcome: str


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The agreement of two reviewers over `rows` that both have in their files.

    `kappa` is Cohen's, of the decision to correct a row or leave it; None where both made one decision
    throughout, so that chance explains everything.
    """

    rows: int
    agreed: int
    kappa: float | None
    corrected: tuple[RowAgreement, ...]
    only_first: int
    only_second: int

    def lines(self) -> Iterator[str]:
        """Yield the agreement as lines: the figures, then the rows on which the two differ."""
        kappa = (
            "undefined (both gave every row the same decision)" if self.kappa is None else f"{self.kappa:.2f}"
        )
        yield f"{counted(self.rows, 'row')} in both files: agreed on {self.agreed}, kappa {kappa}"
        if self.only_first or self.only_second:
            yield f"Only in the first file: {self.only_first}, only in the second: {self.only_second}"
        for outcome in (SAME, OTHER, ONE):
            rows = [row for row in self.corrected if row.outcome == outcome]
            if rows:
                yield f"{outcome}: {len(rows)}"
                if outcome != SAME:
                    yield from (f"  {row.lang} {row.id}" for row in rows)


def reviewer_agreement(first: Path, second: Path) -> Agreement:
    """Compare two review files of the same export, as `review import` reads them; raises `ReviewError`.

    A row without a correction counts as left as it is: give both reviewers the same export.
    """
    return _agreement(_corrections(first), _corrections(second), f"{first} and {second}")


def user_agreements(path: Path) -> Iterator[tuple[str, str, Agreement]]:
    """Yield (user, user, agreement) of each two users whose answers are in a file of records of Argilla.

    Only rows that both answered are compared; one that was called wrong counts as corrected. Pairs without
    such a row are left out. Raises `ReviewError` if no pair is left.
    """
    table = read_review(path)
    users = reviewers(table) if is_argilla(table) else []
    corrections = {user: _corrections(path, user) for user in users}
    pairs = [
        (one, other)
        for one, other in combinations(users, 2)
        if corrections[one].keys() & corrections[other].keys()
    ]
    if not pairs:
        raise ReviewError(
            f"{path} has no row that two Argilla users answered; give such records, or two files"
        )
    for one, other in pairs:
        yield one, other, _agreement(corrections[one], corrections[other], str(path))


Corrections = Mapping[tuple[str, str, str], str]


def _agreement(one: Corrections, other: Corrections, source: str) -> Agreement:
    both = [row for row in one if row in other]
    if not both:
        raise ReviewError(f"{source} have no row in common; expected reviews of the same export")
    rows = [
        RowAgreement(id=row[0], lang=row[1], outcome=_outcome(one[row], other[row]))
        for row in both
        if one[row] or other[row]
    ]
    agreed = len(both) - sum(row.outcome == ONE for row in rows)
    shares = [sum(bool(reviewer[row]) for row in both) / len(both) for reviewer in (one, other)]
    chance = shares[0] * shares[1] + (1 - shares[0]) * (1 - shares[1])
    return Agreement(
        rows=len(both),
        agreed=agreed,
        kappa=None if chance == 1 else (agreed / len(both) - chance) / (1 - chance),
        corrected=tuple(rows),
        only_first=len(one) - len(both),
        only_second=len(other) - len(both),
    )


def _outcome(first: str, second: str) -> str:
    if first and second:
        return SAME if first == second else OTHER
    return ONE


def _corrections(path: Path, reviewer: str | None = None) -> dict[tuple[str, str, str], str]:
    """Return the correction of each row by id, language and key; empty where the reviewer left the row."""
    return {
        (cells["id"], cells["lang"], cells["key"]): cells["correction"].strip()
        for _, cells in review_cells(path, reviewer)
    }
