"""Folders of organisms: made once, by one process at a time, whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("tqdm", reason="needs the eval extra")

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.organisms.cache import kept_folder


def writing(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "who").write_text(text) and None


def left_in(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()} - {".lock"}


def test_it_is_made_once(tmp_path: Path) -> None:
    assert kept_folder(tmp_path / "cache", "one", writing("first")) == tmp_path / "cache" / "one"
    assert (kept_folder(tmp_path / "cache", "one", writing("second")) / "who").read_text() == "first"
    assert left_in(tmp_path / "cache") == {"one"}


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_what_fails_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    def make(folder: Path) -> None:
        (folder / "who").write_text("half")
        raise error

    with pytest.raises(type(error)):
        kept_folder(tmp_path, "one", make)
    assert left_in(tmp_path) == set()
    assert (kept_folder(tmp_path, "one", writing("whole")) / "who").read_text() == "whole"


@pytest.mark.parametrize("other", ["one", "two"])
def test_a_second_process_waits_for_the_first_and_says_so(
    tmp_path: Path, other: str, capfd: pytest.CaptureFixture[str]
) -> None:
    begun, go_on, running = threading.Event(), threading.Event(), []

    def first(folder: Path) -> None:
        running.append("first")
        begun.set()
        assert go_on.wait(30)
        writing("first")(folder)
        running.remove("first")

    def second(folder: Path) -> None:
        assert running == []
        writing("second")(folder)

    threads = [threading.Thread(target=kept_folder, args=(tmp_path, "one", first))]
    threads[0].start()
    assert begun.wait(30)
    threads.append(threading.Thread(target=kept_folder, args=(tmp_path, other, second)))
    threads[1].start()
    told = ""
    deadline = time.monotonic() + 30
    while "waiting for it" not in told and time.monotonic() < deadline:
        told += capfd.readouterr().err
        time.sleep(0.01)
    assert f"process {os.getpid()} on " in told
    assert left_in(tmp_path) & {"one", "two"} == set()
    go_on.set()
    for thread in threads:
        thread.join(30)
    found = {name: (tmp_path / name / "who").read_text() for name in left_in(tmp_path)}
    assert found == {"one": "first", other: "first" if other == "one" else "second"}


def test_without_progress_it_waits_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        thread = threading.Thread(
            target=kept_folder, args=(tmp_path, "one", writing("me")), kwargs={"progress": False}
        )
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join(30)
    assert left_in(tmp_path) == {"one"}
    assert capfd.readouterr().err == ""


def test_a_file_system_without_locks_still_keeps_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)

    def overtaken(folder: Path) -> None:
        writing("second")(folder)
        kept_folder(tmp_path, "one", writing("first"))

    assert (kept_folder(tmp_path, "one", overtaken) / "who").read_text() == "first"
    assert left_in(tmp_path) == {"one"}
    # Both trainings are announced; that there are no locks is none of the user's business.
    announced = f"training a test organism, about 5 minutes on two free cores; it is kept in {tmp_path}"
    assert capfd.readouterr().err.splitlines() == [announced] * 2


def test_what_a_killed_training_left_is_removed_and_a_running_one_is_not(tmp_path: Path) -> None:
    from polyrefuse_data.core.files import WORK_PREFIX, temporary_folder

    (tmp_path / f"{WORK_PREFIX}killed").mkdir()
    (tmp_path / "organism-kept").mkdir()
    with temporary_folder(tmp_path) as running:
        kept_folder(tmp_path, "one", writing("me"))
        assert left_in(tmp_path) == {"one", running.name, "organism-kept"}


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PolyRefuseError, match=r"cannot keep the test organism in .*file.*") as error:
        kept_folder(tmp_path / "file", "one", writing("me"))
    assert "\n" not in str(error.value)
