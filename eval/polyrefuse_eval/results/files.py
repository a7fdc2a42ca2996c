"""JSON and JSON Lines on disk: written whole or not at all, and read with the bad line named."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polyrefuse_data.core.parsing import parse_json
from polyrefuse_eval.errors import RunFolderError


def json_line(record: Mapping[str, Any], default: Callable[[Any], Any] | None = None) -> str:
    """Return `record` as one line of JSON Lines; `default` makes JSON of what is none."""
    return json.dumps(record, ensure_ascii=False, sort_keys=True, allow_nan=False, default=default) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`; raises `RunFolderError`."""
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"'{path}' cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise RunFolderError(f"'{path}' holds no JSON object")
    return found


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path`, whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write `records` to `path` as JSON Lines, whole or not at all."""
    write_text(path, "".join(json_line(record) for record in records))


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all: who reads meanwhile sees the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def mend_jsonl(path: Path) -> None:
    """Cut off the last line of `path` where it has no end, which a kill while appending leaves.

    Only for who writes to the file alone: it could be another's line on its way.
    """
    if not path.is_file():
        return
    raw = path.read_bytes()
    if raw and not raw.endswith(b"\n"):
        with path.open("rb+") as file:
            file.truncate(raw.rfind(b"\n") + 1)


def numbered_lines(path: Path, *, torn_end: bool = False) -> list[tuple[int, bytes]]:
    """Return number and bytes of the lines of `path` that are not empty; none where it is missing.

    A last line without its end raises `RunFolderError`, unless `torn_end`: then it is left out,
    since it is still being written, or was when its writer died.
    """
    if not path.is_file():
        return []
    *whole, last = path.read_bytes().split(b"\n")
    if last and not torn_end:
        raise RunFolderError(
            f"'{path}', line {len(whole) + 1} is cut off; all before it is whole: remove the line, or "
            "make the file again"
        )
    return [(number, line) for number, line in enumerate(whole, 1) if line.strip()]


def read_jsonl(path: Path, *, torn_end: bool = False, mend: bool = False) -> list[dict[str, Any]]:
    """Return the objects in `path`, none where it is missing.

    A line that is no JSON object raises `RunFolderError` with its number; `torn_end` as in
    `numbered_lines`, `mend` as `mend_jsonl` does before.
    """
    if mend:
        mend_jsonl(path)
    records = []
    for number, line in numbered_lines(path, torn_end=torn_end):
        try:
            record = parse_json(line)
        except ValueError:
            raise RunFolderError(f"'{path}', line {number} is no JSON; remove the line to go on") from None
        if not isinstance(record, dict):
            raise RunFolderError(f"'{path}', line {number} is no JSON object")
        records.append(record)
    return records


LOCK_FILE = ".lock"


@contextmanager
def locked(folder: Path, *, wait: bool = False, tell: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock of `folder` for the time of a `with` block; `folder` must exist.

    It is a `flock` on the file `.lock`, which the kernel (on NFS the server) releases with the process,
    so a killed writer leaves no stale lock; the file itself stays and only tells who holds it. Raises
    `RunFolderError` at once where another holds it, unless `wait`, and where the file system has no locks.
    `tell` gets who holds it before the wait begins.
    """
    import fcntl

    with (folder / LOCK_FILE).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise RunFolderError(
                    f"'{folder}' cannot be locked ({error.strerror}); choose a folder on a file system "
                    "with locks"
                ) from None
            file.seek(0)
            holder = file.read().strip() or "another process"
            if not wait:
                raise RunFolderError(
                    f"{holder} is writing to '{folder}'; wait until it has ended, or choose another --out"
                ) from None
            if tell is not None:
                tell(holder)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
        file.seek(0)
        file.truncate()
