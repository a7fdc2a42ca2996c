"""Read the folder of a build: its manifest, whether its files are as built, their rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from polyrefuse_data.build.manifest import manifest_problem
from polyrefuse_data.build.row_files import read_row_table
from polyrefuse_data.core.contents import read_utf8
from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.core.paths import file_sha256
from polyrefuse_data.core.schema import Row, row_from_values
from polyrefuse_data.core.unicode_text import LONGEST_TEXT

MANIFEST = "manifest.json"
FORMAT = "polyrefuse-build-1"

LONGEST_NAME = 255
"""Bytes of a file's path in a manifest: file systems hold no longer names, and a build's are short."""


def safe_path(folder: Path, name: str) -> Path:
    """Return the path of `name`, which comes from a file, inside `folder`; raises if it leads outside."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or not name:
        raise DatasetFolderError(f"{folder}: the manifest names '{name}'; expected a path inside the folder")
    if len(name.encode("utf-8", errors="surrogatepass")) > LONGEST_NAME:
        raise DatasetFolderError(
            f"{folder}: the manifest names '{name[:40]}…'; expected a path of at most {LONGEST_NAME} bytes"
        )
    return folder.joinpath(*parts.parts)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a build, complete or not; raises `DatasetFolderError`."""
    path = folder / MANIFEST
    try:
        value = parse_json(read_utf8(path))
    except FileNotFoundError:
        raise DatasetFolderError(
            f"{folder}: no {MANIFEST}; expected a complete build (make one with `polyrefuse build`)"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DatasetFolderError(f"{path} cannot be read ({reason}); build the data set again") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DatasetFolderError(f"{path} is not a manifest of format {FORMAT}; build the data set again")
    problem = manifest_problem(value)
    if problem:
        raise DatasetFolderError(
            f"{path} is not the manifest of a build ({problem}); build the data set again"
        )
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
    """Return the rows of one file of a build; raises `DatasetFolderError` for what is none."""
    path = folder / lang / f"{split}.parquet"
    try:
        rows = [row_from_values(record, split) for record in read_row_table(path, str(path)).to_pylist()]
    except (KeyError, ValueError):
        raise DatasetFolderError(
            f"{path} does not have the columns and types of a build; build the data set again"
        ) from None
    for row in rows:
        longest = max(len(row.text), len(row.text_en))
        if longest > LONGEST_TEXT:
            raise DatasetFolderError(
                f"{path}: a text of row {row.id} has {longest} characters; expected at most {LONGEST_TEXT}"
            )
    return rows
