"""Reviews by a team in Argilla: records as its client loads them, answers as its client writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from uuid import UUID

import pytest
from click.testing import CliRunner

from polyrefuse_data.audit.argilla import write_argilla
from polyrefuse_data.audit.review import export_review, import_review, withdraw_review
from polyrefuse_data.audit.review_cells import ReviewError, review_row
from polyrefuse_data.build.package import read_rows
from polyrefuse_data.cli.review import review
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.translate.memory.store import TranslationMemory

ANN, BEN = str(UUID(int=1)), str(UUID(int=2))
BETTER = "これは人が書き直した正しい翻訳です。"
Answers = Mapping[str, Mapping[str, str]]


@pytest.fixture
def records(small_build: Path, tmp_path: Path) -> list[dict[str, Any]]:
    out = tmp_path / "review"
    rows = export_review(small_build, out, flagged=False, langs=["ja"], kind="argilla")
    found: list[dict[str, Any]] = json.loads((out / "records.json").read_text("utf-8"))
    assert len(found) == rows
    return found


def flat(record: Mapping[str, Any], answers: Answers, status: str = "submitted") -> dict[str, Any]:
    """Return a record with the answers of users as `to_list(flatten=True)` has them."""
    values = {"id": record["id"], "status": "completed", "_server_id": None}
    values |= {**record["fields"], **record["metadata"], "correction.suggestion": record["fields"]["text"]}
    for question in ("verdict", "correction", "comment"):
        given = [(user, own[question]) for user, own in answers.items() if question in own]
        values[f"{question}.responses"] = [value for _, value in given] or None
        values[f"{question}.responses.users"] = [user for user, _ in given] or None
        values[f"{question}.responses.status"] = [status for _ in given] or None
    return values


def nested(record: Mapping[str, Any], answers: Answers) -> dict[str, Any]:
    """Return a record with the answers of users as `to_json` has them."""
    responses: dict[str, Any] = {}
    for user, own in answers.items():
        for question, value in own.items():
            responses.setdefault(question, []).append({"value": value, "user_id": user})
    return {**record, "status": "completed", "responses": responses}


def write(path: Path, values: object) -> Path:
    path.write_text(json.dumps(values), "utf-8")
    return path


def people(memory: Path) -> list[tuple[str, dict[str, str]]]:
    with TranslationMemory(memory) as opened:
        return [
            (entry.text, json.loads(entry.note or "{}"))
            for entry in opened.entries()
            if entry.translator.backend == "human"
        ]


@pytest.mark.parametrize("form", [flat, nested])
def test_corrections_of_users_are_taken_once_and_withdrawn(
    records: list[dict[str, Any]], tmp_path: Path, form: Any
) -> None:
    unchanged = records[1]["fields"]["text"]
    answers: list[Answers] = [
        {ANN: {"verdict": "wrong", "correction": BETTER, "comment": "=a"}, BEN: {"verdict": "right"}},
        {ANN: {"verdict": "right", "correction": unchanged}},
        {ANN: {"verdict": "wrong"}},
        {},
    ]
    file = write(tmp_path / "r.json", [form(*pair) for pair in zip(records[:4], answers, strict=True)])
    memory = tmp_path / "m.sqlite"
    done = import_review(file, memory)
    assert (done.added, done.untouched) == (1, 3)
    ((text, note),) = people(memory)
    assert (text, note["who"], note["comment"]) == (BETTER, ANN, "=a")
    assert import_review(file, memory).same == 1
    assert withdraw_review(file, memory) == 1
    assert people(memory) == []


def test_drafts_and_discarded_answers_are_none(records: list[dict[str, Any]], tmp_path: Path) -> None:
    own: Answers = {ANN: {"verdict": "wrong", "correction": BETTER}}
    draft = flat(records[0], own, "draft")
    pending = {**nested(records[1], own), "status": "pending"}
    for number, record in enumerate((draft, flat(records[0], own, "discarded"), pending)):
        file = write(tmp_path / f"{number}.json", [record])
        assert import_review(file, tmp_path / "m.sqlite").added == 0


def test_two_corrections_of_a_row_need_a_choice(records: list[dict[str, Any]], tmp_path: Path) -> None:
    other = "これは別の人が書き直した翻訳です。"
    both = {
        ANN: {"verdict": "wrong", "correction": BETTER},
        BEN: {"verdict": "wrong", "correction": other},
    }
    file, memory = write(tmp_path / "r.json", [flat(records[0], both)]), tmp_path / "m.sqlite"
    with pytest.raises(ReviewError, match=f"record 1: 2 corrections, of {ANN}, {BEN}; import .* --reviewer"):
        import_review(file, memory)
    assert not memory.exists() or not people(memory)
    with pytest.raises(
        ReviewError, match=f"no submitted answer from this user; it has answers from {ANN}, {BEN}"
    ):
        import_review(file, memory, reviewer="ann")
    arguments = ["import", str(file), "--memory", str(memory), "--reviewer", BEN]
    assert CliRunner().invoke(review, arguments).exit_code == 0
    assert [text for text, _ in people(memory)] == [other]


def test_agreement_of_each_two_users(records: list[dict[str, Any]], tmp_path: Path) -> None:
    wrong, right = {"verdict": "wrong", "correction": BETTER}, {"verdict": "right"}
    pairs = [(wrong, wrong), (wrong, right), ({"verdict": "wrong"}, wrong), (right, right)]
    rows = [
        flat(record, {ANN: one, BEN: other}) for record, (one, other) in zip(records[:4], pairs, strict=True)
    ]
    rows.append(flat(records[4], {ANN: wrong}))
    shown = CliRunner().invoke(review, ["agree", str(write(tmp_path / "r.json", rows))])
    # 3 of 4 agreed; Ann calls 3 wrong and Ben 2: chance .75 * .5 + .25 * .5 = .5
    assert f"{ANN} and {BEN}\n4 rows in both files: agreed on 3, kappa 0.50" in shown.stdout
    assert "Only in the first file: 1" in shown.stdout
    with pytest.raises(ReviewError, match=r"--reviewer ann: .* holds no records of Argilla"):
        import_review(write(tmp_path / "plain.json", [{"id": "a"}]), tmp_path / "m", reviewer="ann")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": None}, "no text in key"),
        ({"text_en": "other"}, "was not exported with this English"),
        ({"correction.responses": "x"}, "not a list of answers"),
        ({"correction.responses.users": []}, "not a list of answers"),
        ({"verdict.responses": ["right"]}, "calls the translation right and also corrects it"),
        ({"correction.responses": ["This is English and no Japanese."]}, "not in the script of Japanese"),
    ],
)
def test_records_that_cannot_be_taken_are_one_line(
    records: list[dict[str, Any]], tmp_path: Path, change: dict[str, object], message: str
) -> None:
    record = flat(records[0], {ANN: {"verdict": "wrong", "correction": BETTER}})
    with pytest.raises(ReviewError, match=message):
        import_review(write(tmp_path / "r.json", [{**record, **change}]), tmp_path / "m.sqlite")


def test_nothing_is_written_over(small_build: Path, tmp_path: Path) -> None:
    (tmp_path / "there.txt").write_text("mine", "utf-8")
    with pytest.raises(ReviewError, match="is not empty"):
        export_review(small_build, tmp_path, False, kind="argilla")
    with pytest.raises(PolyRefuseError, match="is a folder"):
        export_review(small_build, tmp_path, False)
    assert [path.name for path in tmp_path.iterdir()] == ["there.txt"]


def test_the_client_of_argilla_loads_what_is_written_and_writes_what_is_read(
    small_build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argilla = pytest.importorskip("argilla", reason="needs the extra argilla")
    models = pytest.importorskip("argilla._models")
    client = pytest.importorskip("argilla.client").Argilla
    io = pytest.importorskip("argilla.records._io")
    monkeypatch.setattr(client, "_default_client", MagicMock())
    row = {**review_row(read_rows(small_build, "ja", "test")[0]), "scores": "", "back": "back"}
    row["candidates"] = [{"text": "別の訳", "reason": "deepl; equal scores"}]
    write_argilla(tmp_path / "out", "my build 1.0", [row])
    dataset = json.loads((tmp_path / "out/.argilla/dataset.json").read_text("utf-8"))
    assert models.DatasetModel(**dataset).name == "review-my-build-1-0"
    settings = argilla.Settings.from_json(tmp_path / "out/.argilla/settings.json")
    settings.validate()
    assert [question.name for question in settings.questions] == ["verdict", "correction", "comment"]
    (record,) = io.JsonIO._records_from_json(tmp_path / "out/records.json")
    assert {*record.fields} <= {field.name for field in settings.fields}
    assert {*record.metadata} <= {item.name for item in settings.metadata}
    record.api_model()  # what is sent to a server
    assert "1. 別の訳" in record.fields["candidates"]
    for user, verdict, text in ((ANN, "wrong", BETTER), (BEN, "right", row["text"])):
        for question, value in (("verdict", verdict), ("correction", text)):
            record.responses.add(argilla.Response(question, value, UUID(user), status="submitted"))
    record._model.status = "completed"
    flat_file = write(tmp_path / "flat.json", io.GenericIO.to_list([record], flatten=True))
    for number, file in enumerate((flat_file, io.JsonIO.to_json([record], tmp_path / "nested.json"))):
        assert import_review(file, tmp_path / f"{number}.sqlite").added == 1
        assert people(tmp_path / f"{number}.sqlite")[0][0] == BETTER
    agreed = CliRunner().invoke(review, ["agree", str(flat_file)])
    assert "1 row in both files: agreed on 0, kappa 0.00" in agreed.stdout
