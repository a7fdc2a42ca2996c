"""Write exported files: all of them or none, and never into a folder of something else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from polyrefuse_data.core.display import counted
from polyrefuse_data.core.output_folder import write_together
from polyrefuse_data.core.paths import check_output
from polyrefuse_eval.errors import RunFolderError

PLAIN = re.compile(r"[\w@+-][\w.@+-]{0,95}|\.eval_results")
"""A part of a path that every file system takes."""


def write_files(files: Mapping[str, str], out: Path) -> list[Path]:
    """Write `files`, name to text, into `out`: a new or empty folder, or one that holds these names alone.

    Raises `RunFolderError` where it holds anything else, a name cannot be a path, or the disk fails.
    """
    check_output(out, error=RunFolderError)
    for name in files:
        if not all(PLAIN.fullmatch(part) for part in name.split("/")):
            raise RunFolderError(f"'{name}' cannot be a path; give the model another name with --model-name")
    _check_apart(files)
    if out.exists() and not out.is_dir():
        raise RunFolderError(f"'{out}' is a file; choose another --out")
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    foreign = sorted(there - set(files))
    if foreign:
        raise RunFolderError(
            f"'{out}' holds {counted(len(foreign), 'other file')} ({foreign[0]}); choose another --out, or "
            "an empty folder"
        )
    write_together(out, {name: text.encode() for name, text in files.items()}, error=RunFolderError)
    return [out.joinpath(name) for name in files]


def _check_apart(names: Iterable[str]) -> None:
    """Raise `RunFolderError` where a file would lie under the name of another one, or both have one name.

    Some file systems do not tell capitals from small letters.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise RunFolderError(
                f"'{other}' and '{name}' are the same file on some disks; give one model another name with "
                "--model-name"
            )
    for folded, name in seen.items():
        inner = next(
            (seen[str(parent)] for parent in PurePosixPath(folded).parents if str(parent) in seen), None
        )
        if inner is not None:
            raise RunFolderError(
                f"'{name}' would be in a folder with the same name as the file '{inner}'; give the model "
                "another name with --model-name"
            )
