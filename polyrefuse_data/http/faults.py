"""What can go wrong between a request and its answer: three kinds, each with a stable reason.

Messages quote no address, no header and no key.
"""

from __future__ import annotations

import regex

from polyrefuse_data.core.errors import PolyRefuseError

REASONS = {
    "throttled": "the service asks for fewer requests",
    "server_error": "the service failed",
    "connection": "the connection failed or was interrupted",
    "timeout": "no answer in time",
    "forbidden": "the service refused the request",
    "truncated": "the answer was truncated",
    "page": "a page came back where a translation was expected",
    "empty": "an empty answer",
    "echo": "the text came back untranslated",
    "language": "the answer is in another language",
    "answer": "the service answered or refused instead of translating",
    "length": "the answer is far longer than the text",
    "mismatch": "the answer belongs to another text",
    "protected": "the answer lost an address or code of the text",
    "differs": "repeated requests got different answers",
    "repeated": "different texts got the same answer",
    "rejected": "the service does not take this text",
    "stopped": "the backend was given up before this text was asked",
    "uncovered": "the backend does not know the language",
}
"""Why a question has no answer: a stable name and its meaning."""

EXCERPT_CHARACTERS = 100

_UNPRINTABLE = regex.compile(r"[\p{C}\s]+")


def excerpt(text: str) -> str:
    """Return the beginning of `text` as one printable line of at most 100 characters."""
    line = _UNPRINTABLE.sub(" ", text[: 4 * EXCERPT_CHARACTERS]).strip()
    return line if len(line) <= EXCERPT_CHARACTERS else f"{line[: EXCERPT_CHARACTERS - 1]}…"


class TranslatorError(PolyRefuseError):
    """A service that cannot be used: a wrong key, an address without a server, a missing extra.

    `sample` is an answer that shows why; the message quotes it, `summary` does not (for logs, which hold no
    text of a prompt).
    """

    def __init__(self, message: str, sample: str = "") -> None:
        super().__init__(f"{message}. One answer was: '{excerpt(sample)}'" if sample else message)
        self.summary = message


class Fault(Exception):  # noqa: N818 (a fault of the service, not of the program)
    """A failed try; another may succeed.

    `reason` is a key of `REASONS`, `retry_after` the wait in seconds that the service asks for, `sample` an
    excerpt of the answer.
    """

    def __init__(
        self, reason: str, detail: str = "", retry_after: float | None = None, sample: str = ""
    ) -> None:
        if reason not in REASONS:
            raise ValueError(f"reason is '{reason}'; expected one of {', '.join(REASONS)}")
        super().__init__(f"{reason}: {detail or REASONS[reason]}")
        self.reason = reason
        self.detail = detail
        self.retry_after = retry_after
        self.sample = sample


class Rejected(Fault):
    """A text that the service will not take, however often it is asked; another backend may."""
