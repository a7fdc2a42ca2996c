"""Gather the prompts that a recipe draws on: upstream files, the embedded sample, a user's own files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from polyrefuse_data.core.errors import SourceError
from polyrefuse_data.core.schema import Prompt
from polyrefuse_data.prompts import fetch, sources
from polyrefuse_data.prompts.readers import READERS, Record, csv_reader, table_reader
from polyrefuse_data.prompts.recipe import EMBEDDED, EMBEDDED_PAIRS, OwnSource, Recipe
from polyrefuse_data.prompts.source import prompts_from_records

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

EMBEDDED_TITLES = {
    EMBEDDED: "The embedded sample of polyrefuse",
    EMBEDDED_PAIRS: "The embedded contrast pairs of polyrefuse",
}
"""Sources that come with the package, and their titles."""


@dataclass(frozen=True)
class SourceUsed:
    """A source as the manifest records it."""

    name: str
    title: str
    url: str | None
    sha256: str
    licence: str
    citation: str


def read_sources(
    recipe: Recipe, recipe_folder: Path | None, mirror: Path | None, progress: Progress
) -> tuple[dict[str, list[Prompt]], list[SourceUsed]]:
    """Return the prompts of every source of `recipe` by name, and what the manifest records of each.

    `mirror` is the folder of `--sources`, `recipe_folder` that of a user's recipe. Raises `SourceError`.
    """
    prompts: dict[str, list[Prompt]] = {}
    used = []
    names = recipe.used_sources()
    for number, name in enumerate(names, start=1):
        if name in recipe.sources:
            prompts[name], one = _read_own(name, recipe.sources[name], mirror or recipe_folder or Path())
        elif name in EMBEDDED_TITLES:
            from polyrefuse_data.prompts import sample

            prompts[name] = list(sample.embedded_prompts(name))
            one = SourceUsed(
                name,
                EMBEDDED_TITLES[name],
                None,
                sample.bank_hash(name),
                sample.LICENCE,
                "",
            )
        else:
            row = sources.source(name)
            prompts[name] = row.prompts(fetch.load(row, mirror))
            one = SourceUsed(name, row.title, row.url, row.sha256, row.licence, row.citation)
        used.append(one)
        progress("sources", number, len(names))
    return prompts, used


def _read_own(name: str, own: OwnSource, folder: Path) -> tuple[list[Prompt], SourceUsed]:
    """Read a source that the recipe brings along."""
    path = folder / own.file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"source {name}: cannot read {path}: {error.strerror}; give --sources DIR"
        ) from None
    found = hashlib.sha256(data).hexdigest()
    if own.sha256 not in (None, found):
        raise SourceError(f"source {name}: {path} has sha256 {found}, the recipe expects {own.sha256}")
    records = _own_reader(own)(data, own.file)
    prompts = prompts_from_records(records, name, own.label, own.licence, {})
    return prompts, SourceUsed(name, name, None, found, own.licence, own.citation)


def _own_reader(own: OwnSource) -> Callable[[bytes, str], list[Record]]:
    if own.reader == "auto":
        table = table_reader(own.text_column, own.category_column)
        if own.file.endswith(".txt"):  # JSON Lines are often called so
            return lambda data, file: (table if _begins_as_json(data) else READERS["lines"])(data, file)
        return table
    if own.reader == "csv":
        return csv_reader(own.text_column or "text", own.category_column)
    return READERS[own.reader]


def _begins_as_json(data: bytes) -> bool:
    """Return whether a text file begins with a JSON object or a list of them, as no prompt does."""
    return data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b'{"', b"[{"))
