"""What was computed is kept: whole or not at all, below a limit, and under writers that know of no other."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.results import content_cache
from polyrefuse_eval.results.baseline_cache import BaselineAnswer, BaselineCache
from polyrefuse_eval.results.content_cache import (
    cache_folder,
    cache_sizes,
    clear_cache,
    entry_path,
    keep_entry,
    load_entry,
    parse_size,
    prune_cache,
)


def key(number: int) -> dict[str, object]:
    return {"model": {"model": "m", "revision": "r"}, "prompts": [f"prompt {number}", "ü\ud800"]}


def total() -> int:
    return sum(row.size for row in cache_sizes())


def test_an_entry_comes_back_by_its_content_alone() -> None:
    files = {"a.json": b"{}", "b.bin": bytes(range(256))}
    assert load_entry("directions", key(1)) is None
    keep_entry("directions", key(1), files)
    assert load_entry("directions", dict(reversed(list(key(1).items())))) == files
    assert load_entry("directions", key(2)) is None
    assert load_entry("direction-sets", key(1)) is None
    mode = entry_path("directions", key(1)).stat().st_mode & 0o777
    assert mode == 0o600, "prompts of harmful requests can be guessed from what is kept"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"rubbish" * 99])
def test_an_entry_that_cannot_be_read_is_none_and_is_made_again(content: bytes) -> None:
    keep_entry("directions", key(1), {"a": b"1"})
    path = entry_path("directions", key(1))
    path.write_bytes(content or path.read_bytes()[:-9])
    assert load_entry("directions", key(1)) is None
    keep_entry("directions", key(1), {"a": b"2"})
    assert load_entry("directions", key(1)) == {"a": b"2"}


def test_what_was_not_used_for_the_longest_time_goes_first() -> None:
    for number in range(4):
        for kind in ("directions", "direction-sets"):
            keep_entry(kind, key(number), {"a": bytes(1000)})
            os.utime(entry_path(kind, key(number)), (1000 + number, 1000 + number))
    assert load_entry("directions", key(0)) is not None, "used just now"
    size = total() // 8
    assert prune_cache(total()) == 0
    removed = prune_cache(4 * size)
    assert removed >= 4 * size
    prune_cache(2 * size)
    left = [number for number in range(4) if load_entry("directions", key(number))]
    assert 0 in left
    assert 1 not in left
    assert total() <= 2 * size


def test_it_never_grows_far_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(content_cache.LIMIT_ENVIRONMENT, "100kB")
    monkeypatch.setattr(content_cache, "CHECKED_EVERY", 10)
    for number in range(60):
        keep_entry("baselines", key(number), {"a": bytes(10_000)})
        assert total() < 100 * 1024 + 11 * 10_500
    assert load_entry("baselines", key(59)) is not None


WRITER = """
import sys
from polyrefuse_eval.results.content_cache import keep_entry, load_entry, prune_cache
turn = 0
while True:
    for number in range(20):
        files = {"a": bytes([number]) * 20_000, "b": b"%d" % number}
        keep_entry("directions", {"n": number}, files)
        found = load_entry("directions", {"n": number})
        assert found in (None, files), "torn"
    prune_cache(200_000)
    turn += 1
    print(turn, flush=True)
"""


def test_two_writers_and_a_kill_leave_only_whole_entries() -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            for turn in range(1, 4):
                assert writer.stdout.readline().strip() == str(turn), "a writer stumbled over the other"
        time.sleep(0.05)
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    whole = 0
    for number in range(20):
        found = load_entry("directions", {"n": number})
        if found is not None:
            assert found == {"a": bytes([number]) * 20_000, "b": b"%d" % number}
            whole += 1
    assert whole
    keep_entry("directions", {"n": 1}, {"a": b"1"})
    assert load_entry("directions", {"n": 1}) == {"a": b"1"}


def test_a_cache_that_cannot_be_written_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(content_cache.ENVIRONMENT, str(tmp_path / "file"))
    keep_entry("directions", key(1), {"a": b"1"})
    assert load_entry("directions", key(1)) is None


@pytest.mark.parametrize(
    ("text", "size"), [("1000", 1000), ("2kB", 2048), ("1.5 GiB", 3 * 2**29), ("4g", 2**32), ("0", 0)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "--limit") == size


@pytest.mark.parametrize("text", ["", "much", "-1", "4 apples", "nan", "9" * 400])
def test_a_size_that_is_none_is_one_line(text: str) -> None:
    with pytest.raises(RunFolderError, match=r"--limit is .*expected a size such as"):
        parse_size(text, "--limit")


def test_the_command_shows_prunes_and_clears(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*arguments: str) -> str:
        result = CliRunner().invoke(eval_group, ["cache", *arguments])
        assert result.exit_code == 0, result.output + str(result.exception)
        return result.output

    BaselineCache({"model": "m"}, 8).add(
        "en", [BaselineAnswer(prompt_hash="0" * 64, response="x" * 3000, n_tokens=3, ended=True)]
    )
    keep_entry("directions", key(1), {"a": bytes(5000)})
    (cache_folder() / "addresses").mkdir()
    (cache_folder() / "addresses" / "copy").write_text("not sent yet")
    shown = call()
    assert str(cache_folder()) in shown
    assert " 1 files     3.1 kB" in shown
    assert "of 4.0 GB" in shown
    assert call("show") == shown
    assert "removed 0 B" in call("prune")
    assert "left" in call("prune", "--limit", "1kB")
    assert total() == 0
    keep_entry("directions", key(1), {"a": bytes(5000)})
    assert call("clear").startswith("removed 5.")
    assert clear_cache() == 0
    assert (cache_folder() / "addresses" / "copy").is_file()


def test_no_file_of_others_is_counted_or_removed_and_no_link_is_followed(tmp_path: Path) -> None:
    own = tmp_path / "own" / "ab"
    own.mkdir(parents=True)
    (own / f"{'0' * 32}.zip").write_text("the user's")
    keep_entry("directions", key(1), {"a": b"1"})
    (cache_folder() / "baselines").symlink_to(tmp_path / "own")
    (cache_folder() / "directions" / "ab").symlink_to(own)
    (cache_folder() / "directions" / "notes.txt").write_text("the user's")
    assert sum(row.files for row in cache_sizes()) == 1
    prune_cache(0)
    clear_cache()
    assert total() == 0
    assert (own / f"{'0' * 32}.zip").read_text() == "the user's"
    assert (cache_folder() / "directions" / "notes.txt").is_file()


def test_an_entry_that_unpacks_to_more_than_it_is_or_is_a_link_is_none(tmp_path: Path) -> None:
    path = entry_path("directions", key(1))
    keep_entry("directions", key(1), {"a": b"1"})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(10_000_000))
    assert load_entry("directions", key(1)) is None
    keep_entry("directions", key(1), {"a": b"1"})
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert load_entry("directions", key(1)) is None


def test_no_change_of_an_entry_is_a_traceback() -> None:
    keep_entry("directions", key(1), {"a": b"1" * 50, "b": b"2" * 50})
    path, chance = entry_path("directions", key(1)), random.Random(0)
    whole = path.read_bytes()
    for _ in range(500):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.choice((0, 1, 8, 255, chance.randrange(256)))
        path.write_bytes(content[: chance.choice((len(content), chance.randrange(len(content))))])
        load_entry("directions", key(1))


@pytest.mark.parametrize("link", ["baselines", "model"])
def test_no_baseline_is_written_or_read_behind_a_link(tmp_path: Path, link: str) -> None:
    home, root = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    cache = BaselineCache({"model": "m"}, 8, root)
    place = root / "baselines" if link == "baselines" else cache.path
    place.parent.mkdir(parents=True)
    place.symlink_to(home)
    cache.add("en", [BaselineAnswer(prompt_hash="a", response="b", n_tokens=1, ended=True)])
    assert not list(home.iterdir())
    assert cache.load("en") == {}


def test_a_baseline_that_cannot_be_read_is_generated_again(tmp_path: Path) -> None:
    cache = BaselineCache({"model": "m"}, 8, tmp_path)
    answer = BaselineAnswer(prompt_hash="a", response="b", n_tokens=1, ended=True)
    cache.add("en", [answer])
    assert cache.load("en") == {"a": answer}
    (cache.path / "en.jsonl").write_text('{"prompt_hash": 1}\n')
    assert cache.load("en") == {}
    cache.add("en", [answer])
    assert cache.load("en") == {"a": answer}
