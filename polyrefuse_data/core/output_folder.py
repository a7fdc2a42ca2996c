"""Write the files of one output together: all are there afterwards, or none."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
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
    out: Path,
    files: Mapping[str, bytes],
    *,
    private: bool = False,
    markers: Sequence[str] = (),
    error: ErrorType = FileError,
) -> None:
    """Write `files`, name to content, into the folder `out`, which is made where it is missing.

    They are written beside each other and get their names, in the order of `files`, when all of them are
    whole: one that says that the others are there comes last. After an error, a full disk included, what was
    in `out` is as it was, and no file or folder is new. A link under a name is replaced, never followed.
    `markers` are names of files that say that the old ones belong together: they are removed when all new
    ones are whole, before the first gets its name. Raises `error` in one line, also for a name that leads out
    of `out`.
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
        _put_in_place(staged, list(paths.values()), [out / name for name in markers])


def _put_in_place(staged: Path, paths: list[Path], markers: list[Path]) -> None:
    """Rename the staged files, called 0, 1, ..., to `paths`, without `markers` beside them.

    After an error, remove those that are new; where no old one was replaced, put the markers back.
    """
    aside = {path: staged / f"marker-{path.name}" for path in markers if os.path.lexists(path)}
    new: list[Path] = []
    replaced = False
    try:
        for path, kept in aside.items():
            path.replace(kept)
        for number, path in enumerate(paths):
            if is_new := not os.path.lexists(path) and path not in aside:
                new.append(path)
            (staged / str(number)).replace(path)
            replaced = replaced or not is_new
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        for path, kept in aside.items():
            if not replaced and kept.exists():
                kept.replace(path)
        raise
