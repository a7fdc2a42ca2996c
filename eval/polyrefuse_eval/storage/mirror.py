"""A folder here that a run works in, kept the same as the objects below an address.

It lies in the user's cache. At the start it is brought up to date from the address; then every file is sent
as soon as it is whole. What is at the address wins; what was not sent yet is kept, if it is of the same run.
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

from polyrefuse_data.core.parsing import parse_json
from polyrefuse_eval.errors import StorageError
from polyrefuse_eval.results.baseline_cache import cache_folder
from polyrefuse_eval.results.condition_files import BEGUN_ENDING
from polyrefuse_eval.results.folder import RUN_FILE, SUMMARY_FILE
from polyrefuse_eval.storage.address import Address, is_inside
from polyrefuse_eval.storage.lease import DRIVER_FILE
from polyrefuse_eval.storage.objects import ObjectStore

STATE_FILE = "state.json"
PARTIAL_ENDING = ".partial"
WHOLE_ENDINGS = (".json", ".jsonl", ".safetensors", ".md", ".csv", ".txt")
"""Of files that get their name when they are whole; others (figures) are sent at the end."""

MARKERS = (
    re.compile(r"(.*/)?directions/[^./]+\.safetensors"),
    re.compile(r"(.*/)?answered\.json"),
    re.compile(rf"(.*/)?{re.escape(SUMMARY_FILE)}"),
)
"""Files that say that others are all there, sent after these in this order: a chosen direction, which is not
chosen again, that its scores are; then that all answers are, and that everything is."""

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST")
"""Variables by which the same address is another place."""

VERSION_KEYS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "updated", "last_modified", "created")
"""What stores say of an object that changes when it is written, by preference."""

Fingerprint = tuple[int, int, int]
"""Size, time of change and inode of a file here: a file that is written whole has a new inode."""


@dataclass
class Known:
    """An object as it was when file and object were last the same; `version` None where it was not seen."""

    version: str | None
    size: int
    changed: int
    inode: int

    @property
    def fingerprint(self) -> Fingerprint:
        return (self.size, self.changed, self.inode)


def copy_root(address: Address) -> Path:
    """Return where the working copy of `address`, and what is known of it, lie in the user's cache."""
    place = [address.shown, *(os.environ.get(name, "") for name in ENDPOINTS)]
    digest = hashlib.sha256("\n".join(place).encode()).hexdigest()[:24]
    return cache_folder() / "addresses" / digest


class WorkingCopy:
    """The folder `folder` and its likeness to the objects in `store`; for one process at a time."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.root = copy_root(store.address)
        self.folder = self.root / store.address.name
        self.driver: str | None = None
        self._known: dict[str, Known] = {}
        self._load()

    def pull(self, objects: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Make the folder what is at the address; what was not sent is kept where the run is the same.

        `objects` is what `store.list` has just said. Raises `StorageError` for an object whose name leads
        out of the folder; nothing is written then.
        """
        objects = of_run(self.store.list() if objects is None else objects, self.store.address)
        self.folder.mkdir(parents=True, exist_ok=True)
        for run_file in {name for name in (*objects, *self._known, *self._local()) if _is(name, RUN_FILE)}:
            if not self._is_same_run(run_file, objects):
                self._clear(run_file.removesuffix(RUN_FILE))
        for name in self._known.keys() - objects.keys():
            (self.folder / name).unlink(missing_ok=True)
            del self._known[name]
        local = self._local()
        missing = []
        for name, info in objects.items():
            if name not in local or not self._is_known(name, info):
                missing.append(name)
        self.store.each(missing, lambda name: self._get(name, version_of(objects[name])))
        self._save()

    def push(self, *, all_files: bool = False) -> int:
        """Send the files that are whole and not yet at the address; return how many.

        Markers go last, and one that is about to change is first taken away: what is at the address says
        at no moment that more is there than is. `all_files`: figures, too, which may be half drawn
        before.
        """
        earlier = self._local()
        if not self._changed(earlier) and self._known.keys() <= earlier.keys():
            return 0
        local = self._local()
        gone = [name for name in self._known if name not in local]
        changed = [
            name
            for name in self._changed(local)
            if (all_files or name.endswith(WHOLE_ENDINGS))
            # A file that came while we looked may speak of others that we did not see.
            and earlier.get(name) == local[name]
        ]
        try:
            for name in [*changed, *gone]:
                if _is(name, SUMMARY_FILE) and name in self._known:
                    self.store.remove(name)
                    del self._known[name]
            for of_rank in _by_rank(changed):
                self.store.each(of_rank, lambda name: self._put(name, local[name]))
            for name in gone:
                if name in self._known:
                    self.store.remove(name)
                    del self._known[name]
        finally:
            self._save()
        return len(changed)

    def settle(self) -> None:
        """Note the versions of what was sent, so that the next driver here need not read it back."""
        objects = self.store.list()
        for name, known in self._known.items():
            if known.version is None and objects.get(name, {}).get("size") == known.size:
                known.version = version_of(objects[name])
        self._save()

    def unsent(self) -> int:
        """Return how many files are not at the address as they are here."""
        return len(self._changed(self._local()))

    def set_driver(self, driver: str | None) -> None:
        """Note whose lease this copy is driven under, for who comes after a kill."""
        self.driver = driver
        self._save()

    def _changed(self, local: Mapping[str, Fingerprint]) -> list[str]:
        """Return which of the files `local` are not at the address, or not as they are here."""
        return [
            name
            for name, found in local.items()
            if name not in self._known or self._known[name].fingerprint != found
        ]

    def _get(self, name: str, version: str | None) -> None:
        content = self.store.read(name)
        if content is None:  # Removed since it was listed.
            return
        try:
            write_whole(self.folder / name, content)
        except OSError as error:
            raise StorageError(f"'{self.folder / name}' cannot be written: {error.strerror}") from None
        self._known[name] = Known(version, *_fingerprint(self.folder / name))

    def _put(self, name: str, fingerprint: Fingerprint) -> None:
        try:
            content = (self.folder / name).read_bytes()
        except FileNotFoundError:  # A cell that is at work again.
            return
        self.store.write(name, content)
        self._known[name] = Known(None, *fingerprint)

    def _local(self) -> dict[str, Fingerprint]:
        """Return the files in the folder that are whole, and belong at the address, by name."""
        return {name: found for name, found in _files(str(self.folder)) if name != DRIVER_FILE}

    def _is_same_run(self, run_file: str, objects: Mapping[str, Any]) -> bool:
        """Return whether what is here belongs to the run that is at the address, or to none there yet."""
        here = self.folder / run_file
        if run_file not in objects:
            return run_file not in self._known
        if not here.is_file():
            return False
        if self._is_known(run_file, objects[run_file]):
            return True
        return bool(_identity(self.store.read(run_file)) == _identity(here.read_bytes()))

    def _is_known(self, name: str, info: Mapping[str, Any]) -> bool:
        """Return whether an object is, for all that the store tells, as it was when it was the same here."""
        version = version_of(info)
        return version is not None and name in self._known and self._known[name].version == version

    def _clear(self, prefix: str) -> None:
        shutil.rmtree(self.folder / prefix, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._known = {name: known for name, known in self._known.items() if not name.startswith(prefix)}

    def _load(self) -> None:
        try:
            state = parse_json((self.root / STATE_FILE).read_text(encoding="utf-8"))
            self.driver = state["driver"]
            self._known = {name: Known(**known) for name, known in state["objects"].items()}
        except (OSError, ValueError, TypeError, KeyError):
            self._known = {}

    def _save(self) -> None:
        objects = {name: asdict(known) for name, known in sorted(self._known.items())}
        text = json.dumps({"driver": self.driver, "objects": objects}, sort_keys=True)
        write_whole(self.root / STATE_FILE, text.encode())


def of_run(objects: Mapping[str, Mapping[str, Any]], address: Address) -> dict[str, Mapping[str, Any]]:
    """Return `objects` without what drivers keep for themselves; raises `StorageError` for unsafe names."""
    for name in objects:
        if not is_inside(name):
            raise StorageError(
                f"'{address}' holds an object named {json.dumps(name)}, which is no name of a file in the "
                "folder of a run; remove it"
            )
    return {
        name: info
        for name, info in objects.items()
        if name != DRIVER_FILE
        and not name.endswith((PARTIAL_ENDING, BEGUN_ENDING))
        and not any(part.startswith(".") for part in name.split("/"))
    }


def version_of(info: Mapping[str, Any]) -> str | None:
    """Return what tells an object from what it was before, None where the store tells nothing."""
    found = next((info[key] for key in VERSION_KEYS if info.get(key) is not None), None)
    return None if found is None else f"{found} {info.get('size')}"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL_ENDING)
    partial.write_bytes(content)
    partial.replace(path)


def _fingerprint(path: Path) -> Fingerprint:
    return _print_of(path.stat())


def _print_of(found: os.stat_result) -> Fingerprint:
    return (found.st_size, found.st_mtime_ns, found.st_ino)


def _files(folder: str, prefix: str = "") -> Iterator[tuple[str, Fingerprint]]:
    """Yield the whole files below `folder`; quick, for it looks at thousands of them every second or so."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith(".") or name.endswith((PARTIAL_ENDING, BEGUN_ENDING)):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{prefix}{name}/")
            elif entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    yield prefix + name, _print_of(entry.stat())


def _is(name: str, file: str) -> bool:
    return name == file or name.endswith("/" + file)


def _by_rank(names: Iterable[str]) -> Iterator[list[str]]:
    """Yield `names` in groups, one after the other: what a run is, what it has, what says that it is done."""
    by_rank: dict[int, list[str]] = {}
    for name in sorted(names):
        rank = next((number for number, marker in enumerate(MARKERS, 1) if marker.fullmatch(name)), 0)
        by_rank.setdefault(-1 if _is(name, RUN_FILE) else rank, []).append(name)
    for rank in sorted(by_rank):
        yield by_rank[rank]


def _identity(run: bytes | None) -> Any:
    """Return what of a `run.json` makes it the run that it is: not who has judged it."""
    try:
        record = parse_json(run or b"")
        return {key: value for key, value in record["signature"].items() if key != "judges"}
    except (ValueError, TypeError, KeyError, AttributeError):
        return run
