"""Fetch upstream files from their pinned addresses into the user's cache, verified by sha256."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from polyrefuse_data.core.errors import SourceError
from polyrefuse_data.core.files import write_bytes
from polyrefuse_data.http.client import HttpClient, check_address
from polyrefuse_data.http.faults import Fault, TranslatorError
from polyrefuse_data.prompts.source import Source
from polyrefuse_data.prompts.sources import read_mirror

BASE_URL_VARIABLE = "POLYREFUSE_SOURCES_URL"
"""Environment variable: an address under which the files lie by name, in place of the pinned ones."""

LONGEST_SECONDS = 600.0
"""Longest time of a whole download."""

LARGEST_BYTES = 1 << 28
"""Largest file that is read, unpacked; the largest source has 23 MB."""


def cache_folder() -> Path:
    """Return the folder in which fetched sources are kept."""
    return Path(platformdirs.user_cache_dir("polyrefuse")) / "sources"


def _download(row: Source, url: str) -> bytes:
    """Return what `url` sends; no redirect is followed, and no user or password in it is taken."""
    try:
        check_address(url, BASE_URL_VARIABLE)
        return HttpClient(LONGEST_SECONDS, maximum_bytes=LARGEST_BYTES).get(url).content
    except (Fault, TranslatorError) as error:
        raise SourceError(
            f"source {row.name}: cannot fetch {row.file} ({error}); either give a local mirror of the files "
            "with --sources DIR or build the embedded sample with --recipe sample"
        ) from None


def fetch(row: Source, cache: Path | None = None) -> bytes:
    """Return the verified bytes of `row`, from the cache or from its address.

    A file that fails its checksum does not stay in the cache. Raises `SourceError`, also for a gated file.
    """
    if row.gated:
        raise SourceError(
            f"source {row.name}: its upstream grants access only by agreement; get your own copy of "
            f"{row.file} and name its folder with --sources DIR"
        )
    folder = cache or cache_folder()
    kept = folder / row.file
    if kept.exists():
        try:
            return read_mirror(row, folder)
        except SourceError:
            kept.unlink(missing_ok=True)
    base = os.environ.get(BASE_URL_VARIABLE)
    url = f"{base.rstrip('/')}/{row.file}" if base else row.url
    data = _download(row, url)
    row.verify(data, url)
    write_bytes(kept, data, error=SourceError)
    return data


def load(row: Source, mirror: Path | None, cache: Path | None = None) -> bytes:
    """Return the verified bytes of `row` from `mirror` if one is given, else from cache or network."""
    if mirror is None:
        return fetch(row, cache)
    if not mirror.is_dir():
        raise SourceError(f"--sources {mirror}: no such folder; expected a mirror of the upstream files")
    return read_mirror(row, mirror)
