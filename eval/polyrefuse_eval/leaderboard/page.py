"""The leaderboard as one HTML page that needs nothing from outside itself but its JSON files to link to."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from importlib import resources
from typing import Any

from polyrefuse_data.core.display import visible, visible_value
from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_eval.leaderboard import harmfulness, layers, rate_chart, reproduction
from polyrefuse_eval.leaderboard.boards import Leaderboard
from polyrefuse_eval.leaderboard.columns import columns_of, lines_of
from polyrefuse_eval.leaderboard.entries import Entry
from polyrefuse_eval.leaderboard.figures import language_name
from polyrefuse_eval.leaderboard.grids import shade, strengths, transfers
from polyrefuse_eval.leaderboard.model_names import NOT_STATED, SIZES, family_of, size_of
from polyrefuse_eval.leaderboard.overview import absent, absent_in, overviews
from polyrefuse_eval.leaderboard.records import RecordTable, record_table
from polyrefuse_eval.leaderboard.runs import Run
from polyrefuse_eval.leaderboard.signatures import (
    ORGANISM,
    data_name,
    entry_signature,
    signature_lines,
)
from polyrefuse_eval.leaderboard.subsets import subset_rows
from polyrefuse_eval.leaderboard.tables import board_title

FOLDER = "assets"
SCRIPTS = ("page.js", "view.js", "compare.js", "download.js")
"""The parts of the page's script, in the order in which they run."""

WITHOUT = {
    "rates": "No answer without an edit was judged, so there are no rates to draw.",
    "transfer": "Nothing was measured with an edit, so there is no transfer table.",
    "strengths": "One strength of ablation was tried, so there is no table by strength.",
    "robustness": (
        "No mean of robustness: not every language was measured by its protocol (English and the language’s "
        "own direction), or there is no summary of this judge."
    ),
    "curves": "The run holds no candidate scores, so there are no curves by layer.",
}
"""What a run says where it has nothing to draw."""

ANSWERS_ONLY = (
    "This model is behind an endpoint, which returns answers but no activations: directions, transfer, "
    "strengths and robustness do not apply."
)


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
    style, script = _text("style.css"), "".join(map(_text, SCRIPTS))
    models = Counter(_versioned(run) for run in compared.runs)
    numbers = {(entry.run.name, entry.judge): index for index, entry in enumerate(compared.entries)}
    environment.filters |= {"lang": language_name, "shade": shade, "family": family_of, "size": size_of}
    environment.globals |= {
        "organism": ORGANISM,
        "absent": absent,
        "absent_in": absent_in,
        "columns_of": columns_of,
        "lines_of": lines_of,
        "layers": layers,
        "rates": rate_chart,
        "number": numbers,
        "id_of": lambda entry: f"run-{numbers[entry.run.name, entry.judge] + 1}",
        "is_repeated": lambda run: models[_versioned(run)] > 1,
        "first_judge": compared.boards[0].judge if compared.boards else "",
        "language_of": LANGUAGES.get,
        "scatter_frame": (harmfulness.LEFT, harmfulness.TOP, harmfulness.SIZE),
    }
    measured = [run.of_harmfulness() for run in compared.runs if run.harmfulness]
    return environment.get_template("index.html.j2").render(
        style=style,
        script=script,
        policy=_policy(style, script),
        compared=compared,
        facts=_facts(compared),
        overviews=overviews(compared),
        boards=[
            (board, board_title(board, number, len(compared.boards)))
            for number, board in enumerate(compared.boards, 1)
        ],
        groups=[board.group for board in compared.boards for _ in board.entries],
        board_numbers=[board.number for board in compared.boards for _ in board.entries],
        languages=[(code, _label(code)) for code in compared.languages],
        families=sorted({family_of(entry.run.model) for entry in compared.entries}),
        sizes=[size for size in (*SIZES, NOT_STATED) if size in _sizes(compared)],
        details=[_detail(entry) for entry in compared.entries],
        harmfulness=[
            {"run": run, "languages": harmfulness.harmfulness_of(run), "lacking": harmfulness.lacking(run)}
            for run in measured
        ],
        signatures=_data_block(
            [_shown(entry_signature(entry)) for entry in compared.entries]
            + [_shown(signature_lines(run)) for run in measured]
        ),
    )


def _versioned(run: Run) -> tuple[str, str]:
    """Return what a run is called by on the page where no other run is of the same model."""
    return run.model, run.revision


def _facts(compared: Leaderboard) -> dict[str, Any]:
    """Return what stands at the top of the page: data, judges, dates, versions, and the command."""
    return {
        "data": list(
            dict.fromkeys(
                (data_name(run.signature), run.data_digest) for run in compared.runs if run.data_digest
            )
        ),
        "judges": list(dict.fromkeys(board.judge for board in compared.boards)),
        "software": reproduction.software(compared.runs),
        "dates": reproduction.dates(compared.runs),
        "command": reproduction.page_command(compared.runs),
    }


def _detail(entry: Entry) -> dict[str, Any]:
    """Return the charts of one line, and a sentence for each that its run has no numbers for."""
    by_strength = strengths(entry)
    shown: dict[str, Any] = {
        "rates": rate_chart.rate_chart(entry),
        "transfer": transfers(entry),
        "strengths": by_strength,
        "curves": layers.score_charts(entry.run),
        "agreement": _agreement(entry),
        **_subsets(entry),
        "costs": record_table([asdict(cost) for cost in entry.run.costs], entry.run.file, "costs"),
        "robustness": entry.robustness,
    }
    missing = [sentence for name, sentence in WITHOUT.items() if not shown[name]]
    if entry.run.endpoint and not entry.has_edits:
        missing = [ANSWERS_ONLY]
    return {
        **shown,
        "entry": entry,
        "grids": shown["transfer"] + ([by_strength] if by_strength else []),
        "missing": missing,
        "signature": list(entry_signature(entry)),
        "command": reproduction.run_command(entry.run),
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


def _sizes(compared: Leaderboard) -> set[str]:
    return {size_of(entry.run.model) for entry in compared.entries}


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
