"""The folder of a build: Parquet by language and split, card, manifest; staged first, the manifest last.

A complete folder has a manifest. While a build is under way, new files lie in `.staging` inside the folder
and an older build stays whole; they take its place in one short step between the removal of the old manifest
and the writing of the new one. Killed at any moment, the next build goes on from what was staged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from polyrefuse_data.build.figure import companion_files
from polyrefuse_data.core.errors import BuildError, DatasetFolderError
from polyrefuse_data.core.findings import Finding, count_by_severity
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.core.schema import (
    LABELS,
    ROW_CHECKS,
    SPLITS,
    Row,
    arrow_schema,
    row_from_values,
    row_values,
)
from polyrefuse_data.prompts.recipe import Recipe

MANIFEST = "manifest.json"
MARKER = ".polyrefuse-build"
"""Lies in a folder while a build is under way: without a manifest, it says that the folder is ours."""

STAGING = ".staging"
FORMAT = "polyrefuse-build-1"


@dataclass(frozen=True)
class LanguagePart:
    """The finished files of one language: path in the folder -> facts, and what the checks found."""

    files: Mapping[str, Mapping[str, Any]]
    summary: Mapping[str, Any]
    findings: Sequence[Finding]


@dataclass(frozen=True)
class Package:
    """Everything that card and manifest say of a build."""

    header: Mapping[str, Any]
    recipe: Recipe
    sources: Sequence[Mapping[str, Any]]
    parts: Mapping[str, LanguagePart]
    findings: Sequence[Finding]
    gaps: Sequence[Mapping[str, Any]]

    @property
    def files(self) -> dict[str, Mapping[str, Any]]:
        return {path: facts for part in self.parts.values() for path, facts in part.files.items()}

    @property
    def digest(self) -> str:
        """The sha256 of what the rows say, whatever wrote the Parquet: path and rows' digest of each file."""
        lines = [f"{path} {facts['rows_sha256']}" for path, facts in sorted(self.files.items())]
        return hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()


def features() -> dict[str, Any]:
    """Return the features of every file as `datasets` writes them into Parquet metadata."""
    kinds: dict[str, dict[str, Any]] = {}
    for field in arrow_schema():
        if field.name == "label":
            kinds[field.name] = {"names": list(LABELS), "_type": "ClassLabel"}
        else:
            dtype = {"double": "float64", "float": "float32"}.get(str(field.type), str(field.type))
            kinds[field.name] = {"dtype": dtype, "_type": "Value"}
    return kinds


def rows_table(rows: Sequence[Row]) -> pa.Table:
    """Return rows as a table of the published schema, with the features of `datasets` in its metadata."""
    schema = arrow_schema().with_metadata(
        {"huggingface": json.dumps({"info": {"features": features()}}, sort_keys=True)}
    )
    return pa.Table.from_pylist([row_values(row) for row in rows], schema=schema)


def rows_digest(table: pa.Table) -> str:
    """Return the sha256 of a table's values, which does not depend on who wrote the file."""
    hasher = hashlib.sha256()
    for record in table.to_pylist():
        hasher.update(json.dumps(record, sort_keys=True, ensure_ascii=False).encode("utf-8") + b"\n")
    return hasher.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def safe_path(folder: Path, name: str) -> Path:
    """Return the path of `name`, which comes from a file, inside `folder`; raises if it leads outside."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or not name:
        raise DatasetFolderError(f"{folder}: the manifest names '{name}'; expected a path inside the folder")
    return folder.joinpath(*parts.parts)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a build, complete or not; raises `DatasetFolderError`."""
    path = folder / MANIFEST
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetFolderError(
            f"{folder}: no {MANIFEST}; expected a complete build (make one with `polyrefuse build`)"
        ) from None
    except (OSError, ValueError) as error:
        raise DatasetFolderError(f"{path} cannot be read ({error}); build the data set again") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DatasetFolderError(f"{path} is no manifest of format {FORMAT}; build the data set again")
    return value


def altered_files(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Return the files that are missing or whose bytes are not those of the manifest."""
    altered = []
    for name, facts in manifest.get("files", {}).items():
        path = safe_path(folder, name)
        if not path.is_file() or file_sha256(path) != facts["sha256"]:
            altered.append(name)
    return altered


def read_rows(folder: Path, lang: str, split: str) -> list[Row]:
    """Return the rows of one file of a build."""
    path = folder / lang / f"{split}.parquet"
    try:
        records = pq.ParquetFile(path).read().to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DatasetFolderError(f"{path} cannot be read ({error}); build the data set again") from None
    return [row_from_values(record, split) for record in records]


class PackageFolder:
    """The folder that a build writes to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def _staging(self) -> Path:
        return self.path / STAGING

    def check_ours(self) -> None:
        """Raise `BuildError` unless the folder is absent, empty, or made by a build."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise BuildError(f"--out {self.path} is a file; expected a folder")
        if not any(self.path.iterdir()) or (self.path / MARKER).is_file():
            return
        try:
            read_manifest(self.path)
        except DatasetFolderError:
            raise BuildError(
                f"--out {self.path} exists and was not made by polyrefuse; choose another folder or empty it"
            ) from None

    def unchanged(self, header: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the manifest if the folder holds exactly what `header` would build, else None."""
        try:
            manifest = read_manifest(self.path)
        except DatasetFolderError:
            return None
        same = all(manifest.get(key) == _plain(value) for key, value in header.items())
        return manifest if manifest["complete"] and same and not altered_files(self.path, manifest) else None

    @contextmanager
    def staging(self) -> Iterator[None]:
        """Mark the folder as under way and lock it against a second build."""
        with _disk_errors(self.path):
            self._staging.mkdir(parents=True, exist_ok=True)
            (self.path / MARKER).touch()
            with _lock(self._staging / "lock", self.path):
                yield
            shutil.rmtree(self._staging)
            (self.path / MARKER).unlink()

    def staged_part(self, lang: str, digest: str) -> LanguagePart | None:
        """Return the part of `lang` made from the inputs of `digest`: staged before, or in the old build."""
        try:
            kept = parse_json((self._staging / f"{lang}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            kept = {}
        return _kept_part(kept, digest, self._staging) or self._from_old(lang, digest)

    def _from_old(self, lang: str, digest: str) -> LanguagePart | None:
        try:
            manifest = read_manifest(self.path)
        except DatasetFolderError:
            return None
        kept = {
            "inputs": manifest.get("inputs", {}).get("languages", {}).get(lang),
            "files": {
                name: facts for name, facts in manifest["files"].items() if name.startswith(f"{lang}/")
            },
            "summary": manifest.get("languages", {}).get(lang),
            "findings": [
                one for one in manifest.get("findings", []) if one["lang"] == lang and one["check"] != "gap"
            ],
        }
        part = _kept_part(kept, digest, self.path) if kept["files"] else None
        if part is not None:
            for name in part.files:
                target = safe_path(self._staging, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(safe_path(self.path, name), target)
        return part

    def stage_part(
        self, lang: str, digest: str, rows: Sequence[Row], findings: Sequence[Finding]
    ) -> LanguagePart:
        """Write the files of one language into the staging folder."""
        files = {}
        for split in SPLITS:
            chosen = [row for row in rows if row.split == split]
            name = f"{lang}/{split}.parquet"
            table = rows_table(chosen)
            target = self._staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with _replacing(target) as part_path:
                pq.write_table(table, part_path, compression="zstd")
            files[name] = {
                "sha256": file_sha256(target),
                "rows_sha256": rows_digest(table),
                "bytes": target.stat().st_size,
                "rows": len(chosen),
            }
        part = LanguagePart(files, _summary(rows), list(findings))
        self._write_part(lang, digest, part)
        return part

    def _write_part(self, lang: str, digest: str, part: LanguagePart) -> None:
        value = {
            "inputs": digest,
            "files": part.files,
            "summary": part.summary,
            "findings": [finding.to_dict() for finding in part.findings],
        }
        _write_json(self._staging / f"{lang}.json", value)

    def finish(self, package: Package) -> dict[str, Any]:
        """Put the staged files in place, then the card, then the manifest; return the manifest."""
        companions = companion_files(package)
        manifest: dict[str, Any] = _plain(
            {
                "format": FORMAT,
                "complete": True,
                "digest": package.digest,
                **package.header,
                "languages": {lang: part.summary for lang, part in package.parts.items()},
                "findings": [finding.to_dict() for finding in package.findings],
                "severities": count_by_severity(package.findings),
                "gaps": list(package.gaps),
                "files": {
                    **package.files,
                    **{
                        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
                        for name, data in companions.items()
                    },
                },
            }
        )
        old = self._old_files()
        (self.path / MANIFEST).unlink(missing_ok=True)
        for name in package.files:
            target = safe_path(self.path, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            safe_path(self._staging, name).replace(target)
        for name in sorted(old - set(manifest["files"])):
            path = safe_path(self.path, name)
            path.unlink(missing_ok=True)
            if path.parent != self.path:
                with contextlib.suppress(OSError):
                    path.parent.rmdir()
        for name, data in companions.items():
            with _replacing(self.path / name) as part_path:
                part_path.write_bytes(data)
        _write_json(self.path / MANIFEST, manifest)
        return manifest

    def _old_files(self) -> set[str]:
        try:
            return set(read_manifest(self.path)["files"])
        except DatasetFolderError:
            return set()

    def write_incomplete(self, header: Mapping[str, Any]) -> None:
        """Write a manifest with the gaps and `complete: false`, unless a complete build is there."""
        try:
            if read_manifest(self.path)["complete"]:
                return
        except DatasetFolderError:
            pass
        with _disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            _write_json(self.path / MANIFEST, {"format": FORMAT, "files": {}, **header})


def _kept_part(kept: Mapping[str, Any], digest: str, root: Path) -> LanguagePart | None:
    """Return what was kept of a language under `root`, if it was made from the same inputs and is whole."""
    try:
        if kept["inputs"] != digest or altered_files(root, kept):
            return None
        findings = [Finding(**{**one, "ids": tuple(one["ids"])}) for one in kept["findings"]]
        return LanguagePart(kept["files"], kept["summary"], findings)
    except (KeyError, TypeError):
        return None


def _summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Return counts of one language's rows: by label and split, by translator, flags by check."""
    places: dict[str, int] = {}
    translators: dict[str, int] = {}
    for row in rows:
        places[f"{row.label}-{row.split}"] = places.get(f"{row.label}-{row.split}", 0) + 1
        translators[row.translator] = translators.get(row.translator, 0) + 1
    return {
        "rows": places,
        "translators": dict(sorted(translators.items())),
        "flagged": {check: sum(row.flags.get(check, False) for row in rows) for check in ROW_CHECKS},
        "flagged_rows": sum(any(row.flags.values()) for row in rows),
    }


def _plain(value: Any) -> Any:
    """Return `value` as it comes back from JSON."""
    return json.loads(json.dumps(value))


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which takes the place of `path` when all went well."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    with _replacing(path) as part_path, part_path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise BuildError(f"cannot write to {folder}: {reason}; nothing that was complete is lost") from error


@contextmanager
def _lock(path: Path, folder: Path) -> Iterator[None]:
    """Hold an advisory lock while building, where the system has such locks."""
    with path.open("w") as file:
        try:
            import fcntl
        except ImportError:  # a system without them: two builds at once are the user's to avoid
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BuildError(f"another build is writing to {folder}; wait until it ends") from None
        yield
