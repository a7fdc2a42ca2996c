"""Find exact and near duplicates of English prompts: token Jaccard over an inverted index."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import regex

_WORD = regex.compile(r"[\p{L}\p{N}]+")


def tokens(text: str) -> frozenset[str]:
    """Return the set of lower-cased words of `text`; the text itself where it has no word."""
    return frozenset(_WORD.findall(text.casefold())) or frozenset([text])


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Return |one ∩ other| / |one ∪ other|, between 0 and 1."""
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)


class NearDuplicateIndex:
    """An index of texts that finds those at or above a token Jaccard with a new text.

    A pair with Jaccard >= t shares at least one of the rarest |a| - ceil(t |a|) + 1 tokens of either
    set (prefix filter, Chaudhuri et al. 2006); the index looks up every token, which is enough for
    tens of thousands of prompts.
    """

    def __init__(self, threshold: float) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is {threshold}, expected 0 < threshold <= 1")
        self.threshold = threshold
        self._sets: list[frozenset[str]] = []
        self._index: dict[str, list[int]] = defaultdict(list)

    def matches(self, text: str) -> list[tuple[int, float]]:
        """Return (number of an added text, Jaccard) of all near duplicates of `text`, nearest first."""
        words = tokens(text)
        counts: Counter[int] = Counter()
        for word in words:
            counts.update(self._index.get(word, ()))
        matches = []
        for number, shared in counts.items():
            score = shared / (len(words) + len(self._sets[number]) - shared)
            if score >= self.threshold:
                matches.append((number, score))
        return sorted(matches, key=lambda pair: (-pair[1], pair[0]))

    def add(self, text: str) -> int:
        """Add `text`; return its number, counted from 0."""
        words = tokens(text)
        number = len(self._sets)
        self._sets.append(words)
        for word in words:
            self._index[word].append(number)
        return number


@dataclass(frozen=True)
class Pair:
    """Two texts by their positions, the earlier first, and their token Jaccard."""

    first: int
    second: int
    jaccard: float


def near_duplicates(texts: Sequence[str], threshold: float) -> Iterator[Pair]:
    """Yield all pairs of different texts with token Jaccard at or above `threshold`.

    Equal texts are not near duplicates of each other: `exact_duplicates` finds them.
    """
    index = NearDuplicateIndex(threshold)
    for second, text in enumerate(texts):
        for first, score in index.matches(text):
            if texts[first] != text:
                yield Pair(first, second, score)
        index.add(text)


def exact_duplicates(texts: Iterable[str]) -> list[tuple[int, int]]:
    """Return (position of the first, position of the repeat) for every text that stood before."""
    first: dict[str, int] = {}
    repeats = []
    for position, text in enumerate(texts):
        if text in first:
            repeats.append((first[text], position))
        else:
            first[text] = position
    return repeats
