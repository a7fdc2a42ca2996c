"""Let a run grow: languages, directions, prompts, strengths, controls and judges join what is there.

A setting grows where more of it leaves existing numbers as they are. Any other difference makes another run.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.results.folder import (
    ANSWERED_FILE,
    RUN_FILE,
    SUMMARY_FILE,
    RunFolder,
    Signature,
    differences,
    plain,
)
from polyrefuse_eval.results.settings import RunSettings, without_defaults
from polyrefuse_eval.results.sources import takes_all_languages


def _appended(there: list[Any], here: list[Any]) -> list[Any]:
    return list(dict.fromkeys([*there, *here]))


def _sorted_union(there: list[float], here: list[float]) -> list[float]:
    return sorted({*there, *here})


def _larger(there: int | None, here: int | None) -> int | None:
    """Return the larger limit; None is no limit."""
    return None if there is None or here is None else max(there, here)


def _either(there: bool, here: bool) -> bool:
    return there or here


GROWING: dict[str, Callable[[Any, Any], Any]] = {
    "langs": _appended,
    "direction_langs": _appended,
    "strengths": _sorted_union,
    "addition_strengths": _sorted_union,
    "interventions": _appended,
    "n_test": _larger,
    "crossed": _larger,
    "controls": _either,
}
"""Setting to the function that joins two values of it: what either asks for."""

DEFAULTS = {
    setting.name: list(setting.default) if isinstance(setting.default, tuple) else setting.default
    for setting in fields(RunSettings)
    if setting.default is not MISSING and setting.name != "batch_size"
}
"""What a run measured that was made before a setting existed."""


def joined(there: Signature, here: Signature) -> dict[str, Any]:
    """Return the signature (or request) of a run that holds what both ask for; else it is that of `here`.

    `obstacles` says whether there can be such a run.
    """
    old, new = _settings(there), _settings(here)
    settings = {
        name: GROWING[name](old[name], value) if name in GROWING and name in old else value
        for name, value in new.items()
    }
    return {
        **here,
        "settings": without_defaults(settings),
        "judges": _appended(there.get("judges", []), here.get("judges", [])),
    }


def obstacles(there: Signature, here: Signature, *, same_prompts: bool = False) -> list[str]:
    """Return what makes `here` another run than `there`, in words; nothing where that run can grow.

    With `same_prompts`, another digest of the data is none: the prompts that were measured are the same.
    """
    left_out = {"judges", "settings", "data"}
    old, new = _settings(there), _settings(here)
    differing = differences(_without(there, left_out), _without(here, left_out))
    if not same_prompts:
        data = [_without(of.get("data", {}), ("prompts",)) for of in (there, here)]
        differing = differences(data[0], data[1], "data.") + differing
    differing += differences(_without(old, GROWING), _without(new, GROWING), "settings.")
    added = [lang for lang in new.get("langs", []) if lang not in old.get("langs", [])]
    dependent = [source for source in old["direction_langs"] if takes_all_languages(source)]
    if added and dependent:
        differing.append(
            f"the direction '{dependent[0]}' is of all languages of the run, {', '.join(old['langs'])} "
            f"there, with {', '.join(added)} here"
        )
    return differing


def check_growth(path: Path, there: Signature, here: Signature, *, same_prompts: bool = False) -> None:
    """Raise `RunFolderError`, saying what differs, where the run in `path` cannot grow to `here`."""
    differing = obstacles(there, here, same_prompts=same_prompts)
    if differing:
        raise RunFolderError(
            f"'{path}' was made with other settings ({'; '.join(differing)}), which change its numbers; give "
            "the same settings to resume it, or choose another --out"
        )


def open_run(path: Path, signature: Signature, request: Mapping[str, Any] | None = None) -> RunFolder:
    """Start a run in `path`, resume it, or let it grow to what `signature` asks for besides.

    A run that grows is incomplete from here on. Raises `RunFolderError` where it cannot grow, or another
    process is writing there; nothing is overwritten.
    """
    if (path / RUN_FILE).is_file():
        folder = RunFolder(path)
        with folder.locked():
            run = folder.run_file()
            here = plain(signature)
            asked = None if request is None else plain(request)
            same_prompts = holds_prompts_of(run.request, asked)
            check_growth(path, run.signature, here, same_prompts=same_prompts)
            grown = replace(
                run,
                signature=joined(run.signature, here),
                request=None if run.request is None or asked is None else joined(run.request, asked),
            )
            if grown != run:
                judges_alone = only_judges_differ(run.signature, grown.signature)
                ended = [SUMMARY_FILE] if judges_alone else [SUMMARY_FILE, ANSWERED_FILE]
                folder.write_run_file(grown, ended=ended)
            signature = grown.signature
    return RunFolder.open(path, signature, request)


def only_judges_differ(there: Signature, here: Signature) -> bool:
    """Return whether two signatures, or requests, ask for the same completions."""
    old, new = ({**_without(of, ("judges",)), "settings": _settings(of)} for of in (there, here))
    return old == new


def holds_prompts_of(there: Mapping[str, Any] | None, here: Mapping[str, Any] | None) -> bool:
    """Return whether the data of the request `here` hold all prompts of the languages of `there`, the same.

    So a build that got more languages serves the runs that were made on it before.
    """
    old, new = ((request or {}).get("data", {}).get("prompts", {}) for request in (there, here))
    return bool(old) and all(new.get(lang) == digest for lang, digest in old.items())


def _settings(signature: Signature) -> dict[str, Any]:
    return {**DEFAULTS, **signature.get("settings", {})}


def _without(record: Mapping[str, Any], names: Container[str]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in names}
