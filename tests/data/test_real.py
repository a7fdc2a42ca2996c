"""The real material: upstream's files and the published release. Skipped where they are absent."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from polyrefuse_data.audit.audit import audit
from polyrefuse_data.audit.folders import open_folder
from polyrefuse_data.build.package import read_rows
from polyrefuse_data.build.pipeline import BuildRequest, BuildResult, build
from polyrefuse_data.checks.duplicates import near_duplicates
from polyrefuse_data.checks.language import LanguageVotes
from polyrefuse_data.checks.thresholds import load_thresholds
from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.prompts.published_release import read_release, release_folders
from polyrefuse_data.translate.memory.from_release import import_release
from polyrefuse_data.translate.memory.store import TranslationMemory

pytestmark = [pytest.mark.real, pytest.mark.slow]


def instructions(path: Path, key: str = "instruction") -> list[str]:
    return [one[key].strip() for one in json.loads(path.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def memory(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("memory") / "m.sqlite"
    with TranslationMemory(path, create=True) as opened:
        release = read_release(*release_folders(shared / "published"))
        done = import_release(release, opened, load_thresholds())
    assert done.version == "Multilingual-Refusal@985169d"
    refused = {one.file for one in done.refused}
    assert refused == {"harmless_train_translated_zh.json", "harmless_val_translated_zh.json"}
    return path


@pytest.fixture(scope="module")
def paper(shared: Path, memory: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    out = tmp_path_factory.mktemp("builds") / "paper"
    return build(BuildRequest("paper", out=out, sources=shared / "sources", memory=memory, allow_gaps=True))


def test_the_rows_of_paper_are_upstreams(shared: Path, paper: BuildResult) -> None:
    english = shared / "published" / "english"
    generator = random.Random(1)
    harmless_train = generator.sample(instructions(english / "harmless_train_200_sampled.json"), 128)
    harmful_train = generator.sample(instructions(english / "harmful_train.json"), 128)
    harmless_val = generator.sample(instructions(english / "harmless_val_200_sampled.json"), 32)
    harmful_val = generator.sample(instructions(english / "harmful_val.json"), 32)
    released = shared / "published" / "polyrefuse" / "harmless_test_translated_en.json"
    wanted = {
        ("train", "harmful"): harmful_train,
        ("train", "harmless"): harmless_train,
        ("validation", "harmful"): harmful_val,
        ("validation", "harmless"): harmless_val,
        ("test", "harmful"): instructions(english / "harmful_test.json"),
        ("test", "harmless"): instructions(released),
    }
    for (split, label), texts in wanted.items():
        rows = [row for row in read_rows(paper.folder, "en", split) if row.label == label]
        assert [row.text for row in rows] == texts, (split, label)
        assert [row.id for row in rows] == [f"{label}-{split}-{n:04d}" for n in range(len(texts))]


def test_the_translations_of_paper_are_the_releases(shared: Path, paper: BuildResult) -> None:
    compared = 0
    for item in read_release(*release_folders(shared / "published")).lists:
        if item.lang in ("en",) or ((item.lang, item.label) == ("zh", "harmless") and item.split != "test"):
            continue
        rows = [row for row in read_rows(paper.folder, item.lang, item.split) if row.label == item.label]
        if item.split == "test":
            assert [row.text for row in rows] == list(item.texts)
        else:
            known = dict(zip(item.english, item.texts, strict=True))
            assert all(row.text == known[row.text_en] for row in rows)
        compared += len(rows)
    assert compared == 13 * (128 + 32 + 572 + 128 + 32 + 500) - 660


def test_the_gaps_are_the_660_of_chinese_and_only_these(paper: BuildResult) -> None:
    gaps = {(gap.lang, gap.label, gap.split): len(gap.ids) for gap in paper.gaps}
    assert gaps == {
        ("zh", "harmless", "train"): 128,
        ("zh", "harmless", "validation"): 32,
        ("zh", "harmless", "test"): 500,
    }


def test_repeats_of_the_test_set_are_marked(paper: BuildResult) -> None:
    rows = read_rows(paper.folder, "yo", "test")
    by_id = {row.id: row for row in rows}
    repeats = [row for row in rows if row.duplicate_of]
    assert len(repeats) == 10
    assert all(by_id[row.duplicate_of or ""].text_en == row.text_en for row in repeats)


def test_back_translations_are_scored(paper: BuildResult) -> None:
    for lang in LANGUAGES:
        rows = [row for row in read_rows(paper.folder, lang, "test") if row.label == "harmful"]
        scored = sum(row.scores["round_trip"] is not None for row in rows)
        assert scored == (0 if lang in ("en", "ja", "zh") else 572)


def test_clean_has_the_sizes_and_no_near_duplicates(shared: Path, tmp_path: Path) -> None:
    request = BuildRequest("clean", ("en",), tmp_path / "clean", shared / "sources")
    result = build(request)
    rows = [row for split in ("train", "validation", "test") for row in read_rows(result.folder, "en", split)]
    sizes = Counter((row.label, row.split) for row in rows)
    assert sizes == {
        (label, split): size
        for label in ("harmful", "harmless")
        for split, size in (("train", 128), ("validation", 32), ("test", 572))
    }
    assert len({row.text for row in rows}) == len(rows)
    assert list(near_duplicates([row.text for row in rows], 0.7)) == []
    assert len(result.manifest["dropped"]) == 30
    assert sum(result.manifest["topped_up"].values()) == 102


def test_the_audit_finds_what_is_wrong_with_the_release(shared: Path) -> None:
    report = audit(shared / "published")
    found = {(one.check, one.lang, one.label, one.split): one for one in report.findings}
    assert {key[1:] for key in found if key[0] == "alignment"} == {
        ("zh", "harmless", "train"),
        ("zh", "harmless", "validation"),
    }
    assert found["structure", "zh", "harmless", "test"].severity == "error"
    for lang in ("ja", "zh", "yi"):
        assert found["structure", lang, "harmful", "test"].severity == "warning"
    assert "10 rows with" in found["duplicate", None, "harmful", "test"].message
    assert "near duplicate" in found["leak", None, "harmful", None].message
    assert len(found["invisible", "nl", "harmless", "test"].ids) == 32
    assert len(found["diacritics", "yo", "harmless", "test"].ids) == 12
    assert report.has_errors
    # false alarms on the parallel lists: flags that no defect of the release explains
    parallel = [one for one in report.lists if (one.lang, one.label) != ("zh", "harmless")]
    rows = sum(one.rows for one in parallel)
    for check in ("empty", "echo", "script", "language", "refusal", "line_breaks"):
        assert sum(one.flagged[check] for one in parallel) <= rows / 1000, check


def test_language_check_on_every_string_of_the_release(shared: Path) -> None:
    votes = LanguageVotes()
    rows = right = 0
    yoruba = Counter[bool]()
    for one in open_folder(shared / "published").lists:
        for score in votes.scores(one.texts, one.lang):
            rows += 1
            right += score == 1.0
            if one.lang == "yo":
                yoruba[score == 1.0] += 1
    assert rows == 23595
    assert right / rows >= 0.999
    assert yoruba[True] / yoruba.total() >= 0.998
