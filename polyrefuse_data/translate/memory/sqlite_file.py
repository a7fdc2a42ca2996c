"""The SQLite file of a translation memory: its format, opening it, and its errors."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from polyrefuse_data.core.errors import MemoryFileError
from polyrefuse_data.core.files import new_folders, own_file_opener
from polyrefuse_data.core.paths import real_path

APPLICATION_ID = 0x506F6C79
"""SQLite's application id of a translation memory: "Poly" in ASCII."""

FORMAT_VERSION = 1

LOCK_SECONDS = 10.0
"""Seconds to wait for another process that is writing."""

_SCHEMA = """
CREATE TABLE source_text (hash TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE translation (
    lang TEXT NOT NULL,
    direction TEXT NOT NULL CHECK (direction IN ('forward', 'back')),
    english_hash TEXT NOT NULL REFERENCES source_text (hash),
    input_hash TEXT NOT NULL REFERENCES source_text (hash),
    occurrence INTEGER NOT NULL CHECK (occurrence >= 0),
    backend TEXT NOT NULL,
    version TEXT NOT NULL,
    parameters TEXT NOT NULL,
    text TEXT NOT NULL,
    note TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (lang, direction, english_hash, input_hash, occurrence, backend, version, parameters)
) WITHOUT ROWID;
CREATE TABLE answer (
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    asked_hash TEXT NOT NULL REFERENCES source_text (hash),
    backend TEXT NOT NULL,
    version TEXT NOT NULL,
    parameters TEXT NOT NULL,
    text TEXT NOT NULL,
    times INTEGER NOT NULL CHECK (times > 0),
    proven INTEGER NOT NULL,
    doubts TEXT NOT NULL,
    PRIMARY KEY (source, target, asked_hash, backend, version, parameters, text)
) WITHOUT ROWID;
"""

CHOICE_TABLE = """
CREATE TABLE IF NOT EXISTS choice (
    lang TEXT NOT NULL,
    english_hash TEXT NOT NULL REFERENCES source_text (hash),
    occurrence INTEGER NOT NULL,
    place INTEGER NOT NULL CHECK (place > 0),
    backend TEXT NOT NULL,
    version TEXT NOT NULL,
    parameters TEXT NOT NULL,
    text TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (lang, english_hash, occurrence, place)
) WITHOUT ROWID;
"""
"""Made by the first build that chooses among candidates; versions without candidates pass it over."""

_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")
"""Ends a journal of several databases, after the name of the file that they share."""

Self = TypeVar("Self", bound="MemoryFile")


class MemoryFile:
    """An open file; use it as a context manager, and from one thread at a time.

    Raise `MemoryFileError` for a file that is missing (unless `create`), locked, corrupt, not a memory,
    or written by a newer version.
    """

    def __init__(self, path: Path, create: bool = False) -> None:
        self.path = path
        if not create and not path.exists():
            raise MemoryFileError(
                f"no translation memory at {path}; "
                f"fill one with `polyrefuse memory import FOLDER --memory {path}`"
            )
        with self._errors(), ExitStack() as opening:
            check_beside(real_path(path))
            opening.enter_context(new_folders(path.parent, error=MemoryFileError))
            opening.push(partial(_tidy, path, is_new=not path.exists()))
            self._connection = sqlite3.connect(
                path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
            )
            opening.callback(self._connection.close)
            self._prepare()
            self._opened = opening.pop_all()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; after an error, one that was made here and holds nothing is removed."""
        self._opened.__exit__(kind, error, trace)

    def close(self) -> None:
        """Close the file; the write-ahead log goes into it."""
        self._opened.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            text = str(error)
            if "locked" in text or "busy" in text:
                raise MemoryFileError(
                    f"translation memory {self.path} is locked by another process; wait until it ends"
                ) from None
            raise MemoryFileError(
                f"translation memory {self.path}: {text}; is the disk full or the folder read-only?"
            ) from None
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # of bytes in its message
            raise MemoryFileError(
                f"translation memory {self.path} is corrupt or not a translation memory ({error}); "
                "restore a copy, or import its export into a new file"
            ) from None
        except OSError as error:
            raise MemoryFileError(f"translation memory {self.path}: {error.strerror}") from None

    def _prepare(self) -> None:
        run = self._connection.execute
        application = run("PRAGMA application_id").fetchone()[0]
        version = run("PRAGMA user_version").fetchone()[0]
        empty = run("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if not empty and application != APPLICATION_ID:
            raise MemoryFileError(
                f"{self.path} is a SQLite file of another program; expected a translation memory"
            )
        if version > FORMAT_VERSION:
            raise MemoryFileError(
                f"translation memory {self.path} has format {version}, this version reads {FORMAT_VERSION}; "
                "upgrade polyrefuse"
            )
        if empty:
            run("PRAGMA journal_mode = WAL")
            with self._transaction():
                if run("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                    for statement in _SCHEMA.split(";"):
                        run(statement)
                    run(f"PRAGMA application_id = {APPLICATION_ID}")
                    run(f"PRAGMA user_version = {FORMAT_VERSION}")
        else:
            self._check_schema()
        if not empty and run("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("its pages do not fit together")
        run("PRAGMA synchronous = NORMAL")

    def _check_schema(self) -> None:
        """Raise `MemoryFileError` for a schema that is not ours: what it holds may run when it is read.

        Views and triggers do, and so do the expressions of columns, constraints and indices, on each row.
        """
        for kind, name, sql in self._connection.execute("SELECT type, name, sql FROM sqlite_master"):
            if kind != "table" or _plain_sql(str(sql)) not in _TABLES:
                raise MemoryFileError(
                    f"translation memory {self.path} holds '{name}', a {kind} that is not of a memory and "
                    "may run when it is read; import an export of it into a new file"
                )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _tidy(path: Path, kind: type[BaseException] | None, *_error: object, is_new: bool) -> None:
    """After an error, remove an empty log beside the memory `path`, and a new memory that holds nothing.

    Nothing is removed while another process has it open: all that do hold a lock which excludes this one's.
    """
    if kind is None or not path.exists():
        return
    with suppress(sqlite3.Error, OSError), closing(sqlite3.connect(path, timeout=0)) as alone:
        alone.execute("PRAGMA locking_mode = EXCLUSIVE")  # also needs no index of the log on a full disk
        if path.stat().st_size == 0:
            alone.execute("PRAGMA journal_mode = MEMORY")  # a full disk holds no other journal
        alone.execute("BEGIN EXCLUSIVE")
        log, index = (path.with_name(path.name + ending) for ending in ("-wal", "-shm"))
        is_empty = is_new and not _holds_anything(alone)
        if is_empty or not log.exists() or log.stat().st_size == 0:
            for file in (log, index, *([path] if is_empty else [])):
                file.unlink(missing_ok=True)


def _holds_anything(connection: sqlite3.Connection) -> bool:
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return any(
        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
        for table in ("translation", "answer")
        if table in tables
    )


def check_beside(path: Path) -> None:
    """Raise `MemoryFileError` for files beside the memory `path` by which SQLite would harm others.

    It writes to a journal, a log and its index through a second name, waits for a pipe, and removes the file
    that a journal names as the one which several databases share: a memory is never one of several.
    """
    for ending in ("-journal", "-wal", "-shm"):
        beside = path.with_name(path.name + ending)
        if not os.path.lexists(beside):
            continue
        status = beside.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise MemoryFileError(f"'{beside}' is not a regular file, and SQLite would use it; remove it")
        if ending == "-journal" and status.st_size >= len(_SUPER_JOURNAL):
            with open(beside, "rb", opener=own_file_opener()) as file:
                file.seek(-len(_SUPER_JOURNAL), os.SEEK_END)
                if file.read() == _SUPER_JOURNAL:
                    raise MemoryFileError(
                        f"'{beside}' names another file, which SQLite would remove; remove the journal"
                    )


def _plain_sql(text: str) -> str:
    return " ".join(text.replace("IF NOT EXISTS", "").split())


_ANALYZED = """
CREATE TABLE sqlite_stat1(tbl,idx,stat);
CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample);
"""
"""What ANALYZE makes: numbers for SQLite's planner."""

_TABLES = frozenset(map(_plain_sql, f"{_SCHEMA}{CHOICE_TABLE}{_ANALYZED}".split(";")))
