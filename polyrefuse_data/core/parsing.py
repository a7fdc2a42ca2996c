"""JSON and YAML, of files that others wrote and of our own.

Python's parsers answer a text nested thousands of levels deep with `RecursionError`, which nobody who reads a
file expects; here it is the error of any other text that is not valid.
"""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pydantic import ValidationError

_TOO_DEEP = "nested too deeply"

DEEPEST = 100
"""Levels of lists and objects that a file may have; ours have ten, and readers recurse on each."""

LONGEST_NUMBER = 1_000
"""Characters of a number in YAML: one of base 60 (`1:59:59`) takes time quadratic in its length."""

MOST_NODES = 1_000_000
"""Values that a YAML file may have, its aliases followed: a few lines of aliases stand for billions."""

LONGEST_PLACE = 120
"""Characters of the place of a problem that are shown: keys come from the file, too."""

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")

FAST_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""For our own files: many times faster, and its errors do not show the line that is wrong."""


def first_problem(error: ValidationError) -> str:
    """Return the first thing that pydantic found wrong, with its place: `settings.n: Input should be ...`."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])[:LONGEST_PLACE]
    problem = str(first["msg"]).removeprefix("Value error, ")
    return f"{place}: {problem}" if place else problem


def parse_json(text: str | bytes) -> Any:
    """Return the JSON value of `text`; raises `json.JSONDecodeError`, or `UnicodeDecodeError` of bytes."""
    problem = _TOO_DEEP
    try:
        value = json.loads(text)
        brackets = text.count("[") + text.count("{") if isinstance(text, str) else _brackets(text)
        if brackets <= DEEPEST or not _is_too_deep(value):
            return value
    except RecursionError:
        pass
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:
        problem = "a number with too many digits"
    start = text if isinstance(text, str) else text.decode("utf-8", "replace")
    raise json.JSONDecodeError(problem, start, 0)


def parse_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Return the YAML value of `text`, as a safe `loader` makes it; raises `yaml.YAMLError`."""
    reader = None
    try:
        reader = loader(text)
        node = reader.get_single_node()
        if node is None:
            return None
        _count_nodes(node, {}, 0)
        return reader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError(_TOO_DEEP) from None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        # a date such as 2001-99-99, a number of thousands of digits, a list as a key, "!!bool maybe"
        raise yaml.YAMLError(f"a value that cannot be read ({error})") from None
    finally:
        if reader is not None:
            reader.dispose()


def _brackets(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def _is_too_deep(value: Any) -> bool:
    """Return whether `value` has more than `DEEPEST` levels of lists and objects."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return bool(level)


def _count_nodes(node: yaml.Node, counts: dict[int, int], depth: int) -> int:
    """Return how many values `node` stands for; raises `yaml.YAMLError` for more than a file may have.

    `counts` holds the counts of the nodes that were visited, 0 while a node is being visited.
    """
    if isinstance(node, yaml.ScalarNode):
        if node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise yaml.YAMLError("a number with too many digits")
        return 1
    if id(node) in counts:
        if not counts[id(node)]:
            raise yaml.YAMLError("a value that contains itself")
        return counts[id(node)]
    if depth >= DEEPEST:
        raise yaml.YAMLError(_TOO_DEEP)
    counts[id(node)] = 0
    inner = chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value
    count = 1 + sum(_count_nodes(value, counts, depth + 1) for value in inner)
    if count > MOST_NODES:
        raise yaml.YAMLError(f"its aliases stand for more than {MOST_NODES:,} values")
    counts[id(node)] = count
    return count
