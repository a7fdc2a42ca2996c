"""What goes wrong with a store, told apart: what passes by itself, and what a user can do about the rest."""

from __future__ import annotations

import errno
from collections.abc import Iterator

PASSING_STATUS = frozenset({408, 409, 429, *range(500, 600)} - {501, 505})
"""HTTP: took too long, wrote at the same time, too many requests, and the server's own faults."""

PASSING_ERRNO = frozenset({errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT})
CONNECTION_CLASSES = frozenset(
    {
        "ConnectionError",
        "TimeoutError",
        "gaierror",
        "HTTPClientError",
        "ClientConnectionError",
        "ClientPayloadError",
        "IncompleteRead",
        "ResponseParserError",
        "TransportError",
        "SSHException",
        "NoValidConnectionsError",
    }
)
"""Names of classes of lost connections, of the standard library and of the stores' clients."""

NO_PERMISSION = "no permission"
NOT_THERE = "not there"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, nearest first."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status in an error of a client library, None where there is none."""
    for one in causes(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            response = response.get("ResponseMetadata", {})
            status = response.get("HTTPStatusCode") if isinstance(response, dict) else None
        else:
            status = getattr(one, "status", None) or getattr(one, "code", None)
        if str(status).isdecimal() and 100 <= int(str(status)) < 600:
            return int(str(status))
    return None


def is_unreachable(error: BaseException) -> bool:
    """Return whether nobody answered."""
    return status_of(error) is None and any(
        base.__name__ in CONNECTION_CLASSES for one in causes(error) for base in type(one).__mro__
    )


def passes(error: BaseException) -> bool:
    """Return whether the same may work a little later."""
    status = status_of(error)
    if status is not None:
        return status in PASSING_STATUS or isinstance(error, TimeoutError)
    return is_unreachable(error) or (isinstance(error, OSError) and error.errno in PASSING_ERRNO)


def is_not_offered(error: BaseException) -> bool:
    """Return whether the store, or its client, does not know what it was asked for."""
    return (
        isinstance(error, (TypeError, ValueError, NotImplementedError))
        or status_of(error) == 501
        or (isinstance(error, OSError) and error.errno == errno.ENOSYS)
        or type(error).__name__ == "ParamValidationError"
    )


def reason_of(error: BaseException, secrets: tuple[str, ...] = ()) -> str:
    """Return in a few words what went wrong, without any of `secrets`."""
    status = status_of(error)
    number = error.errno if isinstance(error, OSError) else None
    named = {type(one).__name__ for one in causes(error)}
    if "NoCredentialsError" in named or "DefaultCredentialsError" in named:
        return "no credentials are set"
    if isinstance(error, PermissionError) or status in (401, 403) or number in (errno.EACCES, errno.EROFS):
        return NO_PERMISSION
    if isinstance(error, FileNotFoundError) or status == 404:
        return NOT_THERE
    if status is not None:
        return f"it answers with status {status}"
    if is_unreachable(error):
        return "it does not answer"
    text = " ".join(str(error).split())[:200]
    for secret in secrets:
        text = text.replace(secret, "***")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
