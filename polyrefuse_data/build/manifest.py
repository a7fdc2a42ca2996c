"""What readers of a build's manifest rely on: the types of its parts, checked before anything is used."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from polyrefuse_data.core.parsing import first_problem

Count = Annotated[int, Field(ge=0, le=10**12)]
Lang = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z]{2,8})?$")]
Label = Literal["harmful", "harmless"]
Split = Literal["train", "validation", "test"]
Name = Annotated[str, Field(max_length=200)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

_READ = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)
"""What is not named here is kept in a manifest, and read by nobody."""


@with_config(_READ)
@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """A file of the build; `rows` and `rows_sha256` of a Parquet file."""

    sha256: str
    bytes: Count = 0
    rows: Count = 0
    rows_sha256: Sha256 | None = None


@with_config(_READ)
@dataclass(frozen=True, kw_only=True)
class LanguageFacts:
    """Counts of one language: rows by label and split, rows by translator, flagged rows by check."""

    rows: dict[str, Count]
    translators: dict[str, Count]
    flagged: dict[str, Count]
    flagged_rows: Count


@with_config(_READ)
@dataclass(frozen=True, kw_only=True)
class Gap:
    """Prompts without a translation."""

    lang: Lang
    label: Label
    split: Split
    ids: list[str]


@with_config(_READ)
@dataclass(frozen=True, kw_only=True)
class StoredFinding:
    """A finding, as it stands in JSON."""

    check: str
    severity: Literal["error", "warning", "note"]
    lang: Lang | None
    label: Label | None
    split: Split | None
    ids: list[str]
    message: str


@with_config(_READ)
@dataclass(frozen=True, kw_only=True)
class RecipeFacts:
    """The recipe's name and title."""

    name: Name
    title: Annotated[str, Field(max_length=1000)] = ""


@with_config(_READ)
@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """The digest of an upstream file; None of what comes with the package."""

    sha256: str | None = None


@with_config(_READ)
@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Digests of what each language was made from."""

    languages: dict[str, str] = field(default_factory=dict)


@with_config(_READ)
@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The manifest of a build, complete or with gaps."""

    format: str
    complete: bool
    files: dict[str, FileFacts]
    recipe: RecipeFacts
    digest: Sha256 | None = None
    languages: dict[Lang, LanguageFacts] | None = None
    findings: list[StoredFinding] | None = None
    gaps: list[Gap] = field(default_factory=list)
    severities: dict[str, Count] = field(default_factory=dict)
    sizes: dict[str, dict[str, Count]] = field(default_factory=dict)
    inputs: Inputs = field(default_factory=Inputs)
    sources: list[SourceFacts] = field(default_factory=list)
    models: dict[str, dict[Name, list[Lang]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("digest", "languages", "findings"):
            if self.complete and getattr(self, name) is None:
                raise ValueError(f"{name} is missing")
        for name, facts in self.files.items():
            if name.endswith(".parquet") and facts.rows_sha256 is None:
                raise ValueError(f"rows_sha256 of {name} is missing")


def manifest_problem(value: Any) -> str | None:
    """Return what in the manifest `value` is not as readers expect, with its place; None if nothing is."""
    try:
        TypeAdapter(Manifest).validate_json(json.dumps(value))
    except ValidationError as error:
        return first_problem(error)
    return None
