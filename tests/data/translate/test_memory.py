from __future__ import annotations

import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyrefuse_data.core.errors import MemoryFileError, PolyRefuseError
from polyrefuse_data.core.schema import text_hash
from polyrefuse_data.translate.memory import sqlite_file as memory_file
from polyrefuse_data.translate.memory.jsonl import export_jsonl, import_jsonl
from polyrefuse_data.translate.memory.store import (
    BACK,
    HUMAN,
    Added,
    Entry,
    TranslationMemory,
    Translator,
)

MACHINE = Translator("machine", "1", "beam=4")


@pytest.fixture
def memory(tmp_path: Path) -> TranslationMemory:
    return TranslationMemory(tmp_path / "memory.sqlite", create=True)


def test_bytes_in_the_schema_of_a_memory_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    TranslationMemory(path, create=True).close()
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE", b"CREATE T\xbaBLE"))
    with pytest.raises(MemoryFileError, match="is corrupt or not a translation memory"):
        TranslationMemory(path)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow above `size` bytes, as on a full disk."""
    resource = pytest.importorskip("resource", reason="a limit of POSIX")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 6000, 50_000])
def test_a_full_disk_leaves_no_new_memory_and_an_old_one_as_it_was(tmp_path: Path, size: int) -> None:
    entries = [Entry(f"house {number}", "de", MACHINE, f"Haus {number}") for number in range(400)]
    path = tmp_path / "new" / "memory.sqlite"
    with (
        pytest.raises(MemoryFileError, match="is the disk full"),
        largest_file(size),
        TranslationMemory(path, create=True) as memory,
    ):
        memory.add(entries)
    assert list(tmp_path.iterdir()) == []
    with TranslationMemory(path, create=True) as memory:
        memory.add(entries[:1])
    old = path.read_bytes()
    with (
        pytest.raises(MemoryFileError, match="is the disk full"),
        largest_file(size),
        TranslationMemory(path) as memory,
    ):
        memory.add(entries)
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == old


def test_a_new_memory_that_another_has_open_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    new = TranslationMemory(path, create=True)
    other = TranslationMemory(path)
    new.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    with other:
        other.add([Entry("a house", "de", MACHINE, "ein Haus")])
    with TranslationMemory(path) as memory:
        assert len(memory.candidates("de")) == 1


def test_what_is_added_comes_back(memory: TranslationMemory) -> None:
    assert memory.add([Entry("a house", "de", MACHINE, "ein Haus")]) == Added(new=1)
    assert memory.candidates("de") == {(text_hash("a house"), 0): [(MACHINE, "ein Haus")]}
    assert memory.candidates("fr") == {}


def test_an_entry_that_is_there_stays(memory: TranslationMemory) -> None:
    memory.add([Entry("a house", "de", MACHINE, "ein Haus")])
    again = [Entry("a house", "de", MACHINE, "ein Haus"), Entry("a house", "de", MACHINE, "Hütte")]
    assert memory.add(again) == Added(same=1, different=1)
    assert memory.candidates("de") == {(text_hash("a house"), 0): [(MACHINE, "ein Haus")]}


def test_a_prompt_that_stands_twice_keeps_both_translations(memory: TranslationMemory) -> None:
    memory.add([Entry("x", "ar", MACHINE, "one"), Entry("x", "ar", MACHINE, "two", occurrence=1)])
    candidates = memory.candidates("ar")
    assert [candidates[text_hash("x"), number] for number in (0, 1)] == [
        [(MACHINE, "one")],
        [(MACHINE, "two")],
    ]


@given(order=st.permutations(range(4)))
@settings(max_examples=12)
def test_people_win_and_the_order_of_adding_does_not_matter(order: list[int]) -> None:
    entries = [
        Entry("x", "de", Translator("zeta", "1"), "z"),
        Entry("x", "de", Translator("alpha", "2"), "a2"),
        Entry("x", "de", Translator("alpha", "1"), "a1"),
        Entry("x", "de", Translator(HUMAN, "someone"), "h"),
    ]
    memory = TranslationMemory(Path(":memory:"), create=True)
    key = (text_hash("x"), 0)
    for number in order:
        memory.add([entries[number]])
    assert [text for _, text in memory.candidates("de")[key]] == ["h", "a1", "a2", "z"]


def test_a_back_translation_belongs_to_the_text_it_was_made_from(memory: TranslationMemory) -> None:
    memory.add([Entry("a house", "de", MACHINE, "a home", BACK, "ein Haus")])
    assert memory.backs("de") == {(text_hash("a house"), text_hash("ein Haus")): "a home"}


def test_all_or_nothing(memory: TranslationMemory) -> None:
    def entries():  # type: ignore[no-untyped-def]
        yield Entry("a", "de", MACHINE, "b")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        memory.add(entries())
    assert memory.stats() == []


def test_export_and_import_are_inverse(memory: TranslationMemory, tmp_path: Path) -> None:
    memory.add(
        [
            Entry("a\nb", "yo", MACHINE, "ẹ̀kọ́"),
            Entry("a\nb", "yo", MACHINE, "second", occurrence=1),
            Entry("a\nb", "yo", MACHINE, "a b", BACK, "ẹ̀kọ́"),
            Entry("c", "zh", Translator(HUMAN, "me"), "丙"),
        ]
    )
    assert export_jsonl(memory, tmp_path / "one.jsonl") == 4
    with TranslationMemory(tmp_path / "other.sqlite", create=True) as other:
        assert import_jsonl(tmp_path / "one.jsonl", other) == Added(new=4)
        assert import_jsonl(tmp_path / "one.jsonl", other) == Added(same=4)
        export_jsonl(other, tmp_path / "two.jsonl")
        assert list(other.entries()) == list(memory.entries())
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


GOOD = '{"english": "a", "lang": "de", "text": "b", "backend": "m", "version": "1"}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"english": "a", "lang": "de"', "line 2"),
        ("[1]\n", "line 2"),
        (GOOD.replace('"de"', '"xx"'), "unknown language 'xx'"),
        (GOOD.replace('"text"', '"txt"'), "unknown key 'txt'"),
        (GOOD.replace('"b"', "7"), "expected str"),
        (GOOD.replace('"b"', '""'), "no text"),
        (GOOD.replace('"version": "1"', '"version": "1", "direction": "up"'), "forward or back"),
        (GOOD.replace('"version": "1"', '"version": "1", "direction": "back"'), "without 'given'"),
        (GOOD.replace('"version": "1"', '"version": "1", "occurrence": -1'), "0 or more"),
        (GOOD.replace('"version": "1"', f'"version": "1", "occurrence": {10**30}'), "at most 2147483647"),
    ],
)
def test_a_wrong_line_adds_nothing(
    memory: TranslationMemory, tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(GOOD + line, encoding="utf-8")
    with pytest.raises(PolyRefuseError, match=message):
        import_jsonl(path, memory)
    assert memory.stats() == []


def test_no_memory_says_how_to_fill_one(tmp_path: Path) -> None:
    with pytest.raises(MemoryFileError, match="memory import"):
        TranslationMemory(tmp_path / "absent.sqlite")


def test_a_file_that_is_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    path.write_text("not a data base at all, but long enough to be read as one " * 20)
    with pytest.raises(MemoryFileError, match="corrupt or not a translation memory"):
        TranslationMemory(path)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(MemoryFileError, match="another program"):
        TranslationMemory(other)


def test_a_damaged_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    with TranslationMemory(path, create=True) as memory:
        memory.add(Entry(f"text {n} " * 20, "de", MACHINE, f"Text {n} " * 20) for n in range(300))
    data = bytearray(path.read_bytes())
    for place in range(4096, len(data), 997):
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(MemoryFileError, match="corrupt"):
        TranslationMemory(path)


def test_a_memory_from_a_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    TranslationMemory(path, create=True).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {memory_file.FORMAT_VERSION + 1}")
    connection.close()
    with pytest.raises(MemoryFileError, match="upgrade polyrefuse"):
        TranslationMemory(path)


def test_a_locked_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.sqlite"
    TranslationMemory(path, create=True).close()
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(memory_file, "LOCK_SECONDS", 0.05)
    with pytest.raises(MemoryFileError, match="locked by another process"), TranslationMemory(path) as one:
        one.add([Entry("a", "de", MACHINE, "b")])
    blocker.close()


_WRITER = """
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from polyrefuse_data.translate.memory.store import *
with TranslationMemory(Path(sys.argv[1]), create=True) as memory:
    for number in range(100000):
        memory.add([Entry(f"text {number}", "de", Translator("m", "1"), f"Text {number}")])
        print(number, flush=True)
"""


def test_nothing_committed_is_lost_by_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    said = [int(line) for line in process.stdout.read().split()]
    process.wait()
    with TranslationMemory(path) as memory:
        kept = memory.candidates("de")
    assert len(said) > 5
    assert all((text_hash(f"text {number}"), 0) in kept for number in said)
    assert len(kept) - (said[-1] + 1) in (0, 1)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER runs AFTER INSERT ON translation BEGIN DELETE FROM source_text; END",
        "CREATE VIEW runs AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT * FROM n",
        "CREATE TABLE runs (x CHECK (x GLOB '*a*a*a*a*a*a*a*a*b'))",
        "CREATE TABLE runs (x, y GENERATED ALWAYS AS (length(zeroblob(1000000000))))",
        "CREATE INDEX runs ON translation (length(replace(text, 'a', zeroblob(100000))))",
        "CREATE VIRTUAL TABLE runs USING fts4(x)",
    ],
)
@pytest.mark.timeout(30)
def test_what_runs_when_it_is_read_is_no_memory(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "m.sqlite"
    TranslationMemory(path, create=True).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()
    with pytest.raises(MemoryFileError, match=r"'runs\w*', a \w+ that is not of a memory and may run"):
        TranslationMemory(path)


def test_an_analyzed_memory_is_one(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    with TranslationMemory(path, create=True) as opened:
        opened.add([Entry("a", "de", MACHINE, "b")])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ANALYZE")
        connection.commit()
    with TranslationMemory(path) as opened:
        assert len(list(opened.entries())) == 1


def journal(other: Path, pages: int) -> bytes:
    """Return a journal after which SQLite would remove `other`, which it names as shared by databases."""
    magic, name = bytes.fromhex("d9d505f920a163d7"), os.fsencode(other)
    header = (magic + struct.pack(">IIIII", 0, 1, pages, 512, 4096)).ljust(512, b"\0")
    page = struct.pack(">I", 2**30 // 4096 + 1)
    return header + page + name + struct.pack(">II", len(name), sum(name)) + magic


def test_a_journal_that_names_a_file_removes_none(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    for guarded in (False, True):
        path = tmp_path / f"{guarded}.sqlite"
        with TranslationMemory(path, create=True) as opened:
            opened.add([Entry("a", "de", MACHINE, "b")])
        pages = path.stat().st_size // 4096
        path.with_name(f"{path.name}-journal").write_bytes(journal(precious, pages))
        if guarded:
            with pytest.raises(MemoryFileError, match="names another file, which SQLite would remove"):
                TranslationMemory(path)
            assert precious.exists()
        else:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("SELECT * FROM translation").fetchall()
            assert not precious.exists(), "SQLite itself removes it"
            precious.write_text("precious")


@pytest.mark.parametrize("content", [b"", b"cut"])
def test_a_journal_that_was_cut_is_no_obstacle(tmp_path: Path, content: bytes) -> None:
    """A kill leaves it."""
    path = tmp_path / "m.sqlite"
    with TranslationMemory(path, create=True) as opened:
        opened.add([Entry("a", "de", MACHINE, "b")])
    path.with_name(f"{path.name}-journal").write_bytes(content)
    with TranslationMemory(path) as again:
        assert len(list(again.entries())) == 1


@pytest.mark.timeout(30)
@pytest.mark.parametrize("ending", ["-journal", "-wal", "-shm"])
@pytest.mark.parametrize("plant", ["link", "second name", "pipe"])
def test_nothing_is_written_or_waited_for_beside_a_memory(tmp_path: Path, ending: str, plant: str) -> None:
    precious, path, link = tmp_path / "precious", tmp_path / "m.sqlite", tmp_path / "l.sqlite"
    precious.write_bytes(b"\1" * 100_000)
    TranslationMemory(path, create=True).close()
    link.symlink_to(path)
    beside = path.with_name(path.name + ending)
    if plant == "pipe":
        os.mkfifo(beside)
    elif plant == "link":
        beside.symlink_to(precious)
    else:
        os.link(precious, beside)
    for name in (path, link):
        with pytest.raises(MemoryFileError, match="is not a regular file"):
            TranslationMemory(name)
    assert precious.read_bytes() == b"\1" * 100_000


def test_bytes_in_a_memory_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    with TranslationMemory(path, create=True) as opened:
        opened.add([Entry("a", "de", Translator("x", "1"), "b")])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE translation SET text = x'ff00'")
        connection.commit()
    with TranslationMemory(path) as opened, pytest.raises(MemoryFileError, match="not text"):
        export_jsonl(opened, tmp_path / "e.jsonl")
    assert not (tmp_path / "e.jsonl").exists()
