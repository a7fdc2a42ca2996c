"""Files appear whole or not at all, locks end with their process, and no link is followed."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from polyrefuse_data.core import files
from polyrefuse_data.core.errors import FileError, PolyRefuseError
from polyrefuse_data.core.files import (
    PARTIAL_ENDING,
    WORK_PREFIX,
    appending,
    cut_torn_line,
    locked,
    make_folder,
    replacing,
    temporary_folder,
    write_text,
)
from polyrefuse_data.core.paths import (
    check_output,
    file_sha256,
    inside,
    real_path,
    refuse_linked_folders,
    remove_unchanged,
)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def precious(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file outside the folder of the test, which no planted link may reach."""
    path = tmp_path_factory.mktemp("home") / "precious"
    path.write_text("precious")
    return path


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[[str, Path], subprocess.Popen[str]]]:
    """Start a Python process that runs code with the path as argument; it has printed a line on return."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, path: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


WRITE_AND_WAIT = """
    import sys
    from pathlib import Path
    from polyrefuse_data.core.files import replacing
    with replacing(Path(sys.argv[1])) as file:
        file.write(b"half")
        file.flush()
        print("ready", flush=True)
        sys.stdin.read()
"""


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    write_text(path, "old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
        assert Path(file.name).parent == path.parent, "a rename over file systems is no rename"
    assert path.read_text() == "new"
    assert names(path.parent) == {"report.json"}


def test_an_error_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_text(path, "old")

    def interrupted() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert names(tmp_path) == {"report.json"}


def test_killed_in_the_middle_the_old_file_is_whole_and_the_next_write_cleans_up(
    tmp_path: Path, other: Callable[[str, Path], subprocess.Popen[str]]
) -> None:
    path = tmp_path / "report.json"
    write_text(path, "old")
    writer = other(WRITE_AND_WAIT, path)
    write_text(path, "meanwhile")
    assert len(names(tmp_path)) == 2, "a living writer's file stays"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert path.read_text() == "meanwhile"
    write_text(tmp_path / "another.json", "x")
    assert len(names(tmp_path)) == 3, "another file's writer is not looked for"
    write_text(path, "new")
    assert names(tmp_path) == {"report.json", "another.json"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_one_line_that_says_how_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "report.json"
    write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=rf"cannot write '{path}': .*MiB free.*run again") as failed:
        write_text(path, "new", sync=True)
    assert "\n" not in str(failed.value)
    assert path.read_text() == "old"
    assert names(tmp_path) == {"report.json"}


def test_a_write_that_the_kernel_cuts_off(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_text(path, "old")
    code = """
        import resource, sys
        from pathlib import Path
        from polyrefuse_data.core.errors import FileError
        from polyrefuse_data.core.files import appending, write_bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        path = Path(sys.argv[1])
        try:
            write_bytes(path, bytes(1_000_000))
        except FileError as error:
            print(error)
        try:
            with appending(path.with_name("log")) as file:
                file.write(bytes(1_000_000))
        except FileError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    for written in (path, tmp_path / "log"):
        assert f"cannot write '{written}': File too large" in done.stdout, done.stderr
    assert path.read_text() == "old"
    assert names(tmp_path) == {"report.json", "log"}


def test_no_link_is_written_through(tmp_path: Path, precious: Path) -> None:
    for name in ("replaced", "appended", "torn", ".lock"):
        (tmp_path / name).symlink_to(precious)
    write_text(tmp_path / "replaced", "new")
    assert not (tmp_path / "replaced").is_symlink()
    with pytest.raises(FileError, match="is a link"), appending(tmp_path / "appended") as file:
        file.write(b"line\n")
    with pytest.raises(FileError, match="is a link"):
        cut_torn_line(tmp_path / "torn")
    with pytest.raises(FileError, match=r"cannot lock .* is a link"), locked(tmp_path):
        pass
    with pytest.raises(FileError, match="is a link"):
        make_folder(tmp_path / "appended", private=True)
    assert precious.read_text() == "precious"


def test_no_second_name_of_a_file_is_written_through(tmp_path: Path, precious: Path) -> None:
    for name in ("appended", ".lock"):
        os.link(precious, tmp_path / name)
    with pytest.raises(FileError, match="is a link"), appending(tmp_path / "appended"):
        pass
    with pytest.raises(FileError, match="is a link"), locked(tmp_path):
        pass
    assert precious.read_text() == "precious"


def test_a_device_or_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(FileError, match="exists and is not a file"):
            write_text(tmp_path / name, "new")
    with pytest.raises(FileError, match="cannot write"), appending(tmp_path / "pipe"):
        pass
    assert names(tmp_path) == {"folder", "pipe"}


def test_private_files_and_folders_whatever_the_umask(tmp_path: Path) -> None:
    make_folder(tmp_path / "shared")
    (tmp_path / "c").touch(0o644)
    old = os.umask(0)
    try:
        make_folder(tmp_path / "answers", private=True)
        make_folder(tmp_path / "cache" / "runs" / "en", private=True)
        write_text(tmp_path / "answers" / "a", "x", private=True)
        with appending(tmp_path / "answers" / "b", private=True) as file:
            file.write(b"x")
        write_text(tmp_path / "table", "x")
        make_folder(tmp_path / "new" / "one")
        with locked(tmp_path), appending(tmp_path / "c", private=True) as file:
            file.write(b"x")
        os.umask(0o777)
        write_text(tmp_path / "d", "x", private=True)
    finally:
        os.umask(old)
    (tmp_path / "shared").chmod(0o755)
    make_folder(tmp_path / "shared", private=True)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert {modes.pop(name) for name in ("cache", "runs", "en")} == {0o700}, "its new parents, too"
    folders = {"answers": 0o700, "shared": 0o700, "new": 0o755, "one": 0o755}
    assert modes == {**folders, **dict.fromkeys("abcd", 0o600), "table": 0o644, ".lock": 0o644}


HOLD = """
    import sys
    from pathlib import Path
    from polyrefuse_data.core.files import locked
    with locked(Path(sys.argv[1])):
        print("ready", flush=True)
        sys.stdin.read()
"""


def test_a_lock_names_its_holder_and_ends_with_it(
    tmp_path: Path, other: Callable[[str, Path], subprocess.Popen[str]]
) -> None:
    holder = other(HOLD, tmp_path)
    with (
        pytest.raises(FileError, match=rf"process {holder.pid} on \S+ is writing to .*wait"),
        locked(tmp_path),
    ):
        pass
    told: list[str] = []
    reached = threading.Event()

    def wait() -> None:
        with locked(tmp_path, wait=True, tell=told.append):
            reached.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not reached.wait(0.3)
    holder.send_signal(signal.SIGKILL)
    waiting.join(30)
    assert reached.is_set()
    assert told == [f"process {holder.pid} on {os.uname().nodename}"]
    assert (tmp_path / ".lock").read_text() == "", "nobody holds it any more"


def test_a_lock_in_the_same_process_and_of_another_error(tmp_path: Path) -> None:
    class OwnError(PolyRefuseError):
        pass

    with (
        locked(tmp_path),
        pytest.raises(OwnError, match=f"process {os.getpid()} "),
        locked(tmp_path, error=OwnError),
    ):
        pass
    with locked(tmp_path):
        pass


def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log"
    cut_torn_line(path)
    assert not path.exists()
    for content, kept in (("a\nb", "a\n"), ("a\n", "a\n"), ("torn", ""), ("", "")):
        path.write_text(content)
        cut_torn_line(path)
        assert path.read_text() == kept


def test_temporary_folders_of_the_dead_are_removed(
    tmp_path: Path, precious: Path, other: Callable[[str, Path], subprocess.Popen[str]]
) -> None:
    code = """
        import sys
        from pathlib import Path
        from polyrefuse_data.core.files import temporary_folder
        with temporary_folder(Path(sys.argv[1])) as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / "file").write_text("x")
            print("ready", flush=True)
            sys.stdin.read()
    """
    living, dead = other(code, tmp_path), other(code, tmp_path)
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    (tmp_path / f"{files.WORK_PREFIX}linked").symlink_to(precious.parent)
    (tmp_path / "polyrefuse-mine").mkdir()
    before = names(tmp_path)
    with temporary_folder(tmp_path) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(before - names(tmp_path)) == 1, "the dead one's, and not the living one's"
    assert not folder.exists()
    assert len(names(tmp_path)) == 3
    assert precious.read_text() == "precious"
    assert living.poll() is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.timeout(20)
def test_a_pipe_called_as_a_temporary_file_is_not_waited_for(tmp_path: Path) -> None:
    pattern = hashlib.sha256(b"table.md").hexdigest()[:16]
    os.mkfifo(tmp_path / f".{pattern}-{'0' * 16}{PARTIAL_ENDING}")
    os.mkfifo(tmp_path / f"{WORK_PREFIX}abc")
    write_text(tmp_path / "table.md", "new")
    with temporary_folder(tmp_path) as folder:
        assert folder.is_dir()


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "a\\b", "a\0b"])
def test_a_name_that_leads_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match="inside the folder"):
        inside(tmp_path, name)


def test_only_an_unchanged_file_inside_is_removed(tmp_path: Path, precious: Path) -> None:
    (tmp_path / "linked").symlink_to(precious.parent)
    (tmp_path / "link").symlink_to(precious)
    (tmp_path / "data").mkdir()
    for name in ("data/same", "data/changed"):
        (tmp_path / name).write_text(name)
    digest = file_sha256(precious)
    for name in ("linked/precious", "link", "../precious", "absent"):
        assert not remove_unchanged(tmp_path, name, digest)
    assert not remove_unchanged(tmp_path, "data/changed", digest)
    assert remove_unchanged(tmp_path, "data/same", file_sha256(tmp_path / "data" / "same"))
    assert names(tmp_path / "data") == {"changed"}
    assert remove_unchanged(tmp_path, "data/changed", file_sha256(tmp_path / "data" / "changed"))
    assert names(tmp_path) == {"linked", "link"}
    assert precious.exists()
    with pytest.raises(FileError, match="is a link"):
        inside(tmp_path, "linked/precious")
    with pytest.raises(FileError, match=r"'.*linked' is a link to a folder"):
        refuse_linked_folders(tmp_path)


@pytest.mark.parametrize("path", ["/", "/etc", "/etc/new/folder", "/usr/lib/x", "/proc/1", "/dev/sda"])
def test_the_system_is_no_place_for_output(path: str) -> None:
    with pytest.raises(FileError, match=f"--out {path} belongs to the system"):
        check_output(Path(path))


@pytest.mark.parametrize("path", ["hf://acme/data", "file:///etc", "s3://bucket/x"])
def test_an_address_is_no_path(path: str) -> None:
    with pytest.raises(FileError, match="is an address"):
        check_output(Path(path))


def test_links_in_a_loop_are_no_place_for_output(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    check_output(loop)
    assert real_path(loop / "x").name == "x"
    with pytest.raises(FileError):
        write_text(loop / "x.csv", "new")


def test_a_link_into_the_system_is_the_system(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(FileError, match="belongs to the system"):
        check_output(tmp_path / "link" / "x")
    for path in (tmp_path / "x", Path("/usr/local/share/x"), Path("/dev/shm/x"), Path("etc"), Path("c:x")):  # noqa: S108
        check_output(path)


def test_many_at_once_do_not_take_each_other_for_dead(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from polyrefuse_data.core.files import temporary_folder, write_text
        print("ready", flush=True)
        for number in range(150):
            with temporary_folder(Path(sys.argv[1])) as folder:
                (folder / "file").write_text("x")
                write_text(Path(sys.argv[1]) / "shared", str(number))
                assert (folder / "file").exists()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert [process.communicate()[1] for process in processes] == [""] * 4
    assert names(tmp_path) == {"shared"}
