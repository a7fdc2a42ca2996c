"""A file that somebody else made has an end, and is read only if it is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from polyrefuse_data.core.contents import LARGEST_FILE, read_file, read_utf8


def test_a_file_and_a_link_to_it_are_read(tmp_path: Path) -> None:
    file, link = tmp_path / "a.json", tmp_path / "b.json"
    file.write_text("é", encoding="utf-8")
    link.symlink_to(file)
    assert read_utf8(file) == read_utf8(link) == "é"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.timeout(20)
def test_a_pipe_and_a_device_are_no_files(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError):  # noqa: PT011 (a folder has a reason of its own)
            read_file(path)


def test_a_file_of_holes_is_not_read_into_memory(tmp_path: Path) -> None:
    file = tmp_path / "holes.json"
    with file.open("wb") as opened:
        opened.truncate(LARGEST_FILE + 1)
    with pytest.raises(OSError, match="expected at most"):
        read_file(file)
