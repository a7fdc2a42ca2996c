"""One upstream file: its pinned address, checksum, licence and reader."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from polyrefuse_data.core.errors import SourceError
from polyrefuse_data.core.schema import Prompt
from polyrefuse_data.prompts.readers import Record

Reader = Callable[[bytes, str], list[Record]]
"""Bytes of a file and its name, for errors, to its records, in the file's order."""

UPSTREAM = (
    "https://raw.githubusercontent.com/andyrdt/refusal_direction/9d852fae1a9121c78b29142de733cb1340770cc3"
)
"""The pinned revision of the English material of Arditi et al. 2024, whose bytes the hashes below are."""


@dataclass(frozen=True)
class Source:
    """One upstream file, or the prompts of one label in it.

    `taxonomy` maps the upstream's categories to `categories.CATEGORIES`; `root` is the pinned revision that
    `path` lies in. A `gated` file is never fetched and never published: users read their own copy of it.
    """

    name: str
    title: str
    label: str
    file: str
    path: str
    sha256: str
    licence: str
    citation: str
    reader: Reader
    taxonomy: Mapping[str, str] = field(default_factory=dict, hash=False)
    root: str = UPSTREAM
    gated: bool = False

    @property
    def url(self) -> str:
        """Return the pinned address of the file."""
        return f"{self.root}/{self.path}"

    def verify(self, data: bytes, where: str) -> None:
        """Raise `SourceError`, naming both hashes, unless `data` are the pinned bytes."""
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256:
            raise SourceError(
                f"source {self.name}: {where} has sha256 {found}, expected {self.sha256}; "
                "it is altered or incomplete: get the pinned version again"
            )

    def prompts(self, data: bytes) -> list[Prompt]:
        """Return the prompts of verified bytes, in the file's order, texts stripped of outer blanks."""
        return prompts_from_records(
            self.reader(data, self.file), self.name, self.label, self.licence, self.taxonomy
        )


def prompts_from_records(
    records: list[Record], source: str, label: str, licence: str, taxonomy: Mapping[str, str]
) -> list[Prompt]:
    """Return the prompts of `records`: categories mapped by `taxonomy`, None where it has no entry."""
    return [
        Prompt(
            text=record.text,
            label=label,
            source=source,
            licence=licence,
            category=taxonomy.get(record.category or ""),
            source_category=record.category,
            pair=record.pair,
        )
        for record in records
    ]
