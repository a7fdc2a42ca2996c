"""Plant errors of meaning into lists of translations. The rules are in `meaning_errors.yaml`.

The planter was written apart from the checks: it knows grammars, not what the checks look for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import regex
import yaml

RULES_FILE = Path(__file__).with_name("meaning_errors.yaml")
WITHOUT_SPACES = ("ja", "th", "zh")
NEGATIVE = regex.compile(
    r"\b(?:not|no|never|without|cannot|nor|none|neither|avoid)\b|n['’]t\b|\b(?:un|in|im|dis)\p{L}{4}", regex.I
)
HOW = regex.compile(r"\bhow (?:to|do|can|could|would|should|might|I|one|people|you)\b", regex.I)
IMPERATIVE = regex.compile(
    r"(?:write|create|give|generate|describe|explain|provide|name|list|develop|suggest|design|identify|construct|"
    r"find|compose|outline|compare|make|draft|produce|offer|propose|summarize|edit|rewrite|brainstorm)\b",
    regex.I,
)
SENTENCE = regex.compile(r"(?<=[.!?؟])\s+|(?<=[。！？])")
NAME = regex.compile(r"(?<=[\p{Ll},] )[A-Z][\p{L}]{3,}(?: [A-Z][\p{L}]{2,})*")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An English prompt and its translation into `lang`."""

    lang: str
    english: str
    text: str


Edit = Callable[[Pair, random.Random, Sequence[Pair]], str | None]


@cache
def rules() -> dict[str, Any]:
    """Read the rules of every language."""
    return dict(yaml.safe_load(RULES_FILE.read_text(encoding="utf-8")))


def by_rule(key: str, pair: Pair) -> str | None:
    """Apply the first rule of `key` that matches; None if none does or nothing changes."""
    for rule in rules()[pair.lang][key]:
        pattern, replacement = rule.split(" -> ", 1) if " -> " in rule else (rule.removesuffix(" ->"), "")
        changed, count = regex.subn(pattern, replacement, pair.text, count=1)
        if count and changed.strip() != pair.text.strip():
            changed = regex.sub(r"\s{2,}", " ", changed).strip()
            return changed[:1].upper() + changed[1:] if pair.text[:1].isupper() else changed
    return None


def drop_negation(pair: Pair, _random: random.Random, _pairs: Sequence[Pair]) -> str | None:
    english = regex.search(r"\b(?:not|never|without)\b|n['’]t\b", pair.english, regex.I)
    return by_rule("negation_dropped", pair) if english else None


def add_negation(pair: Pair, _random: random.Random, _pairs: Sequence[Pair]) -> str | None:
    return None if NEGATIVE.search(pair.english) else by_rule("negation_added", pair)


def soften(pair: Pair, random_: random.Random, _pairs: Sequence[Pair]) -> str | None:
    if random_.random() < 0.5:
        return by_rule("softened", pair)
    body = pair.text.rstrip(".。?？؟!！")
    return body + rules()[pair.lang]["hedge"] + pair.text[len(body) :]


def lose_verb(pair: Pair, _random: random.Random, _pairs: Sequence[Pair]) -> str | None:
    return by_rule("verb_lost", pair) if IMPERATIVE.match(pair.english) else None


def lose_how(pair: Pair, _random: random.Random, _pairs: Sequence[Pair]) -> str | None:
    return by_rule("how_lost", pair) if HOW.search(pair.english) else None


def change_object(pair: Pair, random_: random.Random, _pairs: Sequence[Pair]) -> str | None:
    """Replace a thing that English and translation both name by another thing."""
    own = list(zip(rules()["en_objects"], rules()[pair.lang]["objects"], strict=True))
    for english, word in own:
        bounded = regex.escape(word) if pair.lang in (*WITHOUT_SPACES, "ko") else rf"\b{regex.escape(word)}"
        if regex.search(rf"\b{english}s?\b", pair.english, regex.I) and regex.search(
            bounded, pair.text, regex.I
        ):
            others = [other for _, other in own if other != word]
            return str(regex.sub(bounded, random_.choice(others), pair.text, flags=regex.I))
    return None


def change_number(pair: Pair, random_: random.Random, _pairs: Sequence[Pair]) -> str | None:
    match = regex.search(r"(?<![\p{L}\d])\d+", pair.text)
    if match is None or match.group() not in pair.english:
        return None
    other = str(int(match.group()) + random_.choice((1, 2, 5, 10)))
    return pair.text[: match.start()] + other + pair.text[match.end() :]


def change_name(pair: Pair, random_: random.Random, pairs: Sequence[Pair]) -> str | None:
    """Replace a name that stands in both, letter for letter, by a name of another row."""
    kept = [name for name in NAME.findall(pair.english) if name in pair.text]
    names = [name for other in pairs for name in NAME.findall(other.english) if name not in pair.english]
    return pair.text.replace(kept[0], random_.choice(names)) if kept and names else None


def leave_sentence_out(pair: Pair, random_: random.Random, _pairs: Sequence[Pair]) -> str | None:
    sentences = [sentence for sentence in SENTENCE.split(pair.text) if sentence.strip()]
    if len(sentences) < 2 or len(SENTENCE.split(pair.english)) < 2:
        return None
    sentences.pop(random_.randrange(len(sentences)))
    return ("" if pair.lang in WITHOUT_SPACES else " ").join(sentences)


def cut(pair: Pair, random_: random.Random, _pairs: Sequence[Pair]) -> str | None:
    """Keep the first 40 to 60 % of the text."""
    share = random_.uniform(0.4, 0.6)
    if pair.lang in WITHOUT_SPACES:
        return pair.text[: int(len(pair.text) * share)] if len(pair.text) >= 12 else None
    words = pair.text.split()
    return " ".join(words[: int(len(words) * share)]) if len(words) >= 5 else None


def double(pair: Pair, _random: random.Random, _pairs: Sequence[Pair]) -> str | None:
    return f"{pair.text}\n{pair.text}" if len(pair.text) >= 10 else None


def leave_half_in_english(pair: Pair, _random: random.Random, _pairs: Sequence[Pair]) -> str | None:
    words = pair.english.split()
    half = cut(pair, random.Random(0), ()) if len(words) >= 6 else None
    return None if half is None else f"{half} {' '.join(words[len(words) // 2 :])}"


def leave_in_english(pair: Pair, _random: random.Random, _pairs: Sequence[Pair]) -> str | None:
    return pair.english if pair.english != pair.text else None


def swap(pair: Pair, random_: random.Random, pairs: Sequence[Pair]) -> str | None:
    """Give the row the translation of another row."""
    other = random_.choice(pairs)
    return other.text if other.text != pair.text else None


EDITS: dict[str, Edit] = {
    "swapped": swap,
    "untranslated": leave_in_english,
    "half translated": leave_half_in_english,
    "cut": cut,
    "sentence left out": leave_sentence_out,
    "doubled": double,
    "negation dropped": drop_negation,
    "negation added": add_negation,
    "softened": soften,
    "verb lost": lose_verb,
    "how lost": lose_how,
    "object changed": change_object,
    "number changed": change_number,
    "name changed": change_name,
}


def plant(pairs: Sequence[Pair], kinds: Sequence[str], share: float, seed: int) -> dict[int, tuple[str, str]]:
    """Return {index: (kind, changed text)}: for each kind up to `share` of the rows, no row twice."""
    random_ = random.Random(seed)
    planted: dict[int, tuple[str, str]] = {}
    for kind in kinds:
        edit = EDITS[kind]
        wanted = max(1, round(share * len(pairs)))
        for index in random_.sample(range(len(pairs)), len(pairs)):
            if wanted and index not in planted:
                text = edit(pairs[index], random_, pairs)
                if text and text.strip() != pairs[index].text.strip():
                    planted[index] = (kind, text)
                    wanted -= 1
    return planted


def shift(texts: Sequence[str]) -> list[str]:
    """Shift the second half of a list by one row; the last one wraps around."""
    half = len(texts) // 2
    return [*texts[:half], *texts[half + 1 :], texts[half]]
