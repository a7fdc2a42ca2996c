"""Plant errors of known kinds into a share of the rows of one language; what finds them is another module's.

Most errors are planted by an edit of the English: a translation that was true no longer says what the edited
English says. Such an edit needs no word of the other language, so it is the same in all of them. No function
of `polyrefuse_data.checks` is used here, and nothing here was changed to suit a check.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

UNSPACED = ("ja", "th", "zh")
"""Languages whose words are not divided by spaces."""

VERB_LAST = ("ja", "ko")
"""Languages in which a request ends with its verb."""

NUMBER_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty")

_IMPERATIVE = re.compile(
    r"(Write|Create|Give|Generate|Describe|Explain|Provide|Name|List|Develop|Design|Identify|Find|Construct|"
    r"Compare|Suggest|Outline|Make|Compose|Draft|Rewrite|Summarize|Calculate)\b"
)
_HOW = re.compile(r"(How (?:do|can|could|should|would) (?:I|we|you|one)|How to) (?=\w)")
_NEGATION = re.compile(r"\b(do not|does not|don't|doesn't|did not|didn't|not|never) ", re.IGNORECASE)
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{3,}\b")
_CONTENT = re.compile(r"\b[a-z]{5,}\b")
_SENTENCE_END = re.compile(r"(?<=[.!?。？！؟]) *(?=\S)")
_NUMBER_WORD = re.compile(rf"\b({'|'.join(NUMBER_WORDS)})\b")
_SOURCE_NEGATION = re.compile(r"n't\b|\b(?:not|never|no|without|cannot|un\w+|non\w*)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """A translation with its English, in the list `place` of its language."""

    place: str
    english: str
    text: str


@dataclass(frozen=True)
class Planted:
    """The rows of a language, and the positions of those that hold a planted error."""

    pairs: list[Pair]
    positions: list[int]


Edit = Callable[[Pair, str, random.Random, Sequence[Pair]], "Pair | None"]
"""(pair, language, generator, all pairs) -> the pair with an error, or None where it cannot hold one."""


@lru_cache(maxsize=1)
def _words() -> dict[str, dict[str, str]]:
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    words: dict[str, dict[str, str]] = yaml.safe_load(text)
    return words


def _halves(text: str, lang: str) -> tuple[str, str]:
    """Return the first and the second half of `text`, divided between words where words are divided."""
    if lang in UNSPACED:
        return text[: len(text) // 2], text[len(text) // 2 :]
    words = text.split(" ")
    return " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])


def _untranslated(pair: Pair, lang: str, generator: random.Random, pairs: Sequence[Pair]) -> Pair:
    return replace(pair, text=pair.english)


def _half_translated(pair: Pair, lang: str, generator: random.Random, pairs: Sequence[Pair]) -> Pair:
    return replace(pair, text=f"{_halves(pair.text, lang)[0]} {_halves(pair.english, 'en')[1]}")


def _cut(pair: Pair, lang: str, generator: random.Random, pairs: Sequence[Pair]) -> Pair:
    return replace(pair, text=_halves(pair.text, lang)[0])


def _sentence_lost(pair: Pair, lang: str, generator: random.Random, pairs: Sequence[Pair]) -> Pair | None:
    sentences = _SENTENCE_END.split(pair.text)
    if len(sentences) < 2 or len(sentences[-1]) < 10:
        return None
    return replace(pair, text=pair.text[: pair.text.rindex(sentences[-1])].rstrip())


def _doubled(pair: Pair, lang: str, generator: random.Random, pairs: Sequence[Pair]) -> Pair:
    return replace(pair, text=f"{pair.text} {pair.text}")


def _number_changed(pair: Pair, lang: str, generator: random.Random, pairs: Sequence[Pair]) -> Pair | None:
    numbers = [number for number in re.findall(r"\d+", pair.english) if number in pair.text]
    if not numbers:
        return None
    number = generator.choice(numbers)
    other = str(int(number) + generator.choice((1, 2, 3, 5, 10)))
    return replace(pair, text=pair.text.replace(number, other))


def _number_word_changed(
    pair: Pair, lang: str, generator: random.Random, pairs: Sequence[Pair]
) -> Pair | None:
    match = _NUMBER_WORD.search(pair.english)
    if not match:
        return None
    other = generator.choice([word for word in NUMBER_WORDS if word != match.group()])
    return replace(pair, english=pair.english[: match.start()] + other + pair.english[match.end() :])


def _name_changed(pair: Pair, lang: str, generator: random.Random, pairs: Sequence[Pair]) -> Pair | None:
    match = _NAME.search(pair.english)
    others = {name for other in pairs for name in _NAME.findall(other.english)}
    choices = sorted(name for name in others if name not in pair.english)
    if not match or not choices:
        return None
    english = pair.english[: match.start()] + generator.choice(choices) + pair.english[match.end() :]
    return replace(pair, english=english)


def _negation_dropped(pair: Pair, lang: str, generator: random.Random, pairs: Sequence[Pair]) -> Pair | None:
    """Negate the English: the translation then lacks a negation."""
    english = pair.english
    if _SOURCE_NEGATION.search(english):
        return None
    if _IMPERATIVE.match(english):
        return replace(pair, english=f"Do not {english[0].lower()}{english[1:]}")
    for plain, negated in (
        ("how to ", "how not to "),
        ("How to ", "How not to "),
        ("How can I ", "How can I not "),
        ("How do I ", "How do I not "),
        (" should ", " should not "),
        (" is ", " is not "),
        (" are ", " are not "),
        (" can ", " can never "),
    ):
        if plain in english:
            return replace(pair, english=english.replace(plain, negated, 1))
    return None


def _negation_added(pair: Pair, lang: str, generator: random.Random, pairs: Sequence[Pair]) -> Pair | None:
    """Put a word of negation into the translation; where the English is negated, take it from there."""
    if _NEGATION.search(pair.english):
        return replace(pair, english=_NEGATION.sub("", pair.english))
    if _SOURCE_NEGATION.search(pair.english):
        return None
    first, second = _halves(pair.text, lang)
    space = "" if lang in UNSPACED else " "
    return replace(pair, text=f"{first}{space}{_words()['negation'][lang]}{space}{second}")


def _object_changed(pair: Pair, lang: str, generator: random.Random, pairs: Sequence[Pair]) -> Pair | None:
    """Put the longest word of another row's English in the place of this row's longest."""
    words = _CONTENT.findall(pair.english)
    others = _CONTENT.findall(generator.choice(pairs).english)
    if not words or not others:
        return None
    word, other = max(words, key=len), max(others, key=len)
    return replace(pair, english=pair.english.replace(word, other)) if word != other else None


def _verb_lost(pair: Pair, lang: str, generator: random.Random, pairs: Sequence[Pair]) -> Pair | None:
    """Take the verb of a request from the translation: what is left names a thing, and asks for nothing."""
    if not _IMPERATIVE.match(pair.english):
        return None
    if lang in UNSPACED:
        size = {"ja": 8, "th": 5, "zh": 3}[lang]
        text = pair.text[:-size] if lang in VERB_LAST else pair.text[size:]
    else:
        words = pair.text.split(" ")
        text = " ".join(words[:-2] if lang in VERB_LAST else words[1:])
    return replace(pair, text=text) if text else None


def _how_lost(pair: Pair, lang: str, generator: random.Random, pairs: Sequence[Pair]) -> Pair | None:
    """Make the English ask how a thing is done; the translation requests that it be done."""
    if not _IMPERATIVE.match(pair.english) or " how " in pair.english:
        return None
    body = pair.english.rstrip(".?! ")
    return replace(pair, english=f"How do I {body[0].lower()}{body[1:]}?")


def _how_added(pair: Pair, lang: str, generator: random.Random, pairs: Sequence[Pair]) -> Pair | None:
    """Make the English request a thing; the translation asks how it is done."""
    match = _HOW.match(pair.english)
    if not match:
        return None
    body = pair.english[match.end() :].rstrip("?")
    return replace(pair, english=f"{body[0].upper()}{body[1:]}.")


def _softened(pair: Pair, lang: str, generator: random.Random, pairs: Sequence[Pair]) -> Pair:
    return replace(pair, text=_words()["softened"][lang] + pair.text)


EDITS: dict[str, Edit] = {
    "untranslated": _untranslated,
    "half-translated": _half_translated,
    "cut": _cut,
    "sentence-lost": _sentence_lost,
    "doubled": _doubled,
    "number-changed": _number_changed,
    "number-word-changed": _number_word_changed,
    "name-changed": _name_changed,
    "negation-dropped": _negation_dropped,
    "negation-added": _negation_added,
    "object-changed": _object_changed,
    "verb-lost": _verb_lost,
    "how-lost": _how_lost,
    "how-added": _how_added,
    "softened": _softened,
}

KINDS = ("swapped", "shifted", *EDITS)


def plant(kind: str, pairs: Sequence[Pair], lang: str, seed: int, share: float = 0.05) -> Planted:
    """Return a copy of `pairs` with errors of `kind` in `share` of the rows, or in all that can hold one.

    A shift moves the translations of each list's second half by one row, whatever `share` is, and the last
    one to the middle.
    """
    generator = random.Random(f"{kind} {lang} {seed}")
    rows = list(pairs)
    if kind == "shifted":
        return _shift(rows)
    order = list(range(len(rows)))
    generator.shuffle(order)
    wanted = max(2, round(share * len(rows)))
    if kind == "swapped":
        return _swap(rows, order, wanted)
    positions: list[int] = []
    for position in order:
        edited = EDITS[kind](rows[position], lang, generator, pairs)
        if edited is not None and edited != rows[position] and len(positions) < wanted:
            rows[position] = edited
            positions.append(position)
    return Planted(rows, sorted(positions))


def _swap(rows: list[Pair], order: Sequence[int], wanted: int) -> Planted:
    """Exchange the translations of two rows of the same list, `wanted` rows in all."""
    positions: list[int] = []
    waiting: dict[str, int] = {}
    for position in order:
        first = waiting.pop(rows[position].place, None)
        if first is None:
            waiting[rows[position].place] = position
        elif rows[first].english != rows[position].english and len(positions) < wanted:
            one, other = rows[first], rows[position]
            rows[first], rows[position] = replace(one, text=other.text), replace(other, text=one.text)
            positions += [first, position]
    return Planted(rows, sorted(positions))


def _shift(rows: list[Pair]) -> Planted:
    positions: list[int] = []
    for place in dict.fromkeys(pair.place for pair in rows):
        inside = [position for position, pair in enumerate(rows) if pair.place == place]
        half = inside[len(inside) // 2 :]
        texts = [rows[position].text for position in half]
        for position, text in zip(half, [*texts[1:], *texts[:1]], strict=True):
            positions.append(position)
            rows[position] = replace(rows[position], text=text)
    return Planted(rows, positions)


def sample_errors(lang: str, seed: int, share: float = 0.05) -> dict[str, Planted]:
    """Return the sample in `lang` with errors that its phrase bank makes certain, by kind.

    object-changed: the task of another topic in the same framing; softened: the harmless task of the same
    topic; verb-lost: the task without its framing; question-changed: a question for a request, or the
    reverse, about the same task.
    """
    from polyrefuse_data.prompts.sample import _read

    framings: dict[str, dict[str, str]] = _read("framings.yaml")
    topics: list[dict[str, Any]] = _read("topics.yaml")
    asked = {name for name, texts in framings.items() if texts["en"].rstrip().endswith("?")}
    cells = [
        (topic, label, name) for topic in topics for label in ("harmful", "harmless") for name in framings
    ]

    def text(topic: dict[str, Any], label: str, name: str) -> str:
        return framings[name][lang].format(task=topic[label][lang])

    def wrong(kind: str, cell: tuple[dict[str, Any], str, str], generator: random.Random) -> str | None:
        topic, label, name = cell
        if kind == "object-changed":
            return text(generator.choice([other for other in topics if other is not topic]), label, name)
        if kind == "softened":
            return text(topic, "harmless", name) if label == "harmful" else None
        if kind == "verb-lost":
            return str(topic[label][lang])
        return text(topic, label, generator.choice(sorted(set(framings) - asked if name in asked else asked)))

    pairs = [
        Pair(label, framings[name]["en"].format(task=topic[label]["en"]), text(topic, label, name))
        for topic, label, name in cells
    ]
    planted = {}
    for kind in ("object-changed", "softened", "verb-lost", "question-changed"):
        generator = random.Random(f"sample {kind} {lang} {seed}")
        able = [position for position, cell in enumerate(cells) if wrong(kind, cell, random.Random(0))]
        positions = sorted(generator.sample(able, max(1, round(share * len(cells)))))
        rows = list(pairs)
        for position in positions:
            rows[position] = replace(
                rows[position], text=wrong(kind, cells[position], generator) or rows[position].text
            )
        planted[kind] = Planted(rows, positions)
    return planted
