"""The forms in which tools and papers publish answers, as records with `id`, `prompt` and `response`.

Each form is known by its fields: completions of refusal_direction and AlpacaEval, JailbreakBench's artifacts,
HarmBench's completions, chat transcripts (`messages`, or ShareGPT's `conversations`), output files of
OpenAI's batches, and the samples that lm-evaluation-harness logs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from polyrefuse_eval.errors import JudgeError

RESPONSE_FIELDS = ("response", "generation", "completion", "output")
PROMPT_FIELDS = ("prompt", "test_case", "instruction", "question", "goal")

TRANSCRIPTS = ("messages", "conversations")
ASSISTANTS = ("assistant", "gpt", "model")
USERS = ("user", "human")


def flat_records(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the answers of `record`, each with `response` and, where they are known, `prompt` and `id`.

    Other fields stay as they are. A record of no known form is yielded as it is. Raises `JudgeError` where a
    service reports an error in place of an answer, and where a transcript has no answer.
    """
    turns = next((record[name] for name in TRANSCRIPTS if name in record), None)
    if isinstance(record.get("jailbreaks"), list):  # JailbreakBench
        yield from (_renamed(entry, identifier="index") for entry in _objects(record["jailbreaks"]))
    elif is_harmbench(record):
        for behavior, entries in record.items():
            for number, entry in enumerate(entries):
                yield {"id": f"{behavior}-{number}", **_renamed(entry)}
    elif "custom_id" in record and isinstance(record.get("response"), dict | None):  # OpenAI's batches
        yield {**record, "id": record["custom_id"], "response": _batch_answer(record.get("response") or {})}
    elif isinstance(turns, list) and "response" not in record:
        yield {**record, **_last_exchange(turns)}
    elif isinstance(record.get("resps"), list):  # lm-evaluation-harness
        yield _sample(record)
    else:
        yield _renamed(record)


def _renamed(record: Mapping[str, Any], identifier: str = "id") -> dict[str, Any]:
    """Return `record` with its answer, prompt and id under our names."""
    renamed = dict(record)
    for name, fields in (("response", RESPONSE_FIELDS), ("prompt", PROMPT_FIELDS), ("id", (identifier,))):
        known = next((field for field in fields if record.get(field) is not None), None)
        if known is not None:
            renamed[name] = record[known]
    return renamed


def is_published_form(record: Mapping[str, Any]) -> bool:
    """Return whether `record` has one of the forms above, and is no record with its answer in a field."""
    lists = any(isinstance(record.get(name), list) for name in ("jailbreaks", *TRANSCRIPTS, "resps"))
    return lists or "custom_id" in record or is_harmbench(record)


def is_harmbench(record: Mapping[str, Any]) -> bool:
    """Return whether `record` holds completions as HarmBench writes them, `{id: [{generation}]}`."""
    return bool(record) and all(
        isinstance(entries, list)
        and entries
        and all(isinstance(entry, dict) and "generation" in entry for entry in entries)
        for entries in record.values()
    )


def _objects(entries: Sequence[Any]) -> Iterator[dict[str, Any]]:
    return (entry if isinstance(entry, dict) else {} for entry in entries)


def _batch_answer(response: Mapping[str, Any]) -> Any:
    """Return the answer in a line of a batch's output, or the refusal that the service says in its place."""
    status, body = response.get("status_code", "unknown"), response.get("body")
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise JudgeError(f"the service gave no answer (status {status})")
    content = _text(message.get("content"))
    return message.get("refusal") if content is None else content


def _last_exchange(turns: Sequence[Any]) -> dict[str, Any]:
    """Return the last answer of a transcript and the user's turn before it."""
    spoken = [
        (turn.get("role", turn.get("from")), _text(turn.get("content", turn.get("value"))))
        for turn in _objects(turns)
    ]
    last = next((index for index in reversed(range(len(spoken))) if spoken[index][0] in ASSISTANTS), None)
    if last is None:
        raise JudgeError("the transcript has no turn of an assistant")
    prompts = [text for role, text in spoken[:last] if role in USERS]
    return {"response": spoken[last][1], "prompt": prompts[-1] if prompts else None}


def _text(content: Any) -> Any:
    """Return the text of a message; parts of a list are joined, what is not text is left out."""
    if isinstance(content, list):
        return "".join(str(part["text"]) for part in _objects(content) if isinstance(part.get("text"), str))
    return content


def _sample(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a logged sample with its first answer; prompt and language are those of its document."""
    document = record["doc"] if isinstance(record.get("doc"), dict) else {}
    answers = record["resps"][0] if record["resps"] else None
    sample = _renamed({name: document[name] for name in ("id", "lang", *PROMPT_FIELDS) if name in document})
    if "id" not in sample and "doc_id" in record:
        sample["id"] = record["doc_id"]
    return {**sample, "response": answers[0] if isinstance(answers, list) and answers else answers}
