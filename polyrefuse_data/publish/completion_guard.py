"""Nothing that a model wrote is ever published: look through the files of a build for completions, by key.

Results of runs are not looked through: they are read as records and written again, field by field.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import regex

from polyrefuse_data.core.contents import read_utf8
from polyrefuse_data.core.errors import PublishError
from polyrefuse_data.core.parsing import parse_json

COMPLETION_KEY = regex.compile(
    r"(?i)(^|[_\-. ])(completions?|responses?|generations?|generated([_\-. ]text)?|answers?|outputs?"
    r"|repl(y|ies)|continuations?|assistant|predictions?|model[_\-. ]text)($|[_\-. ])"
)
"""Names under which completions are kept; whole words of a key, so that `n_responses_max` too is caught."""

COUNT_KEY = regex.compile(
    r"(?i)^(n|num|count|max|min|mean)[_\-. ].*|.*[_\-. ](count|rate|hash|sha256|tokens|length)$"
)
"""Keys that name numbers or hashes of completions; they are let through if their value is one."""

LANGUAGE_KEY = "response_lang"
"""Names the language of a completion; let through if its value is a code or nothing."""

LANGUAGE_CODE = regex.compile(r"[a-z]{2,3}")

WORD = regex.compile(r"[\w.@+-]{1,200}")
"""A key under which something is counted: a language, a condition such as `harmful.ablation-de@0.5`."""

HASH = regex.compile(r"[0-9a-f]{8,64}")


def _is_measure(key: str, value: Any) -> bool:
    """Return whether `value` is a number about completions, a hash, or a language, and `key` says so."""
    if key == LANGUAGE_KEY:
        return value is None or bool(LANGUAGE_CODE.fullmatch(str(value)))
    if not COUNT_KEY.fullmatch(key):
        return False
    return value is None or isinstance(value, (bool, int, float)) or bool(HASH.fullmatch(str(value)))


def _is_tally(value: Any) -> bool:
    """Return whether `value` counts under words, at any depth: `{"de": {"harmful.baseline": 3}}`."""
    if isinstance(value, dict):
        return all(WORD.fullmatch(str(key)) and _is_tally(inner) for key, inner in value.items())
    return isinstance(value, int)


def find_completion(value: Any) -> str | None:
    """Return which key in a JSON value names a completion, or None."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if COMPLETION_KEY.search(str(key)) and not (
                _is_measure(str(key), inner) or (isinstance(inner, dict) and _is_tally(inner))
            ):
                return f"key '{key}'"
    inner_values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((key for inner in inner_values if (key := find_completion(inner))), None)


def completion_columns(names: Iterable[str]) -> list[str]:
    """Return the names of columns that look like completions."""
    return [name for name in names if COMPLETION_KEY.search(name) and not COUNT_KEY.fullmatch(name)]


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (number of the line, value) of a JSON or JSON Lines file, a line at a time where it has lines."""
    if path.suffix == ".json":
        yield 1, parse_json(read_utf8(path))
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, parse_json(line)


def refuse_completions(path: Path, name: str) -> None:
    """Raise `PublishError` if a file holds what looks like completions, or cannot be looked through."""
    try:
        if path.suffix in (".json", ".jsonl"):
            for number, value in _records(path):
                key = find_completion(value)
                if key:
                    raise _refusal(name, f"line {number}, {key}")
        elif path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                columns = completion_columns(next(csv.reader(file), []))
            if columns:
                raise _refusal(name, f"column '{columns[0]}'")
        elif path.suffix == ".parquet":
            import pyarrow.parquet as pq

            columns = completion_columns(pq.read_schema(path).names)
            if columns:
                raise _refusal(name, f"column '{columns[0]}'")
    except (OSError, ValueError, csv.Error) as error:
        raise PublishError(
            f"{name} cannot be searched for completions ({error}); it is not published"
        ) from None


def _refusal(name: str, where: str) -> PublishError:
    return PublishError(
        f"{name} looks as if it contains model completions ({where}); completions are never published: "
        "move them out"
    )
