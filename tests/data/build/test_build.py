"""A build is complete or it is not, the same bytes twice, and goes on after anything."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from polyrefuse_data.build import folder as folder_module
from polyrefuse_data.build.card import most_restrictive
from polyrefuse_data.build.folder import PackageFolder
from polyrefuse_data.build.package import altered_files, read_manifest, read_rows, safe_path
from polyrefuse_data.build.pipeline import BuildRequest, BuildResult, build, plan_build
from polyrefuse_data.checks import rows as row_checks
from polyrefuse_data.core.errors import BuildError, DatasetFolderError, MemoryFileError, PolyRefuseError
from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.core.schema import (
    LABELS,
    ROW_CHECKS,
    SPLITS,
    Row,
    column_names,
    group_id,
    row_from_values,
    row_values,
)
from polyrefuse_data.translate.memory.store import Entry, TranslationMemory, Translator

GOLDEN = Path(__file__).parents[2] / "golden" / "small_sample.json"
Small = Callable[..., BuildResult]


def digests(folder: Path) -> dict[str, str]:
    """Return path -> sha256 of every file below `folder`."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_sample_is_complete_and_clean(sample_build: Path) -> None:
    manifest = read_manifest(sample_build)
    assert manifest["complete"]
    assert manifest["gaps"] == []
    assert manifest["severities"]["error"] == 0
    assert list(manifest["languages"]) == sorted(LANGUAGES)
    ids = {lang: [row.id for row in read_rows(sample_build, lang, "test")] for lang in LANGUAGES}
    assert all(one == ids["en"] for one in ids.values())
    assert len(ids["en"]) == 2 * 572
    flagged = sum(summary["flagged_rows"] for summary in manifest["languages"].values())
    assert flagged <= 20496 / 1000, "false alarms on true translations"


def test_rows_of_all_languages_are_the_same_prompts(sample_build: Path) -> None:
    first = read_rows(sample_build, "en", "train")
    for lang in ("ja", "yo"):
        rows = read_rows(sample_build, lang, "train")
        assert [row.group for row in rows] == [row.group for row in first]
        assert [row.text_en for row in rows] == [row.text for row in first]
        assert all(row.text != row.text_en for row in rows)
        assert all(row.group == group_id(row.text_en, row.label) for row in rows)


def test_columns_are_the_published_ones(small_build: Path) -> None:
    table = pq.ParquetFile(small_build / "yo" / "test.parquet").read()
    assert table.column_names == column_names()
    assert set(table.column("label").to_pylist()) == {0, 1}


def test_golden_bytes(small_build: Path) -> None:
    """Rows and card of a small build; Parquet files by what they say, since their bytes name their writer.

    After a change on purpose: UPDATE_GOLDEN=1 python -m pytest tests/data/build/test_build.py -k golden
    """
    manifest = read_manifest(small_build)
    found = {name: facts["rows_sha256"] for name, facts in manifest["files"].items() if "rows" in facts}
    found["README.md"] = manifest["files"]["README.md"]["sha256"]
    found["digest"] = manifest["digest"]
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert found == json.loads(GOLDEN.read_text())


def test_twice_the_same_bytes_in_another_folder(small: Small, small_build: Path, tmp_path: Path) -> None:
    small(out=tmp_path / "elsewhere" / "other-name")
    assert digests(tmp_path / "elsewhere" / "other-name") == digests(small_build)


def test_a_second_build_finds_nothing_to_do(small: Small) -> None:
    first = small()
    assert not first.unchanged
    before = digests(first.folder)
    again = small()
    assert again.unchanged
    assert digests(first.folder) == before
    assert not small(seed=5).unchanged
    assert digests(first.folder) != before


def test_an_altered_file_is_built_again(small: Small) -> None:
    folder = small().folder
    before = digests(folder)
    (folder / "yo" / "test.parquet").write_bytes(b"rotten")
    assert altered_files(folder, read_manifest(folder)) == ["yo/test.parquet"]
    assert not small().unchanged
    assert digests(folder) == before


def test_only_what_changed_is_checked_again(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small().folder
    checked: list[str] = []
    run = row_checks.run_checks

    def spy(batch: row_checks.Batch, *rest: object) -> row_checks.Scored:
        checked.append(batch.language.code)
        return run(batch, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(row_checks, "run_checks", spy)
    small(langs=("en", "ja", "yo", "zh"))
    assert checked == ["zh"]
    small(langs=("en", "ja"), replace=True)
    assert checked == ["zh"]
    languages = {path.name for path in folder.iterdir() if path.is_dir()}
    assert languages == {"en", "ja"}


def test_a_build_that_fails_half_way_leaves_the_old_one(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small().folder
    before = digests(folder)

    def full(*unused: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder_module.pq, "write_table", full)
    with pytest.raises(
        BuildError, match=r"parquet': No space left on device \(.*MiB free\); free some space"
    ):
        small(seed=7)
    kept = {name: value for name, value in digests(folder).items() if not name.startswith(".")}
    assert kept == before
    monkeypatch.undo()
    assert small(seed=7).complete
    assert not (folder / ".staging").exists()
    assert not (folder / ".polyrefuse-build").exists()


_KILLED = """
import sys, time
from pathlib import Path
from polyrefuse_data.build.folder import PackageFolder
from polyrefuse_data.build.pipeline import BuildRequest, build
plain = PackageFolder.stage_part
def slow(self, lang, *rest, **named):
    part = plain(self, lang, *rest, **named)
    print(lang, flush=True)
    time.sleep(0.3)
    return part
PackageFolder.stage_part = slow
build(BuildRequest("sample", langs=("en", "ja", "yo"), size={"train": 16, "validation": 16, "test": 24},
                   out=Path(sys.argv[1])))
"""


def test_a_killed_build_leaves_no_manifest_and_the_next_goes_on(
    small: Small, small_build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "small"
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "en\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "manifest.json").exists()
    staged: list[str] = []
    plain = PackageFolder.stage_part

    def spy(self: PackageFolder, lang: str, *rest: object, **named: object) -> object:
        staged.append(lang)
        return plain(self, lang, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(PackageFolder, "stage_part", spy)
    small(out=out)
    assert "en" not in staged
    assert digests(out) == digests(small_build)


@pytest.mark.parametrize("moment", [0.05, 0.2, 0.5, 0.9])
def test_killed_at_any_moment(small: Small, small_build: Path, tmp_path: Path, moment: float) -> None:
    out = tmp_path / "small"
    small(out=out, seed=99)
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED.replace("time.sleep(0.3)", "pass"), str(out)],
        stdout=subprocess.DEVNULL,
    )
    time.sleep(moment)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    if (out / "manifest.json").exists():
        assert altered_files(out, read_manifest(out)) == [], "a manifest means that the folder is complete"
    small(out=out)
    assert digests(out) == digests(small_build)


def test_stopped_while_files_change_places_there_is_no_manifest(
    small: Small, small_build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "small"
    small(out=out, seed=99)

    plain = folder_module.inside
    moves: list[str] = []

    def moving(folder: Path, name: str) -> Path:
        if name == "ja/test.parquet" and folder == out and (out / ".staging" / "yo.json").exists():
            moves.append(name)
            raise KeyboardInterrupt
        return plain(folder, name)

    monkeypatch.setattr(folder_module, "inside", moving)
    with pytest.raises(KeyboardInterrupt):
        small(out=out)
    monkeypatch.undo()
    assert moves
    assert not (out / "manifest.json").exists()
    with pytest.raises(DatasetFolderError):
        read_manifest(out)
    small(out=out)
    assert digests(out) == digests(small_build)


def test_two_builds_at_once_in_one_folder(small: Small, tmp_path: Path) -> None:
    folder = PackageFolder(tmp_path / "small")
    with folder.staging(), pytest.raises(BuildError, match=r"process \d+ on .* is writing"):
        small(out=tmp_path / "small")


@pytest.mark.parametrize("name", [".staging", "ja", ".staging/ja", "yo"])
def test_a_build_is_not_written_through_a_linked_folder(small: Small, tmp_path: Path, name: str) -> None:
    folder, home = small().folder, tmp_path / "home"
    if (folder / name).exists():
        (folder / name).rename(home)
    else:
        home.mkdir()
        (folder / name).parent.mkdir(exist_ok=True)
    before = digests(home)
    (folder / name).symlink_to(home)
    with pytest.raises(BuildError, match=f"{name}' is a link to a folder"):
        small(seed=5)
    assert digests(home) == before


def test_no_planted_link_is_written_through(small: Small, small_build: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (folder / ".staging" / "en").mkdir(parents=True)
    (folder / ".polyrefuse-build").symlink_to(precious)
    for name in ("README.md", "manifest.json", ".staging/en.json", ".staging/en/test.parquet"):
        (folder / name).symlink_to(precious)
    small()
    assert precious.read_text() == "precious"
    assert digests(folder) == digests(small_build)
    (folder / ".staging").mkdir()
    (folder / ".staging" / ".lock").symlink_to(precious)
    with pytest.raises(BuildError, match="is a link to another file"):
        small(seed=5)
    assert precious.read_text() == "precious"


def test_an_older_manifest_cannot_remove_what_no_build_makes(small: Small, tmp_path: Path) -> None:
    folder = small(langs=("en", "ja", "yo")).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    digest = hashlib.sha256(b"mine").hexdigest()
    mine = [tmp_path / "mine", folder / "notes.txt", folder / "notes" / "test.md"]
    (folder / "notes").mkdir()
    for path in mine:
        path.write_text("mine")
        name = os.path.relpath(path, folder)
        manifest["files"][name] = {"sha256": digest, "bytes": 4}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "yo" / "test.parquet").write_bytes(b"edited")
    small(langs=("en", "ja"), seed=5, replace=True)
    assert all(path.read_text() == "mine" for path in mine)
    assert [path.name for path in (folder / "yo").iterdir()] == ["test.parquet"], "it is as nobody built it"


@pytest.mark.parametrize("out", ["/etc", "/etc/new", "hf://acme/polyrefuse", "file:///tmp/x"])
def test_a_place_that_is_no_build_s_is_refused_before_anything_else(small: Small, out: str) -> None:
    with pytest.raises(BuildError, match=r"belongs to the system|is an address"):
        small(out=Path(out), sources=Path("/absent"))
    with pytest.raises(BuildError, match=r"belongs to the system|is an address"):
        plan_build(BuildRequest("sample", out=Path(out)))


@pytest.mark.parametrize("content", ["file", "folder", "other manifest"])
def test_a_folder_that_is_not_ours_is_never_touched(small: Small, tmp_path: Path, content: str) -> None:
    out = tmp_path / "theirs"
    if content == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / ("manifest.json" if content == "other manifest" else "thesis.tex")).write_text("{}")
    with pytest.raises(BuildError):
        small(out=out)
    assert out.is_file() or [path.read_text() for path in out.iterdir()] in (["{}"], ["mine"])


def test_a_path_of_a_manifest_does_not_lead_outside(tmp_path: Path) -> None:
    for name in ("../x", "/etc/passwd", "a/../../x", "", "a\\b"):
        with pytest.raises(DatasetFolderError, match="inside the folder"):
            safe_path(tmp_path, name)
    for name in ("x" * 256, "x" * 5000, "\ud800" * 100):
        with pytest.raises(DatasetFolderError, match="at most 255 bytes"):
            safe_path(tmp_path, name)
    assert safe_path(tmp_path, "yo/test.parquet") == tmp_path / "yo" / "test.parquet"


# Recipes over the user's own sources, and a memory with gaps.


@pytest.fixture
def own(tmp_path: Path) -> BuildRequest:
    """A request for a build from own sources, with a memory that lacks one translation into German."""
    (tmp_path / "mine.csv").write_text(
        "prompt,kind\n" + "".join(f"how to break lock number {n} of a door,crime\n" for n in range(4))
    )
    (tmp_path / "fine.txt").write_text(
        "".join(f"how to paint wall number {n} of a house\n" for n in range(4))
    )
    recipe = {
        "name": "own",
        "title": "Own prompts",
        "description": "Two small files.",
        "seed": 3,
        "sources": {
            "mine": {
                "file": "mine.csv",
                "reader": "csv",
                "label": "harmful",
                "licence": "CC-BY-4.0",
                "text_column": "prompt",
                "category_column": "kind",
            },
            "fine": {"file": "fine.txt", "reader": "lines", "label": "harmless", "licence": "MIT"},
        },
        "pools": {
            "bad": {"label": "harmful", "sources": ["mine"]},
            "good": {"label": "harmless", "sources": ["fine"]},
        },
        "draws": [
            {"pool": "bad", "split": "test", "size": 4, "method": "first"},
            {"pool": "good", "split": "test", "size": 4, "method": "first"},
        ],
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(recipe))
    memory = tmp_path / "m.sqlite"
    with TranslationMemory(memory, create=True) as opened:
        machine = Translator("machine", "7")
        opened.add(
            Entry(f"how to {what} of a {where}", "de", machine, f"wie man {was} {n} {wo} macht")
            for n in range(4)
            for what, where, was, wo in (
                (f"break lock number {n}", "door", "Schloss Nummer", "einer Tür auf"),
                (f"paint wall number {n}", "house", "Wand Nummer", "eines Hauses bunt"),
            )
            if (n, where) != (2, "door")
        )
    return BuildRequest(str(tmp_path / "own.yaml"), ("de", "en"), tmp_path / "out", None, memory)


def test_a_gap_is_named_and_nothing_is_packaged(own: BuildRequest) -> None:
    result = build(own)
    assert not result.complete
    assert [(gap.lang, gap.label, gap.split, gap.ids) for gap in result.gaps] == [
        ("de", "harmful", "test", ("harmful-test-0002",))
    ]
    manifest = read_manifest(result.folder)
    assert not manifest["complete"]
    assert manifest["gaps"][0]["ids"] == ["harmful-test-0002"]
    assert [path.name for path in result.folder.iterdir()] == ["manifest.json"]


def test_with_allow_gaps_the_rest_is_packaged_and_the_card_says_so(own: BuildRequest) -> None:
    build(own)
    result = build(replace(own, allow_gaps=True))
    assert result.complete
    folder = result.folder
    assert [row.id for row in read_rows(folder, "de", "test") if row.label == "harmful"] == [
        "harmful-test-0000",
        "harmful-test-0001",
        "harmful-test-0003",
    ]
    assert len(read_rows(folder, "en", "test")) == 8
    card = (folder / "README.md").read_text()
    assert "This build has gaps" in card
    assert "| de | test | harmful | 1 |" in card
    assert {row.translator for row in read_rows(folder, "de", "test")} == {"backend:machine|version:7"}
    assert {row.source_licence for row in read_rows(folder, "en", "test")} == {"CC-BY-4.0", "MIT"}
    assert "license: cc-by-4.0" in card


def test_gaps_do_not_touch_a_complete_build(own: BuildRequest) -> None:
    folder = build(replace(own, allow_gaps=True)).folder
    before = digests(folder)
    assert not build(own).complete
    assert digests(folder) == before


def test_a_correction_in_the_memory_reaches_the_next_build(own: BuildRequest) -> None:
    folder = build(replace(own, allow_gaps=True)).folder
    assert own.memory is not None
    with TranslationMemory(own.memory) as memory:
        english = "how to break lock number 2 of a door"
        memory.add(
            [Entry(english, "de", Translator("human", "reviewer"), "wie man Schloss 2 einer Tür knackt")]
        )
    result = build(own)
    assert result.complete
    assert not result.gaps
    assert len(read_rows(folder, "de", "test")) == 8


def test_own_sources_that_are_wrong(own: BuildRequest, tmp_path: Path) -> None:
    with pytest.raises(MemoryFileError, match="no translation memory"):
        build(replace(own, memory=tmp_path / "absent.sqlite"))
    with pytest.raises(PolyRefuseError, match="did you mean 'machine'"):
        build(replace(own, translator="replay:machin"))
    with pytest.raises(PolyRefuseError, match="unknown translator 'telepathy'"):
        build(replace(own, translator="telepathy"))
    (tmp_path / "mine.csv").write_text("prompt\nx\n")
    with pytest.raises(PolyRefuseError, match="no column 'kind'"):
        build(own)
    (tmp_path / "mine.csv").unlink()
    with pytest.raises(PolyRefuseError, match="cannot read"):
        build(own)


def test_sizes_that_cannot_be_filled_say_how_many_there_are(small: Small) -> None:
    with pytest.raises(PolyRefuseError, match=r"holds 960; ask for at most 960"):
        small(size={"train": 5000, "validation": 1, "test": 1})


def test_the_most_restrictive_licence() -> None:
    assert most_restrictive(["MIT", "CC-BY-NC-4.0", "Apache-2.0"]) == "CC-BY-NC-4.0"
    assert most_restrictive(["MIT", "my own terms"]) == "my own terms"


rows = st.builds(
    Row,
    id=st.just("harmful-test-0001"),
    group=st.text("0123456789abcdef", min_size=16, max_size=16),
    lang=st.sampled_from(list(LANGUAGES)),
    text=st.text(),
    text_en=st.text(),
    label=st.sampled_from(LABELS),
    split=st.sampled_from(SPLITS),
    category=st.none() | st.text(),
    source_category=st.none() | st.text(),
    source=st.text(),
    source_licence=st.text(),
    translator=st.text(),
    duplicate_of=st.none() | st.text(),
    scores=st.fixed_dictionaries({check: st.none() | st.floats(0, 1, width=32) for check in ROW_CHECKS}),
    flags=st.fixed_dictionaries({check: st.booleans() for check in ROW_CHECKS}),
)


@given(rows)
def test_a_row_survives_the_round_trip(row: Row) -> None:
    assert row_from_values(row_values(row), row.split) == row
    back = row_from_values(row_values(row), row.split)
    assert (dict(back.scores), dict(back.flags)) == (dict(row.scores), dict(row.flags))


def test_a_build_of_fewer_languages_or_of_another_recipe_asks_before_it_replaces(
    small: Small, tmp_path: Path
) -> None:
    folder = small(langs=("en", "ja", "yo")).folder
    before = digests(folder)
    with pytest.raises(BuildError, match=r"of sample in en, ja, yo, .* add ja, yo to --langs"):
        small(langs=("en",))
    own = tmp_path / "mine.yaml"
    recipe = Path(str(resources.files("polyrefuse_builds"))) / "sample.yaml"
    own.write_text(recipe.read_text(encoding="utf-8").replace("name: sample", "name: mine"))
    with pytest.raises(BuildError, match=r"a build of mine in en, ja, yo would replace; .* with --replace"):
        small(recipe=str(own))
    assert digests(folder) == before
    assert list(small(langs=("en",), replace=True).manifest["languages"]) == ["en"]
    assert not (folder / "ja").exists()


def test_the_summary_is_the_same_when_nothing_was_done_again(small: Small) -> None:
    first, second = small(), small()
    assert second.unchanged
    assert json.dumps(first.manifest) == json.dumps(second.manifest)
