"""What a folder would send to the Hub, after looking that it may: a build, or results of the eval side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import regex

from polyrefuse_data.build.companions import CARD, CROISSANT, FIGURE, LICENCES
from polyrefuse_data.build.package import MANIFEST, altered_files, read_manifest, safe_path
from polyrefuse_data.checks.languages_file import register_recorded
from polyrefuse_data.core.display import counted
from polyrefuse_data.core.errors import PublishError
from polyrefuse_data.core.files import write_bytes, write_text
from polyrefuse_data.core.paths import file_sha256, real_path
from polyrefuse_data.core.schema import RECORDED_CHECKS, column_names
from polyrefuse_data.prompts.sources import SOURCES
from polyrefuse_data.publish.completion_guard import refuse_completions

RESULTS_FORMAT = "polyrefuse-results-1"
RESULTS_PLUGIN = "polyrefuse.results"
"""Entry-point group of the function that says what of a run may be published."""

_RUN_NAME = regex.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_COMPANIONS = (CARD, FIGURE, LICENCES, CROISSANT)
_DATA_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")


@dataclass(frozen=True)
class LocalRelease:
    """Files to publish: name on the Hub -> path here, their sha256, and what they are."""

    title: str
    files: Mapping[str, Path]
    sha256: Mapping[str, str]
    manifest: Mapping[str, Any]
    has_prompts: bool
    left_out: list[str] = field(default_factory=list)
    """Files of the folder that are not part of the release and stay here."""

    notes: list[str] = field(default_factory=list)
    """Lines about what cannot be verified."""


def build_release(folder: Path, allow_gaps: bool) -> LocalRelease:
    """Return the release of a build; raises `PolyRefuseError` unless it is whole, unaltered and sound.

    `allow_gaps` lets a build pass that was packaged with gaps or failed checks; its card names them.
    """
    if not folder.is_dir():
        raise PublishError(
            f"{folder}: no such folder; expected a complete build (make one with `polyrefuse build`)"
        )
    manifest = read_manifest(folder)
    register_recorded(manifest, folder)
    if not manifest.get("complete"):
        missing = sum(len(gap["ids"]) for gap in manifest.get("gaps", []))
        raise PublishError(
            f"{folder}: nothing was packaged, {counted(missing, 'prompt')} without a translation; "
            "translate them, or build and publish with --allow-gaps"
        )
    files: dict[str, Path] = {}
    for name in manifest["files"]:
        if not (name.endswith(".parquet") or name in _COMPANIONS):
            raise PublishError(
                f"{folder}: the manifest names {name}, which is not a file of a build; build it again"
            )
        files[name] = safe_path(folder, name)
    altered = altered_files(folder, manifest)
    if altered or CARD not in files:
        named = ", ".join(altered[:3]) + (f" and {len(altered) - 3} more" if len(altered) > 3 else "")
        raise PublishError(
            f"{folder}: {named or CARD} changed after the build; build the data set again (it "
            "resumes quickly)"
        )
    _check_columns(folder, files)
    _check_gated(folder, manifest)
    if not allow_gaps:
        _check_sound(folder, manifest)
    left_out = files_left_out(folder, {*files, MANIFEST})
    for name in left_out:
        if name.endswith(_DATA_SUFFIXES):
            refuse_completions(folder / name, f"{folder}/{name}")
    files[MANIFEST] = folder / MANIFEST
    hashes = {name: facts["sha256"] for name, facts in manifest["files"].items()}
    hashes[MANIFEST] = file_sha256(folder / MANIFEST)
    recipe = manifest["recipe"]
    return LocalRelease(f"PolyRefuse, {recipe['title']}", files, hashes, manifest, True, left_out)


def _check_columns(folder: Path, files: Mapping[str, Path]) -> None:
    """Raise unless every Parquet file has the published columns and no others: no room for completions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    every = column_names(pairs=True, measured=RECORDED_CHECKS)
    for name, path in files.items():
        if not name.endswith(".parquet"):
            continue
        try:
            columns = pq.read_schema(path).names
        except (OSError, pa.ArrowException) as error:
            raise PublishError(
                f"{folder}/{name} cannot be read ({error}); build the data set again"
            ) from None
        measured = [check for check in RECORDED_CHECKS if f"flt_{check}" in columns]
        if columns not in [column_names(pairs=pairs, measured=measured) for pairs in (False, True)]:
            other = [column for column in columns if column not in every] or ["an order of their own"]
            refuse_completions(path, f"{folder}/{name}")
            raise PublishError(
                f"{folder}/{name} has columns that are not the published ones: {', '.join(other[:5])}"
            )


def _check_gated(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise where the build holds prompts whose upstream gives access by agreement only."""
    gated = {source.sha256: source.title for source in SOURCES.values() if source.gated}
    for used in manifest.get("sources", []):
        if used.get("sha256") in gated:
            raise PublishError(
                f"{folder} holds prompts of {gated[used['sha256']]}, which may not be redistributed; "
                "publish a build without them"
            )


def _check_sound(folder: Path, manifest: Mapping[str, Any]) -> None:
    missing = sum(len(gap["ids"]) for gap in manifest["gaps"])
    if missing:
        langs = ", ".join(sorted({gap["lang"] for gap in manifest["gaps"]}))
        raise PublishError(
            f"{folder}: the build has gaps: {counted(missing, 'prompt')} without a translation ({langs}); "
            "translate them, or publish with --allow-gaps (the card says so)"
        )
    errors = [finding for finding in manifest["findings"] if finding["severity"] == "error"]
    if errors:
        checks = ", ".join(sorted({finding["check"] for finding in errors}))
        raise PublishError(
            f"{folder}: {counted(len(errors), 'finding')} of severity error ({checks}); "
            "look with `polyrefuse audit`, or publish with --allow-gaps (the card says so)"
        )


def files_left_out(folder: Path, known: set[str]) -> list[str]:
    """Return the files of the folder that are not `known`, without hidden ones."""
    names = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        name.as_posix()
        for name in names
        if name.as_posix() not in known and not any(part.startswith(".") for part in name.parts)
    ]


def results_release(folder: Path, workspace: Path) -> LocalRelease:
    """Return the release of a run of the eval side, or of a folder of runs: numbers and signatures only.

    The files of each run are records that are read and written again into `workspace`, where the card and the
    manifest are written, too. Raises `PolyRefuseError` for a folder without finished runs, and for a run that
    holds anything else.
    """
    if not folder.is_dir():
        raise PublishError(
            f"{folder}: no such folder; expected a run of `polyrefuse eval run`, or a folder of runs"
        )
    runs = (
        {"": folder}
        if (folder / "run.json").is_file()
        else {f"{path.name}/": path for path in sorted(folder.iterdir()) if (path / "run.json").is_file()}
    )
    if not runs:
        raise PublishError(
            f"{folder}: no run.json in it or in a folder of it; expected results of `polyrefuse eval run`"
        )
    published_run = _published_run()
    files: dict[str, Path] = {}
    notes: list[str] = []
    for prefix, run in runs.items():
        if not _RUN_NAME.fullmatch(real_path(run).name) or run.is_symlink():
            raise PublishError(
                f"'{run}' is a link or has a name that is not of letters, digits, '.', '_' and '-'; rename it"
            )
        published = published_run(run)
        notes += published.notes
        for name, content in published.files.items():
            files[prefix + name] = workspace / "files" / prefix / name
            write_bytes(files[prefix + name], content, error=PublishError)
    # Named without looking into them: completions stay where they are, and unread.
    left_out = files_left_out(folder, set(files))
    names = [prefix.rstrip("/") or real_path(folder).name for prefix in runs]
    hashes = {name: file_sha256(path) for name, path in files.items()}
    made = _results_texts(names, hashes, {name: path.stat().st_size for name, path in files.items()})
    for name, text in made.items():
        files[name] = workspace / name
        write_text(files[name], text, error=PublishError)
        hashes[name] = file_sha256(files[name])
    manifest = json.loads(made[MANIFEST])
    return LocalRelease("PolyRefuse results", files, hashes, manifest, False, left_out, notes)


def _published_run() -> Callable[[Path], Any]:
    """Return the function of the measuring side that reads a run and returns the files to publish."""
    for entry in metadata.entry_points(group=RESULTS_PLUGIN):
        try:
            load: Callable[[Path], Any] = entry.load()
        except ImportError as error:
            raise PublishError(
                f"--results needs {error.name or error}, which is missing: pip install 'polyrefuse[eval]'"
            ) from None
        return load
    raise PublishError("--results needs the measuring side: pip install 'polyrefuse[eval]'")


def _results_texts(
    runs: Sequence[str], hashes: Mapping[str, str], sizes: Mapping[str, int]
) -> dict[str, str]:
    """Return the card and the manifest of results."""
    from polyrefuse_data.build.card import render_template

    results = [name for name in hashes if name.endswith("results.jsonl")]
    digest = hash_of_hashes(hashes)
    card = render_template("results.md.j2", runs=runs, results=results, digest=digest)
    files = {name: {"sha256": hashes[name], "bytes": sizes[name]} for name in sorted(hashes)}

    data = card.encode("utf-8")
    files[CARD] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest = {
        "format": RESULTS_FORMAT,
        "complete": True,
        "digest": digest,
        "runs": sorted(runs),
        "files": files,
    }
    return {CARD: card, MANIFEST: json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"}


def hash_of_hashes(hashes: Mapping[str, str]) -> str:
    """Return one sha256 of files by name and sha256."""

    return hashlib.sha256("\n".join(f"{name} {hashes[name]}" for name in sorted(hashes)).encode()).hexdigest()
