"""The objects below an address: listed, read, and written whole, each tried again while the store is busy."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import tenacity

from polyrefuse_eval.errors import StorageError
from polyrefuse_eval.storage.address import Address
from polyrefuse_eval.storage.faults import (
    NO_PERMISSION,
    NOT_THERE,
    is_not_offered,
    is_unreachable,
    passes,
    reason_of,
)

ATTEMPTS = 10
"""Of one transfer: with waits of up to 0.2, 0.4, 0.8, ... 20 seconds about half a minute on average."""

ATTEMPTS_TO_REACH = 4
"""Before the first answer: an address that is mistyped should not be waited for."""

FIRST_WAIT, LONGEST_WAIT = 0.2, 20.0
AT_ONCE = 8
"""Transfers at the same time, where the file system's client is made for it."""

OBJECT_STORES = frozenset(
    {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "r2", "memory"}
)
"""Stores where a PUT is whole or nothing and folders need not be made; `mkdir` would make a bucket there."""

PIP_NAMES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "smb": "smbprotocol",
    "oci": "ocifs",
    "oss": "ossfs",
}
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    # Tries are ours to count: nested ones would multiply, and nobody could say when they end.
    "s3": {"config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 10, "read_timeout": 60}},
    "s3a": {"config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 10, "read_timeout": 60}},
}
"""Options for a scheme's file system."""

Found = TypeVar("Found")


class ObjectStore:
    """The objects below `address`, by names relative to it. Every method raises `StorageError`, one line."""

    def __init__(self, address: Address, sleep: Callable[[float], None] | None = None) -> None:
        self.address = address
        self._answered = False
        self._sleep = tenacity.nap.sleep if sleep is None else sleep
        self.fs, root = self._open()
        self.root = root.rstrip("/")
        self._whole_puts = address.scheme in OBJECT_STORES

    def list(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each object by its name; nothing where nothing is there.

        Names are as they are: whoever writes them to a disk asks `is_inside`.
        """

        def find() -> dict[str, dict[str, Any]]:
            self.fs.invalidate_cache()
            found: dict[str, dict[str, Any]] = self.fs.find(self.root, detail=True)
            return found

        infos = self._try(find, "read")
        if self.root in infos:
            raise StorageError(f"'{self.address}' is a file; expected the folder of a run")
        prefix = self.root + "/"
        return {
            path[len(prefix) :]: info
            for path, info in infos.items()
            if path.startswith(prefix) and not path.endswith("/") and info.get("type", "file") == "file"
        }

    def glob(self) -> Iterator[Address]:
        """Yield the addresses that this one, a pattern, stands for, sorted."""

        def match() -> list[str]:
            self.fs.invalidate_cache()
            return sorted(self.fs.glob(self.root))

        base = self.address.fixed
        prefix = str(self.fs._strip_protocol(base.text)).rstrip("/") + "/"
        for path in self._try(match, "read"):
            yield base.child(path.removeprefix(prefix).strip("/"))

    def read(self, name: str) -> bytes | None:
        """Return the content of an object, None where there is none."""
        try:
            return bytes(self._try(lambda: self.fs.cat_file(self._path(name)), "read", missing_is_told=False))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write an object: who reads sees the old one or the new one, nothing between."""
        self._try(lambda: self._write(name, content), "written")

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless it exists, as far as the store can tell; return whether it was written."""

        def make() -> bool:
            self._make_folder(name)
            try:
                if self._whole_puts:
                    self.fs.pipe_file(self._path(name), content, mode="create")
                else:
                    with self.fs.open(self._path(name), "xb") as opened:
                        opened.write(content)
            except FileExistsError:
                # Ours, where the answer to an earlier try was lost on its way.
                return bool(self.fs.cat_file(self._path(name)) == content)
            except Exception as error:
                if not is_not_offered(error):
                    raise
                if self.fs.exists(self._path(name)):
                    return False
                self._write(name, content)
            return True

        return self._try(make, "written")

    def remove(self, name: str) -> None:
        """Remove an object; it may be gone already."""

        def remove() -> None:
            with suppress(FileNotFoundError):
                self.fs.rm_file(self._path(name))

        self._try(remove, "written")

    def each(self, names: Iterable[str], action: Callable[[str], None]) -> None:
        """Do `action` to each of `names`, some at a time; the first error ends it."""
        if not getattr(self.fs, "async_impl", False):
            for name in names:
                action(name)
            return
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="polyrefuse-transfer") as pool:
            futures = [pool.submit(action, name) for name in names]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _write(self, name: str, content: bytes) -> None:
        self._make_folder(name)
        if self._whole_puts:
            self.fs.pipe_file(self._path(name), content)
            return
        folder, _, last = self._path(name).rpartition("/")
        partial = f"{folder}/.{last}.{uuid.uuid4().hex[:8]}.partial"
        try:
            self.fs.pipe_file(partial, content)
            self.fs.mv(partial, self._path(name))
        except BaseException:
            with suppress(Exception):
                self.fs.rm_file(partial)
            raise

    def _make_folder(self, name: str) -> None:
        if not self._whole_puts:
            self.fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)

    def _open(self) -> tuple[Any, str]:
        import fsspec

        scheme = self.address.scheme
        options = OPTIONS.get(scheme, {})

        def connect() -> tuple[Any, str]:
            found: tuple[Any, str] = fsspec.url_to_fs(self.address.text, skip_instance_cache=True, **options)
            return found

        try:
            fs, root = self._try(connect, "read")
        except ImportError as error:
            package = PIP_NAMES.get(scheme)
            how = f"install it with: pip install {package}" if package else reason_of(error)
            raise StorageError(f"'{self.address}' needs {package or 'a package'} ({how})") from None
        if hasattr(fs, "retries") and scheme in OPTIONS:
            fs.retries = 1
        return fs, str(root)

    def _try(self, action: Callable[[], Found], done: str, *, missing_is_told: bool = True) -> Found:
        """Return what `action` returns, trying again while the store is busy or cannot be reached."""

        def enough(state: tenacity.RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome is not None else None
            waits = self._answered or error is None or not is_unreachable(error)
            return state.attempt_number >= (ATTEMPTS if waits else ATTEMPTS_TO_REACH)

        again = tenacity.Retrying(
            stop=enough,
            wait=tenacity.wait_random_exponential(FIRST_WAIT, LONGEST_WAIT),
            retry=tenacity.retry_if_exception(passes),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            found = again(action)
        except ImportError:
            raise
        except FileNotFoundError as error:
            if not missing_is_told:
                self._answered = True
                raise
            raise self._told(error, done) from None
        # What client libraries raise is theirs, and without end: at this border all of it becomes one line.
        except Exception as error:
            raise self._told(error, done) from None
        self._answered = True
        return found

    def _told(self, error: Exception, done: str) -> StorageError:
        reason = reason_of(error, self.address.secrets)
        needed = "read" if done == "read" else "read and write"
        advice = {
            NO_PERMISSION: f"; the credentials that are set must allow to {needed} there",
            NOT_THERE: "; the bucket or folder that it lies in must exist",
        }.get(reason, "")
        if "Protocol not known" in str(error):
            return StorageError(f"'{self.address}': fsspec knows no scheme '{self.address.scheme}'")
        return StorageError(f"'{self.address}' cannot be {done}: {reason}{advice}")
