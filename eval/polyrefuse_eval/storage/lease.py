"""The right to write to an address: an object there that its driver renews, for lack of locks.

Taking it is exclusive where the store offers a conditional write (S3, GCS, Azure, a local file system), and
is verified by reading it back in every case. Elsewhere two drivers that begin within a second may both go on
until the next renewal, which stops one of them. Neither can tear a file: each file is written whole.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from polyrefuse_data.core.parsing import parse_json
from polyrefuse_eval.errors import StorageError, TakenError
from polyrefuse_eval.storage.objects import ObjectStore

DRIVER_FILE = "driver.json"
RENEW_EVERY = 20.0
"""Seconds between two renewals."""

DEAD_AFTER = 90.0
"""Seconds without a renewal after which a driver counts as dead: a network may be away for a minute."""

SETTLE = 1.0
"""Seconds between writing a lease and reading it back, so that one taken at the same moment shows."""

FORMAT = "polyrefuse-driver-1"


@dataclass(frozen=True)
class Driver:
    """The content of `driver.json`; `renewed` in seconds since 1970 by the driver's clock."""

    format: str
    id: str
    driver: str
    since: str
    renewed: float


class Lease:
    """The right to write to the address of `store`: `acquire`, `renew` again and again, `release`."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._clock = clock
        self._sleep = sleep
        self.id = uuid.uuid4().hex
        self._since = datetime.fromtimestamp(clock(), timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")

    def acquire(self, former: str | None = None) -> None:
        """Become the driver; raise `TakenError`, naming the other driver, while that one lives.

        `former` is the id of a driver that is known to be dead.
        """
        driver = self._read()
        if driver is None and not self._store.create(DRIVER_FILE, self._content()):
            driver = self._read()
        if driver is not None and driver.id != self.id:
            if driver.id != former and self._clock() - driver.renewed <= DEAD_AFTER:
                raise self._taken_by(driver)
            self._store.write(DRIVER_FILE, self._content())
        self._sleep(SETTLE)
        driver = self._read()
        if driver is None:
            raise TakenError(f"another driver came to '{self._store.address}' at this moment; try again")
        if driver.id != self.id:
            raise self._taken_by(driver)

    def renew(self) -> None:
        """Show that this driver lives; raise `TakenError` where another one has taken over."""
        driver = self._read()
        if driver is not None and driver.id != self.id:
            raise self._taken_by(driver)
        self._store.write(DRIVER_FILE, self._content())

    def release(self) -> None:
        """Let the next driver begin at once."""
        driver = self._read()
        if driver is not None and driver.id == self.id:
            self._store.remove(DRIVER_FILE)

    def _content(self) -> bytes:
        name = f"process {os.getpid()} on {socket.gethostname()}"
        driver = Driver(format=FORMAT, id=self.id, driver=name, since=self._since, renewed=self._clock())
        return (json.dumps(asdict(driver), indent=1, sort_keys=True) + "\n").encode()

    def _read(self) -> Driver | None:
        for _ in range(3):
            content = self._store.read(DRIVER_FILE)
            if content is None:
                return None
            try:
                record = parse_json(content)
                return Driver(
                    format=FORMAT,
                    id=str(record["id"]),
                    driver=str(record["driver"]),
                    since=str(record["since"]),
                    renewed=float(record["renewed"]),
                )
            except (ValueError, TypeError, KeyError, OverflowError):
                # A new file is empty for a moment where the file system has no atomic writes.
                self._sleep(SETTLE)
        raise StorageError(
            f"'{self._store.address}' holds a {DRIVER_FILE} that cannot be read; remove it if no driver "
            "is running"
        )

    def _taken_by(self, driver: Driver) -> TakenError:
        age = self._clock() - driver.renewed
        return TakenError(
            f"{driver.driver} is writing to '{self._store.address}' since {driver.since} (last seen "
            f"{max(age, 0):.0f} s ago); wait until it ends (after {DEAD_AFTER:.0f} s without a sign it "
            "counts as ended), or choose another --out"
        )


@contextmanager
def renewed(lease: Lease) -> Iterator[None]:
    """Renew `lease` on a timer during a `with` block: a condition may take longer than `DEAD_AFTER`.

    The thread ends when another driver has taken the lease; the next `Lease.renew` of its holder says so.
    """
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW_EVERY):
            try:
                lease.renew()
            except TakenError:
                return
            except StorageError:
                continue  # Out of reach for now: a later renewal tells whether for too long.

    thread = threading.Thread(target=renew, name="polyrefuse-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
