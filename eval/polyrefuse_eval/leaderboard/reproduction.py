"""The commands that make the page and its runs again, and what all runs have in common."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from polyrefuse_data.core.version import __version__
from polyrefuse_eval.leaderboard.runs import Run
from polyrefuse_eval.results.interventions import BASELINE_NAME
from polyrefuse_eval.results.prompt_draw import shown_test
from polyrefuse_eval.results.settings import RunSettings

OPTIONS = {
    "direction_langs": "directions",
    "n_train": "train",
    "n_validation": "validation",
    "rule": "rule",
    "strengths": "strengths",
    "addition_strengths": "addition-strengths",
    "kl_tokens": "kl",
    "interventions": "interventions",
    "crossed": "crossed",
    "coefficient": "coefficient",
    "max_new_tokens": "max-new-tokens",
    "refusal_tokens": "refusal-tokens",
    "seed": "seed",
    "final_punctuation": "final-punctuation",
}
"""Options of `eval run`, by the setting that they make."""

FLAGS = {
    "filter_prompts": (False, "no-filter"),
    "controls": (False, "no-controls"),
    "all_candidates": (True, "all-candidates"),
}
"""Flags of `eval run`, by the setting and the value that it gets from them."""

NOTHING = {"direction_langs": "none", "strengths": "none", "addition_strengths": "none", "crossed": "all"}
"""How an option says that its setting is empty or None."""


def page_command(runs: Sequence[Run]) -> str:
    """Return the command that makes the page of `runs`, which lie in a folder `runs`."""
    origins = [f"--origin {shlex.quote(f'{run.name}={run.origin}')}" for run in runs if run.origin]
    folders = [shlex.quote(f"runs/{run.name}") for run in runs]
    return " ".join(["polyrefuse eval leaderboard", *folders, *origins, "--out site/"])


def run_command(run: Run) -> str:
    """Return the command that measures `run` again, from what its `run.json` says was asked for.

    Empty where no command made it. The data are named by their recipe. Options of the model, such as its data
    type, are in the signature and not repeated here.
    """
    request = run.request if isinstance(run.request, Mapping) else {}
    model, settings = request.get("model"), request.get("settings")
    if not (isinstance(model, Mapping) and isinstance(settings, Mapping) and model.get("name")):
        return ""
    data = request.get("data")
    recipe = data.get("recipe") if isinstance(data, Mapping) else None
    parts = ["polyrefuse eval run", f"--model {shlex.quote(str(model['name']))}"]
    parts += ["--url ADDRESS"] if run.endpoint else []
    server = str(settings.get("baseline_server") or "").rpartition(" at ")[0]
    parts += [f"--baseline-url ADDRESS --baseline-model {shlex.quote(server)}"] if server else []
    parts.append(f"--data builds/{shlex.quote(str(recipe or 'BUILD'))}")
    parts.append(f"--langs {shlex.quote(_value(settings.get('langs')))}")
    pairs = str(settings.get("over_refusal_from") or "").partition(":")[0]
    parts += [f"--over-refusal builds/{shlex.quote(pairs)}"] if pairs else []
    limit, seed = settings.get("n_test"), settings.get("test_seed")
    if limit is not None or (seed is None and _takes_part(run)):
        parts.append(f"--test {shlex.quote(shown_test(limit, seed))}")
    parts += _options(settings, served=bool(run.endpoint))
    judges = [judge for judge in run.judges if not judge.startswith("native-")]
    if judges:
        parts.append(f"--judges {shlex.quote(','.join(['native', *judges]))}")
    return " ".join([*parts, f"--out runs/{shlex.quote(run.name)}"])


def _takes_part(run: Run) -> bool:
    """Return whether a condition of `run` has fewer prompts than the baseline, so that it matters which."""
    whole = {
        (result.lang, result.label, result.judge): result.n + result.n_unjudged
        for result in run.results
        if result.condition == BASELINE_NAME
    }
    return any(
        result.n + result.n_unjudged < whole.get((result.lang, result.label, result.judge), 0)
        for result in run.results
    )


def software(runs: Sequence[Run]) -> str:
    """Return the versions of PolyRefuse that measured `runs`, and the one that made the page."""
    versions = (run.signature.get("versions") for run in runs)
    stated = {str(stated.get("polyrefuse", "")) for stated in versions if isinstance(stated, Mapping)}
    measured = ", ".join(sorted(stated - {""})) or "a version that the runs do not state"
    return f"measured with polyrefuse {measured}; page made by {__version__}"


def dates(runs: Sequence[Run]) -> str:
    """Return when `runs` were measured: a date, or the first and the last; empty where none states it."""
    stated = sorted(run.measured for run in runs if run.measured)
    if not stated:
        return ""
    span = stated[0] if stated[0] == stated[-1] else f"{stated[0]} to {stated[-1]}"
    if len(stated) < len(runs):
        span += f" ({len(stated)} of {len(runs)} runs state their date)"
    return span


def _options(settings: Mapping[str, Any], *, served: bool) -> Iterator[str]:
    """Yield the options that make `settings`, without those that are the defaults."""
    usual = asdict(RunSettings(langs=()))
    for setting, name in OPTIONS.items():
        value = settings.get(setting, usual[setting])
        is_usual = _value(value) == _value(usual[setting])
        if is_usual or (served and setting not in ("max_new_tokens", "seed")):
            continue
        text = _value(value) or NOTHING.get(setting, "")
        if setting == "kl_tokens":
            text = f"tokens={text}"
        if text:
            yield f"--{name} {shlex.quote(text)}"
    for setting, (value, name) in FLAGS.items():
        if settings.get(setting, usual[setting]) is value and not served:
            yield f"--{name}"


def _value(value: Any) -> str:
    """Return a setting as an option takes it; empty for None and for an empty list."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
