"""Sources of directions, as `--directions` and the names of conditions spell them. Pure.

`de` is the direction of German, `pooled` that of all languages of the run together; `de+ja+yo` is the span of
three directions, `span` that of the directions of all languages of the run, and `span4` its four leading
singular directions. `de-over-refusal` is the direction of German without its part along that of over-refusal.
`random` and `shuffled` are controls, which every run adds by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from polyrefuse_data.core.languages import parse_languages
from polyrefuse_eval.errors import DirectionError

POOLED = "pooled"
"""The source of a direction that is fitted on the training prompts of all languages of the run."""

NO_DIRECTIONS = "none"
"""Names no source: answers are measured without edits alone."""

RANDOM, SHUFFLED = "random", "shuffled"
CONTROLS = (RANDOM, SHUFFLED)
"""Control directions: a random one, and the difference in means of prompts with shuffled labels."""

ALL = "all"
"""Names all languages of a data folder."""

SPAN = "span"
"""The span of the directions of all languages of the run; with a number behind it, its leading directions."""

JOIN = "+"
"""Joins the languages whose directions are ablated together."""

OVER_REFUSAL_ENDING = "-over-refusal"
"""Ends the name of a direction from which its part along the direction of over-refusal is taken."""

_SPAN_OF_ALL = re.compile(rf"{SPAN}([0-9]*)")

LARGEST_NAME = 140
"""Characters of a source: its condition is part of the names of files, which hold 255 bytes."""


def is_span(source: str) -> bool:
    """Return whether `source` names several directions together."""
    return JOIN in source or _SPAN_OF_ALL.fullmatch(source) is not None


def base_of(source: str) -> str | None:
    """Return the source whose direction `source` makes orthogonal to over-refusal; None for all others."""
    base = source.removesuffix(OVER_REFUSAL_ENDING)
    return None if base == source else base


def languages_of(source: str, langs: Sequence[str]) -> tuple[str, ...]:
    """Return the languages whose prompts give the direction of `source`, no span, in a run of `langs`."""
    fitted = base_of(source) or source
    return tuple(langs) if fitted == POOLED else (fitted,)


def takes_all_languages(source: str) -> bool:
    """Return whether `source` depends on which languages the run measures."""
    return (base_of(source) or source) == POOLED or _SPAN_OF_ALL.fullmatch(source) is not None


def span_rank(source: str) -> int | None:
    """Return how many leading directions of its span `source` takes; None for all."""
    match = _SPAN_OF_ALL.fullmatch(source)
    return int(match[1]) if match and match[1] else None


def members(source: str, langs: Sequence[str]) -> tuple[str, ...]:
    """Return the sources whose directions `source` is made of in a run of `langs`; itself where it is one."""
    if _SPAN_OF_ALL.fullmatch(source):
        return tuple(langs)
    return tuple(source.split(JOIN))


def fitted_sources(sources: Iterable[str], langs: Sequence[str]) -> tuple[str, ...]:
    """Return each source whose direction is fitted for `sources` in a run of `langs`, once, in order.

    One that is made orthogonal to over-refusal stands behind the one that it is made of.
    """
    parts = [member for source in sources for member in members(source, langs)]
    return tuple(dict.fromkeys(part for member in parts for part in (base_of(member), member) if part))


def parse_sources(text: str, langs: Sequence[str], select: Callable[[str], list[str]]) -> list[str]:
    """Return the sources that `text` names, separated by commas or spaces, each once.

    `select` returns the codes that names of languages (or `all`) stand for, and raises `PolyRefuseError` for
    those that give no direction. Languages between two spans are in published order. Raises `DirectionError`
    for a span of fewer than two languages, of one twice, or of a larger rank than `langs` has languages, and
    for over-refusal taken from anything but one direction.
    """
    names = text.replace(",", " ").split()
    special = [name for name in names if name == POOLED or is_span(name) or base_of(name) is not None]
    if not special:
        return select(text)
    sources: list[str] = []
    plain: list[str] = []
    for name in names:
        if name in special:
            sources += [*_languages(plain, select), _special(name, langs, select)]
            plain = []
        else:
            plain.append(name)
    return list(dict.fromkeys([*sources, *_languages(plain, select)]))


def _languages(names: Sequence[str], select: Callable[[str], list[str]]) -> list[str]:
    return select(",".join(names)) if names else []


def _special(name: str, langs: Sequence[str], select: Callable[[str], list[str]]) -> str:
    """Return `name`, none of a language alone, in the form that conditions have."""
    if name == POOLED:
        return name
    base = base_of(name)
    if base is not None and not is_span(name):
        if base in ("", ALL) or is_span(base):
            raise DirectionError(
                f"'{name}' removes over-refusal from something that is not a single direction; expected a "
                f"language or {POOLED} before {OVER_REFUSAL_ENDING}, such as en{OVER_REFUSAL_ENDING}"
            )
        return name if base == POOLED else f"{select(base)[0]}{OVER_REFUSAL_ENDING}"
    if JOIN not in name:
        rank = span_rank(name)
        if len(langs) < 2:
            raise DirectionError(f"'{name}' is the span of all languages of --langs, and there is only one")
        if rank is not None and not 1 <= rank <= len(langs):
            raise DirectionError(
                f"'{name}' takes {rank} of the directions of {len(langs)} languages; expected {SPAN}1 to "
                f"{SPAN}{len(langs)}, or {SPAN} for all"
            )
        return name
    parts = name.split(JOIN)
    if any(part in ("", POOLED, ALL) or is_span(part) or base_of(part) for part in parts):
        raise DirectionError(
            f"'{name}' is not a span; expected languages such as de{JOIN}ja{JOIN}yo, or {SPAN} for all of "
            "--langs"
        )
    codes = [code for part in parts for code in parse_languages(part)]
    twice = sorted({code for code in codes if codes.count(code) > 1})
    if twice:
        raise DirectionError(f"'{name}' names {', '.join(twice)} twice; give each language of a span once")
    select(",".join(codes))
    source = JOIN.join(sorted(codes))
    if len(source) > LARGEST_NAME:
        raise DirectionError(
            f"'{name}' names too many languages for a file name; give {SPAN} for all of --langs"
        )
    return source
