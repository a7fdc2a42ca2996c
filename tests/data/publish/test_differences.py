"""What changed between two versions: counted by prompt, with both texts, and the number that follows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hub_server import LoopbackHub
from hypothesis import given
from hypothesis import strategies as st
from publishing import NAME, client, edited, retranslated, run, send

from polyrefuse_data.cli.publish import diff_command
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.schema import Row
from polyrefuse_data.publish.changelog import difference_lines
from polyrefuse_data.publish.differences import Differences, bumped, compare
from polyrefuse_data.publish.snapshots import (
    FolderSnapshot,
    latest_version,
    open_snapshot,
    parse_version,
    version_tag,
)


def between(old: Path, new: Path) -> Differences:
    return compare(FolderSnapshot(old), FolderSnapshot(new))


def test_a_build_does_not_differ_from_itself(small_build: Path) -> None:
    found = between(small_build, small_build)
    assert found.bump == "none"
    assert found.rows == found.translations == found.checks == found.files == []
    assert difference_lines(found)[1:] == ["no difference"]


def test_translations_that_changed_come_with_both_texts(small_build: Path, tmp_path: Path) -> None:
    found = between(small_build, retranslated(small_build, tmp_path / "new", "ja", every=16))
    assert {(counts.lang, counts.split, counts.retranslated, counts.changed) for counts in found.rows} == {
        ("ja", "train", 2, 2),
        ("ja", "validation", 2, 2),
        ("ja", "test", 4, 4),
    }
    assert len(found.translations) == 8
    assert all(one.new == one.old + " !" and one.text_en for one in found.translations)
    assert found.bump == "minor"
    text = "\n".join(difference_lines(found, texts=3))
    assert text.count("\n    + ") == 3
    assert "... and 5 more" in text


def test_a_dropped_prompt_is_one_removal_and_renumbering(small_build: Path, tmp_path: Path) -> None:
    """Not a change of every row after it, as matching by id would have it."""

    def drop_third(row: Row) -> Row | None:
        place, number = row.id.rsplit("-", 1)
        if row.split != "test" or row.label != "harmful" or int(number) < 2:
            return row
        return None if number == "0002" else replace(row, id=f"{place}-{int(number) - 1:04d}")

    found = between(small_build, edited(small_build, tmp_path / "new", drop_third))
    assert [(counts.split, counts.removed, counts.added, counts.renumbered) for counts in found.rows] == [
        ("test", 1, 0, 21)
    ] * 3
    assert found.translations == []
    assert found.bump == "major"


def test_rows_and_languages_that_come_are_minor(small_build: Path, tmp_path: Path) -> None:
    without = edited(
        small_build, tmp_path / "old", lambda row: None if row.id == "harmful-test-0023" else row
    )
    found = between(without, small_build)
    assert found.total("added") == 3
    assert found.total("changed") == 0
    assert found.bump == "minor"
    assert between(small_build, without).bump == "major"


def test_a_language_that_goes_is_major(small_build: Path, other_build: Path) -> None:
    found = between(small_build, other_build)
    gone = [counts for counts in found.rows if counts.lang == "ja"]
    come = [counts for counts in found.rows if counts.lang == "de"]
    assert all(counts.removed == counts.old and counts.new == 0 for counts in gone)
    assert all(counts.added == counts.new and counts.old == 0 for counts in come)
    assert found.bump == "major"
    assert any(name.startswith("ja/") for name in found.files)


def test_scores_and_flags_alone_are_a_patch(small_build: Path, tmp_path: Path) -> None:
    def flag(row: Row) -> Row:
        return replace(row, flags={**row.flags, "echo": row.lang == "yo"})

    new = edited(small_build, tmp_path / "new", flag)
    manifest = json.loads((new / "manifest.json").read_text())
    manifest["languages"]["yo"]["flagged"]["echo"] = 112
    (new / "manifest.json").write_text(json.dumps(manifest))
    found = between(small_build, new)
    assert [(one.lang, one.check, one.old, one.new) for one in found.checks] == [("yo", "echo", 0, 112)]
    assert found.total("changed") == 112
    assert found.translations == []
    assert found.bump == "patch"


def test_repeated_prompts_are_matched_in_order(small_build: Path, tmp_path: Path) -> None:
    """Two rows with the same prompt are two rows: one that goes is one that goes."""

    def twice(row: Row) -> Row:
        return replace(row, group="the-same") if row.id in ("harmful-test-0000", "harmful-test-0001") else row

    both = edited(small_build, tmp_path / "both", twice)
    one = edited(both, tmp_path / "one", lambda row: None if row.id == "harmful-test-0001" else row)
    assert between(both, both).bump == "none"
    assert between(both, one).total("removed") == 3


versions = st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))


@given(versions, st.sampled_from(["major", "minor", "patch"]))
def test_the_next_version_comes_after(version: tuple[int, int, int], bump: str) -> None:
    following = bumped(version, bump)
    assert following > version
    assert parse_version(version_tag(following)) == following
    assert bumped(version, "none") == version


@given(st.lists(versions, min_size=1))
def test_the_latest_version_is_the_highest(tags: list[tuple[int, int, int]]) -> None:
    named = {version_tag(version): str(version) for version in tags}
    assert latest_version({**named, "draft": "x", "v1": "y"}) == (max(tags), str(max(tags)))


def test_latest_of_none() -> None:
    assert latest_version({"main": "x", "v1.0": "y", "v01.0.0": "z"}) is None


@pytest.mark.parametrize("address", [f"hf://{NAME}@v1.0.0", f"{NAME}@v1.0.0", f"hf://datasets/{NAME}@v1.0.0"])
def test_revisions_on_the_hub(hub: LoopbackHub, small_build: Path, tmp_path: Path, address: str) -> None:
    send(hub, small_build)
    send(hub, retranslated(small_build, tmp_path / "new"))
    old = open_snapshot(address, client(hub))
    new = open_snapshot(NAME, client(hub))
    assert (old.version, new.version) == ((1, 0, 0), (1, 1, 0))
    found = compare(old, new)
    local = between(small_build, tmp_path / "new")
    assert found.rows == local.rows
    assert found.translations == local.translations
    assert found.next_version == (1, 1, 0)


def test_only_files_that_differ_are_read(hub: LoopbackHub, small_build: Path, tmp_path: Path) -> None:
    send(hub, small_build)
    new = retranslated(small_build, tmp_path / "new", "ja")
    hub.requests.clear()
    compare(open_snapshot(f"{NAME}@v1.0.0", client(hub)), FolderSnapshot(new))
    read = {
        path.split("/", 6)[-1] for method, path, _ in hub.requests if method == "HEAD" and "/resolve/" in path
    }
    assert read == {"manifest.json", "ja/train.parquet", "ja/validation.parquet", "ja/test.parquet"}


def test_the_command_as_json(hub: LoopbackHub, small_build: Path, tmp_path: Path) -> None:
    send(hub, small_build)
    new = retranslated(small_build, tmp_path / "new")
    done = run(hub, tmp_path, "diff", f"{NAME}@v1.0.0", new, "--format", "json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["bump"] == "minor"
    assert value["next_version"] == "v1.1.0"
    assert len(value["translations"]) == 14
    assert set(value["translations"][0]) == {"lang", "split", "id", "text_en", "old", "new"}
    assert value["rows"][0]["retranslated"] > 0


def test_the_command_in_words(small_build: Path, tmp_path: Path) -> None:
    new = retranslated(small_build, tmp_path / "new")
    result = CliRunner().invoke(diff_command, [str(small_build), str(new), "--texts", "1"])
    assert result.exit_code == 0
    assert "yo test: +0 -0 #0 ~6 *6 (48 -> 48)" in result.output
    assert "translations that changed: 14" in result.output
    assert "next version: minor" in result.output


@pytest.mark.parametrize(
    ("given_name", "line"),
    [
        ("no/such@v1", "no such folder, and no data set no/such on the Hub"),
        (f"{NAME}@v9.9.9", "has no such revision"),
        ("./nowhere", "no such folder; expected a build, or a revision on the Hub as acme/polyrefuse@v1.0.0"),
        ("a/b/c", "no such folder; expected a build"),
        ("hf://", "no such folder; expected a build"),
    ],
)
def test_what_cannot_be_compared(hub: LoopbackHub, small_build: Path, given_name: str, line: str) -> None:
    send(hub, small_build)
    with pytest.raises(PolyRefuseError, match=line):
        open_snapshot(given_name, client(hub))


def test_builds_that_cannot_be_compared(small_build: Path, tmp_path: Path) -> None:
    broken = edited(small_build, tmp_path / "broken")
    (broken / "yo" / "test.parquet").write_bytes(b"")
    with pytest.raises(PolyRefuseError, match=r"yo/test.parquet changed after the build"):
        open_snapshot(str(broken))
    (tmp_path / "empty").mkdir()
    with pytest.raises(PolyRefuseError, match=r"no manifest.json"):
        open_snapshot(str(tmp_path / "empty"))
