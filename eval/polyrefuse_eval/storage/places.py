"""A run's folder wherever its results lie: a path is itself, an address a working copy or a copy to read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.files import make_folder, temporary_folder, write_bytes
from polyrefuse_eval.errors import StorageError, TakenError
from polyrefuse_eval.processes import rank
from polyrefuse_eval.results.content_cache import ENVIRONMENT, cache_folder, is_behind_link
from polyrefuse_eval.results.files import locked
from polyrefuse_eval.results.folder import RUN_FILE
from polyrefuse_eval.storage.address import Address, is_inside
from polyrefuse_eval.storage.lease import DRIVER_FILE, Lease, renewed
from polyrefuse_eval.storage.mirror import WorkingCopy, copy_root, run_objects
from polyrefuse_eval.storage.objects import ObjectStore

Place = Path | Address
"""Where results lie."""

Say = Callable[[str], None]
RETRY_AFTER = 60.0
"""Seconds without a push after one that failed, so that a store that is down does not hold up the work."""

HUB_SCHEME = "hf"


@dataclass(frozen=True)
class WorkingFolder:
    """The local folder `path` of a run; call `push` after each finished file to send it to its address.

    `push` raises `TakenError` where another driver has taken over the address. Other errors of the store
    are said once, and the files are sent by a later push. For a folder that is no copy it does nothing.
    """

    path: Path
    push: Callable[[], None] = lambda: None


@contextmanager
def working_folder(place: Place, say: Say) -> Iterator[WorkingFolder]:
    """Yield the local folder for results at `place` during a `with` block.

    A path is that folder. For an address it is a working copy in the user's cache: brought up to date on
    entry, sent by each `push` and on exit. Raises `StorageError` on entry where the address cannot be read
    and written or another driver is writing to it; and on exit where files could not be sent: they are
    kept, and the same command sends them.

    Of several processes of one model only the first sends; the others use the folder that it fetched.
    """
    if isinstance(place, Path):
        yield WorkingFolder(place)
    elif rank() > 0:
        yield WorkingFolder(copy_root(place) / place.name)
    else:
        with _driven(place, say) as folder:
            yield folder


@contextmanager
def folders_to_read(places: Sequence[Place], wanted: Callable[[str], bool]) -> Iterator[list[Path]]:
    """Yield a folder for each run in `places`: a path itself, for an address a copy of the `wanted` files.

    `wanted` is called with names such as `scores/en.json`. An address with `*`, `?` or `[` stands for all
    that it matches. The copies are removed on exit. Raises `StorageError` for what cannot be read.
    """
    with temporary_folder() as copies, ExitStack() as stack:
        folders: list[Path] = []
        for place in places:
            if isinstance(place, Path):
                folders.append(place)
                continue
            for address in matching(place):
                folder = copies / str(len(folders)) / address.name
                stack.enter_context(_named_as(address, folder))
                _copy(ObjectStore(address), folder, wanted)
                folders.append(folder)
        yield folders


def matching(address: Address) -> list[Address]:
    """Return the addresses that match a pattern, sorted; another address stands for itself."""
    if not address.is_pattern:
        return [address]
    matches = [match for match in ObjectStore(address).glob() if match.name != DRIVER_FILE]
    if not matches:
        raise StorageError(f"nothing is at '{address}'; expected runs")
    return matches


def runs_at(address: Address) -> list[Address]:
    """Return the runs at `address`: itself, or those in it; raise `StorageError` where there are none."""
    runs: list[Address] = []
    for match in matching(address):
        names = ObjectStore(match).list()
        folders = sorted(name.removesuffix(f"/{RUN_FILE}") for name in names if name.endswith(f"/{RUN_FILE}"))
        inner = [match.child(name) for name in folders if "/" not in name and is_inside(name)]
        runs += [match] if RUN_FILE in names else inner
    if not runs:
        raise StorageError(
            f"'{address}' holds no {RUN_FILE}; give the address of a run, or of a folder of runs"
        )
    return runs


@contextmanager
def _driven(address: Address, say: Say) -> Iterator[WorkingFolder]:
    """Yield the working copy of `address` under its lease."""
    if address.is_pattern:
        raise StorageError(f"'{address}' is a pattern; expected the address of one folder")
    if address.scheme == HUB_SCHEME:
        raise StorageError(
            f"'{address}': answers are not sent to the Hub; choose another --out, and send the numbers with: "
            "polyrefuse publish --results RUN"
        )
    root = _make_root(copy_root(address))
    with _named_as(address, root), locked(root), _named_as(address, root / address.name):
        store = ObjectStore(address)
        objects = run_objects(store.list(), address)
        if objects and not any(name == RUN_FILE or name.endswith(f"/{RUN_FILE}") for name in objects):
            raise StorageError(f"'{address}' is not empty and holds no {RUN_FILE}; choose another --out")
        copy, lease = WorkingCopy(store), Lease(store)
        try:
            lease.acquire(former=copy.driver)
            copy.set_driver(lease.id)
            copy.pull()
            sender = _Sender(copy, lease, say)
            with renewed(lease):
                try:
                    yield WorkingFolder(copy.folder, sender.push)
                except Exception as error:
                    sender.finish(error)
                    raise
                sender.finish()
        finally:
            with suppress(StorageError):
                lease.release()


def _make_root(root: Path) -> Path:
    """Make the folder of a working copy, readable by its user alone: it holds answers.

    Others may write into a cache that users share: what they have put there is not taken.
    """
    other = f"name another folder for working copies with {ENVIRONMENT}"
    if is_behind_link(root, cache_folder()):
        raise StorageError(f"'{root}' is a link, or lies behind one; {other}")
    try:
        make_folder(root, private=True, error=StorageError)
    except StorageError as error:
        raise StorageError(f"{error}; {other}") from None
    if root.stat().st_uid != os.geteuid():
        raise StorageError(f"'{root}' belongs to another user; {other}")
    return root


class _Sender:
    """Sends the finished files of a working copy while its lease holds."""

    def __init__(self, copy: WorkingCopy, lease: Lease, say: Say) -> None:
        self._copy = copy
        self._lease = lease
        self._say = say
        self._retry_at = 0.0

    def push(self) -> None:
        """Send what changed; see `WorkingFolder`."""
        if time.monotonic() < self._retry_at:
            return
        try:
            self._send()
        except TakenError:
            raise
        except StorageError as error:
            if not self._retry_at:
                self._say(f"{error}; the run continues and will retry")
            self._retry_at = time.monotonic() + RETRY_AFTER
        else:
            self._retry_at = 0.0

    def finish(self, cause: Exception | None = None) -> None:
        """Send the rest. After a failure of the work, its `cause`, only say what could not be sent."""
        if isinstance(cause, TakenError):
            return
        try:
            self._send()
            self._copy.note_versions()
        except TakenError as error:
            raise error from cause
        except StorageError as error:
            line = (
                f"{error}; {self._copy.unsent()} files are still to be sent: run the same "
                "command again to send them"
            )
            if cause is None:
                raise StorageError(line) from None
            self._say(line)

    def _send(self) -> None:
        try:
            self._lease.renew()
        except TakenError as error:
            raise TakenError(f"{error}; this process has stopped and sends nothing more") from None
        self._copy.push()


@contextmanager
def _named_as(address: Address, folder: Path) -> Iterator[None]:
    """Name `address` in errors in place of its local `folder`."""
    try:
        yield
    except PolyRefuseError as error:
        if str(folder) not in str(error):
            raise
        raise type(error)(str(error).replace(str(folder), str(address))) from None


def _copy(store: ObjectStore, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Copy the `wanted` objects of a run into the new `folder`."""
    names = [name for name in run_objects(store.list(), store.address) if wanted(name)]
    make_folder(folder, private=True, error=StorageError)

    def get(name: str) -> None:
        content = store.read(name)
        if content is not None:
            write_bytes(folder / name, content, private=True, error=StorageError)

    store.each(names, get)
