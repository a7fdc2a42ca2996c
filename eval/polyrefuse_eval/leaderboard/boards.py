"""Which lines may stand in one table: the same data, judge, settings and chat template."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polyrefuse_eval.leaderboard.entries import Entry, entry_of
from polyrefuse_eval.leaderboard.runs import LeftOut, Run
from polyrefuse_eval.leaderboard.signatures import judge_signature
from polyrefuse_eval.results.folder import differences

PER_MODEL = frozenset({"refusal_tokens", "batch_size", "seed"})
"""Settings that may differ between comparable runs: tokens are each model's own, seeds draw controls."""


@dataclass(frozen=True)
class Board:
    """Lines that can be compared, the most robust first. `differs`: in what from the first board."""

    judge: str
    basis: Mapping[str, Any]
    entries: tuple[Entry, ...]
    differs: tuple[str, ...] = ()

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
    def formulas(self) -> list[str]:
        """The formulas of robustness that the runs' summaries state; one, unless versions are mixed."""
        return list(dict.fromkeys(run.summary.formula for run in self.runs if run.summary))

    @property
    def apart(self) -> list[str]:
        """One line for each board after the first: which runs it holds, and what sets it apart."""
        return [
            f"shown apart: {', '.join(dict.fromkeys(entry.run.name for entry in board.entries))} "
            f"(judge {board.judge}): {'; '.join(board.differs)}"
            for board in self.boards[1:]
        ]


def leaderboard(runs: Sequence[Run], left_out: Sequence[LeftOut] = ()) -> Leaderboard:
    """Sort `runs` into boards: a board for each judge and each basis, the fullest board first.

    Of what is left out, the page names folders; files that lie beside runs are none of its matter.
    """
    templates = _template_variants(runs)
    formulas = [None if run.summary is None else run.summary.formula for run in runs]
    first_formula = next(filter(None, formulas), None)
    groups: dict[str, tuple[Mapping[str, Any], list[Entry]]] = {}
    for run, formula in zip(runs, formulas, strict=True):
        for judge in run.judges:
            basis = {
                "judge": judge_signature(run.signature, judge),
                "data": run.signature.get("data"),
                "settings": _settings(run.signature),
                "formula": formula or first_formula,
                "template": templates[run.name],
            }
            key = json.dumps(basis, sort_keys=True)
            groups.setdefault(key, (basis, []))[1].append(entry_of(run, judge))
    ordered = sorted(groups.values(), key=lambda group: -len(group[1]))
    first = ordered[0][0] if ordered else {}
    boards = [
        Board(
            entries[0].judge,
            basis,
            tuple(sorted(entries, key=_rank)),
            tuple(_short(differences(first, basis))),
        )
        for basis, entries in ordered
    ]
    return Leaderboard(tuple(boards), tuple(runs), tuple(folder for folder in left_out if folder.is_folder))


def _settings(signature: Mapping[str, Any]) -> dict[str, Any]:
    settings = signature.get("settings")
    known = settings if isinstance(settings, Mapping) else {}
    return {name: value for name, value in known.items() if name not in PER_MODEL}


def _template_variants(runs: Sequence[Run]) -> dict[str, str]:
    """Return, for each run, what tells its chat template from that of its model's first run.

    Chat templates differ between models, as they should; two of one model are not comparable.
    """
    first: dict[str, str] = {}
    variants = {}
    for run in runs:
        same = run.template_hash == first.setdefault(run.model, run.template_hash)
        variants[run.name] = "" if same else f"{run.model}: {run.template_hash[:12]}"
    return variants


def _rank(entry: Entry) -> tuple[bool, float, str]:
    value = entry.robustness.value if entry.robustness else None
    return (value is None, -(value or 0.0), entry.run.name)


def _short(lines: Sequence[str]) -> list[str]:
    """Return `lines` fit to be read: hashes by their first 12 digits, long ones cut."""
    shortened = (re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b", r"\1…", line) for line in lines)
    return [line if len(line) <= 200 else line[:200] + "…" for line in shortened]
