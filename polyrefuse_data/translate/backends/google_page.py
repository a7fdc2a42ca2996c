"""Find the translation in the mobile page of Google Translate, in time linear in the page's length.

A page may be hostile, or broken: a pattern that looks for tags and their attributes at once takes minutes
for some kilobytes of tags that do not end.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from itertools import islice

import regex

RESULT_CLASSES = frozenset({"t0", "result-container"})
MOST_TAGS = 2_000
"""Tags of one name that are looked at, and tags in a translation; a page of Google's has some dozens."""

_ATTRIBUTE = regex.compile(r"""\s++([\w-]++)(?:\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s"'<>]++)))?""")


def result(page: str) -> tuple[str, bool] | None:
    """Return the element with the translation, and whether it ends; None where there is none."""
    for start, end, attributes in _tags(page, "div"):
        if RESULT_CLASSES & set(attributes.get("class", "").split()):
            close = page.find("</div>", end)
            return (page[start:], False) if close < 0 else (page[start : close + len("</div>")], True)
    return None


def translated_text(page: str) -> str | None:
    """Return the text that the page says it translated, from its form; None where it does not say."""
    for _, _, attributes in _tags(page, "input"):
        if attributes.get("name") == "q" and "value" in attributes:
            return html.unescape(attributes["value"])
    return None


def _tags(page: str, name: str) -> Iterator[tuple[int, int, dict[str, str]]]:
    """Yield where each tag called `name` begins, where its attributes end, and these."""
    for tag in islice(regex.finditer(rf"<{name}\b", page), MOST_TAGS):
        attributes: dict[str, str] = {}
        end = tag.end()
        while (attribute := _ATTRIBUTE.match(page, end)) is not None:
            attributes.setdefault(attribute[1], attribute[2] or attribute[3] or attribute[4] or "")
            end = attribute.end()
        yield tag.start(), end, attributes
