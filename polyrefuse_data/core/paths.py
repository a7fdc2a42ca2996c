"""Where a file may be written or removed: inside a folder, never through a link, never among the system's."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path, PurePosixPath

from polyrefuse_data.core.errors import FileError, PolyRefuseError

_SYSTEM_FOLDERS = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "sys", "usr")
_SCRATCH_FOLDERS = ("dev/shm", "usr/local")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")

ErrorType = type[PolyRefuseError]


def inside(folder: Path, name: str, *, error: ErrorType = FileError) -> Path:
    """Return the path of `name`, which a file gave, in `folder`; raises `error` if it leads outside.

    No folder on the way from `folder` to the file may be a link.
    """
    relative = PurePosixPath(name)
    if not name or relative.is_absolute() or ".." in relative.parts or re.search(r"[\\\0]", name):
        raise error(f"'{folder}' names a file '{name}'; expected a path inside the folder")
    path = folder
    for part in relative.parts[:-1]:
        path /= part
        if path.is_symlink():
            raise error(f"'{path}' is a link; expected a folder: remove the link")
    return folder.joinpath(*relative.parts)


def remove_unchanged(folder: Path, name: str, sha256: str) -> bool:
    """Remove the file `name` in `folder` if it has the bytes of `sha256`; return whether it did.

    A folder that becomes empty goes with it. Nothing is removed outside `folder` or through a link.
    """
    try:
        path = inside(folder, name)
    except FileError:
        return False
    if path.is_symlink() or not path.is_file() or file_sha256(path) != sha256:
        return False
    path.unlink()
    if path.parent != folder:
        with suppress(OSError):
            path.parent.rmdir()
    return True


def refuse_linked_folders(folder: Path, *, error: ErrorType = FileError) -> None:
    """Raise `error` if a folder inside `folder` is a link: what is written there would land elsewhere."""
    for place, folders, _ in os.walk(folder):
        for name in folders:
            path = Path(place, name)
            if path.is_symlink():
                raise error(f"'{path}' is a link to a folder; nothing is written through it: remove the link")


def check_output(path: Path, *, option: str = "--out", error: ErrorType = FileError) -> None:
    """Raise `error` where `path` is an address, or is a folder of the system or lies in one."""
    if _ADDRESS.match(str(path)):
        raise error(f"{option} {path} is an address; expected a path on this machine")
    place = real_path(path)
    named = place.relative_to(place.anchor)
    scratch = any(named.is_relative_to(folder) for folder in _SCRATCH_FOLDERS)
    if place == Path(place.anchor) or (named.parts[0] in _SYSTEM_FOLDERS and not scratch):
        raise error(f"{option} {path} belongs to the system; choose another place")


def real_path(path: Path) -> Path:
    """Return `path` as an absolute one without links; unlike `Path.resolve`, also of links in a loop."""
    return Path(os.path.realpath(path))


def normalise_paths(record: object, *fields: str) -> None:
    """Make a `Path` of each of `fields` of a frozen dataclass that holds one as text; None stays."""
    for name in fields:
        value = getattr(record, name)
        if value is not None:
            object.__setattr__(record, name, Path(value))


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
