"""Keep organisms on this machine: each is trained once, by one process at a time, whole or not at all."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import platformdirs

from polyrefuse_data.core.errors import FileError, PolyRefuseError
from polyrefuse_data.core.files import locked, make_folder, temporary_folder
from polyrefuse_eval.malloc import keep_freed_memory


def _default_cache() -> Path:
    """Return the folder of organisms in the user's cache."""
    return Path(platformdirs.user_cache_dir("polyrefuse")) / "organism"


def kept_folder(
    cache_dir: Path | None, name: str, make: Callable[[Path], None], *, progress: bool = True
) -> Path:
    """Return the folder `name` in `cache_dir` (the user's cache by default); `make` it if it is not there.

    `make` fills an empty folder, which gets its name when it is finished. Two trainings side by side take
    many times as long as one after the other, so a process waits for another that trains here (and with
    `progress` says so). Raises `PolyRefuseError` if the folder cannot be written.
    """
    root = _default_cache() if cache_dir is None else Path(cache_dir)
    folder = root / name
    if folder.is_dir():
        return folder
    with ExitStack() as stack:
        try:
            make_folder(root)
            # Where the file system has no locks, two may make the same folder, and the first wins.
            with suppress(FileError):
                stack.enter_context(locked(root, wait=True, tell=_say_waiting if progress else None))
            if folder.is_dir():
                return folder
            workplace = stack.enter_context(temporary_folder(root))
        except (FileError, OSError) as error:
            raise _unwritable(root, error) from None
        keep_freed_memory()
        if progress:
            _say(f"training a test organism, about 5 minutes on two free cores; it is kept in {root}")
        make(workplace)
        for path in (workplace, *workplace.rglob("*")):  # libraries wrote some of them
            path.chmod(0o755 if path.is_dir() else 0o644)
        try:
            workplace.rename(folder)
        except OSError as error:
            if not folder.is_dir():  # otherwise another process was first
                raise _unwritable(root, error) from None
    return folder


def _say_waiting(holder: str) -> None:
    _say(f"{holder} is making a test organism; waiting for it")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _unwritable(root: Path, error: Exception) -> PolyRefuseError:
    reason = error.strerror if isinstance(error, OSError) else error
    return PolyRefuseError(
        f"cannot keep the test organism in {root}: {reason}; expected a folder that can be written"
    )
