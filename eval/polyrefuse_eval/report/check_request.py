"""Check that what a run was asked for is what its signature says that it did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from polyrefuse_eval.report.differing import different
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.growth import DEFAULTS
from polyrefuse_eval.served_names import PREFIX

BASIS = "its signature states"
SAME_OPTIONS = ("endpoint", "temperature")
"""Options of a model that a signature repeats as they were asked for, numbers as texts."""


def request_problems(folder: RunFolder, data: DataFolder | None = None) -> Iterator[str]:
    """Yield where run.json's request and signature disagree, and prompts that are not those of `data`.

    Judges are left out: others may read the answers later, and the request stays as it was.
    """
    request, signature = folder.request, folder.signature
    if request is None:
        return
    there, asked = _part(signature, "settings"), _part(request, "settings")
    if there and asked:
        pairs = [(name, DEFAULTS.get(name)) for name in dict.fromkeys([*asked, *there])]
        yield from _different(
            "settings",
            {name: asked.get(name, usual) for name, usual in pairs},
            {name: there.get(name, usual) for name, usual in pairs},
        )
    for part in ("data", "versions"):
        asked, there = _part(request, part), _part(signature, part)
        shared = [name for name in asked if name in there]
        yield from _different(part, _only(asked, shared), _only(there, shared))
    yield from _model(_part(request, "model"), _part(signature, "model"))
    if data is not None:
        prompts = _part(_part(request, "data"), "prompts")
        for lang, digest in prompts.items():
            if lang in data.languages and digest != data.prompts_digest(lang):
                yield f"run.json was asked for other prompts in '{lang}' than '{data.path}' holds"


def _model(asked: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[str]:
    name = asked.get("name")
    if isinstance(name, str) and "model" in there:
        plain = name.removeprefix(PREFIX) if "endpoint" in there else name
        if there["model"] not in (plain, plain.rpartition("@")[0]):
            yield from _different("model.name", plain, there["model"])
    fields = str(there.get("request"))  # fields that are sent in place of options
    for option in SAME_OPTIONS:
        if option in asked and option in there and f'"{option}"' not in fields:
            yield from _different(f"model.{option}", _text(asked[option]), _text(there[option]))


def _different(place: str, asked: Any, there: Any) -> Iterator[str]:
    return different(f"run.json: request.{place}", asked, there, basis=BASIS)


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = record.get(name)
    return part if isinstance(part, Mapping) else {}


def _only(record: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: record[name] for name in names}


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
