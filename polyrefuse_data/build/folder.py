"""Write the folder of a build: Parquet by language and split, card, manifest; staged, the manifest last.

A complete folder has a manifest. During a build, new files lie in `.staging` inside the folder and an older
build stays whole; they take its place in one short step between the removal of the old manifest and the
writing of the new one. Killed at any moment, the next build resumes from what was staged.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from polyrefuse_data.build.companions import companion_files
from polyrefuse_data.build.model import LanguagePart, Package, count_rows, rows_digest, rows_table
from polyrefuse_data.build.package import FORMAT, MANIFEST, altered_files, read_manifest, safe_path
from polyrefuse_data.core import files
from polyrefuse_data.core.contents import read_utf8
from polyrefuse_data.core.errors import BuildError, DatasetFolderError
from polyrefuse_data.core.findings import Finding, count_by_severity
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.core.paths import (
    check_output,
    file_sha256,
    inside,
    real_path,
    refuse_linked_folders,
    remove_unchanged,
)
from polyrefuse_data.core.schema import SPLITS, Row

MARKER = ".polyrefuse-build"
"""Lies in a folder during a build: without a manifest, it marks the folder as a build's."""

STAGING = ".staging"

PATTERN_CHARACTERS = "[ ] * ? { } ::"

_PATTERN = re.compile(r"[][*?{}]|::")

_REMOVABLE = re.compile(rf"[A-Za-z-]+/({'|'.join(SPLITS)})\.parquet")
"""Files that an older build may have and a newer one lacks."""

replacing = partial(files.replacing, error=BuildError)
write_bytes = partial(files.write_bytes, error=BuildError)


class PackageFolder:
    """Stage and finish a build in one folder. Every method raises `BuildError` where that cannot be done."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def _staging(self) -> Path:
        return self.path / STAGING

    def check_ours(self) -> None:
        """Raise `BuildError` unless the folder is absent, empty, or a build's without linked folders.

        Nor may its path hold what `datasets` reads as a pattern: `load_dataset("exp[1]")` gives the rows of
        `exp1`, and keeps them in its cache as those of `exp[1]`.
        """
        check_output(self.path, error=BuildError)
        pattern = _PATTERN.search(str(real_path(self.path)))
        if pattern:
            raise BuildError(
                f"--out {self.path}: datasets.load_dataset reads '{pattern[0]}' in a path as a pattern, not "
                f"as a name; choose a path without any of {PATTERN_CHARACTERS}"
            )
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise BuildError(f"--out {self.path} is a file; expected a folder")
        refuse_linked_folders(self.path, error=BuildError)
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

    def check_kept(self, recipe: str, langs: Sequence[str]) -> None:
        """Raise `BuildError` if a build of `recipe` in `langs` would remove languages or another recipe's."""
        try:
            manifest = read_manifest(self.path)
        except DatasetFolderError:
            return
        if not manifest["complete"]:
            return
        old = manifest["recipe"]["name"]
        removed = [lang for lang in manifest["languages"] if lang not in langs]
        if old != recipe or removed:
            raise BuildError(
                f"--out {self.path} holds a build of {old} in {', '.join(manifest['languages'])}, which a "
                f"build of {recipe} in {', '.join(sorted(langs))} would replace; choose another folder, "
                + (f"add {', '.join(removed)} to --langs " if old == recipe else "")
                + "or replace it with --replace"
            )

    @contextmanager
    def staging(self) -> Iterator[None]:
        """Mark the folder as under way and lock it against a second build."""
        with files.disk_errors(f"write to {self.path}", self.path, BuildError):
            files.make_folder(self._staging, error=BuildError)
            write_bytes(self.path / MARKER, b"")
            with files.locked(self._staging, error=BuildError):
                yield
            shutil.rmtree(self._staging)
            (self.path / MARKER).unlink()

    def staged_part(self, lang: str, digest: str) -> LanguagePart | None:
        """Return the part of `lang` made from the inputs of `digest`: staged before, or in the old build."""
        try:
            record = parse_json(read_utf8(self._staging / f"{lang}.json"))
        except (OSError, ValueError):
            record = {}
        return _whole_part(record, digest, self._staging) or self._from_old(lang, digest)

    def _from_old(self, lang: str, digest: str) -> LanguagePart | None:
        """Return the part of `lang` in the old build, copied to the staging folder, if it is of `digest`."""
        try:
            manifest = read_manifest(self.path)
        except DatasetFolderError:
            return None
        record = {
            "inputs": manifest.get("inputs", {}).get("languages", {}).get(lang),
            "files": {
                name: facts for name, facts in manifest["files"].items() if name.startswith(f"{lang}/")
            },
            "summary": manifest.get("languages", {}).get(lang),
            "findings": [
                finding
                for finding in manifest.get("findings", [])
                if finding["lang"] == lang and finding["check"] != "gap"
            ],
        }
        part = _whole_part(record, digest, self.path) if record["files"] else None
        if part is not None:
            for name in part.files:
                with (
                    safe_path(self.path, name).open("rb") as source,
                    replacing(inside(self._staging, name)) as target,
                ):
                    shutil.copyfileobj(source, target)
        return part

    def stage_part(
        self,
        lang: str,
        digest: str,
        rows: Sequence[Row],
        findings: Sequence[Finding],
        *,
        pairs: bool = False,
        measured: Sequence[str] = (),
        quality: Mapping[str, Any] | None = None,
        surface_cues: Mapping[str, Any] | None = None,
    ) -> LanguagePart:
        """Write the files of one language into the staging folder; see `rows_table`, `quality_summary` and
        `surface_cue_summary`."""
        facts_of = {}
        for split in SPLITS:
            rows_of_split = [row for row in rows if row.split == split]
            name = f"{lang}/{split}.parquet"
            table = rows_table(rows_of_split, pairs=pairs, measured=measured)
            target = inside(self._staging, name)
            with replacing(target) as file:
                pq.write_table(table, file, compression="zstd")
            facts_of[name] = {
                "sha256": file_sha256(target),
                "rows_sha256": rows_digest(table),
                "bytes": target.stat().st_size,
                "rows": len(rows_of_split),
            }
        more = {"quality": quality, "surface_cues": surface_cues}
        summary = {**count_rows(rows, measured), **{name: value for name, value in more.items() if value}}
        part = LanguagePart(facts_of, summary, list(findings))
        record = {
            "inputs": digest,
            "files": part.files,
            "summary": part.summary,
            "findings": [finding.to_dict() for finding in part.findings],
        }
        _write_json(self._staging / f"{lang}.json", record)
        return part

    def finish(self, package: Package) -> dict[str, Any]:
        """Put the staged files in place, then the card, then the manifest; return the manifest."""
        companions = companion_files(package)
        manifest = _manifest(package, companions)
        old = self._old_files()
        (self.path / MANIFEST).unlink(missing_ok=True)
        for name in package.files:
            target = inside(self.path, name)
            files.make_folder(target.parent, error=BuildError)
            safe_path(self._staging, name).replace(target)
        for name in sorted(old.keys() - manifest["files"].keys()):
            remove_unchanged(self.path, name, old[name])
        for name, data in companions.items():
            write_bytes(self.path / name, data)
        _write_json(self.path / MANIFEST, manifest)
        return manifest

    def _old_files(self) -> dict[str, str]:
        """Return name and sha256 of the rows' files of the old build, none where there is none."""
        try:
            facts_of = read_manifest(self.path)["files"]
        except DatasetFolderError:
            return {}
        return {name: facts["sha256"] for name, facts in facts_of.items() if _REMOVABLE.fullmatch(name)}

    def write_incomplete(self, header: Mapping[str, Any]) -> None:
        """Write a manifest with the gaps and `complete: false`, unless a complete build is there."""
        try:
            if read_manifest(self.path)["complete"]:
                return
        except DatasetFolderError:
            pass
        _write_json(self.path / MANIFEST, {"format": FORMAT, "files": {}, **header})


def _manifest(package: Package, companions: Mapping[str, bytes]) -> dict[str, Any]:
    facts_of = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for name, data in companions.items()
    }
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
            "files": {**package.files, **facts_of},
        }
    )
    return manifest


def _whole_part(record: Mapping[str, Any], digest: str, root: Path) -> LanguagePart | None:
    """Return the part that `record` describes if it is of `digest` and its files in `root` are whole."""
    try:
        if record["inputs"] != digest or altered_files(root, record):
            return None
        findings = [Finding(**{**finding, "ids": tuple(finding["ids"])}) for finding in record["findings"]]
        return LanguagePart(record["files"], record["summary"], findings)
    except (KeyError, TypeError):
        return None


def _plain(value: Any) -> Any:
    """Return `value` as it comes back from a file that `_write_json` wrote."""
    return json.loads(json.dumps(value, sort_keys=True))


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode("utf-8"), sync=True)
