"""Files of one output are all there, or none is, and neither is a folder that was made for them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from polyrefuse_data.core import output_folder
from polyrefuse_data.core.errors import FileError
from polyrefuse_data.core.files import appending, new_folders, replacing
from polyrefuse_data.core.output_folder import write_together

FILES = {"data/a.json": b"a", "table.md": b"b", "index.json": b"c"}


def tree(root: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def full_at(number: int) -> Callable[[int], Callable[[str, int], int]]:
    """Return an opener's maker in whose place the disk is full at the file of this number."""
    opened = 0

    def make(*, private: bool = False) -> Callable[[str, int], int]:
        def opener(path: str, flags: int) -> int:
            nonlocal opened
            opened += 1
            if opened == number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            return os.open(path, flags, 0o600)

        return opener

    return make


def test_all_are_written_in_the_order_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = Path.replace

    def noted(path: Path, target: Path) -> Path:
        order.append(target.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", noted)
    write_together(tmp_path / "new" / "out", FILES)
    assert order == ["a.json", "table.md", "index.json"]
    assert tree(tmp_path / "new" / "out") == {"data": None, **FILES}


@pytest.mark.parametrize("number", [1, 3])
def test_a_full_disk_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(output_folder, "own_file_opener", full_at(number))
    with pytest.raises(FileError, match=r"cannot write to .*No space left.*MiB free") as failed:
        write_together(tmp_path / "new" / "out", FILES)
    assert "\n" not in str(failed.value)
    assert tree(tmp_path) == {}


def test_a_full_disk_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"table.md": b"old", "mine.txt": b"mine"}
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(output_folder, "own_file_opener", full_at(3))
    with pytest.raises(FileError):
        write_together(tmp_path, FILES)
    assert tree(tmp_path) == old


def test_a_failure_between_two_names_takes_the_new_ones_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def fails_at_last(path: Path, target: Path) -> Path:
        if target.name == "index.json":
            raise OSError(errno.ENOSPC, "full", str(target))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fails_at_last)
    with pytest.raises(FileError):
        write_together(tmp_path / "out", FILES)
    assert tree(tmp_path) == {}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.json").write_bytes(b"old")
    with pytest.raises(FileError):
        write_together(tmp_path / "out", FILES)
    assert tree(tmp_path) == {"out": None, "out/index.json": b"old"}


def test_markers_are_gone_before_the_first_name_and_back_where_nothing_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {"table.md": b"old", "index.json": b"old", "done": b"old"}
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
    replace = Path.replace
    fails_at = "table.md"

    def fails(path: Path, target: Path) -> Path:
        if target.parent == tmp_path and path.name.isdigit():
            assert not (tmp_path / "done").exists()
        if target.name == fails_at and path.name.isdigit():
            raise OSError(errno.ENOSPC, "full", str(target))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(FileError):
        write_together(tmp_path, FILES, markers=["index.json", "done", "absent"])
    assert tree(tmp_path) == old
    fails_at = "index.json"
    with pytest.raises(FileError):
        write_together(tmp_path, FILES, markers=["index.json", "done"])
    assert tree(tmp_path) == {"table.md": b"b"}, "no marker of what no longer belongs together"
    fails_at = ""
    write_together(tmp_path, FILES, markers=["index.json", "done"])
    assert tree(tmp_path) == {"data": None, **FILES}


def test_no_link_is_written_through_and_no_folder_replaced(tmp_path: Path) -> None:
    precious, out = tmp_path / "precious", tmp_path / "out"
    precious.write_bytes(b"precious")
    out.mkdir()
    (out / "table.md").symlink_to(precious)
    os.link(precious, out / "index.json")
    write_together(out, FILES)
    assert precious.read_bytes() == b"precious"
    assert tree(out) == {"data": None, **FILES}
    (out / "data" / "a.json").unlink()
    (out / "data" / "a.json").mkdir()
    with pytest.raises(FileError, match="exists and is not a file"):
        write_together(out, {**FILES, "table.md": b"other"})
    assert (out / "table.md").read_bytes() == FILES["table.md"]
    (out / "linked").symlink_to(tmp_path)
    for name in ("linked/x", "../x", "/x"):
        with pytest.raises(FileError):
            write_together(out, {name: b"x"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "precious"]


def test_private_ones_are_their_owners_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        write_together(tmp_path / "out", FILES, private=True)
        write_together(tmp_path / "open", {"a": b""})
    finally:
        os.umask(umask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").rglob("*")}
    assert modes == {"data": 0o700, "a.json": 0o600, "table.md": 0o600, "index.json": 0o600}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "open" / "a").stat().st_mode) == 0o644


@pytest.mark.parametrize("writer", [replacing, appending])
def test_a_file_that_fails_leaves_no_folder(tmp_path: Path, writer: Callable[..., object]) -> None:
    (tmp_path / "there").mkdir()
    name = f"{'x' * 300}.json"
    for folder in ("new", "there"):
        with pytest.raises(FileError, match="too long"), writer(tmp_path / folder / "inner" / name):  # type: ignore[attr-defined]
            pass
    assert tree(tmp_path) == {"there": None}


def test_a_folder_that_got_something_meanwhile_stays_and_the_first_error_is_told(tmp_path: Path) -> None:

    def fill() -> None:
        (tmp_path / "a" / "other").touch()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), new_folders(tmp_path / "a" / "b"):
        fill()
    assert tree(tmp_path) == {"a": None, "a/other": b""}
