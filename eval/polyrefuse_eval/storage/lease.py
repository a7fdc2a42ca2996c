"""Who drives a run at an address: an object there that the driver renews, since nothing there can lock.

Taking it is exclusive where the store can write only what is not there yet (S3, GCS, Azure, a local file
system); it is read back in every case. Elsewhere two drivers that begin within a second may both go on until
the next renewal tells one of them. Neither can tear a file: each is written whole, and holds the same bytes.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from polyrefuse_data.core.parsing import parse_json
from polyrefuse_eval.errors import StorageError, TakenError
from polyrefuse_eval.storage.objects import ObjectStore

DRIVER_FILE = "driver.json"
RENEW_EVERY = 20.0
DEAD_AFTER = 90.0
"""Seconds without a renewal after which a driver counts as dead: a network may be away for a minute."""

SETTLE = 1.0
"""Seconds until a lease just taken is read back, so that one taken at the same moment shows."""

FORMAT = "polyrefuse-driver-1"


@dataclass(frozen=True)
class Driver:
    """What `driver.json` says; `renewed` are seconds since 1970 by the driver's clock."""

    format: str
    id: str
    driver: str
    since: str
    renewed: float


class Lease:
    """The right to drive a run at an address; `acquire`, `renew` again and again, `release`."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._clock = clock
        self._pause = pause
        self.id = uuid.uuid4().hex
        self._since = datetime.fromtimestamp(clock(), timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")

    def acquire(self, former: str | None = None) -> None:
        """Become the driver; raises `TakenError`, saying who is, where another one lives.

        `former` is the id of a driver that is known to be dead.
        """
        there = self._read()
        if there is None and not self._store.create(DRIVER_FILE, self._content()):
            there = self._read()
        if there is not None and there.id != self.id:
            if there.id != former and not self._is_dead(there):
                raise self._taken(there)
            self._store.write(DRIVER_FILE, self._content())
        self._pause(SETTLE)
        there = self._read()
        if there is None or there.id != self.id:
            raise self._taken(there)

    def renew(self) -> None:
        """Say that the driver lives; raises `TakenError` where another one has taken over."""
        there = self._read()
        if there is not None and there.id != self.id:
            raise self._taken(there)
        self._store.write(DRIVER_FILE, self._content())

    def release(self) -> None:
        """Let the next driver begin at once."""
        there = self._read()
        if there is not None and there.id == self.id:
            self._store.remove(DRIVER_FILE)

    def _is_dead(self, there: Driver) -> bool:
        return self._clock() - there.renewed > DEAD_AFTER

    def _content(self) -> bytes:
        who = f"process {os.getpid()} on {socket.gethostname()}"
        record = asdict(Driver(FORMAT, self.id, who, self._since, self._clock()))
        return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()

    def _read(self) -> Driver | None:
        for _ in range(3):
            content = self._store.read(DRIVER_FILE)
            if content is None:
                return None
            try:
                record = parse_json(content)
                who, name, since = (str(record[key]) for key in ("id", "driver", "since"))
                return Driver(FORMAT, who, name, since, float(record["renewed"]))
            except (ValueError, TypeError, KeyError):
                # Empty for a moment, where a file system has no whole writes of new files.
                self._pause(SETTLE)
        raise StorageError(
            f"'{self._store.address}' holds a {DRIVER_FILE} that cannot be read; remove it where no driver "
            "is at work"
        )

    def _taken(self, there: Driver | None) -> TakenError:
        address = self._store.address
        if there is None:
            return TakenError(f"another driver came to '{address}' at this moment; try again")
        age = self._clock() - there.renewed
        return TakenError(
            f"{there.driver} is writing to '{address}' since {there.since} (last sign {max(age, 0):.0f} s "
            f"ago); wait until it has ended (without a sign for {DEAD_AFTER:.0f} s it has), or choose "
            "another --out"
        )


class KeptLease:
    """A lease that a thread renews as long as a `with` block lasts; `lost` says who took it, if anyone."""

    def __init__(self, lease: Lease, on_loss: Callable[[], None]) -> None:
        self.lost: TakenError | None = None
        self._lease = lease
        self._on_loss = on_loss
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="polyrefuse-lease", daemon=True)

    def __enter__(self) -> KeptLease:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._stop.wait(RENEW_EVERY):
            try:
                self._lease.renew()
            except TakenError as error:
                self.lost = error
                self._on_loss()
                return
            except StorageError:
                continue  # Out of reach for now: the next renewal tells whether it was for too long.
