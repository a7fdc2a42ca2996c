"""Addresses: what may be shown of them, a lease without a lock service, and a copy kept like it is there."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from run_records import COMPLETION, SIGNATURE, VERDICT

from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.errors import RunFolderError, StorageError, TakenError
from polyrefuse_eval.results.folder import RunFolder, write_text
from polyrefuse_eval.storage import lease as lease_module
from polyrefuse_eval.storage import objects, places
from polyrefuse_eval.storage.address import Address, is_address, is_inside
from polyrefuse_eval.storage.lease import DEAD_AFTER, DRIVER_FILE, RENEW_EVERY, Lease
from polyrefuse_eval.storage.mirror import WorkingCopy, copy_root
from polyrefuse_eval.storage.objects import ATTEMPTS, ATTEMPTS_TO_REACH, ObjectStore
from polyrefuse_eval.storage.places import WorkingFolder, folders_to_read, runs_at, working_folder

MEMORY = "memory://runs/one"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setattr(lease_module, "SETTLE", 0.01)
    MemoryFileSystem.store.clear()
    yield
    MemoryFileSystem.store.clear()


@pytest.fixture(params=["memory", "file"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    return Address.parse(MEMORY if request.param == "memory" else f"file://{tmp_path}/far/one")


def silent(_line: str) -> None: ...


def names(store: ObjectStore) -> set[str]:
    return set(store.list())


@pytest.mark.parametrize(
    ("text", "shown", "name"),
    [
        ("s3://bucket/runs/one/", "s3://bucket/runs/one", "one"),
        ("sftp://me:pa:ss@host/run", "sftp://***@host/run", "run"),
        ("sftp://me:pa/s@s@host/run", "sftp://***@host/run", "run"),
        ("https://token@host/run", "https://***@host/run", "run"),
        ("abfs://container@account.example/run", "abfs://container@account.example/run", "run"),
        ("s3://bucket/judge@1/a@b", "s3://bucket/judge@1/a@b", "a@b"),
        ("file:///mnt/shared/run", "file:///mnt/shared/run", "run"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(text: str, shown: str, name: str) -> None:
    address = Address.parse(text)
    assert (address.shown, str(address), address.name) == (shown, shown, name)
    assert shown == text.rstrip("/") or text not in repr(address)
    assert not [secret for secret in address.secrets if len(secret) > 1 and secret in shown]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("s3://AKIAXX:c2VjcmV0@bucket/run", "'s3://***@bucket/run' holds a user or a key"),
        ("s3://AKIAXX:c2Vj/mV0@bucket/run", "'s3://***@bucket/run' holds a user or a key"),
        ("https://host/run?sig=c2VjcmV0&x=1", "'https://host/run?***' holds a query"),
        ("simplecache::s3://bucket/run", "chain"),
        ("memory://", "names no folder"),
        ("s3:///", "names no folder"),
    ],
)
def test_an_address_that_cannot_serve_says_why_and_no_secret(text: str, told: str) -> None:
    with pytest.raises(StorageError) as found:
        Address.parse(text)
    assert told in str(found.value)
    for secret in ("AKIAXX", "c2Vj", "mV0"):
        assert secret not in str(found.value)


def test_a_path_is_no_address() -> None:
    assert not [text for text in ("runs/one", "/a/b", "a:b", "C:/x", "org/model@rev") if is_address(text)]
    assert is_address("gs://bucket/x")
    assert is_address("S3://bucket/x")


@given(
    st.lists(st.sampled_from(["..", ".", "", "a", "b.json", "..a", "a\\..", "c:"]), min_size=1).map("/".join)
)
def test_a_name_that_passes_stays_in_the_folder(name: str) -> None:
    root = Path("/some/folder")
    if is_inside(name):
        assert Path(os.path.normpath(root / name)).is_relative_to(root)
        assert os.path.normpath(name) == name
    else:
        assert any(part in ("..", ".", "", "a\\..", "c:") for part in name.split("/"))


def test_objects_are_written_whole_and_created_once(address: Address) -> None:
    store = ObjectStore(address)
    assert names(store) == set()
    assert store.read("a/b.json") is None
    store.remove("a/b.json")
    store.write("a/b.json", b"1")
    store.write("a/b.json", b"22")
    assert store.read("a/b.json") == b"22"
    assert not store.create("a/b.json", b"333")
    assert store.create("c.json", b"4")
    assert store.create("c.json", b"4"), "the answer to the first may have been lost"
    assert store.read("c.json") == b"4"
    assert names(store) == {"a/b.json", "c.json"}
    store.remove("a/b.json")
    assert names(ObjectStore(address)) == {"c.json"}
    with pytest.raises(StorageError, match=r"c.json' is a file; expected the folder"):
        ObjectStore(address.child("c.json")).list()


@pytest.mark.parametrize(
    "error", [NotImplementedError(), TypeError("mode"), OSError(errno.ENOSYS, "NotImplemented")], ids=str
)
def test_a_store_without_exclusive_writes_is_asked_first(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(Address(MEMORY))
    honest = store.fs.pipe_file

    def plain(path: str, content: bytes, mode: str = "overwrite") -> None:
        if mode != "overwrite":
            raise error
        honest(path, content)

    monkeypatch.setattr(store.fs, "pipe_file", plain)
    assert store.create("a.json", b"1")
    assert not store.create("a.json", b"2")
    assert store.read("a.json") == b"1"


def test_a_write_to_a_file_system_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "DISKS", frozenset())  # as of any other file system
    store = ObjectStore(Address.parse(f"file://{tmp_path}/far"))
    store.write("a.json", b"old")

    def full(path: str, content: bytes) -> None:
        Path(path).write_bytes(content[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.fs, "pipe_file", full)
    with pytest.raises(StorageError, match=r"far' cannot be written: .*No space left"):
        store.write("a.json", b"new")
    assert {path.name: path.read_bytes() for path in (tmp_path / "far").iterdir()} == {"a.json": b"old"}


def test_an_address_on_this_machine_is_written_as_a_folder_is(tmp_path: Path) -> None:
    store = ObjectStore(Address.parse(f"file://{tmp_path}/far"))
    umask = os.umask(0)
    try:
        for name in ("run.json", "completions/en/a.jsonl", "inner/verdicts/a.jsonl"):
            store.write(name, b"{}")
        assert store.create("driver.json", b"{}")
    finally:
        os.umask(umask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "far").rglob("*")}
    assert {modes[name] for name in ("completions", "en", "verdicts")} == {0o700}
    assert modes["a.jsonl"] == 0o600
    assert modes["run.json"] == modes["driver.json"] == 0o644
    (tmp_path / "outside").mkdir()
    (tmp_path / "far" / "scores").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="is a link"):
        store.write("scores/en.json", b"{}")
    assert not list((tmp_path / "outside").iterdir())


class HttpError(Exception):
    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text)
        self.code = code


@pytest.mark.parametrize(
    ("error", "tries", "told"),
    [
        (HttpError(503), ATTEMPTS, "status 503"),
        (HttpError(429), ATTEMPTS, "status 429"),
        (OSError(errno.EBUSY, "SlowDown"), ATTEMPTS, "SlowDown"),
        (ConnectionResetError(), ATTEMPTS_TO_REACH, "it does not answer"),
        (TimeoutError(), ATTEMPTS_TO_REACH, "it does not answer"),
        (HttpError(403), 1, "no permission; the credentials that are set must allow to read there"),
        (PermissionError(), 1, "no permission"),
        (HttpError(404), 1, "not there; the bucket or folder that it lies in must exist"),
        (ValueError("bad thing of me:hunter2 for hunter2"), 1, "ValueError: bad thing of *** for ***"),
    ],
    ids=str,
)
def test_what_passes_is_tried_again_with_growing_waits_and_then_told(
    error: Exception, tries: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    store = ObjectStore(Address(MEMORY), sleep=waits.append)
    store._answered = False
    store.address = Address("sftp://me:hunter2@host/run")
    calls: list[str] = []

    def failing(path: str) -> bytes:
        calls.append(path)
        raise error

    monkeypatch.setattr(store.fs, "cat_file", failing)
    with pytest.raises(StorageError) as found:
        store.read("x")
    assert told in str(found.value)
    assert "'sftp://***@host/run' cannot be read: " in str(found.value)
    assert len(calls) == tries
    assert len(waits) == tries - 1
    assert all(0 <= wait <= min(0.2 * 2**number, 20) for number, wait in enumerate(waits))
    assert len(set(waits)) == len(waits), "jittered"


def test_a_store_that_is_busy_for_a_while_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(Address(MEMORY), sleep=silent)  # type: ignore[arg-type]
    store.write("x", b"1")
    honest, left = store.fs.cat_file, [HttpError(500), ConnectionResetError(), HttpError(503)]

    def busy(path: str) -> bytes:
        if left:
            raise left.pop()
        return bytes(honest(path))

    monkeypatch.setattr(store.fs, "cat_file", busy)
    assert store.read("x") == b"1"


def test_a_missing_package_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(StorageError, match=r"'gs://bucket/x' needs gcsfs .*pip install gcsfs"):
        ObjectStore(Address.parse("gs://bucket/x"))
    with pytest.raises(StorageError, match="fsspec knows no scheme 'foo'"):
        ObjectStore(Address.parse("foo://bucket/x"))


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_one_driver_at_a_time_until_it_ends_or_is_silent(address: Address) -> None:
    clock, store = Clock(), ObjectStore(address)
    first, second, third = (Lease(ObjectStore(address), clock, clock.sleep) for _ in range(3))
    first.acquire()
    record = json.loads(store.read(DRIVER_FILE) or b"")
    assert record["id"] == first.id
    assert f"process {os.getpid()} on " in record["driver"]
    clock.sleep(45)
    with pytest.raises(
        TakenError, match=rf"process {os.getpid()} on .* is writing to '.*one' since 1970-.*45 s"
    ):
        second.acquire()
    # Renewed, it lives on; silent for long, it is dead.
    for _ in range(10):
        clock.sleep(RENEW_EVERY)
        first.renew()
    clock.sleep(DEAD_AFTER - 1)
    with pytest.raises(TakenError):
        second.acquire()
    clock.sleep(2)
    second.acquire()
    with pytest.raises(TakenError, match="is writing to"):
        first.renew()
    first.release()  # is not its own any more
    with pytest.raises(TakenError):
        third.acquire()
    # Its own dead predecessor, known by its id, needs no waiting.
    third.acquire(former=second.id)
    third.release()
    assert names(store) == set()
    second.acquire()


def test_of_two_that_take_a_dead_lease_at_the_same_moment_one_is_told() -> None:
    clock, address = Clock(), Address(MEMORY)
    Lease(ObjectStore(address), clock, clock.sleep).acquire()
    clock.sleep(DEAD_AFTER + 1)
    other = Lease(ObjectStore(address), clock, clock.sleep)

    def while_it_settles(seconds: float) -> None:
        clock.sleep(seconds)
        other._store.write(DRIVER_FILE, other._content())

    with pytest.raises(TakenError):
        Lease(ObjectStore(address), clock, while_it_settles).acquire()
    other.renew()


def test_a_lease_that_cannot_be_read_is_not_taken() -> None:
    clock, address = Clock(), Address(MEMORY)
    store = ObjectStore(address)
    store.write(DRIVER_FILE, b"{")
    with pytest.raises(StorageError, match=r"driver.json that cannot be read; remove it"):
        Lease(store, clock, clock.sleep).acquire()
    assert store.read(DRIVER_FILE) == b"{"
    huge = json.dumps({"id": "a", "driver": "b", "since": "c", "renewed": 10**400}).encode()
    store.write(DRIVER_FILE, huge)
    with pytest.raises(StorageError, match="cannot be read"):
        Lease(store, clock, clock.sleep).acquire()


def driven(address: Address, work: Callable[[Path], None], say: Callable[[str], None] = silent) -> None:
    with working_folder(address, say) as folder:
        work(folder.path)


def begin(folder: Path) -> None:
    """A run in which one cell is done and another is at work."""
    run = RunFolder.open(folder, SIGNATURE)
    run.append("de", [COMPLETION])
    run.finish_completions("de", "harmful", "baseline")
    run.append("en", [replace(COMPLETION, lang="en")])


CELL = "completions/de/harmful.baseline.jsonl"
NOTICE = "completions/NOTICE.txt"


def test_what_is_whole_is_sent_and_nothing_else(address: Address) -> None:
    driven(address, begin)
    store = ObjectStore(address)
    assert names(store) == {"run.json", CELL, NOTICE}
    folder = copy_root(address) / "one"
    assert store.read(CELL) == (folder / CELL).read_bytes()
    assert stat.S_IMODE(folder.parents[1].stat().st_mode) == 0o700, "answers are for their owner's eyes"
    # What is at work stays here, and goes on.
    with working_folder(address, silent) as here:
        assert len(RunFolder(here.path).completions("en")) == 1
        RunFolder(here.path).finish_completions("en", "harmful", "baseline")
    assert names(store) == {"run.json", CELL, NOTICE, "completions/en/harmful.baseline.jsonl"}


def test_a_push_sends_what_is_whole_while_the_work_goes_on(address: Address) -> None:
    store = ObjectStore(address)
    with working_folder(address, silent) as folder:
        begin(folder.path)
        assert names(store) == {DRIVER_FILE}
        folder.push()
        assert names(store) == {DRIVER_FILE, "run.json", CELL, NOTICE}


def test_a_push_to_a_folder_here_does_nothing(tmp_path: Path) -> None:
    with working_folder(tmp_path / "run", silent) as folder:
        begin(folder.path)
        before = sorted(tmp_path.rglob("*"))
        folder.push()
    assert folder.path == tmp_path / "run"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_that_fails_is_said_once_and_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    address, said, tries, honest = Address(MEMORY), [], [], ObjectStore.write

    def failing(self: ObjectStore, name: str, content: bytes) -> None:
        if name != DRIVER_FILE:
            tries.append(name)
            raise StorageError("down")
        honest(self, name, content)

    with working_folder(address, said.append) as folder:
        begin(folder.path)
        with monkeypatch.context() as patch:
            patch.setattr(ObjectStore, "write", failing)
            folder.push()
            folder.push()
            assert tries == ["run.json"]
            patch.setattr(places, "RETRY_AFTER", 0.0)
            patch.setattr(places.time, "monotonic", lambda: float("inf"))
            folder.push()
            assert tries == ["run.json"] * 2
        assert said == ["down; the run continues and will retry"]
    assert CELL in names(ObjectStore(address)), "what waits is sent at the end"


def test_an_empty_cache_is_filled_and_an_old_one_brought_up_to_date(
    address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven(address, begin)
    home = os.environ["POLYREFUSE_CACHE"]
    monkeypatch.setenv("POLYREFUSE_CACHE", str(tmp_path / "other"))

    def go_on(folder: Path) -> None:
        run = RunFolder.existing(folder)
        assert run.completions("de") == [COMPLETION]
        run.append_verdicts("native-1", "de", [VERDICT])
        run.finish_verdicts("native-1", "de", "harmful", "baseline")
        (folder / CELL).unlink()
        write_text(folder / "table.md", "new")

    driven(address, go_on)
    monkeypatch.setenv("POLYREFUSE_CACHE", home)
    with working_folder(address, silent) as folder:
        assert RunFolder(folder.path).verdicts("native-1", "de") == [VERDICT]
        assert not (folder.path / CELL).exists()
        assert (folder.path / "table.md").read_text() == "new"
    assert CELL not in names(ObjectStore(address))


def test_nothing_is_fetched_that_is_here_as_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    address = Address(MEMORY)
    driven(address, begin)
    fetched: list[str] = []
    monkeypatch.setattr(WorkingCopy, "_get", lambda _self, name, _version: fetched.append(name))
    driven(address, lambda folder: None)
    assert fetched == []
    ObjectStore(address).write("completions/de/harmless.baseline.begun.jsonl", b"torn")
    ObjectStore(address).write("table.md", b"of somebody else")
    driven(address, lambda folder: None)
    assert fetched == ["table.md"]


def test_a_run_that_was_taken_away_or_replaced_begins_anew(address: Address) -> None:
    driven(address, begin)
    store = ObjectStore(address)
    for name in names(store):
        store.remove(name)
    with working_folder(address, silent) as folder:
        assert list(folder.path.iterdir()) == []
        begin(folder.path)
    other = {**SIGNATURE, "settings": {"seed": 1}}
    run = json.loads(store.read("run.json") or b"")
    store.write("run.json", json.dumps({**run, "signature": other}).encode())
    store.remove(CELL)
    with working_folder(address, silent) as folder:
        assert RunFolder(folder.path).signature == other
        assert RunFolder(folder.path).completions("en") == [], "answers of the other run are not this one's"
        with pytest.raises(RunFolderError, match=r"settings\.seed: 1 there, 0 here"):
            RunFolder.open(folder.path, SIGNATURE)
    # A further judge makes no other run.
    run["signature"] = {**other, "judges": ["native-1", "more-1"]}
    driven(address, lambda folder: RunFolder(folder).append("fr", [replace(COMPLETION, lang="fr")]))
    store.write("run.json", json.dumps(run).encode())
    with working_folder(address, silent) as folder:
        assert len(RunFolder(folder.path).completions("fr")) == 1


def test_the_summary_is_there_only_while_all_that_it_speaks_of_is(monkeypatch: pytest.MonkeyPatch) -> None:
    address, log = Address(MEMORY), []
    for name in ("write", "remove"):
        honest = getattr(ObjectStore, name)

        def logged(
            self: ObjectStore, object_name: str, *more: Any, name: str = name, honest: Any = honest
        ) -> None:
            if object_name != DRIVER_FILE:
                log.append((name, object_name))
            honest(self, object_name, *more)

        monkeypatch.setattr(ObjectStore, name, logged)
    store = ObjectStore(address)
    copy = WorkingCopy(store)
    copy.pull()
    direction = "directions/en.safetensors"
    for name in (
        direction,
        "summary.json",
        "answered.json",
        "a.json",
        "z/z.json",
        "run.json",
        "b.json.partial",
    ):
        write_text(copy.folder / name, "1")
    assert copy.push() == 6
    expected = ("run.json", "a.json", "z/z.json", direction, "answered.json", "summary.json")
    assert log == [("write", name) for name in expected]
    log.clear()
    assert copy.push() == 0
    write_text(copy.folder / "a.json", "2")
    write_text(copy.folder / "summary.json", "2")
    (copy.folder / "z" / "z.json").unlink()
    copy.push()
    assert log == [
        ("remove", "summary.json"), ("write", "a.json"), ("write", "summary.json"), ("remove", "z/z.json"),
    ]  # fmt: skip
    log.clear()
    (copy.folder / "summary.json").unlink()
    write_text(copy.folder / "b.json", "1")
    copy.push()
    assert log == [("remove", "summary.json"), ("write", "b.json")]


@pytest.mark.parametrize(
    "name", ["../climbed.json", "a/../../climbed.json", "/climbed.json", "a\\..\\b.json"]
)
def test_a_name_that_climbs_out_is_refused_and_nothing_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = Address(MEMORY)
    driven(address, begin)
    store = ObjectStore(address)
    honest = ObjectStore.list
    # As a store lists it: not every version of the file system in memory does.
    monkeypatch.setattr(ObjectStore, "list", lambda self: {**honest(self), name: {"size": 2}})
    before = sorted(tmp_path.rglob("*"))
    with (
        pytest.raises(StorageError, match="not a name of a file in the folder of a run"),
        working_folder(address, silent),
    ):
        pytest.fail("it began")
    with (
        pytest.raises(StorageError, match="not a name of a file"),
        folders_to_read([address], lambda _name: True),
    ):
        pytest.fail("it was read")
    assert sorted(tmp_path.rglob("*")) == before
    assert DRIVER_FILE not in names(store)


@pytest.mark.parametrize("plant", ["link", "owner"])
def test_a_working_copy_that_others_prepared_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: str
) -> None:
    """Users may share a cache, and the name of a working copy in it is no secret."""
    address = Address.parse(MEMORY)
    root = copy_root(address)
    root.parent.mkdir(parents=True)
    if plant == "link":
        (tmp_path / "theirs").mkdir()
        root.symlink_to(tmp_path / "theirs")
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(StorageError, match=r"link|another user.*POLYREFUSE_CACHE"):
        driven(address, begin)
    assert not names(ObjectStore(address))
    assert plant == "owner" or not any((tmp_path / "theirs").iterdir())


def test_a_state_that_names_files_outside_removes_none(tmp_path: Path) -> None:
    address = Address.parse(MEMORY)
    driven(address, begin)
    precious = copy_root(address).parent / "precious"
    precious.write_text("precious")
    state = copy_root(address) / "state.json"
    content = json.loads(state.read_text())
    content["objects"]["../../precious"] = {"version": None, "size": 1, "changed": 1, "inode": 1}
    state.write_text(json.dumps(content))
    driven(address, lambda _: None)
    assert precious.exists()
    state.write_text('{"driver": null, "objects": []}')
    driven(address, lambda _: None)


def test_an_object_that_is_larger_than_any_file_of_a_run_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = Address.parse(f"file://{tmp_path}/far/one")
    driven(address, begin)
    with (tmp_path / "far" / "one" / "results.jsonl").open("wb") as file:
        file.truncate(2**31)
    for use in (lambda: driven(address, begin), lambda: read_all(address)):
        with pytest.raises(StorageError, match=r'named "results.jsonl" of 2,147,483,648 bytes'):
            use()


def read_all(address: Address) -> None:
    with folders_to_read([address], lambda name: True):
        pass


def test_a_second_driver_is_told_here_and_elsewhere(
    address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working_folder(address, silent) as folder:
        begin(folder.path)
        shown = str(address)
        with pytest.raises(
            RunFolderError, match=rf"process {os.getpid()} on .* is writing to '{shown}'; wait"
        ):
            driven(address, begin)
        with monkeypatch.context() as patch:
            patch.setenv("POLYREFUSE_CACHE", str(tmp_path / "other machine"))
            with pytest.raises(TakenError, match=rf"is writing to '{shown}' since .*last seen \d+ s ago"):
                driven(address, begin)
    driven(address, lambda folder: None)
    assert DRIVER_FILE not in names(ObjectStore(address))


def begin_and_lose_the_lease(folder: WorkingFolder, other: Lease) -> None:
    """Send a run with one cell; finish another cell, while `other` takes over with an answer of its own."""
    begin(folder.path)
    folder.push()
    other._store.write(DRIVER_FILE, other._content())
    other._store.write(CELL, b"of the other driver")
    RunFolder(folder.path).append("de", [COMPLETION])
    RunFolder(folder.path).finish_completions("de", "harmful", "baseline")
    RunFolder(folder.path).finish_completions("en", "harmful", "baseline")


def check_that_the_other_goes_on(store: ObjectStore, other: Lease) -> None:
    assert names(store) == {DRIVER_FILE, "run.json", CELL, NOTICE}
    assert store.read(CELL) == b"of the other driver"
    other.renew()


def test_a_driver_whose_lease_was_taken_stops_at_its_next_push_and_overwrites_nothing(
    address: Address,
) -> None:
    other = Lease(ObjectStore(address))
    late: list[str] = []

    def work() -> None:
        with working_folder(address, silent) as folder:
            begin_and_lose_the_lease(folder, other)
            folder.push()
            late.append("it went on")

    with pytest.raises(TakenError, match=rf"is writing to '{address}' .*; this process has stopped and"):
        work()
    assert late == []
    check_that_the_other_goes_on(ObjectStore(address), other)


@pytest.mark.parametrize("failure", [None, RunFolderError("the work failed, too")], ids=str)
def test_a_driver_whose_lease_was_taken_says_so_at_its_end(failure: Exception | None) -> None:
    address = Address(MEMORY)
    other = Lease(ObjectStore(address))

    def work() -> None:
        with working_folder(address, silent) as folder:
            begin_and_lose_the_lease(folder, other)
            if failure is not None:
                raise failure

    with pytest.raises(TakenError, match=r"is writing to 'memory://runs/one'") as raised:
        work()
    assert raised.value.__cause__ is failure
    check_that_the_other_goes_on(ObjectStore(address), other)


def test_a_lease_is_renewed_while_nothing_is_pushed_and_left_to_who_takes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease_module, "RENEW_EVERY", 0.02)
    address = Address(MEMORY)
    other = Lease(ObjectStore(address))

    def sign() -> float:
        return float(json.loads(ObjectStore(address).read(DRIVER_FILE) or b"{}")["renewed"])

    def work() -> None:
        with working_folder(address, silent):
            first, deadline = sign(), time.monotonic() + 60
            while sign() == first and time.monotonic() < deadline:
                time.sleep(0.01)
            assert sign() > first
            other._store.write(DRIVER_FILE, other._content())
            time.sleep(0.2)

    with pytest.raises(TakenError):
        work()
    other.renew()


def test_an_error_of_the_work_names_the_address_and_what_is_whole_is_sent(address: Address) -> None:
    def fail(folder: Path) -> None:
        begin(folder)
        raise RunFolderError(f"'{folder}' is wrong, and so is '{folder / 'x.json'}'")

    with pytest.raises(RunFolderError) as found:
        driven(address, fail)
    assert str(found.value) == f"'{address}' is wrong, and so is '{address}/x.json'"
    assert CELL in names(ObjectStore(address))
    assert DRIVER_FILE not in names(ObjectStore(address))


def test_an_interrupt_ends_at_once_and_leaves_the_lease_free(address: Address) -> None:
    def interrupted(folder: Path) -> None:
        begin(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driven(address, interrupted)
    assert DRIVER_FILE not in names(ObjectStore(address))
    driven(address, lambda folder: None)
    assert CELL in names(ObjectStore(address))


def test_places_that_cannot_hold_a_run_are_one_line(tmp_path: Path) -> None:
    write_text(tmp_path / "far" / "mine.txt", "keep")
    for text, told in (
        (f"file://{tmp_path}/far", "is not empty and holds no run.json"),
        ("memory://runs/*", "is a pattern; expected the address of one folder"),
        ("hf://datasets/me/runs", "answers are not sent to the Hub"),
    ):
        with pytest.raises(StorageError, match=told), working_folder(Address.parse(text), silent):
            pytest.fail("it began")
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["mine.txt"]
    with pytest.raises(
        StorageError, match=r"holds no run\.json; give the address of a run, or of a folder of runs"
    ):
        runs_at(Address.parse(f"file://{tmp_path}/far"))
    for command in (("extract", "--out"), ("plot",), ("run", "--out", "runs/x", "--data")):
        result = CliRunner().invoke(eval_group, [*command, "s3://bucket/x"])
        assert result.exit_code == 2
        assert "'s3://bucket/x' is an address; expected a folder here." in result.output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir(mode=0o500)
    with pytest.raises(StorageError, match="cannot be written: no permission"):
        driven(Address.parse(f"file://{tmp_path}/far/one"), begin)


def test_runs_are_found_one_by_one_or_by_a_pattern(tmp_path: Path) -> None:
    for name in ("b", "a", "deep/c"):
        ObjectStore(Address(f"memory://runs/{name}")).write("run.json", b"{}")
    found = [str(run) for run in runs_at(Address("memory://runs"))]
    assert found == ["memory://runs/a", "memory://runs/b"]
    assert [str(run) for run in runs_at(Address("memory://runs/a"))] == ["memory://runs/a"]
    assert [str(run) for run in runs_at(Address("memory://runs/[ab]"))] == found
    local = tmp_path / "here"
    with folders_to_read([local, Address("memory://runs/?")], lambda name: name == "run.json") as folders:
        assert folders[0] == local
        assert [folder.name for folder in folders[1:]] == ["a", "b"]
        assert all((folder / "run.json").is_file() for folder in folders[1:])
    assert not folders[1].exists()


def test_harmfulness_goes_to_an_address_as_to_a_folder(
    model_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyrefuse_eval.harmfulness.experiment import HarmfulnessRun

    def refuses(_run: HarmfulnessRun, _lang: str, _progress: str) -> Any:
        return lambda prompts: ["break" in prompt.text for prompt in prompts]

    monkeypatch.setattr(HarmfulnessRun, "refuses", refuses)
    command = [
        "harmfulness", "--model", model_folder, "--data", data_folder, "--langs", "en",
        "--steered", 1, "--inverted", 1, "--layers", 1, "-q",
        "--no-plots",
    ]  # fmt: skip

    def call(out: object) -> Any:
        return CliRunner().invoke(eval_group, [*map(str, command), "--out", str(out)])

    here, far = call(tmp_path / "one"), call(MEMORY)
    assert here.exit_code == far.exit_code == 0, far.output
    assert far.stdout == here.stdout
    store = ObjectStore(Address(MEMORY))
    files = {
        path.relative_to(tmp_path / "one").as_posix(): path.read_bytes()
        for path in (tmp_path / "one").rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    assert files
    assert {name: store.read(name) for name in names(store)} == files
