"""What a number depends on, in words: the signature that is shown with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from polyrefuse_eval.leaderboard.entries import Entry
from polyrefuse_eval.leaderboard.runs import Run

ORGANISM = "test organism, not a real model"


def entry_signature(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield the signature that is shown with the numbers of `entry`: its run's, and how much was judged."""
    yield from signature_lines(entry.run, entry.judge)
    yield "judged", f"{entry.n} answers in this run, {entry.n_unjudged} undecided"


def signature_lines(run: Run, judge: str | None = None) -> Iterator[tuple[str, str]]:
    """Yield what the numbers of `run` depend on, name and text; without `judge`, all that are stated."""
    signature = run.signature
    mark = f" ({ORGANISM})" if run.is_organism else ""
    yield "model", run.model + (f"@{run.revision}" if run.revision else "") + mark
    yield "run", run.name
    if run.origin:
        yield "made by", run.origin
        yield "not checked", "; ".join(run.unchecked) or "nothing"
    yield "chat template", run.template_hash or "not stated"
    yield "data", flat(signature.get("data"))
    if judge is None:
        yield "judge", flat(signature.get("judges", signature.get("judge")))
    else:
        stated = judge_signature(signature, judge).items()
        details = {key: value for key, value in stated if key != "name"}
        yield "judge", judge + (f", {flat(details)}" if details else "")
    yield "settings", flat(signature.get("settings"))
    model = signature.get("model")
    if isinstance(model, Mapping):
        named = ("model", "name", "revision", "template_hash")
        yield "model settings", flat({key: value for key, value in model.items() if key not in named})
    yield "versions", flat(signature.get("versions"))


def data_name(signature: Mapping[str, Any]) -> str:
    """Return the recipe of the data that a run measured, empty where it states none."""
    data = signature.get("data")
    return str(data.get("recipe") or "") if isinstance(data, Mapping) else ""


def flat(value: Any) -> str:
    """Return a part of a signature on one line: `digest abc, recipe paper`."""
    if value is None or value == {}:
        return "not stated"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat_item(item)}" for key, item in value.items())
    return _flat_item(value)


def _flat_item(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({flat(value)})"
    if isinstance(value, list | tuple):
        return " ".join(_flat_item(item) for item in value) or "none"
    return "none" if value is None else str(value)


def judge_signature(signature: Mapping[str, Any], judge: str) -> dict[str, Any]:
    """Return what the signature says of `judge`: its name, with revision and template where it has them."""
    stated = signature.get("judges", signature.get("judge"))
    if isinstance(stated, Mapping):
        return {"name": judge, **_as_mapping(stated.get(judge))}
    for entry in stated if isinstance(stated, list) else []:
        if isinstance(entry, Mapping) and judge in (entry.get("name"), entry.get("judge")):
            return {**entry, "name": judge}
    return {"name": judge}


def _as_mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    return {} if value is None else {"version": value}
