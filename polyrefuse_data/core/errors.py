"""Errors that a user can cause: each is one clear line, and exit status 2 on the command line.

The message says what was given, what was expected and what to do. A traceback is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from polyrefuse_data.core.display import visible

LONGEST_MESSAGE = 4_000
"""Characters of a message; of a longer one, which quotes what a file holds, the middle is left out."""

LONGEST_NAME = 60
"""Characters of an unknown name that are shown and looked at: it may come from a file."""

MOST_NAMES = 1_000
"""Available names among which the nearest is looked for."""


class PolyRefuseError(Exception):
    """Base of every error that the packages raise on purpose.

    The message is one line; characters of quoted names and texts that a terminal would act on are visible.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_shortened(visible(_shortened(" ".join(message.split())))))


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_MESSAGE:
        return text
    return f"{text[: LONGEST_MESSAGE * 3 // 4]} … {text[-LONGEST_MESSAGE // 5 :]}"


class FileError(PolyRefuseError):
    """A file that cannot be written or a folder that cannot be locked: a full disk, a link, a writer."""


class UnknownNameError(PolyRefuseError):
    """A name that is not in a registry: a language, recipe, source, check, key."""


class SourceError(PolyRefuseError):
    """An upstream file that is missing, altered, unreadable or not of the expected form."""


class RecipeError(PolyRefuseError):
    """A recipe that cannot be read, or that asks for more prompts than its pools hold."""


class MemoryFileError(PolyRefuseError):
    """A translation memory that is locked, corrupt, or written by a newer version."""


class BuildError(PolyRefuseError):
    """A build that cannot start or finish: an output folder that is not ours, a full disk."""


class DatasetFolderError(PolyRefuseError):
    """A folder that holds neither a build nor a release of the known layout."""


class PublishError(PolyRefuseError):
    """A build that must not be published, or a Hub that refuses, changes or fails in the middle."""


class ClusterError(PolyRefuseError):
    """A cluster that cannot be reached or started, that is gone, or that lacks what is asked of it."""


def unknown_name(kind: str, given: str, available: Iterable[str]) -> UnknownNameError:
    """Return the error for `given`, not one of `available`, with the nearest name suggested.

    >>> str(unknown_name("language", "jp", ["ja", "pl"]))
    "unknown language 'jp'; did you mean 'ja'? available: ja, pl"
    """
    names = list(available)
    if len(given) > LONGEST_NAME:
        given = f"{given[:LONGEST_NAME]}…"

    def likeness(name: str) -> float:
        unknown, known = given.lower(), name[:LONGEST_NAME].lower()
        return difflib.SequenceMatcher(None, unknown, known).ratio() + 0.1 * (unknown[:1] == known[:1])

    near = max(names[:MOST_NAMES], key=likeness, default="")
    hint = f" did you mean '{near}'?" if near and likeness(near) >= 0.5 else ""
    return UnknownNameError(f"unknown {kind} '{given}';{hint} available: {', '.join(names)}")
