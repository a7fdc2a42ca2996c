"""Review by people: what goes out to a spreadsheet, what comes back, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from polyrefuse_data.audit.review import (
    ReviewError,
    escape,
    export_review,
    import_review,
    unescape,
    withdraw_review,
)
from polyrefuse_data.audit.review_shown import shown_rows
from polyrefuse_data.build.package import read_rows
from polyrefuse_data.build.pipeline import BuildRequest, build
from polyrefuse_data.cli.command import cli
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.reading import read_bytes
from polyrefuse_data.translate.memory.store import HUMAN, Entry, Ranked, TranslationMemory, Translator

SMALL = {"train": 16, "validation": 16, "test": 24}
Rows = list[dict[str, str]]
Edit = Callable[[Rows], object]


@pytest.fixture
def review(tmp_path: Path, small_build: Path) -> Callable[[Edit], Path]:
    """Export the small build, let `edit` change the rows, and return the file."""

    def write(edit: Edit) -> Path:
        path = tmp_path / "review.csv"
        export_review(small_build, path, flagged=False, langs=["ja", "yo"])
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        edit(rows)
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


def test_a_correction_wins_survives_rebuilds_and_says_who_and_when(
    review: Callable[[Edit], Path], tmp_path: Path
) -> None:
    memory_path = tmp_path / "m.sqlite"
    path = review(lambda rows: rows[5].update(correction="もっと良い訳文です。", who="Adé"))
    done = import_review(path, memory_path, "somebody")
    assert (done.added, done.same) == (1, 0)
    assert import_review(path, memory_path, "somebody").same == 1
    with TranslationMemory(memory_path) as memory:
        (entry,) = memory.entries()
    note = json.loads(entry.note)
    assert (entry.translator.backend, note["who"], note["when"]) == (HUMAN, "Adé", entry.translator.version)
    request = BuildRequest(
        "sample", langs=["en", "ja", "yo"], size=SMALL, out=tmp_path / "out", memory=memory_path
    )
    build(request)
    corrected = [row for row in read_rows(tmp_path / "out", entry.lang, "train") if row.text == entry.text]
    assert [row.translator for row in corrected] == [f"backend:human|version:{note['when']}"]
    later = import_review(
        review(lambda rows: rows[5].update(correction="二番目の訳文です。")), memory_path, "Bọ́lá"
    )
    assert later.added == 1
    for folder in ("out", "out2"):
        build(replace(request, out=tmp_path / folder))
        texts = {row.text for row in read_rows(tmp_path / folder, entry.lang, "train")}
        assert "二番目の訳文です。" in texts
        assert entry.text not in texts


def test_people_win_over_machines_in_a_live_build_and_are_not_asked_again(
    review: Callable[[Edit], Path], tmp_path: Path
) -> None:
    from translator_server import Server

    def edit(rows: Rows) -> None:
        rows[0]["correction"] = "人が書いた訳文です。"

    path = review(edit)
    import_review(path, tmp_path / "m.sqlite", "me")
    with TranslationMemory(tmp_path / "m.sqlite") as memory:
        (human,) = memory.entries()
        memory.add([Entry(human.english, "ja", Translator("aaa", "1"), "機械の訳文です。")])
    with Server() as server:
        request = BuildRequest(
            "sample", langs=["ja"], size=SMALL, out=tmp_path / "out", memory=tmp_path / "m.sqlite",
            translator="google", translator_url=f"{server.url}/m",
        )  # fmt: skip
        assert build(request).complete
        assert human.english not in server.stats()["asked"]
    texts = {row.text_en: row.text for row in read_rows(tmp_path / "out", "ja", "train")}
    assert texts[human.english] == "人が書いた訳文です。"


GOOD = {"correction": "これは良い訳文です。"}


def first_two_equal(rows: Rows) -> None:
    rows[0].update(GOOD)
    rows.insert(1, dict(rows[0]))


def swap_ids(rows: Rows) -> None:
    rows[0]["id"], rows[1]["id"] = rows[1]["id"], rows[0]["id"]
    for row in rows[:2]:
        row.update(GOOD)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda rows: rows[2].update(text_en=rows[2]["text_en"] + " please", **GOOD),
            "line 4: .* was not exported with this English",
        ),
        (first_two_equal, "line 3: harmful-train-0000 in ja stands in line 2 already"),
        (
            lambda rows: rows[1].update(id="harmful-train-9999", **GOOD),
            "line 3: 'harmful-train-9999' in ja was not exported",
        ),
        (swap_ids, "line 2: .*was not exported.*line 3: .*was not exported"),
        (lambda rows: rows[0].update(lang="xx", **GOOD), "line 2: unknown language 'xx'"),
        (lambda rows: rows[0].update(label="nice", **GOOD), "line 2: label 'nice'"),
        (lambda rows: rows[3].update(key="3.75758E+15", **GOOD), "line 5: .*export again"),
        (lambda rows: [row.pop("key") for row in rows], "no column key"),
        (lambda rows: rows[0].update(correction="=1+1"), "line 2: the correction is a formula"),
        *(
            (
                lambda rows, shown=shown: rows[0].update(correction=shown),
                "line 2: the correction is the spreadsheet's error",
            )
            for shown in ("#NAME?", "#VALUE!", "#WERT!", "#NOM?", "#N/A", "#DIV/0!", "#ИМЯ?", "Err:508")
        ),
        (lambda rows: rows[0].update(correction="2.5"), "line 2: the correction contains no letter"),
        (lambda rows: rows[0].update(correction="良い\ufffd訳"), "line 2: .*a character that was lost"),
        (lambda rows: rows[0].update(correction="A better one"), "line 2: .*not in the script of Japanese"),
        (
            lambda rows: rows[-1].update(correction="Das ist eine deutlich bessere Übersetzung."),
            "the correction is in 'de', not in Yoruba",
        ),
        (lambda rows: rows[0].update(correction="良い\x1b訳"), "line 2: the correction contains control"),
        (lambda rows: rows[0].update(correction=rows[0]["text_en"].upper()), "line 2: .*the English text"),
    ],
)
def test_what_is_refused_is_named_by_line_and_nothing_is_taken(
    review: Callable[[Edit], Path], tmp_path: Path, edit: Edit, message: str
) -> None:
    def also_correct(rows: Rows) -> None:
        rows[7]["correction"] = "これは良い訳文です。"
        edit(rows)

    path = review(also_correct)
    with pytest.raises(ReviewError, match=message):
        import_review(path, tmp_path / "m.sqlite")
    assert not (tmp_path / "m.sqlite").exists()


def test_files_that_are_no_review(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    with pytest.raises(ReviewError, match="cannot be read"):
        import_review(path, tmp_path / "m.sqlite")
    for data, message in (
        (b"\xff\xfe\x00", "not valid UTF-16"),
        (b"", "is empty"),
        (b"a,b\n", "polyrefuse review export"),
        (b"a,b\n1,2\n", "no column id"),
    ):
        path.write_bytes(data)
        with pytest.raises(ReviewError, match=message):
            import_review(path, tmp_path / "m.sqlite")


def test_rows_without_a_correction_stop_nothing(review: Callable[[Edit], Path], tmp_path: Path) -> None:
    """A spreadsheet turns cells of many digits into numbers, and dates into others."""

    def edit(rows: Rows) -> None:
        for row in rows[1:]:
            row.update(key="3.75758E+15", group="1.2E+15", text_en="9/11/2001", id="")
        rows[0].update(GOOD)

    done = import_review(review(edit), tmp_path / "m.sqlite")
    assert (done.added, done.untouched) == (1, 111 * 2 + 1)


def test_a_key_is_never_a_number(review: Callable[[Edit], Path]) -> None:
    with review(lambda rows: None).open(encoding="utf-8-sig", newline="") as file:
        assert all(row["key"].startswith("k") for row in csv.DictReader(file))


def test_a_correction_can_be_withdrawn(review: Callable[[Edit], Path], tmp_path: Path) -> None:
    memory = tmp_path / "m.sqlite"
    path = review(lambda rows: rows[0].update(GOOD))
    import_review(path, memory)
    done = CliRunner().invoke(cli, ["review", "withdraw", str(path), "--memory", str(memory)])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("1 correction withdrawn")
    with TranslationMemory(memory) as opened:
        assert not list(opened.entries())
    import_review(review(lambda rows: rows[0].update(correction="もう一つの良い訳文です。")), memory)
    path = review(lambda rows: rows[0].update(GOOD))
    assert withdraw_review(path, memory) == 0


def test_a_spreadsheet_that_divides_by_semicolons_is_read(
    review: Callable[[Edit], Path], tmp_path: Path
) -> None:
    path = review(lambda rows: rows[0].update(correction="良い訳文です。"))
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = list(csv.reader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=";").writerows(cells)
    assert import_review(path, tmp_path / "m.sqlite").added == 1


@given(st.text())
def test_no_cell_is_a_formula_and_all_come_back(text: str) -> None:
    cell = escape(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert unescape(cell) == text


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "-2", "+4", "'=1", "''", "'", "＝1"])
def test_formulas_are_disarmed(text: str) -> None:
    assert unescape(escape(text)) == text
    assert escape(text)[0] not in "=+-@＝"


def test_a_correction_may_begin_like_a_formula_if_an_apostrophe_says_that_it_is_text(
    review: Callable[[Edit], Path], tmp_path: Path
) -> None:
    def edit(rows: Rows) -> None:
        rows[0]["correction"], rows[1]["correction"] = "'=良い訳文です。", "- 良い訳文です。"

    import_review(review(edit), tmp_path / "m.sqlite")
    with TranslationMemory(tmp_path / "m.sqlite") as memory:
        assert {entry.text for entry in memory.entries()} == {"=良い訳文です。", "- 良い訳文です。"}


def test_nothing_is_exported_into_the_build(small_build: Path) -> None:
    manifest = (small_build / "manifest.json").read_bytes()
    for name in ("manifest.json", "de/rows.csv", "page.html"):
        with pytest.raises(PolyRefuseError, match="is inside the build"):
            export_review(small_build, small_build / name, flagged=False)
    assert (small_build / "manifest.json").read_bytes() == manifest


def test_a_device_is_no_review(tmp_path: Path) -> None:
    with pytest.raises(PolyRefuseError, match="'/dev/zero' is a device"):
        read_bytes(Path("/dev/zero"))


def test_only_flagged_rows_are_exported_if_asked(small_build: Path, tmp_path: Path) -> None:
    every = export_review(small_build, tmp_path / "a.csv", flagged=False, langs=["ja", "yo"])
    flagged = export_review(small_build, tmp_path / "b.csv", flagged=True, langs=["ja", "yo"])
    rows = [row for lang in ("ja", "yo") for split in ("train", "validation", "test")
            for row in read_rows(small_build, lang, split)]  # fmt: skip
    assert every == len(rows)
    assert flagged == sum(any(row.flags.values()) for row in rows) < every


def test_no_language_of_a_build_stays_out_silently(tmp_path: Path) -> None:
    """A build with a language that this process does not know: the build brings it."""
    from polyrefuse_data.checks.languages_file import registered
    from polyrefuse_data.core.languages import LANGUAGES, Language

    size, memory = {"train": 4, "validation": 4, "test": 8}, tmp_path / "m.sqlite"
    with registered([Language("sw", "Swahili", "Kiswahili")]):
        with TranslationMemory(memory, create=True) as opened:
            from polyrefuse_data.prompts.sample import sample_prompts

            opened.add(Entry(one.text, "sw", Translator("x", "1"), "Habari.") for one in sample_prompts())
        build(
            BuildRequest("sample", langs=["en", "de", "sw"], size=size, out=tmp_path / "out", memory=memory)
        )
        assert export_review(tmp_path / "out", tmp_path / "r.csv", flagged=False) == 64
    try:
        for arguments, message in (
            (["--out", str(tmp_path / "r.csv"), "--langs", "sw"], None),
            (["--out", str(tmp_path / "r.csv"), "--langs", "fr,de"], "holds no fr; it holds de, sw"),
        ):
            done = CliRunner().invoke(cli, ["review", "export", str(tmp_path / "out"), *arguments])
            assert (done.exit_code == 0) if message is None else (message in str(done.exception))
            LANGUAGES.pop("sw", None)
    finally:
        LANGUAGES.pop("sw", None)


def test_the_commands(small_build: Path, tmp_path: Path) -> None:
    out, memory = tmp_path / "r.csv", tmp_path / "m.sqlite"
    done = CliRunner().invoke(cli, ["review", "export", str(small_build), "--out", str(out), "--langs", "yo"])
    assert done.exit_code == 0, done.output
    assert "112 rows" in done.output
    done = CliRunner().invoke(cli, ["review", "import", str(out), "--memory", str(memory)])
    assert done.exit_code == 0, done.output
    assert "0 corrections imported" in done.output
    done = CliRunner().invoke(cli, ["translators"])
    assert done.exit_code == 0, done.output
    for name in ("google", "mymemory", "libre", "microsoft", "deepl", "openai", "hf"):
        assert f"{name}: " in done.output
    assert "13 of 14, not yo" in done.output


def test_candidates_that_were_not_chosen_are_shown_with_their_reasons(
    small_build: Path, tmp_path: Path
) -> None:
    rows = read_rows(small_build, "ja", "test")[:2]
    one, other, third = (Translator(name, "1") for name in ("one", "other", "third"))
    choices = [
        (rows[0].text, 1, one, "fewest flags"),
        ("別の訳", 2, other, "flagged: digits"),
        ("別の訳", 3, third, "equal to the second"),
    ]
    with TranslationMemory(tmp_path / "m.sqlite", create=True) as memory:
        memory.add([Entry(rows[0].text_en, "ja", one, rows[0].text)])
        memory.record_choices(
            "ja",
            [
                Ranked(
                    english=rows[0].text_en,
                    lang="ja",
                    occurrence=0,
                    place=place,
                    translator=translator,
                    text=text,
                    reason=reason,
                )
                for text, place, translator, reason in choices
            ],
        )
    first, second = shown_rows(rows, tmp_path / "m.sqlite")
    assert [candidate["text"] for candidate in first["candidates"]] == ["別の訳"], (
        "neither twice nor the chosen"
    )
    assert first["candidates"][0]["reason"] == "other; flagged: digits"
    assert second["candidates"] == [], "nothing was chosen for it"
    assert next(shown_rows(rows, None))["candidates"] == []
