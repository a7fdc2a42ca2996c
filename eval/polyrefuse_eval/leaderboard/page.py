"""The leaderboard as one HTML page that needs nothing from outside itself but its JSON files to link to."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib import resources
from typing import Any

from polyrefuse_data.core.display import visible, visible_value
from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_eval.leaderboard import bars as bar_chart
from polyrefuse_eval.leaderboard import harmfulness, layers
from polyrefuse_eval.leaderboard.boards import Leaderboard
from polyrefuse_eval.leaderboard.entries import Entry
from polyrefuse_eval.leaderboard.figures import language_name
from polyrefuse_eval.leaderboard.grids import shade, strengths, transfers
from polyrefuse_eval.leaderboard.records import RecordTable, record_table
from polyrefuse_eval.leaderboard.signatures import ORGANISM, entry_signature, signature_lines
from polyrefuse_eval.leaderboard.subsets import subset_rows
from polyrefuse_eval.leaderboard.tables import board_title

FOLDER = "assets"
WITHOUT = {
    "bars": "It has no judged answers under ablation, so there are no bars to compare.",
    "transfer": "It has no results of interventions, so there is no transfer table.",
    "strengths": "It tried one strength of ablation, so there is no table by strength.",
    "robustness": "It has no summary of this judge, so no robustness is given.",
    "curves": "It holds no candidate scores, so there are no curves by layer.",
}
"""What a run says where it has nothing to draw."""

UNDERSTOOD = {
    "gap": "Gap",
    "in_language": "In the language",
    "in_english": "In English",
    "incoherent": "Incoherent",
    "puzzled": "Puzzled",
    "cut": "Cut off",
}
"""Headings of `entries.COMPREHENSION`."""


def page(compared: Leaderboard) -> str:
    """Return `index.html`. Whatever comes from runs is escaped; its policy forbids any request."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        finalize=visible_value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_text),
    )
    environment.filters |= {"lang": language_name, "shade": shade}
    style, script = _text("style.css"), _text("page.js")
    numbers = {entry: index for index, entry in enumerate(_ids(compared))}
    measured = [run.of_harmfulness() for run in compared.runs if run.harmfulness]
    return environment.get_template("index.html.j2").render(
        style=style,
        script=script,
        policy=_policy(style, script),
        compared=compared,
        organism=ORGANISM,
        understood=UNDERSTOOD,
        boards=[
            (board, board_title(board, number, len(compared.boards)))
            for number, board in enumerate(compared.boards, 1)
        ],
        languages=[(code, _label(code)) for code in _languages(compared)],
        details=[_detail(entry) for entry in compared.entries],
        number=numbers,
        id_of=lambda entry: f"run-{numbers[entry.run.name, entry.judge] + 1}",
        harmfulness=[
            {"run": run, "languages": harmfulness.harmfulness_of(run), "lacking": harmfulness.lacking(run)}
            for run in measured
        ],
        signatures=_data_block(
            [_shown(entry_signature(entry)) for entry in compared.entries]
            + [_shown(signature_lines(run)) for run in measured]
        ),
        bar_left=bar_chart.BAR_LEFT,
        bar_width=bar_chart.BAR_WIDTH,
        layers=layers,
        scatter_frame=(harmfulness.LEFT, harmfulness.TOP, harmfulness.SIZE),
    )


def _detail(entry: Entry) -> dict[str, Any]:
    """Return the charts of one line, and a sentence for each that its run has no numbers for."""
    by_strength = strengths(entry)
    shown: dict[str, Any] = {
        "bars": bar_chart.bars(entry),
        "transfer": transfers(entry),
        "strengths": by_strength,
        "curves": layers.score_charts(entry.run),
        "agreement": _agreement(entry),
        **_subsets(entry),
        "costs": record_table([asdict(cost) for cost in entry.run.costs], entry.run.file, "costs"),
        "robustness": entry.robustness,
    }
    grids = shown["transfer"] + ([by_strength] if by_strength else [])
    missing = [sentence for name, sentence in WITHOUT.items() if not shown[name]]
    return {
        **shown,
        "entry": entry,
        "grids": grids,
        "missing": missing,
        "signature": list(entry_signature(entry)),
    }


def _agreement(entry: Entry) -> RecordTable | None:
    return record_table([asdict(record) for record in entry.run.agreement], entry.run.file, "agreement")


def _subsets(entry: Entry) -> dict[str, RecordTable | None]:
    """Return the tables by source, of over-refusal beside compliance, and by type."""
    run, judge = entry.run, entry.judge
    inner = run.over_refusal
    sides, types = ([], []) if inner is None else (inner.sides(judge), inner.types(judge))
    by_source = subset_rows(run.subsets, judge, "source")
    return {
        "by_source": record_table(by_source, run.file, "by_source", judge),
        "sides": record_table(sides, run.file, "over_refusal", judge, "sides"),
        "types": record_table(types, run.file, "over_refusal", judge, "types"),
    }


def _ids(compared: Leaderboard) -> Iterator[tuple[str, str]]:
    for entry in compared.entries:
        yield entry.run.name, entry.judge


def _languages(compared: Leaderboard) -> list[str]:
    return sorted({lang for board in compared.boards for lang in board.languages})


def _label(code: str) -> str:
    if code not in LANGUAGES:
        return code
    known = LANGUAGES[code]
    own = "" if known.native_name == known.name else f" · {known.native_name}"
    return f"{code} · {known.name}{own}"


def _data_block(value: Any) -> str:
    """Return `value` as JSON that cannot end the script element which holds it."""
    text = json.dumps(value, ensure_ascii=True)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _shown(signature: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: visible(text) for name, text in signature}


def _policy(style: str, script: str) -> str:
    """Return a content security policy that allows this style and this script, and nothing else."""
    sources = [
        base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode() for text in (style, script)
    ]
    return (
        f"default-src 'none'; style-src 'sha256-{sources[0]}'; script-src 'sha256-{sources[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _text(name: str) -> str:
    """Return a file of the page."""
    return (resources.files(__package__ or "") / FOLDER / name).read_text(encoding="utf-8")
