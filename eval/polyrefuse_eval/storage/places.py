"""A run's folder, wherever its results lie: a path is itself, an address a working copy or a copy to read."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.errors import StorageError
from polyrefuse_eval.processes import rank
from polyrefuse_eval.results.baseline_cache import ENVIRONMENT
from polyrefuse_eval.results.files import locked
from polyrefuse_eval.results.folder import RUN_FILE
from polyrefuse_eval.storage.address import Address, is_inside
from polyrefuse_eval.storage.lease import DRIVER_FILE, KeptLease, Lease
from polyrefuse_eval.storage.mirror import WorkingCopy, copy_root, of_run, write_whole
from polyrefuse_eval.storage.objects import ObjectStore

Place = Path | Address
"""Where results lie."""

Say = Callable[[str], None]
LOOK_EVERY = 2.0
"""Seconds between two looks for files to be sent."""

END = signal.SIGURG
"""Ends the work when another driver has taken over. SIGINT would not do: it is ignored in a job that a
script puts in the background. Nobody is harmed by this one where it comes late."""

HUB_SCHEME = "hf"


@contextmanager
def working_folder(place: Place, say: Say) -> Iterator[Path]:
    """Yield the folder to work in for results at `place`, for the time of a `with` block.

    A path is that folder. For an address it is a working copy in the user's cache: brought up to date at
    the start, each file sent as soon as it is whole, and everything at the end. Raises `StorageError`, at
    once, where the address cannot be read and written or another driver is at work there; at the end,
    where something could not be sent: it is kept then, and the same command sends it.

    Of several processes of one model only the first sends; the others get the folder as the first has it.
    """
    if isinstance(place, Path):
        yield place
    elif rank() > 0:
        yield copy_root(place) / place.name
    else:
        with _driven(place, say) as folder:
            yield folder


@contextmanager
def folders_to_read(places: Sequence[Place], wanted: Callable[[str], bool]) -> Iterator[list[Path]]:
    """Yield a folder for each run in `places`: a path as it is, of an address a copy of what is `wanted`.

    `wanted` is asked about names such as `scores/en.json`. An address with `*`, `?` or `[` stands for all
    that it matches. The copies are removed at the end. Raises `StorageError` for what cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="polyrefuse-read-") as kept, ExitStack() as stack:
        folders: list[Path] = []
        for place in places:
            if isinstance(place, Path):
                folders.append(place)
                continue
            for address in matching(place):
                folder = Path(kept, str(len(folders)), address.name)
                stack.enter_context(_told_as(address, folder))
                _copy(ObjectStore(address), folder, wanted)
                folders.append(folder)
        yield folders


def matching(address: Address) -> list[Address]:
    """Return what a pattern stands for, in order; another address stands for itself."""
    if not address.is_pattern:
        return [address]
    found = [one for one in ObjectStore(address).glob() if one.name != DRIVER_FILE]
    if not found:
        raise StorageError(f"nothing is at '{address}'; expected runs")
    return found


def runs_at(address: Address) -> list[Address]:
    """Return the runs at `address`: itself, or those in it; raises `StorageError` where there are none."""
    runs: list[Address] = []
    for one in matching(address):
        names = ObjectStore(one).list()
        folders = sorted(name.removesuffix(f"/{RUN_FILE}") for name in names if name.endswith(f"/{RUN_FILE}"))
        inner = [one.child(name) for name in folders if "/" not in name and is_inside(name)]
        runs += [one] if RUN_FILE in names else inner
    if not runs:
        raise StorageError(
            f"'{address}' holds no {RUN_FILE}; give the address of a run, or of a folder of runs"
        )
    return runs


@contextmanager
def _driven(address: Address, say: Say) -> Iterator[Path]:
    if address.is_pattern:
        raise StorageError(f"'{address}' is a pattern; expected the address of one folder")
    if address.scheme == HUB_SCHEME:
        raise StorageError(
            f"'{address}': answers are not sent to the Hub; choose another --out, and send the numbers with: "
            "polyrefuse publish --results RUN"
        )
    root = _made(copy_root(address))
    with _told_as(address, root), locked(root), _told_as(address, root / address.name):
        store = ObjectStore(address)
        objects = of_run(store.list(), address)
        if objects and not any(name == RUN_FILE or name.endswith(f"/{RUN_FILE}") for name in objects):
            raise StorageError(f"'{address}' is not empty and holds no {RUN_FILE}; choose another --out")
        copy, lease = WorkingCopy(store), Lease(store)
        try:
            lease.acquire(former=copy.driver)
            copy.set_driver(lease.id)
            copy.pull()
            with _Sender(copy, lease, say):
                yield copy.folder
        finally:
            with suppress(StorageError):
                lease.release()


def _made(root: Path) -> Path:
    """Make the folder of a working copy, for its user's eyes only: answers lie there."""
    try:
        root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"no working copy can be kept in '{root.parent}': {error.strerror}; name another folder with "
            f"{ENVIRONMENT}"
        ) from None
    return root


class _Sender:
    """Sends what is whole, while a `with` block works in the copy, and the rest at its end."""

    def __init__(self, copy: WorkingCopy, lease: Lease, say: Say) -> None:
        self._copy = copy
        self._say = say
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="polyrefuse-sender", daemon=True)
        self._lease = KeptLease(lease, self._end_at_once)
        self._working = threading.Lock()
        self._worker = threading.get_ident()
        self._is_working = self._worker == threading.main_thread().ident

    def __enter__(self) -> None:
        if self._is_working:
            self._former_handler = signal.signal(END, _end_work)
        self._lease.__enter__()
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        with self._working:
            self._is_working = False
        self._stop.set()
        self._thread.join()
        try:
            if self._lease.lost is None and (kind is None or issubclass(kind, Exception)):
                self._finish(error)
        finally:
            self._lease.__exit__()
            if self._worker == threading.main_thread().ident:
                signal.signal(END, self._former_handler or signal.SIG_DFL)
        if self._lease.lost is not None:
            raise StorageError(f"{self._lease.lost}; what this driver has not sent is dropped")

    def _finish(self, error: BaseException | None) -> None:
        """Send the rest; where the work has failed itself, that is what its user should hear of."""
        try:
            self._copy.push(all_files=True)
            self._copy.settle()
        except StorageError as fault:
            line = f"{fault}; {self._copy.unsent()} files wait here to be sent: the same command sends them"
            if error is None:
                raise StorageError(line) from None
            self._say(line)

    def _send(self) -> None:
        told = False
        while not self._stop.wait(LOOK_EVERY):
            if self._lease.lost is not None:
                return
            try:
                self._copy.push()
            except StorageError as error:
                if not told:
                    self._say(f"{error}; the work goes on, and it is tried again")
                told = True
            else:
                told = False

    def _end_at_once(self) -> None:
        """End the work, where it goes on in the main thread: another driver does it now."""
        with self._working:
            if self._is_working:
                signal.pthread_kill(self._worker, END)


def _end_work(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def _told_as(address: Address, folder: Path) -> Iterator[None]:
    """Name `address` in errors rather than the folder that stands for it here."""
    try:
        yield
    except PolyRefuseError as error:
        if str(folder) not in str(error):
            raise
        raise type(error)(str(error).replace(str(folder), str(address))) from None


def _copy(store: ObjectStore, folder: Path, wanted: Callable[[str], bool]) -> None:
    names = [name for name in of_run(store.list(), store.address) if wanted(name)]
    folder.mkdir(parents=True)

    def get(name: str) -> None:
        content = store.read(name)
        if content is not None:
            write_whole(folder / name, content)

    store.each(names, get)
