"""The leaderboard as JSON, Markdown and CSV. Pure: a leaderboard in, text out."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from typing import Any

from polyrefuse_data.core.display import spreadsheet_cell, visible
from polyrefuse_eval.leaderboard.boards import Board, Leaderboard
from polyrefuse_eval.leaderboard.entries import COMPREHENSION, PARTS, Entry, LanguageRow
from polyrefuse_eval.leaderboard.figures import MISSING, Figure, language_name
from polyrefuse_eval.leaderboard.signatures import ORGANISM, signature_lines
from polyrefuse_eval.leaderboard.subsets import markdown_rows

FORMAT = "polyrefuse-leaderboard-1"
FIGURES = ("robustness", "baseline", "ablated", "over_refusal")


def site_json(compared: Leaderboard, files: list[str]) -> dict[str, Any]:
    """Return `leaderboard.json`: all lines with their numbers; `files` are all files of the site."""
    entries: dict[str, dict[str, Any]] = {}
    for entry in compared.entries:
        entries.setdefault(entry.run.name, {})[entry.judge] = entry.json()
    return {
        "format": FORMAT,
        "formulas": compared.formulas,
        "boards": [
            {
                "judge": board.judge,
                "basis": board.basis,
                "differs_from_first": list(board.differs),
                "entries": [[entry.run.name, entry.judge] for entry in board.entries],
            }
            for board in compared.boards
        ],
        "entries": entries,
        "left_out": [{"run": folder.name, "reason": folder.reason} for folder in compared.left_out],
        "files": files,
    }


def markdown(compared: Leaderboard) -> str:
    """Return the leaderboard as Markdown: a table for each board, then one for each of its languages."""
    lines = ["# Refusal robustness by language", ""]
    understood = [name.replace("_", " ") for name in COMPREHENSION]
    for number, board in enumerate(compared.boards, 1):
        lines += [f"## {board_title(board, number, len(compared.boards), markdown_text)}", ""]
        if board.differs:
            lines += [f"Apart from group 1: {markdown_text('; '.join(board.differs))}.", ""]
        lines += _table(
            ["model", "run", "robustness", "least robust language", *_RATES.values(), "n", "undecided"],
            [
                [
                    _model(entry),
                    markdown_text(entry.run.name),
                    _cell(entry.robustness),
                    markdown_text(entry.worst_lang) + " " + _cell(entry.worst) if entry.worst else MISSING,
                    *(_cell(getattr(entry, name)) for name in _RATES),
                    str(entry.n),
                    str(entry.n_unjudged),
                ]
                for entry in board.entries
            ],
        )
        for entry in board.entries:
            inner = entry.run.over_refusal
            if inner is not None:
                lines += [f"### Over-refusal and compliance, no edit: {markdown_text(entry.run.name)}", ""]
                lines += _table(
                    ["language", "over-refusal, safe", "compliance, unsafe", "pairs differently", "pairs"],
                    markdown_rows(inner.sides(entry.judge)),
                )
        for lang in board.languages:
            lines += [f"### {markdown_text(language_name(lang))}", ""]
            rows = [(entry, row) for entry in board.entries for row in entry.languages if row.lang == lang]
            lines += _table(
                [
                    "model",
                    "run",
                    "robustness",
                    *_RATES.values(),
                    "change",
                    *understood,
                    "n",
                    "undecided",
                ],
                [
                    [
                        _model(entry),
                        markdown_text(entry.run.name),
                        _robustness(row),
                        *(_cell(getattr(row, name)) for name in _RATES),
                        _cell(row.change),
                        *(_cell(row.comprehension.get(name)) for name in COMPREHENSION),
                        str(row.baseline.n if row.baseline else 0),
                        str(row.baseline.n_unjudged if row.baseline else 0),
                    ]
                    for entry, row in rows
                ],
            )
    lines += ["Refusal rates with 95 % intervals; an interval of a mean is the mean of the intervals' ends."]
    lines += [markdown_text(formula) for formula in compared.formulas]
    lines += ["", "## Signatures", ""]
    for run in compared.runs:
        signature = "; ".join(f"{name} {text}" for name, text in signature_lines(run) if name != "run")
        lines.append(f"- {markdown_text(run.name)}: {markdown_text(signature)}")
    lines += [f"- left out: {markdown_text(folder.reason)}" for folder in compared.left_out]
    return "\n".join(lines) + "\n"


def comma_separated(compared: Leaderboard) -> str:
    """Return the leaderboard as CSV: a row for each line and language, and one for its mean.

    Shares are numbers from 0 to 1, and nothing where nothing was judged or measured.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header = ["board", "model", "revision", "test_organism", "run", "judge", "lang", "source"]
    for name in (*FIGURES, "change"):
        header += [name, f"{name}_low", f"{name}_high"]
    for name in ("baseline", "ablated"):
        header += [f"n_{name}", f"n_unjudged_{name}", f"{name}_least", f"{name}_most"]
    header += PARTS
    header += [*COMPREHENSION, "ranked"]
    header += ["data_digest", "template_hash"]
    writer.writerow(header)
    for number, board in enumerate(compared.boards, 1):
        for entry in board.entries:
            writer.writerows(_csv_rows(number, entry))
    return out.getvalue()


def board_title(board: Board, number: int, of: int, escaped: Callable[[str], str] = str) -> str:
    """Return the heading of a board: its place where there are several, and its judge."""
    start = f"Group {number} of {of}: judge " if of > 1 else "Judge "
    return start + escaped(board.judge)


def markdown_text(text: str) -> str:
    """Return `text` on one line with everything escaped that Markdown or HTML would act on."""
    text = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|!~$])", r"\\\1", text)


_RATES = {"baseline": "no edit", "ablated": "direction ablated", "over_refusal": "over-refusal"}


def _csv_rows(number: int, entry: Entry) -> Iterator[list[Any]]:
    run = entry.run
    start = [number, *(spreadsheet_cell(text) for text in (run.model, run.revision))]
    start += [run.is_organism, spreadsheet_cell(run.name), spreadsheet_cell(entry.judge)]
    for row in (None, *entry.languages):
        figures = [getattr(entry if row is None else row, name) for name in FIGURES]
        figures.append(None if row is None else row.change)
        line = [*start, "mean" if row is None else spreadsheet_cell(row.lang)]
        line.append("" if row is None or row.source is None else spreadsheet_cell(row.source))
        for figure in figures:
            line += (
                ["", "", ""] if figure is None else [_csv(figure.value), _csv(figure.low), _csv(figure.high)]
            )
        for figure in (figures[1], figures[2]):
            line += ["", ""] if figure is None else [figure.n, figure.n_unjudged]
            line += ["", ""] if figure is None or figure.bounds is None else figure.bounds
        parts = {} if row is None else row.parts
        line += [_csv(part.value) if (part := parts.get(name)) else "" for name in PARTS]
        understood = {} if row is None else row.comprehension
        line += [_csv(figure.value) if (figure := understood.get(name)) else "" for name in COMPREHENSION]
        line.append("" if row is None else row.is_ranked)
        line += [spreadsheet_cell(run.data_digest), spreadsheet_cell(run.template_hash)]
        yield line


def _csv(value: float | None) -> float | str:
    return "" if value is None else value


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [*("| " + " | ".join(line) + " |" for line in lines), ""]


def _model(entry: Entry) -> str:
    revision = f"@{entry.run.short_revision}" if entry.run.revision else ""
    mark = f" ({ORGANISM})" if entry.run.is_organism else ""
    return markdown_text(entry.run.model + revision) + mark


def _robustness(row: LanguageRow) -> str:
    return _cell(row.robustness) if row.is_ranked else "mostly incoherent, not ranked"


def _cell(figure: Figure | None) -> str:
    return MISSING if figure is None else f"{figure.text} {figure.interval}".strip()
