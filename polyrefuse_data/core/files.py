"""Write and lock files: whatever the packages write goes through here.

A folder may come from a stranger and lie among other things, and a disk may be full. So a file appears whole
or not at all, under a random name until then; nothing is written or emptied through a link; and every failure
is one line that names the file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout, lock_descriptor

from polyrefuse_data.core.errors import FileError, PolyRefuseError

LOCK_FILE = ".lock"
PARTIAL_ENDING = ".partial"
"""Ends the name of a file that is being written."""

WORK_PREFIX = ".polyrefuse-work-"
"""Begins the name of a temporary folder."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Error numbers of a disk, or a quota, that takes no more."""

_FILE, _FOLDER = 0o644, 0o755
_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700
"""Modes of what is made: a umask takes bits away, and none makes it writable for others."""

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
"""Opens a pipe at once, not when somebody writes into it."""

ErrorType = type[PolyRefuseError]


@contextmanager
def replacing(
    path: Path, *, private: bool = False, sync: bool = False, error: ErrorType = FileError
) -> Iterator[BinaryIO]:
    """Yield a new binary file that takes the place of `path` when the block ends.

    After any error, a full disk included, the old file is whole and nothing is left beside it, no folder
    that was made for it either; what a kill leaves is removed when `path` is written again. A link at `path`
    is replaced, never followed. A `private` file is for its owner alone; `sync` waits until the disk holds
    it. Raises `error` in one line.
    """
    with disk_errors(f"write '{path}'", path, error), new_folders(path.parent, error=error):
        check_replaceable(path)
        pattern = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
        _remove_abandoned(path.parent, rf"\.{pattern}-[0-9a-f]{{16}}\{PARTIAL_ENDING}")
        partial, file = _new_file(path.parent, pattern, private)
        holder = os.dup(file.fileno())  # the file is held until it has its name
        try:
            with file:
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        finally:
            os.close(holder)


def write_bytes(
    path: Path, data: bytes, *, private: bool = False, sync: bool = False, error: ErrorType = FileError
) -> None:
    """Write `data` to `path`, whole or not at all; see `replacing`."""
    with replacing(path, private=private, sync=sync, error=error) as file:
        file.write(data)


def write_text(
    path: Path, text: str, *, private: bool = False, sync: bool = False, error: ErrorType = FileError
) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all; see `replacing`."""
    write_bytes(path, text.encode("utf-8"), private=private, sync=sync, error=error)


@contextmanager
def appending(
    path: Path, *, private: bool = False, alone: bool = False, error: ErrorType = FileError
) -> Iterator[BinaryIO]:
    """Yield `path` opened to append to, made where it is missing; never through a link.

    Raises `error`, with `alone` also where another process has it open so, or has just renamed it.
    """
    with (
        disk_errors(f"write '{path}'", path, error),
        new_folders(path.parent, error=error),
        open(path, "ab", opener=own_file_opener(private=private)) as file,
    ):
        if alone and not (lock_descriptor(file.fileno(), blocking=False) and _is_at(file, path)):
            raise error(f"another process is writing '{path}'; wait until it ends")
        yield file


def cut_torn_line(path: Path, *, error: ErrorType = FileError) -> None:
    """Cut off the last line of `path` where it has no end, which a kill while appending leaves.

    Only for the one writer of the file: the line could be another's on its way.
    """
    if not path.is_file():
        return
    with (
        disk_errors(f"write '{path}'", path, error),
        open(path, "rb+", opener=own_file_opener()) as file,
    ):
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def make_folder(path: Path, *, private: bool = False, error: ErrorType = FileError) -> None:
    """Make the folder `path` and its parents where they are missing.

    Whatever the umask, none that is made can be written by others. A `private` one is for its owner alone,
    as is each parent made for it; it is no link.
    """
    if path.is_symlink() and private:
        raise error(f"'{path}' is a link; expected a folder: remove the link")
    with disk_errors(f"make '{path}'", path, error):
        for missing in [folder for folder in reversed(path.parents) if not folder.exists()]:
            make_folder(missing, private=private, error=error)
        path.mkdir(mode=_PRIVATE_FOLDER if private else _FOLDER, exist_ok=True)
        if private and stat.S_IMODE(path.stat().st_mode) != _PRIVATE_FOLDER:
            with suppress(PermissionError):  # it belongs to another user
                path.chmod(_PRIVATE_FOLDER)


@contextmanager
def new_folders(path: Path, *, private: bool = False, error: ErrorType = FileError) -> Iterator[None]:
    """Make the folder `path` as `make_folder` does; if the block fails, remove what was made and is empty."""
    places = () if path.is_dir() else (path, *path.parents)
    made = [place for place in places if not os.path.lexists(place)]
    try:
        make_folder(path, private=private, error=error)
        yield
    except BaseException:
        for place in made:
            with suppress(OSError):  # something is in it
                place.rmdir()
        raise


@contextmanager
def locked(
    folder: Path,
    *,
    wait: bool = False,
    tell: Callable[[str], None] | None = None,
    error: ErrorType = FileError,
) -> Iterator[None]:
    """Hold the lock of `folder`, which must exist, for the length of a `with` block.

    It is a lock on the file `.lock` that the kernel (on NFS the server) releases with the process, so a
    killed writer leaves no stale lock; the file itself stays and only names the holder. Raises `error` at
    once where another process holds it, unless `wait`, and where the file system has no locks. `tell`
    receives the holder before the wait begins.
    """
    path = folder / LOCK_FILE
    descriptors: list[int] = []

    def sign(descriptor: int) -> None:
        descriptors.append(descriptor)
        with suppress(OSError):  # a full disk: the lock holds without a name
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    lock = FileLock(path, mode=_FILE, thread_local=False, preserve_lock_file=True, on_acquired=sign)
    with disk_errors(f"lock '{folder}'", path, error):
        if os.path.lexists(path):
            _check_own(path, path.lstat())
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            holder = _first_line(path) or "another process"
            if not wait:
                raise error(
                    f"{holder} is writing to '{folder}'; wait until it ends, or choose another --out"
                ) from None
            if tell is not None:
                tell(holder)
            lock.acquire()
    except OSError as fault:
        raise error(
            f"'{folder}' cannot be locked ({_reason(fault)}); choose a folder that can be written, on a file "
            "system with locks"
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):
            os.ftruncate(descriptors[-1], 0)
        lock.release()


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield a new private folder in `parent` (the system's by default); remove it afterwards.

    Folders that killed processes left there are removed first.
    """
    root = Path(tempfile.gettempdir()) if parent is None else parent
    _remove_abandoned(root, rf"{re.escape(WORK_PREFIX)}\w+")
    with ExitStack() as stack:
        while True:
            folder = Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=root))
            with suppress(FileNotFoundError):  # another process took it for abandoned
                descriptor = os.open(folder, os.O_RDONLY)
                if _take(descriptor):
                    break
                os.close(descriptor)
        stack.callback(os.close, descriptor)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


@contextmanager
def disk_errors(doing: str, path: Path, error: ErrorType) -> Iterator[None]:
    """Turn an error of the disk into one line that says what failed and, of a full one, how full it is."""
    try:
        yield
    except OSError as fault:
        if fault.errno is None or isinstance(fault, ConnectionError | TimeoutError):
            raise  # not the disk's
        room = ""
        if fault.errno in FULL:
            room = f"{_room(path)}; free some space and run again; completed work is kept"
        raise error(f"cannot {doing}: {_reason(fault)}{room}") from None


def check_replaceable(path: Path) -> None:
    """Raise `OSError` where something is at `path` that is neither a file nor a link to be replaced."""
    if os.path.lexists(path) and stat.S_IFMT(path.lstat().st_mode) not in (stat.S_IFREG, stat.S_IFLNK):
        raise OSError(errno.EEXIST, "it exists and is not a file", str(path))


def _new_file(folder: Path, prefix: str, private: bool) -> tuple[Path, BinaryIO]:
    """Create a file of a random name in `folder`, held by this process for as long as it is open."""
    while True:
        path = folder / f".{prefix}-{secrets.token_hex(8)}{PARTIAL_ENDING}"
        file = open(path, "xb", opener=own_file_opener(private=private))  # noqa: SIM115
        if _take(file.fileno()):
            return path, file
        file.close()


def _take(descriptor: int) -> bool:
    """Mark a new file or folder as held; return False if a sweep of abandoned ones was faster."""
    try:
        return lock_descriptor(descriptor, blocking=False) and os.fstat(descriptor).st_nlink > 0
    except OSError:  # a file system without locks: nothing is swept there
        return True


def _remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove this user's files and folders in `folder` whose name matches and whose writer is dead."""
    for path in folder.iterdir():
        if not re.fullmatch(pattern, path.name) or path.is_symlink():
            continue
        with suppress(OSError), ExitStack() as stack:
            descriptor = os.open(path, os.O_RDONLY | _NO_FOLLOW | _NO_WAIT)
            stack.callback(os.close, descriptor)
            if os.fstat(descriptor).st_uid == os.geteuid() and lock_descriptor(descriptor, blocking=False):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def own_file_opener(*, private: bool = False) -> Callable[[str, int], int]:
    """Return an opener that follows no link and refuses what is not a file of this name alone.

    A file that it makes can be written by its owner alone; a `private` one, also one that was there, is for
    its owner alone, whatever the umask.
    """

    def open_own(path: str, flags: int) -> int:
        descriptor = os.open(path, flags | _NO_FOLLOW | _NO_WAIT, _PRIVATE_FILE if private else _FILE)
        try:
            status = os.fstat(descriptor)
            _check_own(Path(path), status)
            if private and stat.S_IMODE(status.st_mode) != _PRIVATE_FILE:
                with suppress(PermissionError):  # it belongs to another user
                    os.chmod(descriptor if os.chmod in os.supports_fd else path, _PRIVATE_FILE)  # noqa: PTH101
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    return open_own


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _check_own(path: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode) or status.st_nlink > 1:
        raise OSError(errno.ELOOP, "it is a link to another file", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EEXIST, "it exists and is not a file", str(path))


def _reason(fault: OSError) -> str:
    if fault.errno == errno.ELOOP:
        return f"'{fault.filename}' is a link to another file; remove it"
    return fault.strerror or str(fault)


def _room(path: Path) -> str:
    """Return how much of the disk of `path` is free, for an error's line."""
    folder = next((place for place in (path, *path.absolute().parents) if place.is_dir()), Path())
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return ""
    return f" ({usage.free / 2**20:,.1f} of {usage.total / 2**20:,.1f} MiB free)"


def _first_line(path: Path) -> str:
    try:
        with open(path, "rb", opener=own_file_opener()) as file:
            return file.readline(200).decode("utf-8", "replace").strip()
    except OSError:
        return ""
