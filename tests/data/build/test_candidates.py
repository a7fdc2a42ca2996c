"""Of several candidate translations the best is taken by the scores at hand; all are kept with reasons."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from polyrefuse_data.audit import calibrate as calibration
from polyrefuse_data.audit.audit import audit
from polyrefuse_data.build.candidates import Candidate, disagreement_with, rank
from polyrefuse_data.build.package import read_manifest, read_rows
from polyrefuse_data.build.pipeline import BuildResult
from polyrefuse_data.checks.thresholds import load_thresholds
from polyrefuse_data.cli.command import cli
from polyrefuse_data.core.schema import SPLITS, Row, column_names
from polyrefuse_data.prompts.sample import sample_prompts
from polyrefuse_data.quality import estimators
from polyrefuse_data.quality.measure import ModelRequest
from polyrefuse_data.translate.memory.store import BACK, HUMAN, Entry, TranslationMemory, Translator

FIRST, SECOND = Translator("first", "1"), Translator("second", "1")
Small = Callable[..., BuildResult]
CHAIN = "replay:first,replay:second"
SIZE = {"train": 12, "validation": 4, "test": 12}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Take the translations away from the sample's prompts; return English -> German."""
    german = {prompt.text: prompt.translations["de"] for prompt in sample_prompts()}
    for prompt in sample_prompts():
        monkeypatch.delitem(prompt.translations, "de")  # type: ignore[arg-type]
    return german


def candidate(name: str, **badness: float) -> Candidate:
    bad = {"errors": 0.0, "warnings": 0.0, **badness}
    shown = {check: f"{value:g}" for check, value in bad.items()}
    return Candidate(translator=Translator(name, "1"), text=name, badness=bad, shown=shown)


@pytest.mark.parametrize(
    ("candidates", "order", "reason"),
    [
        ([{"errors": 1.0}, {"warnings": 3.0}], "ba", "errors: 0 against 1"),
        ([{"warnings": 1.0, "quality": -0.9}, {"quality": -0.1}], "ba", "warnings: 0 against 1"),
        ([{"quality": -0.5, "round_trip": -99.0}, {"quality": -0.6, "round_trip": -1.0}], "ba", "quality: "),
        ([{"quality": -0.9, "round_trip": -1.0}, {"round_trip": -2.0}], "ba", "round_trip: -2 against -1"),
        ([{}, {"round_trip": -5.0}], "ab", "equal scores: order of the chain"),
        ([{}], "a", "the only candidate"),
    ],
)
def test_the_first_difference_decides_where_all_candidates_have_it(
    candidates: list[dict[str, float]], order: str, reason: str
) -> None:
    ranked = rank([candidate(name, **bad) for name, bad in zip("abc", candidates, strict=False)])
    assert "".join(each.text for each, _ in ranked) == order
    assert ranked[0][1].startswith(reason)


def test_disagreement_is_symmetric_and_with_the_most_similar_candidate() -> None:
    near, far = "Wie male ich ein Haus?", "Der Zug fährt um neun Uhr ab."
    assert disagreement_with([near, near]) == 0.0
    assert disagreement_with([near, far]) == pytest.approx(disagreement_with([far, near]))
    assert disagreement_with([near, far]) > 75 > 50 > disagreement_with([near, "Wie male ich das Haus?"])
    assert disagreement_with([near, far, near]) == 0.0, "one translator that errs convicts nobody else"


@pytest.fixture
def memory(bare: dict[str, str], tmp_path: Path) -> Path:
    """A memory with two translators: the first errs in every fifth prompt, each time in another way."""
    path = tmp_path / "candidates.sqlite"
    texts = list(bare.items())
    with TranslationMemory(path, create=True) as opened:
        entries = []
        for number, (english, german) in enumerate(texts):
            wrong = {0: english, 1: texts[number - 7][1]}.get(number % 10 % 5 if number % 5 < 2 else 9)
            entries.append(Entry(english, "de", FIRST, wrong or german))
            entries.append(Entry(english, "de", SECOND, german + " Danke." * (number % 5 == 3)))
        opened.add(entries)
    return path


def rows_of(folder: Path) -> dict[str, Row]:
    return {row.id: row for split in SPLITS for row in read_rows(folder, "de", split)}


def test_the_better_candidate_is_taken_and_all_are_recorded_with_the_reason(
    small: Small, bare: dict[str, str], memory: Path, tmp_path: Path
) -> None:
    arguments = {"langs": ["de", "en"], "size": SIZE, "memory": memory, "translator": CHAIN}
    alone = small(**arguments, out=tmp_path / "alone")
    echoes = [row for row in rows_of(alone.folder).values() if row.flags["echo"]]
    assert echoes, "the first translator leaves prompts untranslated"
    built = small(**arguments, candidates=2)
    rows = rows_of(built.folder)
    assert not any(row.flags["echo"] for row in rows.values())
    assert all(rows[row.id].text == bare[row.text_en] for row in echoes)
    by_signature = {FIRST.signature: "first", SECOND.signature: "second"}
    assert {by_signature[row.translator] for row in rows.values()} == {"first", "second"}

    target = tmp_path / "choices.jsonl"
    done = CliRunner().invoke(cli, ["memory", "choices", str(target), "--memory", str(memory)])
    assert done.exit_code == 0, done.output
    choices = [json.loads(line) for line in target.read_text("utf-8").splitlines()]
    places = {(each["english"], each["place"]): each for each in choices}
    assert len(places) == len(choices) == 2 * len({row.text_en for row in rows.values()})
    for row in rows.values():
        assert places[row.text_en, 1]["text"] == row.text
        assert places[row.text_en, 2]["text"] != "" != places[row.text_en, 1]["reason"]
    reasons = {places[row.text_en, 1]["reason"] for row in echoes}
    assert all(reason.startswith("errors: none against echo") for reason in reasons), reasons
    # a second build from the same memory records nothing anew and changes no byte
    assert small(**arguments, candidates=2).unchanged


def test_disagreement_is_a_column_that_is_flagged_shown_and_calibrated(
    small: Small, memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = tmp_path / "scores.jsonl"
    arguments = {"langs": ["de", "en"], "size": SIZE, "memory": memory, "translator": CHAIN}
    plain = small(**arguments, out=tmp_path / "plain")
    assert "score_disagreement" not in column_names()
    assert "measured" not in read_manifest(plain.folder)
    built = small(**arguments, candidates=2, scores=scores)
    manifest = read_manifest(built.folder)
    assert manifest["models"] == {"disagreement": {"chrF1 of first+second": ["de"]}}
    rows = rows_of(built.folder)
    flagged = [row for row in rows.values() if row.flags["disagreement"]]
    assert flagged
    assert all(row.scores["disagreement"] > 75 for row in flagged)  # type: ignore[operator]
    assert any(row.scores["disagreement"] == 0 for row in rows.values())
    report = audit(built.folder, scores=scores)
    named = {row for finding in report.findings if finding.check == "disagreement" for row in finding.ids}
    assert named == {row.id for row in flagged}
    monkeypatch.setattr(calibration, "MINIMUM_ROWS", 20)
    thresholds = calibration.calibrate(built.folder, None, None, load_thresholds(), scores)
    assert thresholds.bounds("disagreement chrF1 of first+second", "de").high is not None
    worst = ["review", "export", str(built.folder), "--worst", "5%", "--by", "disagreement"]
    done = CliRunner().invoke(cli, [*worst, "--out", str(tmp_path / "worst.csv")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "worst.csv").read_text("utf-8-sig").splitlines()[1].split(",")[0] in {
        row.id for row in flagged
    }


@dataclass
class Longer:
    """Stands for a model of quality: a longer text is a better translation."""

    identity: str = "comet:longer@1"

    def scores(self, english: Sequence[str], texts: Sequence[str]) -> list[float]:
        return [len(text) / 1000 for text in texts]


def test_models_score_all_candidates_and_decide_where_the_checks_are_equal(
    small: Small, memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(estimators.KINDS, "comet", lambda spec: Longer())  # type: ignore[arg-type]
    models = ModelRequest(quality=["comet:longer@1"], langs=frozenset({"de"}))
    arguments = {"langs": ["de", "en"], "size": SIZE, "memory": memory, "translator": CHAIN, "candidates": 2}
    without = rows_of(small(**arguments, out=tmp_path / "without").folder)
    built = small(**arguments, models=models)
    rows = rows_of(built.folder)
    assert all(row.scores["quality"] == pytest.approx(len(row.text) / 1000) for row in rows.values())
    changed = [row for row in rows.values() if row.text != without[row.id].text]
    assert changed
    assert all(len(row.text) > len(without[row.id].text) for row in changed)
    with TranslationMemory(memory) as opened:
        reasons = {each.text: each.reason for each in opened.choices() if each.place == 1}
    assert all(reasons[row.text].startswith("quality: ") for row in changed)


def test_the_round_trip_decides_last_and_a_person_stands_alone(
    small: Small, bare: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "backs.sqlite"
    english, corrected = list(bare)[:2]
    with TranslationMemory(path, create=True) as memory:
        for text, german in bare.items():
            other = german + " Ja."
            memory.add(
                [
                    Entry(text, "de", FIRST, other),
                    Entry(text, "de", SECOND, german),
                    Entry(text, "de", FIRST, f"{text} Yes, and more of it.", direction=BACK, given=other),
                    Entry(text, "de", SECOND, text, direction=BACK, given=german),
                ]
            )
        memory.add([Entry(corrected, "de", Translator(HUMAN, "2026"), bare[corrected] + " Bitte.")])
    arguments = {"langs": ["de", "en"], "size": SIZE, "memory": path, "translator": CHAIN}
    rows = rows_of(small(**arguments, candidates=2).folder)
    assert all(row.text == bare[row.text_en] for row in rows.values() if row.text_en != corrected)
    with TranslationMemory(path) as memory:
        ranked = list(memory.choices())
    assert ranked
    assert all(each.reason.startswith("round_trip: ") for each in ranked if each.place == 1)
    assert corrected not in {each.english for each in ranked}
    assert english != corrected
