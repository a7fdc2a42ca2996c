"""Read what a service sends: an answer, a refusal of its own, or a fault that is neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from polyrefuse_data.core.display import visible
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.http.faults import Fault
from polyrefuse_eval.models.thinking import MARKS
from polyrefuse_eval.results.fields import LARGEST_COUNT, LONGEST_NOTE, as_note
from polyrefuse_eval.served_names import public_name

if TYPE_CHECKING:
    from polyrefuse_eval.results.records import ServiceNote  # needs numpy, which `--help` does without

ENDED = ("stop", "eos", "end_turn", "stop_sequence", "tool_calls", "function_call")
"""Reasons of a service to end an answer: the model ended it."""

CUT = ("length", "max_tokens", "max_output_tokens", "model_length")
"""The answer was cut at its limit."""

WITHHELD = (
    "blocklist",
    "content_filter",
    "content_filtered",
    "guardrail_intervened",
    "prohibited_content",
    "recitation",
    "refusal",
    "safety",
    "sensitive",
    "spii",
)
"""The service refused the answer, or broke it off."""

BLOCKED = (
    "content_filter",
    "content_policy_violation",
    "data_inspection_failed",
    "invalid_prompt",
    "moderation_blocked",
    "prompt_blocked",
    "responsibleaipolicyviolation",
)
"""Codes of errors by which a service refuses a prompt."""


TokenId = Annotated[int, Field(ge=0, lt=2**31)]


@dataclass(frozen=True, kw_only=True)
class ServiceAnswer:
    """An answer of a service, without the reasoning before it.

    `ended` is False where it was cut at its limit, None where the service does not say. `note` says which
    version answered, how many tokens it counted, and whether the service refused. `token_ids` are those of
    the text, None where the service gives none.
    """

    text: str
    reasoning: str | None
    ended: bool | None
    n_tokens: int | None
    note: ServiceNote
    token_ids: tuple[int, ...] | None = None


class _Part(BaseModel):
    """A part of a reply; what is not read may be anything."""

    model_config = ConfigDict(extra="ignore")


class _TextPart(_Part):
    text: str = ""


class _Message(_Part):
    content: str | list[_TextPart] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(_Part):
    message: _Message | None = None
    finish_reason: str | None = None


class _Continuation(_Part):
    text: str | None = None
    finish_reason: str | None = None
    token_ids: list[TokenId] | None = None


class _Details(_Part):
    reasoning_tokens: int | None = None


class _Usage(_Part):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    completion_tokens_details: _Details | None = None


class _AnyReply(_Part):
    model: str | None = None
    system_fingerprint: str | None = None
    usage: _Usage | None = None


class _Reply(_AnyReply):
    choices: list[_Choice] | None = None


class _ContinuationReply(_AnyReply):
    choices: list[_Continuation] | None = None


AnyReply = TypeVar("AnyReply", bound=_AnyReply)


def read_reply(body: bytes) -> ServiceAnswer:
    """Return the answer in the `body` of a reply with status 200.

    Raises `Fault` where it holds none, which another try may mend: half a reply, no UTF-8, another form, an
    error in place of an answer, no choice and no reason.
    """
    value, reply = _parsed(body, _Reply, "a reply that is not a chat completion")
    choice = next(iter(reply.choices or ()), None)
    if choice is None or choice.message is None:
        blocked = _block_reason(value)
        if blocked is None:
            raise Fault("empty", "a reply without an answer")
        return ServiceAnswer(
            text="", reasoning=None, ended=True, n_tokens=None, note=_note(reply, refusal=blocked)
        )
    return _answer(reply, choice, choice.message)


def read_continuation(body: bytes) -> ServiceAnswer:
    """Return the continuation of token ids in the `body` of a reply with status 200, with any reasoning.

    Raises `Fault` where it holds none, as `read_reply`.
    """
    _, reply = _parsed(body, _ContinuationReply, "a reply that is not a completion")
    choice = next(iter(reply.choices or ()), None)
    if choice is None or choice.text is None:
        raise Fault("empty", "a reply without an answer")
    finish, refusal = _finish(choice.finish_reason)
    note = _note(reply, refusal)
    return ServiceAnswer(
        text=_valid(choice.text),
        reasoning=None,
        ended=False if finish in CUT else True if finish else None,
        n_tokens=note.completion_tokens,
        note=note,
        token_ids=None if choice.token_ids is None else tuple(choice.token_ids),
    )


def blocked_prompt(error: Any) -> ServiceAnswer | None:
    """Return the service's refusal of a prompt in the `error` object of a reply; None for other errors."""
    if not isinstance(error, Mapping):
        return None
    inner, metadata = error.get("innererror"), error.get("metadata")
    codes = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, Mapping) else None]
    code = next((str(code) for code in codes if str(code).lower() in BLOCKED), None)
    if code is None and isinstance(metadata, Mapping) and "flagged_input" in metadata:
        code = "flagged_input"
    if code is None:
        return None
    from polyrefuse_eval.results.records import ServiceNote

    note = ServiceNote(
        model=None,
        system_fingerprint=None,
        refusal=f"blocked prompt: {_name(code)}",
        prompt_tokens=None,
        completion_tokens=None,
    )
    return ServiceAnswer(text="", reasoning=None, ended=True, n_tokens=None, note=note)


def error_in_reply(error: Any) -> Fault:
    """Return what an error means that came with status 200."""
    code = error.get("code") if isinstance(error, Mapping) else None
    return Fault(
        "throttled" if str(code) == "429" else "server_error", f"an error, code {visible(code)[:40]}"
    )


def split_reasoning(text: str) -> tuple[str | None, str | None]:
    """Divide `text` into what the model thought, None where it did not, and its answer, None where its
    thoughts did not end.

    A template may open the block of thoughts itself, so that the text holds its end alone.
    """
    for marks in MARKS:
        opened = text.lstrip().startswith(marks.opening)
        thoughts, closing, answer = text.partition(marks.closing)
        if not opened and not closing:
            continue
        thoughts = thoughts.rpartition(marks.opening)[2].strip()
        if marks.before_closing:
            thoughts = thoughts.removesuffix(marks.before_closing).rstrip()
        return thoughts or None, answer.lstrip() if closing else None
    return None, text


def _parsed(body: bytes, form: type[AnyReply], otherwise: str) -> tuple[dict[str, Any], AnyReply]:
    """Return the JSON object in `body`, and the same in `form`; else raise `Fault` with `otherwise`."""
    try:
        value = parse_json(body)
    except ValueError:
        page = body[:200].lstrip().startswith(b"<")
        raise Fault("page" if page else "truncated", "no JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise Fault("page", otherwise)
    if value.get("error"):
        raise error_in_reply(value["error"])
    try:
        return value, form.model_validate(value)
    except ValidationError:
        raise Fault("page", otherwise) from None


def _finish(reason: str | None) -> tuple[str, str | None]:
    """Return why an answer ended, and the same where the service refused; raises `Fault` for other ends."""
    finish = (reason or "").lower()
    if finish and finish not in (*ENDED, *CUT, *WITHHELD):
        raise Fault("server_error", f"an answer that ended for '{visible(finish)[:40]}'")
    return finish, finish if finish in WITHHELD else None


def _answer(reply: _Reply, choice: _Choice, message: _Message) -> ServiceAnswer:
    finish, refusal = _finish(choice.finish_reason)
    content = message.content
    if isinstance(content, list):
        content = "".join(part.text for part in content)
    given = message.reasoning_content or message.reasoning
    if message.refusal:
        content, refusal = content or message.refusal, refusal or "refusal"
    if content is None and not (refusal or given or finish in CUT):
        raise Fault("empty", "an answer without text and without a reason")
    thoughts, answer = split_reasoning(_valid(content or ""))
    details = reply.usage.completion_tokens_details if reply.usage is not None else None
    note = _note(reply, refusal)
    n_tokens = note.completion_tokens
    if n_tokens is not None and details is not None and details.reasoning_tokens is not None:
        n_tokens = max(0, n_tokens - max(0, details.reasoning_tokens))
    return ServiceAnswer(
        text=answer or "",
        reasoning=_valid(given) if given else thoughts,
        ended=False if finish in CUT or answer is None else True if finish else None,
        n_tokens=n_tokens,
        note=note,
    )


def _note(reply: _AnyReply, refusal: str | None) -> ServiceNote:
    usage = reply.usage or _Usage()
    from polyrefuse_eval.results.records import ServiceNote

    return ServiceNote(
        model=_name(public_name(reply.model)) if reply.model else None,
        system_fingerprint=_name(reply.system_fingerprint) if reply.system_fingerprint else None,
        refusal=refusal,
        prompt_tokens=_count(usage.prompt_tokens),
        completion_tokens=_count(usage.completion_tokens),
    )


def _block_reason(value: Mapping[str, Any]) -> str | None:
    """Return why a reply without a choice holds none; None where it does not say."""
    feedback = value.get("prompt_feedback", value.get("promptFeedback"))
    if isinstance(feedback, Mapping):
        reason = feedback.get("block_reason", feedback.get("blockReason"))
        if reason:
            return f"blocked prompt: {_name(reason)}"
    filters = value.get("prompt_filter_results")
    return "blocked prompt: content_filter" if filters and "'filtered': True" in str(filters) else None


def _name(text: object) -> str:
    return as_note(text, LONGEST_NOTE // 2) or "?"


def _count(number: int | None) -> int | None:
    return number if number is not None and 0 <= number <= LARGEST_COUNT else None


def _valid(text: str) -> str:
    """Return `text` with a replacement character for each half of a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
