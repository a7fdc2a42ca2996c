"""Types of the fields of records, and the checks that records make of themselves."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from polyrefuse_data.core.display import visible
from polyrefuse_eval.results.interventions import condition_pattern, intervention_pattern

LARGEST_COUNT = 10**12
_TEMPERATURE = re.compile(r"[0-9]{1,6}(\.[0-9]{1,20})?(e-[0-9]{1,2})?")
CLOSE = 1e-6
"""Largest difference between a stated ratio and the one that follows from its counts."""

UNPRINTABLE = r"\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
"""Characters that a name never holds: controls, line ends, marks of direction, marks without width."""

_LANG = "[a-z]{2,3}(-([A-Za-z]{2,8}|[0-9]{3}))*"
_SOURCE = rf"({_LANG}(\+{_LANG})*|pooled|({_LANG}|pooled)-over-refusal|span[0-9]*|random|shuffled)"
_PART = r"(0\.[0-9]+|[1-9](\.[0-9]+)?e-[0-9]{2})"
_STRENGTH = rf"({_PART}|[1-9][0-9]*(\.[0-9]+)?)"

Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Share = Annotated[float, Field(ge=0, le=1)]
Difference = Annotated[float, Field(ge=-1, le=1)]
Finite = Annotated[float, Field(ge=-1e15, le=1e15)]
Layer = Annotated[int, Field(ge=0, le=10_000)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=f"^[^{UNPRINTABLE}]*$")]
LONGEST_NOTE = 200
Note = Annotated[str, Field(max_length=LONGEST_NOTE, pattern=f"^[^{UNPRINTABLE}]*$")]
"""A few words on one line."""

Lang = Annotated[str, Field(pattern=f"^{_LANG}$")]
Source = Annotated[str, Field(pattern=f"^{_SOURCE}$")]
"""Whose direction: of a language, of several (`de+ja`, `span`), of all together (`pooled`), one without
over-refusal (`de-over-refusal`), or a control."""

Label = Annotated[str, Field(pattern="^(harmful|harmless)$")]
Intervention = Annotated[str, Field(pattern=intervention_pattern())]
ConditionName = Annotated[str, Field(pattern=condition_pattern(_SOURCE, _PART, _STRENGTH))]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

Interval: TypeAlias = tuple[float | None, float | None]

_UNSEEN = re.compile(f"[{UNPRINTABLE}]")


def as_note(text: object, longest: int = LONGEST_NOTE) -> str:
    """Return the beginning of what others wrote, such as a service or a judge's model, as a `Note`.

    What acts becomes its escape; what `visible` leaves, such as the joiners inside emoji, is left out.
    """
    return _UNSEEN.sub("", visible(text))[:longest]


def check(holds: Any, problem: str) -> None:
    """Raise `ValueError` with `problem` unless a record's invariant `holds`."""
    if not holds:
        raise ValueError(problem)


def check_share(name: str, value: float | None, hits: int, n: int) -> None:
    """Check that `value`, called `name`, is `hits` of `n`, and None exactly where `n` is 0."""
    check(hits <= n, f"{name} counts {hits} of {n}")
    if n == 0:
        check(value is None, f"{name} is {value} of nothing")
    else:
        expected = hits / n
        check(value is not None and abs(value - expected) <= CLOSE, f"{name} is {value}, not {hits} of {n}")


def check_interval(name: str, value: float | None, interval: Interval) -> None:
    """Check that `interval` exists exactly where `value`, called `name`, does, and holds it."""
    check_ends(name, value, interval)
    low, high = interval
    if value is not None and low is not None and high is not None:
        holds = low - CLOSE <= value <= high + CLOSE
        check(holds, f"the interval {low} to {high} does not hold {name} {value}")


def check_ends(name: str, value: float | None, interval: Interval) -> None:
    """Check that the ends of the bootstrap `interval` of `value`, called `name`, are in order.

    A percentile interval of a skewed statistic need not hold its point estimate.
    """
    low, high = interval
    check((low is None) == (high is None), f"the interval of {name} has one end")
    if value is None:
        check(low is None, f"{name} is nothing and has an interval")
    if low is not None and high is not None:
        check(low <= high, f"the interval of {name} ends at {high}, below its start {low}")


def check_ratio(name: str, value: float | None, expected: float | None) -> None:
    """Check that `value`, called `name`, is what follows from its counts."""
    same = (
        value is None
        if expected is None
        else value is not None and math.isclose(value, expected, abs_tol=CLOSE)
    )
    check(same, f"{name} is {value}; its counts give {expected}")


def check_signature(signature: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless the parts of a signature that are read have their types."""
    for name in ("data", "settings", "versions"):
        value = signature.get(name, {})
        check(isinstance(value, Mapping), f"{name} of its signature is {value!r}, not an object")
    model = signature.get("model", "")
    check(isinstance(model, Mapping | str), f"model of its signature is {model!r}, neither object nor text")
    judges = signature.get("judges", [])
    named = isinstance(judges, list | tuple) and all(isinstance(judge, str) for judge in judges)
    check(named, "judges of its signature are not a list of names")
    check(_is_finite(signature), "its signature holds a number that is not finite")
    temperature = model.get("temperature", "0") if isinstance(model, Mapping) else "0"
    check(_TEMPERATURE.fullmatch(str(temperature)), f"temperature of its model is {temperature!r:.40}")
    settings = signature.get("settings", {})
    coefficient = settings.get("coefficient", 1.0)
    is_number = isinstance(coefficient, int | float) and abs(coefficient) <= LARGEST_COUNT
    check(is_number, f"coefficient of its settings is {coefficient!r}")
    for name in ("n_test", "crossed", "max_new_tokens", "seed"):
        value = settings.get(name)
        is_count = type(value) is int and abs(value) <= LARGEST_COUNT
        check(value is None or is_count, f"{name} of its settings is {value!r:.40}, not a count")
    for name in ("langs", "direction_langs"):
        value = settings.get(name, [])
        codes = isinstance(value, list | tuple) and all(isinstance(code, str) for code in value)
        check(codes, f"{name} of its settings are not a list of languages")


def _is_finite(value: Any) -> bool:
    """Return whether every float in a JSON value is a finite number, as the files of a run require."""
    if isinstance(value, Mapping):
        return all(_is_finite(inner) for inner in value.values())
    if isinstance(value, list | tuple):
        return all(_is_finite(inner) for inner in value)
    return not isinstance(value, float) or math.isfinite(value)
