"""Check that the numbers of an English text stand in its translation, as figures or as words.

Words for numbers lie in `data/number_words.yaml`. A number has readings: "5 million" may come back as 5 with
a word of the language or as 5000000, "6 p.m." as 18, the year 2024 in Thai as 2567; "1,500" and "1.500" read
alike. In languages without number words, figures are compared with figures.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict, deque
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

import regex
import yaml

from polyrefuse_data.checks.text import QUOTED, unmarked
from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.core.unicode_text import normalize

NUMBER_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
"""English words of the numbers 2 to 12. `one` is left out: it is a pronoun more often than a number."""

DUAL = ("ar",)
"""Languages that write "two" as an ending of the noun."""

BUDDHIST_ERA = 543
"""Years by which Thai years are ahead of the common era."""

Readings = frozenset[str]
"""What one number may mean: decimal digits without leading zeros, and a point before a fraction."""

_NUMBER_WORD = regex.compile(rf"(?<![\w-])(?:{'|'.join(NUMBER_WORDS)})(?![\w-])")
_OTHER_DIGIT = regex.compile(r"[\p{Nd}--[0-9]]", regex.V1)
_SEPARATOR = r"[,.'’٬\u00a0\u202f ]"
_FIGURE = regex.compile(
    rf"(?<![0-9])(?:[0-9]{{1,3}}(?:{_SEPARATOR}[0-9]{{3}})+(?![0-9])|[0-9]+)"
    r"(?:[.,٫][0-9]{1,9}(?![.,]?[0-9]))?"
)
_GROUPED = regex.compile(rf"{_SEPARATOR}(?=[0-9]{{3}}(?![0-9]))")
_ENGLISH_SCALES = {"k": 3, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_ENGLISH_SCALE = regex.compile(rf"[\s-]?({'|'.join(_ENGLISH_SCALES)})\b")
_AFTERNOON = regex.compile(r"\s?p\.?\s?m\b")
_FULL_HOUR = regex.compile(r"(?<=\b[0-9]{1,2}):00\b")
_SCALES = {
    "百": 2,
    "千": 3,
    "천": 3,
    "万": 4,
    "萬": 4,
    "만": 4,
    "億": 8,
    "亿": 8,
    "억": 8,
    "兆": 12,
    "조": 12,
}
_ROMAN = regex.compile(r"\b[XVI]+\b")
_ONES = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")
_ROMAN_NUMERALS = {
    "X" * tens + ones: str(10 * tens + one) for tens in range(4) for one, ones in enumerate(_ONES)
}
_HAN_DIGITS = {digit: value for value, digits in enumerate("〇一二三四五六七八九") for digit in digits}
_HAN_DIGITS |= {"零": 0, "两": 2, "兩": 2}
_HAN_TENS = {"十": 1, "百": 2, "千": 3}
_HAN = regex.compile(rf"[{''.join((*_HAN_DIGITS, *_HAN_TENS, '万萬億亿'))}]{{1,20}}")


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[int | str, list[str]]]:
    path = resources.files("polyrefuse_data") / "data" / "number_words.yaml"
    table: dict[str, dict[int | str, list[str]]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return table


def missing_digits(text: str, text_en: str, lang: str) -> float | None:
    """Return how many numbers that the English has in digits are missing; None if it has none.

    A word of the language will do. Numbers that were added do not count: Japanese writes "twenty" as 20.
    """
    wanted = _english_figures(text_en)
    return float(_missing(wanted, _numbers(text, lang))) if wanted else None


def missing_number_words(text: str, text_en: str, lang: str) -> float | None:
    """Return how many numbers that the English writes as words are missing, as word and as figure.

    None if the English has no such word, or where the language's number words are not known.
    """
    words = _NUMBER_WORD.findall(normalize("NFKC", QUOTED.sub(" ", text_en)).casefold())
    if lang in DUAL:
        words = [word for word in words if word != "two"]
    if not words or lang not in _table():
        return None
    wanted = [frozenset({str(NUMBER_WORDS.index(word) + 2)}) for word in words]
    return float(_missing(wanted, _numbers(text, lang)))


def _missing(wanted: Sequence[Readings], there: Sequence[Readings]) -> int:
    """Return how many numbers of `wanted` find no partner in `there` that may mean the same.

    Each of `there` is a partner once; numbers with fewest readings choose first.
    """
    places: dict[str, deque[int]] = defaultdict(deque)
    for place, readings in enumerate(there):
        for reading in readings:
            places[reading].append(place)
    taken: set[int] = set()
    missing = 0
    for readings in sorted(wanted, key=len):
        same = [places[reading] for reading in readings if reading in places]
        for free in same:
            while free and free[0] in taken:
                free.popleft()
        found = min((free[0] for free in same if free), default=None)
        if found is None:
            missing += 1
        else:
            taken.add(found)
    return missing


def _english_figures(text: str) -> list[Readings]:
    """Return the numbers in digits of an English text."""
    plain = _FULL_HOUR.sub("", _ascii_digits(text).casefold())
    numbers = []
    for match in _FIGURE.finditer(plain):
        value, after = _value(match.group()), plain[match.end() : match.end() + 12]
        readings = {value}
        if scale := _ENGLISH_SCALE.match(after):
            readings.add(_scaled(value, _ENGLISH_SCALES[scale.group(1)]))
        if _AFTERNOON.match(after) and len(value) <= 2:
            readings.add(str(int(value) + 12))
        numbers.append(frozenset(readings))
    return numbers


def _numbers(text: str, lang: str) -> list[Readings]:
    """Return the numbers of a translation: figures, words, and Roman and Chinese numerals."""
    plain = _ascii_digits(text)
    found: list[Readings] = []
    for match in _FIGURE.finditer(plain):
        value, after = _value(match.group()), plain[match.end() : match.end() + 20].lstrip()
        readings = {value}
        if after[:1] in _SCALES:
            readings = {_scaled(value, _SCALES[after[0]])}
        elif _first_word(after, lang) == "1000":
            readings.add(_scaled(value, 3))
        if lang == "th" and len(value) == 4 and value.isdecimal():
            readings.add(str(int(value) - BUDDHIST_ERA))
        found.append(frozenset(readings))
    if words := _words(lang):
        pattern, values = words
        found += [frozenset({values[word]}) for word in pattern.findall(_folded(plain, lang)) if values[word]]
    found += [frozenset({_ROMAN_NUMERALS.get(roman, "")}) for roman in _ROMAN.findall(plain)]
    if lang in ("ja", "zh"):
        found += [frozenset({_han(numeral)}) for numeral in _HAN.findall(plain)]
    return found


def _ascii_digits(text: str) -> str:
    """Return `text` after NFKC, with Arabic-Indic, Thai and other digits as 0 to 9."""
    return _OTHER_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit.group())), normalize("NFKC", text))


def _value(figure: str) -> str:
    """Return the decimal digits of a figure without marks of thousands."""
    whole, _, fraction = regex.sub(r"[,٫]", ".", _GROUPED.sub("", figure)).partition(".")
    fraction = fraction.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{fraction}" if fraction else "")


def _scaled(value: str, zeros: int) -> str:
    """Return `value` times ten to the power of `zeros`."""
    whole, _, fraction = value.partition(".")
    return (whole + fraction[:zeros].ljust(zeros, "0")).lstrip("0") or "0"


def _folded(text: str, lang: str) -> str:
    return unmarked(text) if LANGUAGES[lang].spaced else text.casefold()


@lru_cache(maxsize=64)
def _words(lang: str) -> tuple[regex.Pattern[str], dict[str, str]] | None:
    """Return the pattern of a language's number words and their values, empty for words that are none."""
    if lang not in _table():
        return None
    values = {
        _folded(normalize("NFKC", word), lang): "" if value == "other" else str(value)
        for value, words in _table()[lang].items()
        for word in words
    }
    longest = "|".join(regex.escape(word) for word in sorted(values, key=len, reverse=True))
    start = r"(?<!\p{L})" if LANGUAGES[lang].spaced else ""
    prefix = "[وفبلك]?(?:ال)?" if lang == "ar" else ""
    return regex.compile(f"{start}{prefix}({longest})"), values


def _first_word(text: str, lang: str) -> str:
    """Return the value of the number word that `text` begins with, empty if it begins with none."""
    if (words := _words(lang)) is None:
        return ""
    found = words[0].match(_folded(text, lang))
    return words[1][found.group(1)] if found else ""


def _han(numeral: str) -> str:
    """Return the value of a number in Chinese numerals, also where they stand for digits as in 二〇二四."""
    if all(char in _HAN_DIGITS for char in numeral):
        return "".join(str(_HAN_DIGITS[char]) for char in numeral).lstrip("0")
    total = part = digit = 0
    for char in numeral:
        if char in _HAN_DIGITS:
            digit = _HAN_DIGITS[char]
        elif char in _HAN_TENS:
            part, digit = part + (digit or 1) * 10 ** _HAN_TENS[char], 0
        else:
            total, part, digit = (total + part + digit) * 10 ** _SCALES[char], 0, 0
    return str(total + part + digit)
