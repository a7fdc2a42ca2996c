"""Cut a prompt into pieces that a backend takes, and join their translations.

Pieces that no translator should change are kept: fenced code, line breaks where a backend loses them, list
marks, blanks between pieces. Untranslated pieces joined are the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import regex

from polyrefuse_data.core.languages import Language
from polyrefuse_data.translate.backends.base import Limits, Size


@dataclass(frozen=True)
class Piece:
    """A part of a text: to be translated, or to be kept."""

    text: str
    translate: bool


_FENCE = regex.compile(r"^```.*?(?:^```[^\S\n]*$|\Z)", regex.M | regex.S)
_LINE_END = regex.compile(r"\r\n|[\n\r\u2028\u2029\u0085]")
_LIST_MARK = regex.compile(r"^(?:[-*•]|\(?\d{1,3}[.)])\s+(?=\S)")
_LETTER = regex.compile(r"\p{L}")
_WORD = regex.compile(r"\p{L}+")
_SENTENCE_END = regex.compile(r"""(?:(?<=[.!?…]["'”’»)\]]{0,3})\s+|(?<=[。！？]["'”’」』）]{0,3})\s*)""")
_CLAUSE_END = regex.compile(r"(?:(?<=[,;:،؛])\s+|(?<=[、，；：])\s*)")
_BLANK = regex.compile(r"\s+")
_GRAPHEME = regex.compile(r"[\p{Regional_Indicator}]{2}[\p{Grapheme_Extend}\u200d]*+|\X")
"""A flag is matched by itself: for `\\X`, a row of them takes quadratic time."""


def cut(text: str, limits: Limits) -> list[Piece]:
    """Return the pieces of `text`, which joined are `text`; each to translate is within the limits."""
    pieces: list[Piece] = []
    position = 0
    for fence in _FENCE.finditer(text):
        pieces += _lines(text[position : fence.start()], limits)
        pieces.append(Piece(fence.group(), False))
        position = fence.end()
    pieces += _lines(text[position:], limits)
    return _merged(pieces)


def _lines(text: str, limits: Limits) -> list[Piece]:
    if limits.keeps_lines and limits.size(text) <= limits.maximum:
        return _outer(text)
    pieces: list[Piece] = []
    position = 0
    for end in [*_LINE_END.finditer(text), None]:
        line = text[position : end.start() if end else len(text)]
        mark = _LIST_MARK.match(line)
        if mark:
            pieces.append(Piece(mark.group(), False))
            line = line[mark.end() :]
        for part in _within(line, limits.size, limits.maximum):
            pieces += _outer(part)
        if end:
            pieces.append(Piece(end.group(), False))
            position = end.end()
    return pieces


def _outer(text: str) -> list[Piece]:
    """Return `text` with its outer blanks as pieces of their own; kept whole where there is no letter."""
    if not _LETTER.search(text):
        return [Piece(text, False)] if text else []
    core = text.strip()
    before, _, after = text.partition(core)
    return [Piece(part, part is core) for part in (before, core, after) if part]


def _within(text: str, size: Size, maximum: int) -> list[str]:
    """Return parts of `text` of at most `maximum`: sentences if possible, else clauses, words, characters."""
    if size(text) <= maximum:
        return [text]
    for ends in (_SENTENCE_END, _CLAUSE_END, _BLANK):
        parts = _cut_after(text, ends)
        if len(parts) > 1:
            return [small for part in _packed(parts, size, maximum) for small in _within(part, size, maximum)]
    parts = _GRAPHEME.findall(text)
    if len(parts) == 1:
        parts = list(text)
    return _packed(parts, size, maximum) if len(parts) > 1 else [text]


def _cut_after(text: str, ends: regex.Pattern[str]) -> list[str]:
    places = [end.end() for end in ends.finditer(text) if 0 < end.end() < len(text)]
    starts = [0, *dict.fromkeys(places)]
    return [text[start:stop] for start, stop in zip(starts, [*starts[1:], len(text)], strict=True)]


def _packed(parts: Sequence[str], size: Size, maximum: int) -> list[str]:
    packed: list[str] = []
    for part in parts:
        if packed and size(packed[-1] + part) <= maximum:
            packed[-1] += part
        else:
            packed.append(part)
    return packed


def _merged(pieces: Sequence[Piece]) -> list[Piece]:
    """Return `pieces` with kept neighbours merged."""
    merged: list[Piece] = []
    for piece in pieces:
        if merged and not piece.translate and not merged[-1].translate:
            merged[-1] = Piece(merged[-1].text + piece.text, False)
        elif piece.text:
            merged.append(piece)
    return merged


def join(pieces: Sequence[Piece], translations: Sequence[str], target: Language) -> str:
    """Return the whole translation; `translations` has a text for each piece to translate, in order.

    A blank between sentences is dropped where the target language is written without blanks.
    """
    rest = iter(translations)
    parts: list[str] = []
    for piece in pieces:
        if piece.translate:
            parts.append(next(rest))
        elif piece.text == " " and not target.spaced and parts and parts[-1][-1:] in "。！？":
            continue
        else:
            parts.append(piece.text)
    return "".join(parts)


PROTECTED = regex.compile(
    r"(?P<url>\b(?:https?|ftp)://[^\s<>\"'）】」]*[^\s<>\"'）】」.,;:!?)\]]|\bwww\.[\w-]+(?:\.[\w-]+)+)"
    r"|(?P<mail>(?=\w)(?<=(?<![\w.+-])[.+-]*)[\w.+-]++@[\w-]++(?:\.[\w-]++)+)"
    r"|(?P<code>`[^`\n]+`)"
    r"|(?P<slot>\{[\w.]+\})"
)
"""What must come back letter by letter: web and mail addresses, code in backticks, {placeholders}."""

_MAY_BE_PROTECTED = regex.compile(r"[@`{]|://|www\.")
"""Without any of these in a text there is nothing to protect, and looking for it takes longer."""


def protected(text: str) -> list[str]:
    """Return the parts of `text` that must survive, in order."""
    if not _MAY_BE_PROTECTED.search(text):
        return []
    return [match.group() for match in PROTECTED.finditer(text)]


def mask(text: str) -> tuple[str, list[str]]:
    """Return `text` with a short sign in place of each protected part, and the parts."""
    parts: list[str] = []

    def sign(match: regex.Match[str]) -> str:
        parts.append(match.group())
        return f"[#{len(parts)}]"

    return PROTECTED.sub(sign, text), parts


_SIGN = regex.compile(r"[\[［【]\s*+[#＃]\s*+([0-9]++)\s*+[\]］】]")


def unmask(text: str, parts: Sequence[str]) -> str | None:
    """Return `text` with the protected parts put back, None unless each sign stands in it exactly once."""
    part_of = {str(number): part for number, part in enumerate(parts, start=1)}
    numbers = [number for number in _SIGN.findall(text) if number in part_of]
    if sorted(numbers) != sorted(part_of):
        return None
    return _SIGN.sub(lambda match: part_of.get(match[1], match[0]), text)


_CODE_LINE = regex.compile(
    r"""^[^\S\n]*(?:
      (?:\$|>>>|\.\.\.|\#include|\#!)\s?\S.*  # behind the prompt of a shell
    | [\w.]+\((?:[^()\n]|\([^()\n]*\))*\)\s*[;:{]?  # a call and nothing else
    | (?:def|class|fn|func|function)\s+\w+\s*[(:{].*
    | import\s++[\w., *]++;? | from\s+[\w.]+\s+import\s.*
    | (?:public|private|protected|static|async|for|while|if|elif)\b(?=(?>.*?\w\s*+[(<>=])).*[:{]
    | return(?:\s+[^\s.?!]+(?:\s[-+*/%<>=&|]+\s[^\s.?!]+)*)?
    | (?:SELECT|INSERT\ INTO|UPDATE|DELETE\ FROM|CREATE\ TABLE|DROP\ TABLE)\s.*
    )[^\S\n]*$""",
    regex.M | regex.X,
)
"""Lines that are code whatever stands in them."""

_CODE_SIGN = regex.compile(
    r"\w[(\[]|[=!<>+*/-]=|[-=]>|&&|\|\||[{};]\s*$|\s[=<>]\s|\w[+*%]\w|[{,]\s*[\"'][\w ]+[\"']\s*:"
)
"""Signs that stand between words in code and not in prose."""

_SIGNS = regex.compile(r"[^\w\s.,!?'-]|_")
CODE_SIGNS_A_WORD = 0.5
"""A line with a sign of code is code from so many signs per word on."""

_PROSE = regex.compile(r"(?<!\p{L})\p{L}++ \p{L}++ \p{L}")
_STRING = regex.compile(r"""(?<=[=(,\[{:]\s?)(["'])[^"']*\1""")

_TAG = regex.compile(r"<[/!?]?[A-Za-z-][^<>\n]*>")


def translatable(text: str) -> str:
    """Return `text` without what a translator should leave alone.

    Left out are fenced code, lines that look like code, HTML tags, addresses, placeholders and numbers.
    """
    text = PROTECTED.sub(" ", _TAG.sub(" ", _FENCE.sub(" ", text)))
    return "\n".join(line for line in text.splitlines() if not _is_code(line))


def _is_code(line: str) -> bool:
    if _CODE_LINE.match(line):
        return True
    bare = _STRING.sub("", line)
    if _PROSE.search(bare) or not _CODE_SIGN.search(bare):
        return False
    return len(_SIGNS.findall(line)) >= CODE_SIGNS_A_WORD * len(_WORD.findall(line))
