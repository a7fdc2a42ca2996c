"""Keep organisms on this machine: each is trained once, by one process at a time, whole or not at all."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import platformdirs
from tqdm import tqdm

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.malloc import keep_freed_memory
from polyrefuse_eval.results.files import locked

_UNFINISHED = ".organism-"
_STALE_SECONDS = 24 * 3600
"""Age after which an unfinished folder belongs to a killed training."""


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
            root.mkdir(parents=True, exist_ok=True)
            # Where the file system has no locks, two may make the same folder, and the first wins.
            with suppress(RunFolderError):
                stack.enter_context(locked(root, wait=True, tell=_say_waiting if progress else None))
            if folder.is_dir():
                return folder
            _remove_stale(root)
            workplace = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=root))
        except OSError as error:
            raise PolyRefuseError(
                f"cannot keep the test organism in {root}: {error.strerror}; "
                "expected a folder that can be written"
            ) from None
        stack.callback(shutil.rmtree, workplace, ignore_errors=True)
        keep_freed_memory()
        make(workplace)
        workplace.chmod(0o755)
        _publish(workplace, folder)
    return folder


def _say_waiting(holder: str) -> None:
    tqdm.write(f"{holder} is making a test organism; waiting for it", file=sys.stderr)


def _remove_stale(root: Path) -> None:
    for path in root.glob(f"{_UNFINISHED}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _publish(workplace: Path, folder: Path) -> None:
    """Rename the finished `workplace` to `folder`; the first of several processes wins."""
    try:
        workplace.rename(folder)
    except OSError as error:
        if not folder.is_dir():
            raise PolyRefuseError(f"cannot write the test organism to {folder}: {error.strerror}") from None
