"""What the numbers of two lines must have in common to be compared, and what differs in plain words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from polyrefuse_eval.leaderboard.runs import Run
from polyrefuse_eval.leaderboard.signatures import flat, judge_signature
from polyrefuse_eval.results.growth import DEFAULTS
from polyrefuse_eval.results.settings import RunSettings

PER_MODEL = frozenset({"refusal_tokens", "batch_size", "seed", "baseline_server"})
"""Settings that may differ between comparable runs: tokens are each model's own, seeds draw controls, and a
server makes baselines only where its answers begin as the model's."""

ANSWER_SETTINGS = frozenset({"n_test", "test_seed", "max_new_tokens"})
"""Settings that answers without an edit depend on."""

EDIT_SETTINGS = frozenset(field.name for field in fields(RunSettings)) - PER_MODEL - ANSWER_SETTINGS
"""Settings that only edits, and means over languages, depend on."""

LONGEST = 200
"""Characters of a difference in words."""

SETTINGS_IN_WORDS = {
    "langs": "languages",
    "n_test": "test prompts of each label",
    "test_seed": "which test prompts",
    "final_punctuation": "final punctuation of the prompts used to find directions",
    "max_new_tokens": "longest answer in tokens",
    "direction_langs": "directions taken from",
    "rule": "rule of selecting a direction",
    "n_train": "training prompts of a direction",
    "n_validation": "validation prompts of a direction",
    "filter_prompts": "training prompts filtered by behaviour",
    "controls": "control directions",
    "coefficient": "coefficient of addition",
    "strengths": "further strengths of ablation",
    "addition_strengths": "further strengths of addition",
    "interventions": "interventions made",
    "kl_tokens": "tokens of an answer over which a candidate's KL is computed",
    "crossed": "prompts under an edit meant for the other label",
    "all_candidates": "all candidate directions scored",
    "directions_from": "run that the directions come from",
    "over_refusal_from": "contrast pairs used for over-refusal directions",
}
ALL_WHERE_NONE = ("n_test", "crossed")
"""Settings of which None says that all prompts are taken."""


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What the numbers of a line depend on besides its model.

    Answers without an edit may be compared where `answers` are the same, all numbers where `edits` are, too.
    `edits` hold the languages alone of a run without edits.
    """

    answers: Mapping[str, Any]
    edits: Mapping[str, Any]

    def json(self) -> dict[str, Any]:
        """Return the basis as `leaderboard.json` holds it: settings of answers and of edits in one record."""
        record = {**self.answers, "formula": self.edits.get("formula")}
        return {**record, "settings": {**self.answers["settings"], **self.edits["settings"]}}


def basis_of(run: Run, judge: str, template: str, formula: str | None, *, has_edits: bool) -> Basis:
    """Return what the numbers of `judge` on `run` depend on.

    `template` tells the chat template of the run from others of the same model, see `template_variants`.
    """
    stated = run.signature.get("settings")
    settings = stated if isinstance(stated, Mapping) else {}
    if "langs" in settings:  # a run that is older than a setting was made with its default
        settings = {**DEFAULTS, **settings}
    drawn = {"test_seed"} if settings.get("n_test") is None else set()  # of crossed measurements alone
    of_edits = {name: settings[name] for name in sorted((EDIT_SETTINGS | drawn) & settings.keys())}
    if not has_edits:
        of_edits = {name: value for name, value in of_edits.items() if name == "langs"}
    return Basis(
        answers={
            "judge": judge_signature(run.signature, judge),
            "data": run.signature.get("data"),
            "settings": {
                name: value
                for name, value in settings.items()
                if name not in PER_MODEL | EDIT_SETTINGS | drawn
            },
            "template": template,
        },
        edits={"settings": of_edits, "formula": formula},
    )


def template_variants(runs: Sequence[Run]) -> dict[str, str]:
    """Return, for each run, what tells its chat template from that of its model's first run.

    Chat templates differ between models, as they should; two of one model are not comparable.
    """
    first: dict[str, str] = {}
    variants = {}
    for run in runs:
        same = run.template_hash == first.setdefault(run.model, run.template_hash)
        variants[run.name] = "" if same else f"{run.model} ({run.template_hash[:12]})"
    return variants


def differences_in_words(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return a phrase for each thing in which `Basis.json` of `other` differs from that of `first`."""
    return [_shortened(line) for line in _differences(first, other)]


def _differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    if first["judge"] != other["judge"]:
        names = [basis["judge"].get("name") for basis in (other, first)]
        if names[0] != names[1]:
            yield f"judged by {names[0]}{_native_version(*names)} instead of {names[1]}"
        else:
            yield f"judge {names[0]} with {flat(other['judge'])} instead of {flat(first['judge'])}"
    if first["data"] != other["data"]:
        yield f"other data: {flat(other['data'])} instead of {flat(first['data'])}"
    if other["template"] != first["template"]:
        yield f"another chat template of {other['template'] or first['template']}"
    if None not in (first["formula"], other["formula"]) and first["formula"] != other["formula"]:
        yield "another formula of robustness"
    here, there = other["settings"], first["settings"]
    of_edits = EDIT_SETTINGS - {"langs"}
    has_edits = not of_edits.isdisjoint(here)
    settings = {*here, *there}
    if has_edits == of_edits.isdisjoint(there):  # a setting of edits says nothing about a run without any
        yield "with edits, too" if has_edits else "only answers without an edit"
        settings -= of_edits
    if "test_seed" not in here or "test_seed" not in there:
        settings.discard("test_seed")  # one of them draws nothing
    for name in sorted(settings):
        if here.get(name) != there.get(name):
            words = SETTINGS_IN_WORDS.get(name, name.replace("_", " "))
            yield f"{words}: {_value(name, here)} instead of {_value(name, there)}"


def _native_version(here: Any, there: Any) -> str:
    """Return what two versions of the native judge are to each other, nothing of other judges."""
    versions = [re.fullmatch(r"native-(\d+)", str(name)) for name in (here, there)]
    if None in versions:
        return ""
    first, second = (int(version[1]) for version in versions if version)
    return f", {'an older' if first < second else 'a newer'} version, which reads some answers differently,"


def _value(name: str, settings: Mapping[str, Any]) -> str:
    if name not in settings:
        return "not stated"
    value = settings[name]
    if name == "test_seed":
        return "the first" if value is None else f"a draw with seed {flat(value)}"
    if value is None:
        return "all" if name in ALL_WHERE_NONE else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return flat(value)


def _shortened(line: str) -> str:
    """Return `line` fit to be read: hashes by their first 12 digits, long lines cut."""
    line = re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b", r"\1…", line)
    return line if len(line) <= LONGEST else line[:LONGEST] + "…"
