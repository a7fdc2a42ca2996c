"""Answers in the forms in which tools and papers publish them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.judging.answer_formats import flat_records
from polyrefuse_eval.judging.base import Advance, JudgeInput, Verdict
from polyrefuse_eval.judging.native.judge import NativeJudge
from polyrefuse_eval.judging.of_files import BadLine, Line, Reading, judge_file, read_lines, scan

REFUSAL = "I cannot help with that."


def batch(message: dict[str, Any] | None, status: int = 200) -> dict[str, Any]:
    body = {"choices": [{"message": message}]} if message else {"error": {"message": "slow down"}}
    return {
        "id": "batch_req_7",
        "custom_id": "p7",
        "response": {"status_code": status, "body": body},
        "error": None,
    }


FORMS = {
    "refusal_direction": ([{"category": "harmful", "prompt": "P", "response": REFUSAL}], "1"),
    "AlpacaEval": ([{"instruction": "P", "output": REFUSAL, "generator": "tiny"}], "1"),
    "JailbreakBench": (
        {"parameters": {}, "jailbreaks": [{"index": 7, "goal": "G", "prompt": "P", "response": REFUSAL}]},
        "7",
    ),
    "HarmBench": ({"bread": [{"test_case": "P", "generation": REFUSAL, "label": 0}]}, "bread-0"),
    "batch": (batch({"role": "assistant", "content": REFUSAL}), "p7"),
    "batch, refused by the service": (batch({"content": None, "refusal": REFUSAL}), "p7"),
    "messages": (
        {
            "id": 3,
            "messages": [
                {"role": "system", "content": "S"},
                {"role": "user", "content": "before"},
                {"role": "assistant", "content": "Of course."},
                {"role": "user", "content": [{"type": "text", "text": "P"}, {"type": "image_url"}]},
                {"role": "assistant", "content": REFUSAL},
                {"role": "user", "content": "and then?"},
            ],
        },
        "3",
    ),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "P"}, {"from": "gpt", "value": REFUSAL}]},
        "1",
    ),
    "lm_eval": (
        {"doc_id": 5, "doc": {"prompt": "P"}, "resps": [[REFUSAL]], "filtered_resps": [REFUSAL]},
        "5",
    ),
}


@pytest.mark.parametrize("indent", [None, 1], ids=["a line", "indented"])
@pytest.mark.parametrize("form", FORMS)
def test_the_answer_its_prompt_and_its_id_are_found(tmp_path: Path, form: str, indent: int | None) -> None:
    content, identifier = FORMS[form]
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(content, indent=indent), encoding="utf-8")
    (line,) = read_lines(path, Reading(lang="en"))
    assert isinstance(line, Line), line
    prompt = None if form.startswith("batch") else "P"
    assert line.item == JudgeInput(identifier, "en", REFUSAL, prompt)


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (batch(None, 429), "the service gave no answer (status 429)"),
        ({"custom_id": "a", "response": None, "error": {"code": "expired"}}, "no answer (status unknown)"),
        ({"custom_id": "a"}, "no answer (status unknown)"),
        (batch({"content": None}), "'response' is missing"),
        ({"messages": [{"role": "user", "content": "P"}]}, "the transcript has no turn of an assistant"),
        ({"messages": [1, None, {"role": "assistant"}]}, "'response' is missing"),
        ({"jailbreaks": [7]}, "'response' is missing"),
        ({"resps": []}, "'response' is missing"),
        ({"resps": [[{"a": 1}]]}, "'response' is {"),
        ({"bread": []}, "'response' is missing"),
    ],
)
def test_a_record_without_an_answer_is_named(tmp_path: Path, record: dict[str, Any], problem: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    (line,) = read_lines(path, Reading(lang="en"))
    assert isinstance(line, BadLine)
    assert problem in line.problem


def test_a_record_with_a_response_is_what_it_says() -> None:
    record = {
        "id": "a",
        "lang": "de",
        "response": REFUSAL,
        "messages": [{"role": "assistant", "content": "B"}],
    }
    assert list(flat_records(record)) == [record]


@pytest.mark.parametrize("indent", [None, 1], ids=["a line", "indented"])
def test_many_answers_of_one_object_are_judged_in_their_order(tmp_path: Path, indent: int | None) -> None:
    path, out = tmp_path / "completions.json", tmp_path / "verdicts.jsonl"
    answers = ("Of course: knead it well.", REFUSAL)
    completions = {"bread": [{"test_case": "P", "generation": answer} for answer in answers]}
    path.write_text(json.dumps(completions, indent=indent), encoding="utf-8")
    done = CliRunner().invoke(eval_group, ["judge", str(path), "--lang", "en", "--out", str(out)])
    assert done.exit_code == 0, done.output
    verdicts = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(verdict["id"], verdict["refused"]) for verdict in verdicts] == [
        ("bread-0", False),
        ("bread-1", True),
    ]


class DiesAfterOne(NativeJudge):
    """The native judge, killed at the second answer."""

    chunk = 1
    judged = 0

    def judge(self, items: Sequence[JudgeInput], advance: Advance | None = None) -> list[Verdict]:
        self.judged += 1
        if self.judged > 1:
            raise KeyboardInterrupt
        return super().judge(items, advance)


def test_verdicts_in_one_language_are_not_gone_on_with_in_another(tmp_path: Path) -> None:
    path, out = tmp_path / "answers.json", tmp_path / "verdicts.jsonl"
    path.write_text(json.dumps([{"prompt": "P", "response": REFUSAL}] * 2))
    with pytest.raises(KeyboardInterrupt):
        judge_file(path, [DiesAfterOne()], out, found=scan(path, Reading(lang="en")))
    call = ("judge", str(path), "--out", str(out), "--lang")
    failed = CliRunner().invoke(eval_group, [*call, "de"])
    assert "holds verdicts of another input" in str(failed.exception)
    unknown = CliRunner().invoke(eval_group, [*call, "xx"])
    assert "unknown language 'xx'" in str(unknown.exception)
    assert CliRunner().invoke(eval_group, [*call, "en"]).exit_code == 0
    assert [json.loads(line)["lang"] for line in out.read_text().splitlines()] == ["en", "en"]
