"""Which lines may stand in one table: the same data, judge, settings and chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polyrefuse_eval.leaderboard.comparability import (
    Basis,
    basis_of,
    differences_in_words,
    template_variants,
)
from polyrefuse_eval.leaderboard.entries import Entry, entry_of
from polyrefuse_eval.leaderboard.runs import LeftOut, Run


@dataclass(frozen=True)
class Board:
    """Lines that can be compared, the most robust first.

    Boards of the same `group` have the same data, judge and settings of unedited answers: their rates
    without an edit can be compared, language by language. Boards are numbered from 1; `differs`: in what
    from the first.
    """

    judge: str
    basis: Mapping[str, Any]
    entries: tuple[Entry, ...]
    number: int = 1
    group: int = 0
    differs: tuple[str, ...] = ()

    @property
    def run_names(self) -> list[str]:
        """The names of its runs, in their order."""
        return list(dict.fromkeys(entry.run.name for entry in self.entries))

    @property
    def languages(self) -> list[str]:
        """The languages of its lines, in alphabetical order of their codes."""
        return sorted({row.lang for entry in self.entries for row in entry.languages})


@dataclass(frozen=True)
class Leaderboard:
    """Boards of comparable lines, and what is left out."""

    boards: tuple[Board, ...]
    runs: tuple[Run, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def entries(self) -> list[Entry]:
        return [entry for board in self.boards for entry in board.entries]

    @property
    def languages(self) -> list[str]:
        """All languages, in alphabetical order of their codes."""
        return sorted({lang for board in self.boards for lang in board.languages})

    @property
    def formulas(self) -> list[str]:
        """The formulas of robustness that the runs' summaries state; one, unless versions are mixed."""
        return list(dict.fromkeys(run.summary.formula for run in self.runs if run.summary))

    @property
    def apart(self) -> list[str]:
        """One line for each board after the first: which runs it holds, and what sets it apart."""
        return [
            f"shown apart: {', '.join(board.run_names)} (judge {board.judge}): {'; '.join(board.differs)}"
            for board in self.boards[1:]
        ]


def leaderboard(runs: Sequence[Run], left_out: Sequence[LeftOut] = ()) -> Leaderboard:
    """Sort `runs` into boards: a board for each judge and each basis, the fullest group and board first.

    A run without edits, such as one of a model behind an endpoint, joins the fullest board of its group with
    the same languages. Of what is left out, the page names folders; files that lie beside runs are none of
    its matter.
    """
    templates = template_variants(runs)
    formulas = {run.name: None if run.summary is None else run.summary.formula for run in runs}
    first_formula = next(filter(None, formulas.values()), None)
    groups: dict[str, list[tuple[Entry, Basis]]] = {}
    for run in runs:
        for judge in run.judges:
            entry = entry_of(run, judge)
            basis = basis_of(
                run,
                judge,
                templates[run.name],
                formulas[run.name] or first_formula,
                has_edits=entry.has_edits,
            )
            groups.setdefault(_key(basis.answers), []).append((entry, basis))
    ordered = sorted(groups.values(), key=lambda group: -len(group))
    parts = [(number, part) for number, group in enumerate(ordered) for part in _parts(group)]
    bases = [part[0][1].json() for _, part in parts]
    boards = [
        Board(
            judge=part[0][0].judge,
            basis=basis,
            entries=tuple(sorted((entry for entry, _ in part), key=_rank)),
            number=number,
            group=group,
            differs=tuple(differences_in_words(bases[0], basis)),
        )
        for number, ((group, part), basis) in enumerate(zip(parts, bases, strict=True), 1)
    ]
    shown = tuple(folder for folder in left_out if folder.is_folder)
    return Leaderboard(boards=tuple(boards), runs=tuple(runs), left_out=shown)


def _parts(group: Sequence[tuple[Entry, Basis]]) -> list[list[tuple[Entry, Basis]]]:
    """Return the lines of a group divided by the settings of their edits, the fullest part first."""
    parts: dict[str, list[tuple[Entry, Basis]]] = {}
    for entry, basis in group:
        if entry.has_edits:
            parts.setdefault(_key(basis.edits), []).append((entry, basis))
    edited = sorted(parts.values(), key=lambda part: -len(part))
    unedited: dict[str, list[tuple[Entry, Basis]]] = {}
    for entry, basis in group:
        if entry.has_edits:
            continue
        langs = basis.edits["settings"].get("langs")
        joined = next((part for part in edited if part[0][1].edits["settings"].get("langs") == langs), None)
        if joined is None:
            joined = unedited.setdefault(_key(langs), [])
        joined.append((entry, basis))
    return sorted([*edited, *unedited.values()], key=lambda part: -len(part))


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _rank(entry: Entry) -> tuple[bool, float, float, str]:
    """Return the place of a line: by robustness, then by its rate without an edit, then by name."""
    robustness = entry.robustness.value if entry.robustness else None
    refused = entry.baseline.value if entry.baseline else None
    return (robustness is None, -(robustness or 0.0), -(refused or 0.0), entry.run.name)
