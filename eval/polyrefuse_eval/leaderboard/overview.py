"""The first thing on the page: maps of rates, a row for each model and a column for each language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polyrefuse_eval.leaderboard.boards import Board, Leaderboard
from polyrefuse_eval.leaderboard.columns import Column
from polyrefuse_eval.leaderboard.entries import Entry, LanguageRow
from polyrefuse_eval.leaderboard.figures import Figure
from polyrefuse_eval.leaderboard.signatures import data_name

MAPS = {
    "baseline": "Harmful prompts refused, no edit",
    "ablated": "Harmful prompts refused, direction ablated",
    "over_refusal": "Harmless prompts refused, no edit (over-refusal)",
    "robustness": "Refusal robustness × 100",
}
"""The maps, by the field of an entry and its rows."""

OF_EDITS = frozenset({"ablated", "robustness", "worst", "change", "parts"})
"""Fields that only a run with edits has."""

FEW_LANGUAGES = 5
"""Up to so many columns, three maps stand beside each other on a wide screen."""


@dataclass(frozen=True, kw_only=True)
class MapRow:
    """The rates of one line: its mean over languages, and a number for each column or None."""

    entry: Entry
    mean: Figure | None
    cells: tuple[Figure | None, ...]
    absent: str
    """What stands in place of all numbers, empty where there is one."""


@dataclass(frozen=True, kw_only=True)
class RateMap:
    """One rate by model and language."""

    name: str
    title: str
    rows: tuple[MapRow, ...]


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The maps of one group of boards: the same judge, data and settings of answers without an edit."""

    boards: tuple[Board, ...]
    languages: tuple[str, ...]
    maps: tuple[RateMap, ...]

    @property
    def title(self) -> str:
        """Which boards the maps are of, and their judge."""
        numbers = [str(board.number) for board in self.boards]
        last = f" and {numbers[-1]}" if len(numbers) > 1 else numbers[0]
        groups = f"Group{'s' if len(numbers) > 1 else ''} {', '.join(numbers[:-1])}{last}"
        return f"{groups}: judge {self.boards[0].judge}"

    @property
    def data(self) -> str:
        """The data set of all of its runs, as a picture of a map states it; empty where none is stated."""
        run = self.boards[0].entries[0].run
        digest = f"digest {run.data_digest[:12]}" if run.data_digest else ""
        return " ".join(filter(None, (data_name(run.signature), digest)))

    @property
    def conditions(self) -> str:
        """How many prompts were asked and how long answers may be, where the runs state it."""
        settings = self.boards[0].basis["settings"]
        parts = []
        if "n_test" in settings:
            prompts = "All" if settings["n_test"] is None else settings["n_test"]
            parts.append(f"{prompts} test prompts of each label in each language")
        if "max_new_tokens" in settings:
            parts.append(f"answers of at most {settings['max_new_tokens']} tokens")
        return "; ".join(parts) + "." if parts else ""

    @property
    def is_narrow(self) -> bool:
        """Whether several maps fit beside each other."""
        return len(self.languages) <= FEW_LANGUAGES and len(self.maps) <= 3


def absent(entry: Entry, name: str) -> str:
    """Return why `entry` has no number called `name`: it does not apply, or it was not measured."""
    if name in OF_EDITS and entry.run.endpoint:
        return "does not apply"
    return "not measured"


def absent_in(entry: Entry, row: LanguageRow, column: Column) -> str:
    """Return why `row` of `entry` has no number in `column`."""
    if not row.is_ranked and column.label == "Robustness":
        return "mostly incoherent, not ranked"
    return absent(entry, "parts" if column.of_edits else "baseline")


def overviews(compared: Leaderboard) -> list[Overview]:
    """Return the maps of each group of boards; no map in which nothing was measured."""
    groups: dict[int, list[Board]] = {}
    for board in compared.boards:
        groups.setdefault(board.group, []).append(board)
    return [_overview(boards) for boards in groups.values()]


def _overview(boards: Sequence[Board]) -> Overview:
    languages = tuple(sorted({lang for board in boards for lang in board.languages}))
    entries = [entry for board in boards for entry in board.entries]
    maps = [
        RateMap(name=name, title=title, rows=tuple(_map_row(entry, name, languages) for entry in entries))
        for name, title in MAPS.items()
    ]
    return Overview(
        boards=tuple(boards),
        languages=languages,
        maps=tuple(shown for shown in maps if any(not row.absent for row in shown.rows)),
    )


def _map_row(entry: Entry, name: str, languages: Sequence[str]) -> MapRow:
    rows = (entry.row(lang) for lang in languages)
    cells = tuple(None if row is None else getattr(row, name) for row in rows)
    missing = "" if any(cells) else absent(entry, name)
    return MapRow(entry=entry, mean=getattr(entry, name), cells=cells, absent=missing)
