"""Describe a build: its files and findings by language, and the digests that identify its rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from polyrefuse_data.core.findings import Finding
from polyrefuse_data.core.schema import LABELS, ROW_CHECKS, Row, arrow_schema, row_values
from polyrefuse_data.prompts.recipe import Recipe


@dataclass(frozen=True)
class LanguagePart:
    """Describe the finished files of one language: facts by path, counts of rows, findings of the checks."""

    files: Mapping[str, Mapping[str, Any]]
    summary: Mapping[str, Any]
    findings: Sequence[Finding]


@dataclass(frozen=True)
class Package:
    """Hold everything that card and manifest say of a build."""

    header: Mapping[str, Any]
    recipe: Recipe
    sources: Sequence[Mapping[str, Any]]
    parts: Mapping[str, LanguagePart]
    findings: Sequence[Finding]
    gaps: Sequence[Mapping[str, Any]]

    @property
    def has_pairs(self) -> bool:
        """Whether the rows have the column of contrast pairs."""
        return bool(self.header.get("pairs"))

    @property
    def measured(self) -> tuple[str, ...]:
        """The checks of `RECORDED_CHECKS` whose columns the rows have."""
        return tuple(self.header.get("measured", ()))

    @property
    def files(self) -> dict[str, Mapping[str, Any]]:
        return {path: facts for part in self.parts.values() for path, facts in part.files.items()}

    @property
    def digest(self) -> str:
        """Return the sha256 of path and rows' digest of each file, whatever wrote the Parquet."""
        lines = [f"{path} {facts['rows_sha256']}" for path, facts in sorted(self.files.items())]
        return hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()


def features(*, pairs: bool = False, measured: Sequence[str] = ()) -> dict[str, Any]:
    """Return the features of every file as `datasets` writes them into Parquet metadata."""
    by_name: dict[str, dict[str, Any]] = {}
    for field in arrow_schema(pairs=pairs, measured=measured):
        if field.name == "label":
            by_name[field.name] = {"names": list(LABELS), "_type": "ClassLabel"}
        else:
            dtype = {"double": "float64", "float": "float32"}.get(str(field.type), str(field.type))
            by_name[field.name] = {"dtype": dtype, "_type": "Value"}
    return by_name


def rows_table(rows: Sequence[Row], *, pairs: bool = False, measured: Sequence[str] = ()) -> pa.Table:
    """Return rows as a table of the published schema, with the features of `datasets` in its metadata.

    `pairs`: whether the build has contrast pairs, and so their column; `measured`: its checks by models.
    """
    info = {"features": features(pairs=pairs, measured=measured)}
    schema = arrow_schema(pairs=pairs, measured=measured).with_metadata(
        {"huggingface": json.dumps({"info": info}, sort_keys=True)}
    )
    records = [row_values(row, pairs=pairs, measured=measured) for row in rows]
    return pa.Table.from_pylist(records, schema=schema)


def rows_digest(table: pa.Table) -> str:
    """Return the sha256 of a table's values, which does not depend on who wrote the file."""
    hasher = hashlib.sha256()
    for record in table.to_pylist():
        hasher.update(json.dumps(record, sort_keys=True, ensure_ascii=False).encode("utf-8") + b"\n")
    return hasher.hexdigest()


def count_rows(rows: Sequence[Row], measured: Sequence[str] = ()) -> dict[str, Any]:
    """Return counts of one language's rows: by label and split, by translator, flags by check."""
    places: dict[str, int] = {}
    translators: dict[str, int] = {}
    for row in rows:
        places[f"{row.label}-{row.split}"] = places.get(f"{row.label}-{row.split}", 0) + 1
        translators[row.translator] = translators.get(row.translator, 0) + 1
    return {
        "rows": places,
        "translators": dict(sorted(translators.items())),
        "flagged": {
            check: sum(row.flags.get(check, False) for row in rows) for check in (*ROW_CHECKS, *measured)
        },
        "flagged_rows": sum(any(row.flags.values()) for row in rows),
    }
