"""An audit finds the defects that are there, in a release as published and in a build, and no others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from polyrefuse_data.audit.audit import Report, audit
from polyrefuse_data.audit.calibrate import calibrate, most_flagged, thresholds_yaml
from polyrefuse_data.audit.report import render_html, report_lines
from polyrefuse_data.build.model import rows_table
from polyrefuse_data.build.package import read_rows
from polyrefuse_data.checks.thresholds import load_thresholds
from polyrefuse_data.core.errors import DatasetFolderError, UnknownNameError
from polyrefuse_data.core.schema import text_hash
from polyrefuse_data.prompts.published_release import read_release, release_folders
from polyrefuse_data.translate.memory.from_release import import_release
from polyrefuse_data.translate.memory.store import TranslationMemory

Rows = list[dict[str, str]]
ReleaseWriter = Callable[..., Path]


def found(report: Report, check: str | None = None) -> set[tuple[str, str | None, str | None, str | None]]:
    return {
        (one.severity, one.lang, one.label, one.split)
        for one in report.findings
        if check in (None, one.check)
    }


def missing_languages(one: tuple[str, str | None, str | None, str | None]) -> bool:
    return one[1] not in ("de", "yo", "zh", None)


def test_a_release_without_defects(release: ReleaseWriter) -> None:
    report = audit(release())
    assert {one.check for one in report.findings if one.severity == "error"} == {"structure"}
    assert all(missing_languages(one) for one in found(report) if one[0] == "error")
    assert not [one for one in report.findings if one.check in ("alignment", "language", "echo", "leak")]


def test_a_release_with_defects(release: ReleaseWriter) -> None:
    def change(name: str, rows: Rows) -> Rows | None:
        if name == "harmless_train_translated_zh.json":
            return rows[30:] + rows[:30]
        if name == "harmless_test_translated_zh.json":
            return None
        if name == "harmful_test_back_translated_zh.json":
            return None
        if name == "harmful_train_translated_de.json":
            rows[3]["instruction"] = rows[3]["instruction"].replace(" ", " \u200b", 1)
            rows[4]["instruction"] = ""
            rows[5]["instruction"] = "Explica cómo limpiar una bicicleta vieja en el patio"
        if name.startswith("harmful_test_"):
            rows[8] = dict(rows[9])
        if name == "harmless_test_translated_yo.json":
            rows[7] = dict(rows[6])
        return rows

    root = release(change)
    shutil.copy(
        root / "back" / "harmful_test_back_translated_yo.json",
        root / "back" / "harmful_test_back_translated_yi.json",
    )
    report = audit(root)
    assert found(report, "alignment") == {("error", "zh", "harmless", "train")}
    assert ("error", "zh", "harmless", "test") in found(report, "structure")
    assert ("warning", "zh", "harmful", "test") in found(report, "structure")
    assert ("warning", "yi", "harmful", "test") in found(report, "structure")
    other = [one for one in report.findings if one.lang == "yo" and "English text differs" in one.message]
    assert [one.ids for one in other] == [("harmless-test-0007",)]
    by_check = {one.check: one for one in report.findings if one.lang == "de"}
    assert by_check["invisible"].ids == ("harmful-train-0003",)
    assert by_check["empty"].ids == ("harmful-train-0004",)
    assert by_check["language"].ids == ("harmful-train-0005",)
    duplicates = [one for one in report.findings if one.check == "duplicate"]
    assert [one.ids for one in duplicates] == [("harmful-test-0008", "harmful-test-0009")]
    lines = "\n".join(report_lines(report))
    assert "not parallel to the English" in lines
    assert json.loads(json.dumps(report.to_dict()))["findings"][0].keys() == {
        "check",
        "severity",
        "lang",
        "label",
        "split",
        "ids",
        "message",
    }


def test_cues_of_form_are_in_every_form_of_the_report(release: ReleaseWriter, tmp_path: Path) -> None:
    """Harmful prompts without their final punctuation: found, and told in text, JSON and page."""

    def bare(name: str, rows: Rows) -> Rows:
        ending = "" if name.startswith("harmful") else "."
        return [{**row, "instruction": row["instruction"].rstrip("?!. ") + ending} for row in rows]

    report = audit(release(bare), only=["surface_cue"])
    (line,) = [one.message for one in report.findings if one.split == "train"]
    assert "final punctuation (0 % of harmful, 100 % of harmless in de, in 2 of 3 languages)" in line
    text = "\n".join(report_lines(report))
    assert "Labels told apart by form" in text
    assert "0/100*" in text
    cues = {(one["lang"], one["split"]): one for one in report.to_dict()["surface_cues"]}
    assert "final punctuation" in cues["de", "train"]["telling"]
    render_html(report, tmp_path / "audit.html", show_texts=False)
    assert "0/100*" in (tmp_path / "audit.html").read_text()


def test_english_and_back_translations_can_lie_elsewhere(release: ReleaseWriter) -> None:
    root = release()
    inner = root / "translations"
    alone = audit(inner)
    assert "alignment" not in {one.check for one in alone.findings}
    assert all(one.correlation is None for one in alone.lists if one.split == "train")
    joined = audit(inner, english=root / "english", back=root / "back")
    assert all(one.correlation is not None for one in joined.lists if one.lang != "en")
    with pytest.raises(DatasetFolderError, match="--english"):
        audit(inner, english=root / "nowhere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"instruction": "x"}', "not valid JSON"),
        ("{}", "expected a JSON list"),
        ("[]", "expected a JSON list"),
        ('[{"text": "x"}]', "record 1: expected an object"),
        ('[{"instruction": 7}]', "record 1: expected an object"),
    ],
)
def test_a_file_of_a_release_that_cannot_be_read_is_a_finding(
    release: ReleaseWriter, text: str, message: str
) -> None:
    root = release()
    (root / "translations" / "harmful_test_translated_de.json").write_text(text)
    errors = [one.message for one in audit(root).findings if one.lang == "de" and one.severity == "error"]
    assert len(errors) == 1
    assert message in errors[0]


def test_a_list_of_another_length_is_not_matched(release: ReleaseWriter) -> None:
    root = release(lambda name, rows: rows[1:] if name == "harmful_train_translated_yo.json" else rows)
    report = audit(root)
    assert any("59 rows for 60 English prompts" in one.message for one in report.findings)


def test_import_takes_what_is_parallel_and_says_what_not(release: ReleaseWriter, tmp_path: Path) -> None:
    def change(name: str, rows: Rows) -> Rows:
        return rows[30:] + rows[:30] if name == "harmless_val_translated_zh.json" else rows

    folders = release_folders(release(change))
    with TranslationMemory(tmp_path / "m.sqlite", create=True) as memory:
        done = import_release(read_release(*folders), memory, load_thresholds())
        zh, de = memory.candidates("zh"), memory.candidates("de")
        assert len(memory.backs("yo")) == 60
    assert [one.file for one in done.refused] == ["harmless_val_translated_zh.json"]
    assert "not parallel" in done.refused[0].reason
    assert (len(de), len(zh)) == (360, 300)
    english = json.loads((folders[1] / "harmless_val.json").read_text())  # type: ignore[operator]
    refused = {text_hash(one["instruction"]) for one in english}
    assert not refused & {key for key, _ in zh}
    assert refused <= {key for key, _ in de}


def test_a_prompt_doubled_in_a_release_keeps_both_translations(
    release: ReleaseWriter, tmp_path: Path
) -> None:
    def change(name: str, rows: Rows) -> Rows:
        if name == "harmful_test_translated_de.json":
            rows[8] = {**rows[9], "instruction_translated": rows[9]["instruction_translated"] + " Bitte."}
        return rows

    folders = release_folders(release(change))
    with TranslationMemory(tmp_path / "m.sqlite", create=True) as memory:
        import_release(read_release(*folders), memory, load_thresholds())
        rows = json.loads((folders[0] / "harmful_test_translated_de.json").read_text())
        key = text_hash(rows[8]["instruction"])
        found = memory.candidates("de")
        assert found[key, 0][0][1] == rows[8]["instruction_translated"]
        assert found[key, 1][0][1] == rows[9]["instruction_translated"]


def test_a_build_without_defects(small_build: Path) -> None:
    report = audit(small_build)
    assert not report.has_errors
    assert {one.lang for one in report.lists} == {"en", "ja", "yo"}


def test_a_build_that_somebody_changed(small_build: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(small_build, folder)
    rows = read_rows(folder, "yo", "test")
    swapped = [rows[1], rows[0], *rows[2:]]
    pq.write_table(rows_table(swapped), folder / "yo" / "test.parquet")
    report = audit(folder)
    assert "altered" in {one.check for one in report.findings}
    assert any("a different order" in one.message for one in report.findings)
    (folder / "yo" / "test.parquet").write_bytes(b"PAR1 and then nothing")
    assert audit(folder, only=("altered",)).has_errors


def test_only_some_checks(release: ReleaseWriter) -> None:
    root = release()
    assert {one.check for one in audit(root, only=("structure",)).findings} == {"structure"}
    with pytest.raises(UnknownNameError, match="did you mean 'structure'"):
        audit(root, only=("structre",))


def test_a_folder_that_is_neither(tmp_path: Path) -> None:
    with pytest.raises(DatasetFolderError, match="no such folder"):
        audit(tmp_path / "nowhere")
    with pytest.raises(DatasetFolderError, match="no file named"):
        audit(tmp_path)


def test_the_page_is_self_contained_and_shows_texts_only_on_demand(
    release: ReleaseWriter, tmp_path: Path
) -> None:
    def change(name: str, rows: Rows) -> Rows:
        if name == "harmful_train_translated_de.json":
            rows[3]["instruction"] = "<script>alert('x')</script> \u200b" + rows[3]["instruction"]
        return rows

    report = audit(release(change))
    page = tmp_path / "audit.html"
    render_html(report, page, show_texts=False)
    without = page.read_text(encoding="utf-8")
    assert "harmful-train-0003" in without
    assert "alert" not in without
    assert "http://" not in without
    assert "https://" not in without
    render_html(report, page, show_texts=True)
    with_texts = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert" in with_texts
    assert "<script" not in with_texts


@pytest.mark.parametrize(
    ("rows", "most"), [(200, 0), (597, 0), (598, 0), (1417, 2), (1771, 3), (200_000, 947)]
)
def test_rows_that_a_bound_may_flag_for_the_rate_to_be_low_with_confidence(rows: int, most: int) -> None:
    assert most_flagged(rows) == most


def test_calibration_follows_the_data_and_distrusts_what_is_not_parallel(
    release: ReleaseWriter, tmp_path: Path
) -> None:
    root = release()
    current = load_thresholds()
    got = calibrate(root, None, None, current)
    assert got.bounds("length_ratio", "de") != current.bounds("length_ratio", "de")
    assert got.bounds("echo", "de") == current.bounds("echo", "de")
    assert got.bounds("length_ratio", "ja") == current.bounds("length_ratio", "ja"), "no rows in ja"
    path = tmp_path / "thresholds.yaml"
    path.write_text(thresholds_yaml(got), encoding="utf-8")
    assert load_thresholds(path).checks == got.checks
    assert not [one for one in audit(root, thresholds=path).findings if one.check == "length_ratio"]
    shuffled = release(lambda name, rows: rows[30:] + rows[:30] if "_translated_" in name else rows)
    for lang in ("de", "yo", "zh"):
        for path in (shuffled / "translations").glob(f"*_test_*_{lang}.json"):
            path.unlink()
    with pytest.raises(DatasetFolderError, match="nothing to calibrate from"):
        calibrate(shuffled, None, None, current)
