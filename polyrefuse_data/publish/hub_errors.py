"""What the Hub and its client answer in place of success, in one line that says what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from polyrefuse_data.core.errors import PublishError


class HubError(PublishError):
    """An error of the Hub; `status` is the HTTP status, None without a response."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def may_have_happened(self) -> bool:
        """Whether the request may have taken its effect all the same: the answer was lost."""
        return self.status is None or self.status >= 500


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _response(error: BaseException) -> Any:
    """Return the HTTP answer behind an error, if there is one."""
    for link in _chain(error):
        response = getattr(link, "response", None)
        if response is not None:
            return response
    return None


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status behind an error, None without a response."""
    response = _response(error)
    return None if response is None else int(response.status_code)


def is_bad_token(error: BaseException) -> bool:
    """Return whether the Hub does not know the token."""
    response = _response(error)
    return response is not None and "invalid" in str(response.headers.get("X-Error-Message", "")).lower()


def _said(response: Any) -> str:
    """Return what the server said of its refusal, in short."""
    said = response.headers.get("X-Error-Message") or ""
    if not said:
        try:
            value = response.json()
            said = value.get("error") or "" if isinstance(value, dict) else ""
        except Exception:  # the body may be anything, or read already
            said = ""
    return " ".join(str(said).split())[:200]


def explain(error: BaseException, name: str, noun: str, doing: str, lost: str) -> str:
    """Return in one line what `error` of the client means for the `noun` (data set, Space) called `name`."""
    response = _response(error)
    if response is not None and isinstance(error, ValueError) and "metadata" in str(error):
        # The client asks the Hub to check the card before anything is sent.
        return f"the Hub does not accept the card: {str(error)[:300]}; {lost}"
    if response is None:
        return _explain_without_answer(error, name, doing, lost)
    status, said = int(response.status_code), _said(response)
    because = f" ({said})" if said else ""
    code = response.headers.get("X-Error-Code") or ""
    if code == "GatedRepo":
        return f"{name} is gated and this token was not granted access ({status}); ask for access on its page"
    if code == "RevisionNotFound":
        return f"{name} has no such revision ({status}){because}; look at its tags and branches"
    if code == "EntryNotFound":
        return f"{doing}: the file is not there ({status})"
    if status == 401 and code != "RepoNotFound":
        return (
            f"the Hub does not accept the token (401){because}; make a new one with write access, "
            f"set HF_TOKEN or run `hf auth login`; {lost}"
        )
    if status == 403:
        return (
            f"the token may not do this: {doing} (403){because}; use one with write access to {name}; {lost}"
        )
    if status in (401, 404):
        return f"no {noun} {name} on the Hub, or this token may not see it ({status}); {lost}"
    if status in (409, 412):
        return f"{name} was changed by somebody else while {doing} ({status}){because}; {lost}: run again"
    if status == 429:
        wait = response.headers.get("Retry-After") or ""
        when = f"after {wait} seconds" if wait.isdigit() else "later"
        return f"the Hub's rate limit is reached (429), {doing}; {lost}; run again {when}"
    if status >= 500:
        return f"the Hub failed ({status}), {doing}{because}; {lost}; run again to finish"
    return f"the Hub refused ({status}), {doing}{because}; {lost}"


def _explain_without_answer(error: BaseException, name: str, doing: str, lost: str) -> str:
    last = list(_chain(error))[-1]
    kind = type(last).__name__
    if isinstance(error, KeyError) or (isinstance(error, ValueError) and error.__cause__ is None):
        return f"{doing}: the answer is not what a Hub says ({error}); {lost}"
    if isinstance(error, OSError) and error.errno is not None and error.filename:
        return f"{doing}: {error.filename}: {error.strerror}; {lost}"
    endpoint = os.environ.get("HF_ENDPOINT", "the Hub")
    return f"the connection to {endpoint} broke ({kind}), {doing}; {lost}; run again to finish"
