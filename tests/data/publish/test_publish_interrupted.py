"""Killed at any moment: the Hub shows the old version or the new one, and the same command finishes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hub_server import LoopbackHub
from publishing import NAME, built_files, command, environment, retranslated, run, send, shown_files

from polyrefuse_data.core.files import WORK_PREFIX

MOMENTS = {
    "reading what is there": ("GET", "/refs", {}),
    "turning gating on": ("PUT", "/settings", {}),
    "asking where to upload": ("POST", "/objects/batch", {}),
    "the first upload": ("PUT", "/lfs-store/", {}),
    "the third upload": ("PUT", "/lfs-store/", {"skip": 2}),
    "before the commit": ("POST", "/commit/", {}),
    "after the commit, before its answer": ("POST", "/commit/", {"after": True}),
    "reading back": ("GET", "/cdn/", {"skip": 4}),  # the comparison reads the three files of Yoruba before
    "before the tag": ("POST", "/tag/", {}),
    "after the tag, before its answer": ("POST", "/tag/", {"after": True}),
}


def left_folders(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "tmp").glob(f"{WORK_PREFIX}*"))


# What nobody else can see yet is killed in a long run of the tests; here, what changes the Hub.
UNSEEN = ("reading what is there", "asking where to upload", "the third upload", "reading back")


@pytest.mark.parametrize(
    "moment",
    [pytest.param(moment, marks=[pytest.mark.slow] if moment in UNSEEN else []) for moment in MOMENTS],
)
def test_killed(hub: LoopbackHub, small_build: Path, tmp_path: Path, moment: str) -> None:
    send(hub, small_build, gated="auto")
    new_build = retranslated(small_build, tmp_path / "new")
    old, new = built_files(small_build), built_files(new_build)
    method, path, how = MOMENTS[moment]
    arguments = ("publish", new_build, "--to", NAME, "--gated", "manual")
    with hub.stalled(method, path, times=1, **how) as fault:
        env = environment(hub, tmp_path)
        process = subprocess.Popen(
            command(*arguments), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            assert fault.reached.wait(60), f"{moment} never came"
            assert process.poll() is None
            assert left_folders(tmp_path), "a release is prepared in a temporary folder"
        finally:
            process.kill()
            process.wait()
        # What other clients see while it is neither here nor there.
        assert shown_files(hub) in (old, new)
        assert shown_files(hub, "v1.0.0") == old
    hub.faults.clear()
    done = run(hub, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert shown_files(hub) == new
    assert shown_files(hub, "v1.1.0") == new
    assert shown_files(hub, "v1.0.0") == old
    assert hub.repos[NAME].gated == "manual"
    assert left_folders(tmp_path) == [], "what the killed one left is removed"
