"""Read the whole of a file that somebody else may have made: no pipe, no device, nothing without end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

LARGEST_FILE = 2**30
"""Bytes of a file that is read whole; the largest of ours have a hundredth. A file of holes has any size."""

_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
"""Opens a pipe at once, not when somebody writes into it."""


def read_file(path: Path) -> bytes:
    """Return the content of the file at `path`; raises `OSError`, also where it is none or too large."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NO_WAIT)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a file", str(path))
        if status.st_size > LARGEST_FILE:
            raise OSError(
                errno.EFBIG, f"it has {status.st_size:,} bytes, expected at most {LARGEST_FILE:,}", str(path)
            )
        return file.read()


def read_utf8(path: Path) -> str:
    """Return the text of the file at `path`; raises `OSError` as `read_file`, and `UnicodeDecodeError`."""
    return read_file(path).decode("utf-8")
