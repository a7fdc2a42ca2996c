"""Write the files of one output together: all are there afterwards, or none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from polyrefuse_data.core.errors import FileError
from polyrefuse_data.core.files import (
    ErrorType,
    check_replaceable,
    disk_errors,
    new_folders,
    own_file_opener,
    temporary_folder,
)
from polyrefuse_data.core.paths import inside


def write_together(
    out: Path, files: Mapping[str, bytes], *, private: bool = False, error: ErrorType = FileError
) -> None:
    """Write `files`, name to content, into the folder `out`, which is made where it is missing.

    They are written beside each other and get their names, in the order of `files`, when all of them are
    whole: one that says that the others are there comes last. After an error, a full disk included, what was
    in `out` is as it was, and no file or folder is new. A link under a name is replaced, never followed.
    Raises `error` in one line, also for a name that leads out of `out`.
    """
    paths = {name: inside(out, name, error=error) for name in files}
    with disk_errors(f"write to '{out}'", out, error), ExitStack() as folders:
        folders.enter_context(new_folders(out, private=private, error=error))
        for path in paths.values():
            check_replaceable(path)
        staged = folders.enter_context(temporary_folder(out))
        for number, content in enumerate(files.values()):
            opener = own_file_opener(private=private)
            with open(staged / str(number), "xb", opener=opener) as file:
                file.write(content)
        for folder in sorted({path.parent for path in paths.values()} - {out}):
            folders.enter_context(new_folders(folder, private=private, error=error))
        _put_in_place(staged, list(paths.values()))


def _put_in_place(staged: Path, paths: list[Path]) -> None:
    """Rename the staged files, called 0, 1, ..., to `paths`; after an error, remove those that are new."""
    new: list[Path] = []
    try:
        for number, path in enumerate(paths):
            if not os.path.lexists(path):
                new.append(path)
            (staged / str(number)).replace(path)
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        raise
