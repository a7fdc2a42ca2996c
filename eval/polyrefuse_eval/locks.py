"""One writer at a time: a lock that the system takes back when its process ends, however it ends."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from polyrefuse_eval.errors import RunFolderError

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
