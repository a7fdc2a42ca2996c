"""Define prompts and rows of the data set; the field order is the published schema."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

LABELS = ("harmless", "harmful")
"""Names of the ClassLabel `label`; the index is the stored value (harmless 0, harmful 1)."""

SPLITS = ("train", "validation", "test")
"""Split names in published order: directions are fitted on train, selected on validation."""

ORIGINAL = "original"
"""The translator of an English row, which nobody translated."""

ROW_CHECKS = (
    "empty",
    "echo",
    "untranslated",
    "script",
    "language",
    "length_ratio",
    "digits",
    "line_breaks",
    "invisible",
    "diacritics",
    "refusal",
    "round_trip",
    "fit",
    "cut",
    "repetition",
    "verbatim",
    "number_words",
    "negation",
    "intent",
)
"""Checks that score single rows, in published order: columns `score_<check>` and `flt_<check>`."""

RECORDED_CHECKS = ("quality", "similarity", "nearest", "harm", "disagreement")
"""Checks whose scores are recorded: by models, and of several candidates. In published order: a build has the
columns of those whose scores it was given."""


def text_hash(text: str) -> str:
    """Return the sha256 (64 hex digits) of the UTF-8 bytes of `text`: the identity of a string."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def group_id(text_en: str, label: str) -> str:
    """Return the id (16 hex digits) that an English prompt shares with all its translations."""
    return hashlib.sha256(f"{label}\n{text_en}".encode()).hexdigest()[:16]


def row_id(label: str, split: str, index: int) -> str:
    """Return the id of the row at `index` of its label and split: `harmful-test-0421`."""
    return f"{label}-{split}-{index:04d}"


@dataclass(frozen=True)
class Prompt:
    """One English prompt of a source.

    `topic` is set by sources whose prompts come in families (the embedded sample); recipes can
    keep a family within one split. `translations` are the source's own, language code to text
    (the embedded sample again). A harmless prompt and its harmful twin share a `pair`.
    """

    text: str
    label: str
    source: str
    licence: str
    category: str | None = None
    source_category: str | None = None
    topic: str | None = None
    translations: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)
    pair: str | None = None

    @property
    def hash(self) -> str:
        return text_hash(self.text)

    @property
    def group(self) -> str:
        return group_id(self.text, self.label)


@dataclass(frozen=True)
class PlacedPrompt:
    """A prompt with its split and index, as a recipe returns it; each language's row is made from it."""

    prompt: Prompt
    split: str
    index: int
    duplicate_of: str | None = None
    occurrence: int = 0
    """How many rows before this one, in the same label and split, have the same English text."""

    @property
    def id(self) -> str:
        return row_id(self.prompt.label, self.split, self.index)


@dataclass(frozen=True)
class Row:
    """One published row: a prompt in one language.

    `scores` and `flags` hold one entry per check of `ROW_CHECKS`, and of those of `RECORDED_CHECKS` that the
    build was given scores of; a score is None where the check
    has nothing to say (English rows, languages without the property, no back-translation), and a
    flag is then False. A harmless row and its harmful twin share a `pair`.
    """

    id: str
    group: str
    lang: str
    text: str
    text_en: str
    label: str
    split: str
    category: str | None
    source_category: str | None
    source: str
    source_licence: str
    translator: str
    duplicate_of: str | None
    scores: Mapping[str, float | None] = field(default_factory=dict, hash=False)
    flags: Mapping[str, bool] = field(default_factory=dict, hash=False)
    pair: str | None = None


TEXT_FIELDS = (
    "id",
    "group",
    "lang",
    "text",
    "text_en",
    "label",
    "category",
    "source_category",
    "source",
    "source_licence",
    "translator",
    "duplicate_of",
)
"""Columns before the scores, in published order. The split is the file, not a column."""


PAIR = "pair"
"""The column of builds with contrast pairs, after the text fields; no other build has it."""


def column_names(*, pairs: bool = False, measured: Sequence[str] = ()) -> list[str]:
    """Return all published columns in order: that of `pairs` where a build has it, checks `measured` last."""
    return [field.name for field in arrow_schema(pairs=pairs, measured=measured)]


def arrow_schema(*, pairs: bool = False, measured: Sequence[str] = ()) -> pa.Schema:
    """Return the Arrow schema of every Parquet file of a build.

    `pairs`: whether the build has contrast pairs; `measured`: the checks of `RECORDED_CHECKS` that it has.
    """
    import pyarrow as pa

    nullable = {"category", "source_category", "duplicate_of"}
    fields = [
        pa.field(name, pa.int64() if name == "label" else pa.string(), nullable=name in nullable)
        for name in TEXT_FIELDS
    ]
    fields += [pa.field(PAIR, pa.string())] if pairs else []
    for checks in (ROW_CHECKS, measured):
        fields += [pa.field(f"score_{check}", pa.float32()) for check in checks]
        fields += [pa.field(f"flt_{check}", pa.bool_(), nullable=False) for check in checks]
    return pa.schema(fields)


def row_values(row: Row, *, pairs: bool = False, measured: Sequence[str] = ()) -> dict[str, object]:
    """Return `row` as one record of `arrow_schema(pairs=pairs, measured=measured)`."""
    record: dict[str, object] = {name: getattr(row, name) for name in TEXT_FIELDS}
    record["label"] = LABELS.index(row.label)
    if pairs:
        record[PAIR] = row.pair
    for check in (*ROW_CHECKS, *measured):
        record[f"score_{check}"] = row.scores.get(check)
        record[f"flt_{check}"] = row.flags.get(check, False)
    return record


def row_from_values(record: Mapping[str, object], split: str) -> Row:
    """Return the row of a record of `arrow_schema()`, with or without pairs: the inverse of `row_values`."""
    label, pair = record["label"], record.get(PAIR)
    texts = {name: record[name] for name in TEXT_FIELDS if name != "label"}
    checks = [*ROW_CHECKS, *(check for check in RECORDED_CHECKS if f"flt_{check}" in record)]
    return Row(
        **texts,  # type: ignore[arg-type]
        label=LABELS[label] if isinstance(label, int) else str(label),
        split=split,
        scores={check: record.get(f"score_{check}") for check in checks},  # type: ignore[misc]
        flags={check: bool(record.get(f"flt_{check}")) for check in checks},
        pair=None if pair is None else str(pair),
    )
