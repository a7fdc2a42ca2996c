"""A local working copy of the objects below an address.

It lies in the user's cache. `pull` brings it up to date with the address; `push` sends every finished file
that changed. What is at the address wins; what was not sent yet is kept if it belongs to the same run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polyrefuse_data.core.contents import LARGEST_FILE
from polyrefuse_data.core.files import PARTIAL_ENDING, make_folder, write_bytes
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_eval.errors import StorageError
from polyrefuse_eval.results.condition_files import BEGUN_ENDING
from polyrefuse_eval.results.content_cache import cache_folder
from polyrefuse_eval.results.folder import ANSWERED_FILE, RUN_FILE, SUMMARY_FILE
from polyrefuse_eval.results.growth import obstacles
from polyrefuse_eval.storage.address import Address, is_inside
from polyrefuse_eval.storage.lease import DRIVER_FILE
from polyrefuse_eval.storage.objects import ObjectStore

STATE_FILE = "state.json"

MARKERS = (
    re.compile(r"(.*/)?directions/[^./]+\.safetensors"),
    re.compile(rf"(.*/)?{re.escape(ANSWERED_FILE)}"),
    re.compile(rf"(.*/)?{re.escape(SUMMARY_FILE)}"),
)
"""Files whose presence says that others are there, sent after these, in this order: a chosen direction (its
scores are there), then `answered.json` (all answers are), then the summary (everything is)."""

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST")
"""Environment variables by which the same address is another place."""

VERSION_KEYS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "updated", "last_modified", "created")
"""Properties of an object that change when it is written, by preference."""

Fingerprint = tuple[int, int, int]
"""Size, time of change and inode of a local file: a file that is written whole has a new inode."""


@dataclass
class SyncedObject:
    """An object as it was when local file and object were last equal; `version` None where not listed yet."""

    version: str | None
    size: int
    changed: int
    inode: int

    @property
    def fingerprint(self) -> Fingerprint:
        return (self.size, self.changed, self.inode)


def copy_root(address: Address) -> Path:
    """Return the folder in the user's cache that holds the working copy of `address` and its state."""
    place = [address.shown, *(os.environ.get(name, "") for name in ENDPOINTS)]
    digest = hashlib.sha256("\n".join(place).encode()).hexdigest()[:24]
    return cache_folder() / "addresses" / digest


class WorkingCopy:
    """The local folder `folder`, synchronised with the objects in `store`; for one process at a time."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.root = copy_root(store.address)
        self.folder = self.root / store.address.name
        self.driver: str | None = None
        self._synced: dict[str, SyncedObject] = {}
        self._load_state()

    def pull(self) -> None:
        """Make the folder equal to the address; keep unsent files where the run is the same.

        Raises `StorageError` for an object whose name leads out of the folder; nothing is written then.
        """
        objects = run_objects(self.store.list(), self.store.address)
        make_folder(self.folder, private=True, error=StorageError)
        # Another run at the address replaces the one here.
        names = (*objects, *self._synced, *self._local())
        for run_file in {name for name in names if _is(name, RUN_FILE)}:
            if not self._is_same_run(run_file, objects):
                self._clear(run_file.removesuffix(RUN_FILE))
        # What was removed there is removed here; what is new or changed there is fetched.
        for name in self._synced.keys() - objects.keys():
            (self.folder / name).unlink(missing_ok=True)
            del self._synced[name]
        local = self._local()
        missing = [
            name for name, info in objects.items() if name not in local or not self._is_current(name, info)
        ]
        self.store.each(missing, lambda name: self._get(name, _version(objects[name])))
        self._save_state()

    def push(self) -> int:
        """Send each finished file that changed, and remove what was removed here; return how many were sent.

        A summary that is about to change, and markers that a run lost when it grew, are removed first, and
        markers are sent last: at no moment does the address claim more than it holds.
        """
        local = self._local()
        changed = self._changed(local)
        removed = [name for name in self._synced if name not in local]
        if not changed and not removed:
            return 0
        try:
            for name in [*changed, *removed]:
                marker = _is(name, SUMMARY_FILE) or (name in removed and _is(name, ANSWERED_FILE))
                if marker and name in self._synced:
                    self._remove(name)
            for group in _by_rank(changed):
                self.store.each(group, lambda name: self._put(name, local[name]))
            for name in removed:
                if name in self._synced:
                    self._remove(name)
        finally:
            self._save_state()
        return len(changed)

    def note_versions(self) -> None:
        """Note the versions of sent objects, so that the next pull need not fetch them."""
        objects = self.store.list()
        for name, synced in self._synced.items():
            if synced.version is None and objects.get(name, {}).get("size") == synced.size:
                synced.version = _version(objects[name])
        self._save_state()

    def unsent(self) -> int:
        """Return how many files differ from the address."""
        return len(self._changed(self._local()))

    def set_driver(self, driver: str) -> None:
        """Note under whose lease this copy is written, for the driver that comes after a kill."""
        self.driver = driver
        self._save_state()

    def _changed(self, local: Mapping[str, Fingerprint]) -> list[str]:
        """Return which of the files `local` are missing at the address, or differ there."""
        return [
            name
            for name, fingerprint in local.items()
            if name not in self._synced or self._synced[name].fingerprint != fingerprint
        ]

    def _get(self, name: str, version: str | None) -> None:
        content = self.store.read(name)
        if content is None:  # Removed since it was listed.
            return
        path = self.folder / name
        write_bytes(path, content, private=True, error=StorageError)
        self._synced[name] = SyncedObject(version, *_fingerprint(path.stat()))

    def _put(self, name: str, fingerprint: Fingerprint) -> None:
        self.store.write(name, (self.folder / name).read_bytes())
        self._synced[name] = SyncedObject(None, *fingerprint)

    def _remove(self, name: str) -> None:
        self.store.remove(name)
        del self._synced[name]

    def _local(self) -> dict[str, Fingerprint]:
        """Return the finished files in the folder that belong at the address, by name."""
        return {
            name: fingerprint
            for name, fingerprint in _finished_files(str(self.folder))
            if name != DRIVER_FILE
        }

    def _is_same_run(self, run_file: str, objects: Mapping[str, Any]) -> bool:
        """Return whether the files here belong to the run at the address, or to one not sent yet."""
        path = self.folder / run_file
        if run_file not in objects:
            return run_file not in self._synced
        if not path.is_file():
            return False
        if self._is_current(run_file, objects[run_file]):
            return True
        return _is_run_of(self.store.read(run_file), path.read_bytes())

    def _is_current(self, name: str, info: Mapping[str, Any]) -> bool:
        """Return whether an object is unchanged since it was last equal to the file here."""
        version = _version(info)
        return version is not None and name in self._synced and self._synced[name].version == version

    def _clear(self, prefix: str) -> None:
        shutil.rmtree(self.folder / prefix, ignore_errors=True)
        make_folder(self.folder, private=True, error=StorageError)
        self._synced = {name: synced for name, synced in self._synced.items() if not name.startswith(prefix)}

    def _load_state(self) -> None:
        try:
            state = parse_json((self.root / STATE_FILE).read_text(encoding="utf-8"))
            self.driver = state["driver"]
            self._synced = {
                name: SyncedObject(**synced) for name, synced in state["objects"].items() if is_inside(name)
            }
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            self._synced = {}

    def _save_state(self) -> None:
        objects = {name: asdict(synced) for name, synced in sorted(self._synced.items())}
        text = json.dumps({"driver": self.driver, "objects": objects}, sort_keys=True)
        write_bytes(self.root / STATE_FILE, text.encode(), private=True, error=StorageError)


def run_objects(objects: Mapping[str, Mapping[str, Any]], address: Address) -> dict[str, Mapping[str, Any]]:
    """Return `objects` without drivers' own files.

    Raises `StorageError` for names that leave the folder, and for objects larger than any file of a run.
    """
    for name, info in objects.items():
        if not is_inside(name):
            raise StorageError(
                f"'{address}' holds an object named {json.dumps(name)}, which is not a name of a file in the "
                "folder of a run; remove it"
            )
        if (size := info.get("size")) is not None and size > LARGEST_FILE:
            raise StorageError(
                f"'{address}' holds an object named {json.dumps(name)} of {size:,} bytes, more than any "
                "file of a run has; remove it"
            )
    return {
        name: info
        for name, info in objects.items()
        if name != DRIVER_FILE and not any(map(_is_temporary, name.split("/")))
    }


def _version(info: Mapping[str, Any]) -> str | None:
    """Return what distinguishes an object from its earlier contents, None where the store tells nothing."""
    value = next((info[key] for key in VERSION_KEYS if info.get(key) is not None), None)
    return None if value is None else f"{value} {info.get('size')}"


def _fingerprint(status: os.stat_result) -> Fingerprint:
    return (status.st_size, status.st_mtime_ns, status.st_ino)


def _is_temporary(name: str) -> bool:
    """Return whether a file is hidden or not finished yet."""
    return name.startswith(".") or name.endswith((PARTIAL_ENDING, BEGUN_ENDING))


def _finished_files(folder: str, prefix: str = "") -> Iterator[tuple[str, Fingerprint]]:
    """Yield the finished files below `folder`; fast, since a push looks at thousands of them."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if _is_temporary(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _finished_files(entry.path, f"{prefix}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                yield prefix + entry.name, _fingerprint(entry.stat())


def _is(name: str, file: str) -> bool:
    return name == file or name.endswith("/" + file)


def _by_rank(names: Iterable[str]) -> Iterator[list[str]]:
    """Yield `names` in the order of sending: what identifies the run, its files, then the markers."""
    by_rank: dict[int, list[str]] = {}
    for name in sorted(names):
        rank = next((number for number, marker in enumerate(MARKERS, 1) if marker.fullmatch(name)), 0)
        by_rank.setdefault(-1 if _is(name, RUN_FILE) else rank, []).append(name)
    for rank in sorted(by_rank):
        yield by_rank[rank]


def _is_run_of(there: bytes | None, here: bytes) -> bool:
    """Return whether two contents of `run.json` are of one run, which may have grown since the other."""
    try:
        old, new = (parse_json(run or b"")["signature"] for run in (there, here))
        return not obstacles(old, new) or not obstacles(new, old)
    except (ValueError, TypeError, KeyError, AttributeError):
        return there == here
