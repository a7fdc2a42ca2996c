"""List, read and write the objects below an address; retry while the store is busy; one line per error."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import tenacity

from polyrefuse_data.core.files import make_folder, own_file_opener, write_bytes
from polyrefuse_data.core.paths import inside
from polyrefuse_eval.errors import StorageError
from polyrefuse_eval.results.folder import PRIVATE_FOLDERS
from polyrefuse_eval.storage.address import HIDDEN, Address

ATTEMPTS = 10
"""Attempts of one transfer: with waits of up to 0.2, 0.4, 0.8, ... 20 seconds, half a minute on average."""

ATTEMPTS_TO_REACH = 4
"""Attempts before the first answer: a mistyped address should fail soon."""

FIRST_WAIT, LONGEST_WAIT = 0.2, 20.0
PARALLEL_TRANSFERS = 8
"""Transfers at the same time, where the file system's client is asynchronous."""

OBJECT_STORES = frozenset(
    {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "r2", "memory"}
)
"""Stores where a PUT is whole or nothing and folders need not be made; `mkdir` would make a bucket there."""

DISKS = frozenset({"file", "local"})
"""Schemes of folders on this machine: links and modes matter there."""

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
_S3_OPTIONS = {"config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 10, "read_timeout": 60}}
OPTIONS: Mapping[str, Mapping[str, Any]] = {"s3": _S3_OPTIONS, "s3a": _S3_OPTIONS}
"""Options of a scheme's file system: without retries of its own, which would multiply with ours."""

TRANSIENT_STATUS = frozenset({408, 409, 429, *range(500, 600)} - {501, 505})
"""HTTP statuses after which a retry may succeed: timeout, conflicting write, rate limit, server fault."""

TRANSIENT_ERRNO = frozenset({errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT})
CONNECTION_ERRORS = frozenset(
    {
        "ConnectionError",
        "TimeoutError",
        "gaierror",
        "HTTPClientError",
        "ClientConnectionError",
        "ClientPayloadError",
        "IncompleteRead",
        "ResponseParserError",
        "TransportError",
        "SSHException",
        "NoValidConnectionsError",
    }
)
"""Class names of lost connections, of the standard library and of the stores' clients."""

NO_PERMISSION = "no permission"
NOT_THERE = "not there"

Value = TypeVar("Value")


class ObjectStore:
    """The objects below `address`, by names relative to it. Every method raises `StorageError`, one line."""

    def __init__(self, address: Address, sleep: Callable[[float], None] = tenacity.nap.sleep) -> None:
        self.address = address
        self._answered = False
        self._sleep = sleep
        self.fs, root = self._open()
        self.root = root.rstrip("/")
        self._whole_puts = address.scheme in OBJECT_STORES
        self._on_disk = address.scheme in DISKS

    def list(self) -> dict[str, dict[str, Any]]:
        """Return what the store says of each object, by name; empty where nothing is there.

        Names are returned as they are: check them with `is_inside` before writing them to a disk.
        """

        def find() -> dict[str, dict[str, Any]]:
            self.fs.invalidate_cache()
            infos: dict[str, dict[str, Any]] = self.fs.find(self.root, detail=True)
            return infos

        infos = self._retry(find, "read")
        if self.root in infos:
            raise StorageError(f"'{self.address}' is a file; expected the folder of a run")
        prefix = self.root + "/"
        return {
            path[len(prefix) :]: info
            for path, info in infos.items()
            if path.startswith(prefix) and not path.endswith("/") and info.get("type", "file") == "file"
        }

    def glob(self) -> Iterator[Address]:
        """Yield the addresses that match this one, a pattern, sorted."""

        def match() -> list[str]:
            self.fs.invalidate_cache()
            return sorted(self.fs.glob(self.root))

        base = self.address.fixed
        prefix = str(self.fs._strip_protocol(base.text)).rstrip("/") + "/"
        for path in self._retry(match, "read"):
            yield base.child(path.removeprefix(prefix).strip("/"))

    def read(self, name: str) -> bytes | None:
        """Return the content of an object, None where there is none."""

        def read() -> bytes | None:
            try:
                return bytes(self.fs.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

        return self._retry(read, "read")

    def write(self, name: str, content: bytes) -> None:
        """Write an object atomically: a reader sees the old content or the new."""
        self._retry(lambda: self._write(name, content), "written")

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless it exists, as far as the store can tell; return whether it was written."""

        def create() -> bool:
            self._make_folder(name)
            try:
                if self._whole_puts:
                    self.fs.pipe_file(self._path(name), content, mode="create")
                elif self._on_disk:
                    with open(
                        self._path(name), "xb", opener=own_file_opener(private=_is_private(name))
                    ) as file:
                        file.write(content)
                else:
                    with self.fs.open(self._path(name), "xb") as file:
                        file.write(content)
            except FileExistsError:
                # It is ours where the answer to an earlier attempt was lost.
                return bool(self.fs.cat_file(self._path(name)) == content)
            except Exception as error:
                if not _is_unsupported(error):
                    raise
                if self.fs.exists(self._path(name)):
                    return False
                self._write(name, content)
            return True

        return self._retry(create, "written")

    def remove(self, name: str) -> None:
        """Remove an object; it may be gone already."""

        def remove() -> None:
            with suppress(FileNotFoundError):
                self.fs.rm_file(self._path(name))

        self._retry(remove, "written")

    def each(self, names: Iterable[str], action: Callable[[str], None]) -> None:
        """Call `action` on each of `names`, several at a time; stop at the first error."""
        if not getattr(self.fs, "async_impl", False):
            for name in names:
                action(name)
            return
        with ThreadPoolExecutor(PARALLEL_TRANSFERS, thread_name_prefix="polyrefuse-transfer") as pool:
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
        if self._on_disk:
            write_bytes(Path(self._path(name)), content, private=_is_private(name), error=StorageError)
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
        if self._on_disk:
            folder = inside(Path(self.root), name, error=StorageError).parent
            make_folder(Path(self.root), error=StorageError)
            make_folder(folder, private=_is_private(name), error=StorageError)
        elif not self._whole_puts:
            self.fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)

    def _open(self) -> tuple[Any, str]:
        import fsspec

        scheme = self.address.scheme

        def connect() -> tuple[Any, str]:
            options = OPTIONS.get(scheme, {})
            connected: tuple[Any, str] = fsspec.url_to_fs(
                self.address.text, skip_instance_cache=True, **options
            )
            return connected

        try:
            fs, root = self._retry(connect, "read")
        except ImportError as error:
            package = PIP_NAMES.get(scheme)
            advice = f"install it with: pip install {package}" if package else _reason(error)
            raise StorageError(f"'{self.address}' needs {package or 'a package'} ({advice})") from None
        if hasattr(fs, "retries") and scheme in OPTIONS:
            fs.retries = 1
        return fs, str(root)

    def _retry(self, action: Callable[[], Value], verb: str) -> Value:
        """Return what `action` returns; retry with growing, jittered waits while the error is transient.

        Raises `StorageError`: '... cannot be `verb`', and why.
        """

        def give_up(state: tenacity.RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome is not None else None
            reached = self._answered or error is None or not _is_connection_error(error)
            return state.attempt_number >= (ATTEMPTS if reached else ATTEMPTS_TO_REACH)

        retrying = tenacity.Retrying(
            stop=give_up,
            wait=tenacity.wait_random_exponential(FIRST_WAIT, LONGEST_WAIT),
            retry=tenacity.retry_if_exception(_is_transient),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            value = retrying(action)
        except ImportError:
            raise
        # Client libraries raise classes without end: at this boundary each becomes one line.
        except Exception as error:
            raise self._storage_error(error, verb) from None
        self._answered = True
        return value

    def _storage_error(self, error: Exception, verb: str) -> StorageError:
        if "Protocol not known" in str(error):
            return StorageError(f"'{self.address}': fsspec knows no scheme '{self.address.scheme}'")
        reason = _reason(error, self.address.secrets)
        needed = "read" if verb == "read" else "read and write"
        advice = {
            NO_PERMISSION: f"; the credentials that are set must allow to {needed} there",
            NOT_THERE: "; the bucket or folder that it lies in must exist",
        }.get(reason, "")
        return StorageError(f"'{self.address}' cannot be {verb}: {reason}{advice}")


def _is_private(name: str) -> bool:
    return not PRIVATE_FOLDERS.isdisjoint(name.split("/"))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its chain of causes, nearest first."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _status(error: BaseException) -> int | None:
    """Return the HTTP status in an error of a client library, None where there is none."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            metadata = response.get("ResponseMetadata", {})
            status = metadata.get("HTTPStatusCode") if isinstance(metadata, dict) else None
        else:
            status = getattr(cause, "status", None) or getattr(cause, "code", None)
        if str(status).isdecimal() and 100 <= int(str(status)) < 600:
            return int(str(status))
    return None


def _is_connection_error(error: BaseException) -> bool:
    return _status(error) is None and any(
        base.__name__ in CONNECTION_ERRORS for cause in _causes(error) for base in type(cause).__mro__
    )


def _is_transient(error: BaseException) -> bool:
    """Return whether a retry may succeed."""
    status = _status(error)
    if status is not None:
        return status in TRANSIENT_STATUS or isinstance(error, TimeoutError)
    return _is_connection_error(error) or (isinstance(error, OSError) and error.errno in TRANSIENT_ERRNO)


def _is_unsupported(error: BaseException) -> bool:
    """Return whether the store, or its client, does not offer the operation."""
    return (
        isinstance(error, (TypeError, ValueError, NotImplementedError))
        or _status(error) == 501
        or (isinstance(error, OSError) and error.errno == errno.ENOSYS)
        or type(error).__name__ == "ParamValidationError"
    )


def _reason(error: BaseException, secrets: tuple[str, ...] = ()) -> str:
    """Return in a few words what went wrong, with each of `secrets` hidden."""
    status = _status(error)
    number = error.errno if isinstance(error, OSError) else None
    classes = {type(cause).__name__ for cause in _causes(error)}
    if classes & {"NoCredentialsError", "DefaultCredentialsError"}:
        return "no credentials are set"
    if isinstance(error, PermissionError) or status in (401, 403) or number in (errno.EACCES, errno.EROFS):
        return NO_PERMISSION
    if isinstance(error, FileNotFoundError) or status == 404:
        return NOT_THERE
    if status is not None:
        return f"it answered with status {status}"
    if _is_connection_error(error):
        return "it does not answer"
    text = " ".join(str(error).split())[:200]
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
