"""The leaderboard as one HTML page that needs nothing from outside itself but its JSON files to link to."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from polyrefuse_data.languages import LANGUAGES
from polyrefuse_eval.leaderboard.boards import Leaderboard, judge_signature
from polyrefuse_eval.leaderboard.charts import (
    BAR_LEFT,
    BAR_WIDTH,
    CURVE_HEIGHT,
    CURVE_LEFT,
    CURVE_WIDTH,
    bars,
    curves,
)
from polyrefuse_eval.leaderboard.entries import Entry
from polyrefuse_eval.leaderboard.figures import language_name
from polyrefuse_eval.leaderboard.grids import shade, strengths, transfer
from polyrefuse_eval.leaderboard.records import record_table
from polyrefuse_eval.leaderboard.tables import ORGANISM, board_title

FOLDER = "assets"


def page(found: Leaderboard) -> str:
    """Return `index.html`. Whatever comes from runs is escaped; its policy forbids any request."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_text),
    )
    environment.filters |= {"lang": language_name, "shade": shade}
    style, script = _text("style.css"), _text("page.js")
    numbers = {entry: index for index, entry in enumerate(_ids(found))}
    return environment.get_template("index.html.j2").render(
        style=style,
        script=script,
        policy=_policy(style, script),
        found=found,
        organism=ORGANISM,
        boards=[
            (board, board_title(board, number, len(found.boards)))
            for number, board in enumerate(found.boards, 1)
        ],
        languages=[(code, _label(code)) for code in _languages(found)],
        details=[_detail(entry) for entry in found.entries],
        number=numbers,
        id_of=lambda entry: f"run-{numbers[entry.run.name, entry.judge] + 1}",
        signatures=_data_block([dict(signature_lines(entry)) for entry in found.entries]),
        bar_left=BAR_LEFT,
        bar_width=BAR_WIDTH,
        curve_left=CURVE_LEFT,
        curve_width=CURVE_WIDTH,
        curve_height=CURVE_HEIGHT,
    )


def signature_lines(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield what a number of `entry` depends on, name and text: the signature that is shown with it."""
    run, signature = entry.run, entry.run.signature
    mark = f" ({ORGANISM})" if run.is_organism else ""
    yield "model", run.model + (f"@{run.revision}" if run.revision else "") + mark
    yield "run", run.name
    yield "chat template", run.template_hash or "not stated"
    yield "data", _flat(signature.get("data"))
    details = {key: value for key, value in judge_signature(signature, entry.judge).items() if key != "name"}
    yield "judge", entry.judge + (f", {_flat(details)}" if details else "")
    yield "settings", _flat(signature.get("settings"))
    model = signature.get("model")
    if isinstance(model, Mapping):
        named = ("model", "name", "revision", "template_hash")
        yield "model settings", _flat({key: value for key, value in model.items() if key not in named})
    yield "versions", _flat(signature.get("versions"))
    yield "judged", f"{entry.n} answers in this run, {entry.n_unjudged} undecided"


def _flat(value: Any) -> str:
    """Return a part of a signature on one line: `digest abc, recipe paper`."""
    if value is None or value == {}:
        return "not stated"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat_item(item)}" for key, item in value.items())
    return _flat_item(value)


def _flat_item(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({_flat(value)})"
    if isinstance(value, list | tuple):
        return " ".join(_flat_item(item) for item in value) or "none"
    return "none" if value is None else str(value)


def _detail(entry: Entry) -> dict[str, Any]:
    grids = [grid for grid in (transfer(entry, "ablation"), transfer(entry, "addition")) if grid]
    by_strength = strengths(entry)
    return {
        "entry": entry,
        "bars": bars(entry),
        "grids": grids + ([by_strength] if by_strength else []),
        "curves": curves(entry.run),
        "agreement": record_table(entry.run.agreement, entry.run.file, "agreement"),
        "signature": list(signature_lines(entry)),
        "missing": list(_missing(entry, bool(grids), by_strength is not None)),
    }


def _missing(entry: Entry, transferred: bool, by_strength: bool) -> Iterator[str]:
    """Yield a sentence for each chart that this run has no numbers for."""
    if bars(entry) is None:
        yield "It has no judged answers under ablation, so there are no bars to compare."
    if not transferred:
        yield "It has no results of interventions, so there is no transfer table."
    if not by_strength:
        yield "It tried one strength of ablation, so there is no table by strength."
    if entry.robustness is None:
        yield "It has no summary of this judge, so no robustness is given."
    if not curves(entry.run):
        yield "It holds no candidate scores, so there are no curves by layer."


def _ids(found: Leaderboard) -> Iterator[tuple[str, str]]:
    for entry in found.entries:
        yield entry.run.name, entry.judge


def _languages(found: Leaderboard) -> list[str]:
    return sorted({lang for board in found.boards for lang in board.languages})


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
