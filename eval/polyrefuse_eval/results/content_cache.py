"""Keep what a model computed, by the content that it depends on, so that no command computes it twice.

An entry is one file, a ZIP archive without compression, called after the sha256 of its key. It appears whole
or not at all, so writers need no lock and a kill leaves no half entry; one that cannot be read is as good as
none. Reading an entry makes it the youngest; beyond the limit the oldest are removed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyrefuse_data.core.contents import read_file
from polyrefuse_data.core.files import make_folder, write_bytes
from polyrefuse_eval.errors import RunFolderError

ENVIRONMENT = "POLYREFUSE_CACHE"
LIMIT_ENVIRONMENT = "POLYREFUSE_CACHE_LIMIT"
DEFAULT_LIMIT = 4 * 2**30
"""Bytes: refusal tokens, directions and baselines of hundreds of runs."""

PRUNED_TO = 0.9
"""Share of the limit that pruning leaves, so that it is not due again after the next entry."""

CHECKED_EVERY = 64
"""Entries that a process writes between two looks at the size of the whole, which walk over all files."""

STATES = "training-states"
"""Hidden states: large, and quick to read again, so pruned before all others."""

KINDS = ("baselines", "refusal-tokens", "direction-sets", "directions", STATES)
"""What is kept, each in a folder of its own."""

ENDING = ".zip"
_ENTRY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{32}\.zip|[0-9a-f]{24}/[^/]+\.jsonl")
"""Path of a finished file in the folder of its kind: an entry, or the baselines of a language."""
FORMAT = 2
"""Part of every key: raised when an entry of the same inputs would hold something else."""

UNSAVED = "unsaved"
"""Revision of a model that was given in memory: nothing tells its weights from another's."""

_written = 0


@dataclass(frozen=True, kw_only=True)
class KindSize:
    """How many files of a kind are kept, and their bytes."""

    kind: str
    files: int
    size: int


def cache_folder() -> Path:
    """Return the folder of caches: `$POLYREFUSE_CACHE`, else the user's cache folder."""
    given = os.environ.get(ENVIRONMENT)
    if given:
        return Path(given)
    from platformdirs import user_cache_path

    return user_cache_path("polyrefuse")


def cache_limit() -> int:
    """Return the bytes that the cache may take: `$POLYREFUSE_CACHE_LIMIT`, else `DEFAULT_LIMIT`."""
    given = os.environ.get(LIMIT_ENVIRONMENT)
    return DEFAULT_LIMIT if not given else parse_size(given, LIMIT_ENVIRONMENT)


def parse_size(text: str, name: str) -> int:
    """Return the bytes in `500MB`, `2 GiB` or `1000`; raises `RunFolderError` that begins with `name`."""
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if match is None:
        raise RunFolderError(f"{name} is '{text}'; expected a size such as 500MB or 4GB")
    number, unit, _ = match.groups()
    return int(float(number) * 1024 ** (" kmgt".index(unit.lower()) if unit else 0))


def shown_size(size: float) -> str:
    """Return bytes as `1.5 GB`, in powers of 1024."""
    for unit in ("B", "kB", "MB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GB"


def can_be_kept(model: Mapping[str, str]) -> bool:
    """Return whether the signature of a model tells its weights from all others."""
    return model.get("revision") != UNSAVED


def entry_path(kind: str, key: Mapping[str, Any]) -> Path:
    """Return the file of the entry of `key`, a JSON value that holds all that the entry depends on."""
    if kind not in KINDS:
        raise ValueError(kind)
    text = json.dumps([FORMAT, dict(key)], sort_keys=True, ensure_ascii=False)
    name = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return cache_folder() / kind / name[:2] / f"{name}{ENDING}"


def is_behind_link(path: Path, root: Path) -> bool:
    """Return whether `path`, or a folder between `root` and it, is a link: others may write into a cache."""
    below = [place for place in path.parents if place != root and place.is_relative_to(root)]
    return any(place.is_symlink() for place in (path, *below))


def load_entry(kind: str, key: Mapping[str, Any]) -> dict[str, bytes] | None:
    """Return the files of an entry by name; None where there is none, or none that can be read.

    An entry is no link and holds nothing compressed: a few bytes of an archive may unpack to gigabytes.
    """
    path = entry_path(kind, key)
    try:
        if is_behind_link(path, cache_folder()) or not path.is_file():
            return None
        content = read_file(path)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                return None
            if sum(member.file_size for member in members) > len(content):
                return None
            files = {member.filename: archive.read(member) for member in members}
        os.utime(path)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError):
        return None
    return files


def keep_entry(kind: str, key: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Keep `files` as the entry of `key`, and now and then prune the whole to its limit.

    A cache that cannot be written is no error: what is kept can be computed again.
    """
    global _written
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), data)
    path = entry_path(kind, key)
    if is_behind_link(path.parent, cache_folder()):
        return
    with suppress(RunFolderError, OSError):
        make_folder(path.parent, private=True, error=RunFolderError)
        write_bytes(path, content.getvalue(), private=True, error=RunFolderError)
        _written += 1
        if _written % CHECKED_EVERY == 1:
            prune_cache(cache_limit())


def cache_sizes() -> list[KindSize]:
    """Return what each kind takes, also those of which there is nothing."""
    sizes = []
    for kind in KINDS:
        found = list(_files(kind))
        sizes.append(KindSize(kind=kind, files=len(found), size=sum(size for _, size, _ in found)))
    return sizes


def prune_cache(limit: int) -> int:
    """Remove files until the rest takes less than `limit`; return the bytes that were removed.

    Does nothing where the limit is not reached. Others may read, write and prune meanwhile.
    """
    files = sorted((kind != STATES, age, size, path) for kind in KINDS for path, size, age in _files(kind))
    total = sum(size for _, _, size, _ in files)
    if total <= limit:
        return 0
    removed = 0
    for _, _, size, path in files:
        if total - removed <= limit * PRUNED_TO:
            break
        with suppress(OSError):
            path.unlink(missing_ok=True)
            removed += size
    return removed


def clear_cache() -> int:
    """Remove everything that is kept; return the bytes that were removed."""
    removed = 0
    for kind in KINDS:
        for path, size, _ in _files(kind):
            with suppress(OSError):
                path.unlink(missing_ok=True)
                removed += size
    return removed


def _files(kind: str) -> Iterator[tuple[Path, int, int]]:
    """Yield path, bytes and time of last use (ns) of the files of a kind that are finished.

    They are called as this module and `baseline_cache` call them; what else lies there, or behind a link, is
    not the cache's to count or remove.
    """
    folder = cache_folder() / kind
    if folder.is_symlink():
        return
    for path in folder.rglob("*"):
        if not _ENTRY.fullmatch(path.relative_to(folder).as_posix()) or path.is_symlink():
            continue
        with suppress(OSError):
            status = path.stat()
            if path.is_file():
                yield path, status.st_size, status.st_mtime_ns
