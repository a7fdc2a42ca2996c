"""JSON and YAML, of files that others wrote and of our own.

Python's parsers answer a text nested thousands of levels deep with `RecursionError`, which nobody who reads a
file expects; here it is the error of any other text that is not valid.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pydantic import ValidationError

_TOO_DEEP = "nested too deeply"

LONGEST_PLACE = 120
"""Characters of the place of a problem that are shown: keys come from the file, too."""

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
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        start = text if isinstance(text, str) else text.decode("utf-8", "replace")
        problem = _TOO_DEEP if isinstance(error, RecursionError) else "a number with too many digits"
        raise json.JSONDecodeError(problem, start, 0) from None


def parse_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Return the YAML value of `text`, as a safe `loader` makes it; raises `yaml.YAMLError`."""
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 (a safe loader)
    except RecursionError:
        raise yaml.YAMLError(_TOO_DEEP) from None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        # a date such as 2001-99-99, a number of thousands of digits, a list as a key, "!!bool maybe"
        raise yaml.YAMLError(f"a value that cannot be read ({error})") from None
