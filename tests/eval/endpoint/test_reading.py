"""What a service sends is an answer, a refusal of its own, or a fault; never one taken for another."""

from __future__ import annotations

import json
from typing import Any

import pytest

from polyrefuse_data.http.faults import Fault
from polyrefuse_eval.endpoint.reading import ServiceAnswer, blocked_prompt, read_reply, split_reasoning
from polyrefuse_eval.served_names import public_name


def reply(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}], **more}).encode()


@pytest.mark.parametrize(
    ("body", "text", "reasoning", "ended", "refusal"),
    [
        (reply({"content": "Yes."}), "Yes.", None, True, None),
        (reply({"content": "Yes"}, "length"), "Yes", None, False, None),
        (reply({"content": "Yes."}, None), "Yes.", None, None, None),
        (reply({"content": ""}), "", None, True, None),
        (reply({"content": [{"type": "text", "text": "Ye"}, {"type": "text", "text": "s."}]}), "Yes.", None,
         True, None),
        (reply({"content": "Yes.", "reasoning_content": "Hm."}), "Yes.", "Hm.", True, None),
        (reply({"content": "Yes.", "reasoning": "Hm."}), "Yes.", "Hm.", True, None),
        (reply({"content": "<think>\nHm.\n</think>\n\nYes."}), "Yes.", "Hm.", True, None),
        (reply({"content": "Hm.\n</think>\n\nYes."}), "Yes.", "Hm.", True, None),
        (reply({"content": "<think>\nHm"}, "length"), "", "Hm", False, None),
        (reply({"content": None, "reasoning_content": "Hm"}, "length"), "", "Hm", False, None),
        (reply({"content": None, "refusal": "No."}), "No.", None, True, "refusal"),
        (reply({"content": "Ye"}, "content_filter"), "Ye", None, True, "content_filter"),
        (reply({"content": None}, "SAFETY"), "", None, True, "safety"),
        (b'{"choices": [], "promptFeedback": {"blockReason": "SAFETY"}}', "", None, True,
         "blocked prompt: SAFETY"),
        (reply({"content": "a\ud800b"}), "a\ufffdb", None, True, None),
    ],
)  # fmt: skip
def test_answers(
    body: bytes, text: str, reasoning: str | None, ended: bool | None, refusal: str | None
) -> None:
    answer = read_reply(body)
    assert (answer.text, answer.reasoning, answer.ended) == (text, reasoning, ended)
    assert answer.note.refusal == refusal


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"choices": [{"mess', "truncated"),
        (b"<html>busy</html>", "page"),
        (b'{"choices": [{"message": {"content": "\xff\xfe"}}]}', "truncated"),
        (b"[]", "page"),
        (b'{"choices": "none"}', "page"),
        (b'{"choices": []}', "empty"),
        (b'{"choices": [{}]}', "empty"),
        (reply({"content": None}), "empty"),
        (reply({"content": "Yes"}, "error"), "server_error"),
        (reply({"content": "Yes"}, "abort"), "server_error"),
        (b'{"error": {"message": "busy", "code": 429}}', "throttled"),
        (b'{"error": "broken"}', "server_error"),
        (b"[" * 100_000, "truncated"),
    ],
)
def test_what_is_no_answer_is_a_fault(body: bytes, reason: str) -> None:
    with pytest.raises(Fault) as caught:
        read_reply(body)
    assert caught.value.reason == reason


def test_counts_that_cannot_be_make_no_record_that_cannot_be_read() -> None:
    usage = {"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": -(10**30)}}
    assert read_reply(reply({"content": "Yes."}, usage=usage)).n_tokens == 5


def test_a_version_and_tokens_are_noted_and_nothing_in_a_name_acts() -> None:
    usage = {
        "prompt_tokens": 7,
        "completion_tokens": 30,
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    answer = read_reply(reply({"content": "Yes."}, usage=usage, model="m\x1b[2J" + "x" * 500))
    assert answer.n_tokens == 10
    assert answer.note.completion_tokens == 30
    assert answer.note.model is not None
    assert answer.note.model.startswith("m\\x1b[2J")
    assert len(answer.note.model) <= 200
    unseen = read_reply(reply({"content": "Yes."}, model="\u200d\u2065", system_fingerprint="a\u200db"))
    assert (unseen.note.model, unseen.note.system_fingerprint) == ("?", "ab")
    negative = read_reply(
        reply({"content": "Yes."}, usage={"prompt_tokens": -1, "completion_tokens": 10**30})
    )
    assert negative.note.prompt_tokens is None
    assert negative.note.completion_tokens is None


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        ({"code": "content_filter"}, "blocked prompt: content_filter"),
        ({"code": "content_policy_violation"}, "blocked prompt: content_policy_violation"),
        ({"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}},
         "blocked prompt: ResponsibleAIPolicyViolation"),
        ({"code": 403, "metadata": {"flagged_input": "…", "reasons": []}}, "blocked prompt: flagged_input"),
        ({"code": "context_length_exceeded"}, None),
        ("busy", None),
    ],
)  # fmt: skip
def test_a_blocked_prompt_is_a_refusal_and_another_error_is_none(error: Any, refusal: str | None) -> None:
    answer = blocked_prompt(error)
    assert (answer.note.refusal if isinstance(answer, ServiceAnswer) else None) == refusal


def test_reasoning_in_the_text_of_other_families() -> None:
    assert split_reasoning("[THINK]Hm.[/THINK]Yes.") == ("Hm.", "Yes.")
    assert split_reasoning("<seed:think>Hm.</seed:think>\nYes.") == ("Hm.", "Yes.")
    assert split_reasoning("I think so.") == (None, "I think so.")


@pytest.mark.parametrize(
    ("model", "written"),
    [
        ("/data/models/secret/m1/", "m1"),
        ("~/secret/m1.gguf", "m1.gguf"),
        ("../secret/m1", "m1"),
        (r"C:\secret\m1", "m1"),
        (r"\\host\secret\m1", "m1"),
        ("file:///secret/m1", "m1"),
        ("/", "?"),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("accounts/fireworks/models/m1", "accounts/fireworks/models/m1"),
        ("llama3.2:1b", "llama3.2:1b"),
    ],
)
def test_of_a_path_the_last_part_is_written(model: str, written: str) -> None:
    assert public_name(model) == written
    assert public_name(written) == written
    note = read_reply(reply({"content": "Yes."}, model=model)).note
    assert note.model == written
