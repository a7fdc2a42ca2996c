"""What can go wrong between a question and its answer: three kinds, each with a stable reason.

No message here quotes an address, a header or a service's words about a key: secrets stay out of logs.
"""

from __future__ import annotations

from polyrefuse_data.core.errors import PolyRefuseError

REASONS = {
    "throttled": "the service asks for fewer requests",
    "server_error": "the service failed",
    "connection": "the connection failed or broke off",
    "timeout": "no answer in time",
    "redirect": "the service pointed elsewhere, which is not followed",
    "forbidden": "the service refused the request",
    "truncated": "the answer was cut",
    "page": "a page came back where a translation was expected",
    "empty": "an empty answer",
    "echo": "the text came back untranslated",
    "language": "the answer is in another language",
    "answer": "the service answered or refused instead of translating",
    "length": "the answer is far longer than the text",
    "mismatch": "the answer belongs to another text",
    "protected": "the answer lost an address or code of the text",
    "differs": "asked again, the answer was another each time",
    "rejected": "the service does not take this text",
    "stopped": "the backend was given up before this text was asked",
    "uncovered": "the backend does not know the language",
}
"""Why a question stayed without an answer: a stable name and what it means."""


class TranslatorError(PolyRefuseError):
    """A translator that cannot be used: a wrong key, an address nobody answers at, a missing extra."""


class Fault(Exception):  # noqa: N818 (a fault of the service, not of the program)
    """One failed try; another may go well. `retry_after` is the service's wish in seconds."""

    def __init__(self, reason: str, detail: str = "", retry_after: float | None = None) -> None:
        if reason not in REASONS:
            raise ValueError(f"reason is '{reason}'; expected one of {', '.join(REASONS)}")
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.retry_after = retry_after


class Rejected(Fault):
    """The service will not do this text, however often it is asked; another backend may."""
