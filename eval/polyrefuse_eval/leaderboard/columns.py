"""The columns of the table of one language: a new number of a language is a new line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from polyrefuse_eval.leaderboard.boards import Board
from polyrefuse_eval.leaderboard.entries import Entry, LanguageRow
from polyrefuse_eval.leaderboard.figures import Figure

Getter = Callable[[LanguageRow], Figure | None]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its heading, and where its number is in a row.

    `first` is the order of the first click on its heading. A column that is `optional` is left out where no
    line of the table has a number; `of_edits` says that only runs with edits can have one.
    """

    label: str
    get: Getter
    first: str = "descending"
    drawn: bool = False
    optional: bool = True
    of_edits: bool = False


def _part(name: str) -> Getter:
    return lambda row: row.parts.get(name)


def _understood(name: str) -> Getter:
    return lambda row: row.comprehension.get(name)


BY_LANGUAGE = (
    Column(
        label="Robustness", get=lambda row: row.robustness if row.is_ranked else None, optional=False,
        of_edits=True,
    ),
    Column(label="Refused, no edit", get=lambda row: row.baseline, drawn=True, optional=False),
    Column(
        label="Refused, direction ablated", get=lambda row: row.ablated, drawn=True, optional=False,
        of_edits=True,
    ),
    Column(label="Change", get=lambda row: row.change, of_edits=True),
    Column(label="Refused, English ablated", get=_part("refused_english"), of_edits=True),
    Column(label="Refused, own ablated", get=_part("refused_own"), of_edits=True),
    Column(label="Half strength", get=_part("half_strength"), of_edits=True),
    Column(label="Kept, own direction", get=_part("kept_own"), of_edits=True),
    Column(label="Kept, other languages’", get=_part("kept_transfer"), of_edits=True),
    Column(
        label="Over-refusal", get=lambda row: row.over_refusal, first="ascending", drawn=True, optional=False
    ),
    Column(label="Gap", get=_understood("gap")),
    Column(label="In the language", get=_understood("in_language")),
    Column(label="In English", get=_understood("in_english")),
    Column(label="Incoherent", get=_understood("incoherent")),
    Column(label="Puzzled", get=_understood("puzzled")),
    Column(label="Cut off", get=_understood("cut")),
    Column(label="n", get=lambda row: row.count("n"), optional=False),
    Column(label="Undecided", get=lambda row: row.count("n_unjudged"), optional=False),
)  # fmt: skip


def columns_of(board: Board, lang: str) -> list[Column]:
    """Return the columns of the table of `lang`: the optional ones only where a line has a number."""
    rows = [row for _, row in lines_of(board, lang)]
    return [
        column
        for column in BY_LANGUAGE
        if not column.optional or any(column.get(row) is not None for row in rows)
    ]


def lines_of(board: Board, lang: str) -> Sequence[tuple[Entry, LanguageRow]]:
    """Return the lines of a board that measured `lang`, with their numbers in it."""
    return [(entry, row) for entry in board.entries if (row := entry.row(lang)) is not None]
