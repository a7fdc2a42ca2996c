"""Measure how well translations fit their English by a lexicon that is learned from the same rows.

The rows of a language are a parallel corpus: words that stand in the translations of an English word again
and again are its translations (IBM Model 1, Brown et al. 1993, in both directions). A row is scored with
its own counts left out, so that it does not vouch for itself. Nothing is read but the rows: no model, no
dictionary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import regex

from polyrefuse_data.checks.text import unmarked
from polyrefuse_data.core.languages import SOURCE_LANGUAGE, Language, language

MINIMUM_ROWS = 200
"""Fewer rows teach no lexicon: nothing is said of them."""

MOST_ROWS = 4000
"""So many rows are compared with each other; longer lists are divided into parts of equal length."""

MOST_UNITS = 200
"""Units of a text that are looked at, in order of appearance."""

STEM = 6
"""Characters of a word that are compared: what follows is mostly inflection."""

ITERATIONS = 4
"""Steps of expectation maximisation; more fit the rare words to their own rows."""

LEXICAL = 0.8
"""Weight of the lexicon against the frequency of a unit anywhere: what no word of the other side explains."""

EVIDENT = 1.0
"""Mean log-likelihood ratio, in nats, from which a unit is one whose absence tells something."""

OMITTED = 0.8
"""Share of the units of a stretch of the English that are missing once that stretch is left out."""

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_ARTICLE = regex.compile(r"\A(?:وال|بال|كال|فال|لل|ال)(?=.{3})")

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LexicalFit:
    """What the lexicon says of each row of a language.

    `better_fitting` is the share of the other rows (0 to 1) whose translation fits this English, or whose
    English this translation, at least as well as the row's own: about 0 for a true pair, anything up to 1
    for a wrong one. `omission` is the log odds (nats) that a stretch of the English was left out, the largest
    over its stretches; 0 where none seems to be.
    """

    better_fitting: list[float]
    omission: list[float]


def units(text: str, target: Language) -> list[str]:
    """Return the units of `text` that are compared, each once, in order of appearance.

    Words cut to `STEM` characters where words are divided by spaces; pairs of characters in Korean, Chinese
    and Japanese, and runs of three in Thai.
    """
    size = {"ja": 2, "zh": 2, "ko": 2, "th": 3}.get(target.code, 0 if target.spaced else 2)
    parts: dict[str, None] = {}
    for word in _WORD.findall(unmarked(text)):
        if size:
            runs = [word[start : start + size] for start in range(len(word) - size + 1)] or [word]
        else:
            runs = [_ARTICLE.sub("", word)[:STEM]]
        parts.update(dict.fromkeys(runs))
        if len(parts) >= MOST_UNITS:
            break
    return list(parts)[:MOST_UNITS]


def lexical_fit(english: Sequence[str], texts: Sequence[str], target: Language) -> LexicalFit | None:
    """Return how well each of `texts` fits its English; None for fewer than `MINIMUM_ROWS` rows."""
    if len(texts) < MINIMUM_ROWS:
        return None
    better_fitting: list[float] = []
    omission: list[float] = []
    for start, end in _parts(len(texts)):
        part = _fit_part(english[start:end], texts[start:end], target)
        better_fitting += part.better_fitting
        omission += part.omission
    return LexicalFit(better_fitting, omission)


def _parts(rows: int) -> Iterator[tuple[int, int]]:
    number = -(-rows // MOST_ROWS)
    edges = [round(part * rows / number) for part in range(number + 1)]
    yield from pairwise(edges)


def _fit_part(english: Sequence[str], texts: Sequence[str], target: Language) -> LexicalFit:
    source_units = [units(text, language(SOURCE_LANGUAGE)) for text in english]
    target_units = [units(text, target) for text in texts]
    sources, targets, cognates = _numbered(source_units, target_units)
    forward = _Direction(sources, targets, cognates)
    backward = _Direction(targets, sources, cognates[:, ::-1])
    fits = forward.fits().T + backward.fits()  # [English row, row of a translation]
    own = forward.own + backward.own
    np.fill_diagonal(fits, -np.inf)
    others = len(texts) - 1
    by_english = (fits >= own[:, None]).sum(axis=1) / others
    by_translation = (fits >= own[None, :]).sum(axis=0) / others
    share = np.maximum(by_english, by_translation)
    return LexicalFit([round(float(value), 4) for value in share], backward.omission())


def _numbered(
    sources: Sequence[Sequence[str]], targets: Sequence[Sequence[str]]
) -> tuple[list[Array], list[Array], Array]:
    """Return the units of both sides as numbers, and the pairs of units that are spelt alike.

    A unit of one row alone teaches nothing, unless the other side has it too: a name, a borrowed word.
    """
    source_counts = Counter(unit for row in sources for unit in row)
    target_counts = Counter(unit for row in targets for unit in row)

    def vocabulary(counts: Counter[str], others: Counter[str]) -> dict[str, int]:
        kept = sorted(u for u, rows in counts.items() if rows > 1 or (u in others and len(u) > 2))
        return {unit: number for number, unit in enumerate(kept)}

    def numbers(rows: Sequence[Sequence[str]], known: dict[str, int]) -> list[Array]:
        return [np.array([known[unit] for unit in row if unit in known], dtype=np.int64) for row in rows]

    ours, theirs = vocabulary(source_counts, target_counts), vocabulary(target_counts, source_counts)
    alike = [(ours[unit], theirs[unit]) for unit in ours if unit in theirs and len(unit) > 2]
    cognates = np.array(alike, dtype=np.int64).reshape(-1, 2)
    return numbers(sources, ours), numbers(targets, theirs), cognates


class _Direction:
    """The lexicon from one side to the other, p(target unit | source unit), and what it says of the rows."""

    def __init__(self, sources: list[Array], targets: list[Array], cognates: Array) -> None:
        self._sources, self._targets = sources, targets
        self._n_sources = 1 + max((int(row.max()) for row in sources if len(row)), default=0)
        self._n_targets = 1 + max((int(row.max()) for row in targets if len(row)), default=0)
        source_sizes = np.array([len(row) for row in sources])
        target_sizes = np.array([len(row) for row in targets])
        self._unit = np.concatenate(targets)
        self._row = np.repeat(np.arange(len(targets)), target_sizes)
        occurrences = np.bincount(self._unit, minlength=self._n_targets)
        self._frequency = (occurrences + 0.5) / (target_sizes.sum() + 0.5 * self._n_targets)

        # every pair of a source and a target unit of the same row: the row's alignments
        sizes = source_sizes * target_sizes
        source_first = np.repeat(np.cumsum(source_sizes) - source_sizes, sizes)
        target_first = np.repeat(np.cumsum(target_sizes) - target_sizes, sizes)
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        width = np.repeat(target_sizes, sizes)
        at_source, at_target = source_first + within // width, target_first + within % width
        source_unit = np.concatenate(sources)[at_source]
        own_keys = source_unit * self._n_targets + self._unit[at_target]
        cognate_keys = cognates[:, 0] * self._n_targets + cognates[:, 1]
        keys, entry = np.unique(np.concatenate([own_keys, cognate_keys]), return_inverse=True)
        prior = np.bincount(entry[len(own_keys) :], minlength=len(keys)).astype(float)
        entry = entry[: len(own_keys)]

        # expectation maximisation: share each target unit among the source units of its row, and count
        source_of = keys // self._n_targets
        probability = np.full(len(keys), 1 / self._n_targets)
        for _ in range(ITERATIONS):
            weight = probability[entry]
            total = np.bincount(at_target, weights=weight, minlength=len(self._unit))
            posterior = weight / (total + self._frequency[self._unit])[at_target]
            counts = np.bincount(entry, weights=posterior, minlength=len(keys)) + prior
            totals = np.bincount(source_of, weights=counts, minlength=self._n_sources)
            probability = counts / (totals[source_of] + 0.5)
        self._table = np.zeros((self._n_sources, self._n_targets), np.float32)
        self._table[source_of, keys % self._n_targets] = probability

        # the row's own pairs, with what the row itself added to the counts taken out of them
        added = np.bincount(at_source, weights=posterior, minlength=source_sizes.sum())[at_source]
        left = (counts[entry] - posterior) / (totals[source_unit] - added + 0.5)
        explained = np.bincount(at_target, weights=left, minlength=len(self._unit))
        explained = explained / np.maximum(1, source_sizes)[self._row]
        self._ratio = np.log(1 - LEXICAL + LEXICAL * explained / self._frequency[self._unit])
        self.own = np.bincount(self._row, weights=self._ratio, minlength=len(targets))
        """Log-likelihood ratio (nats) of each row's target given its source against a target of no source."""

    def fits(self) -> Array:
        """Return the log-likelihood ratio of every target given every source, [row of target, of source]."""
        ratios = np.empty((len(self._sources), self._n_targets), np.float32)
        for number, row in enumerate(self._sources):
            ratios[number] = self._table[row].sum(axis=0) / max(1, len(row))
        ratios = np.log(1 - LEXICAL + LEXICAL * ratios / self._frequency.astype(np.float32))
        by_unit = np.ascontiguousarray(ratios.T)
        fits = np.zeros((len(self._targets), len(self._sources)), np.float32)
        for number, row in enumerate(self._targets):
            fits[number] = by_unit[row].sum(axis=0)
        return fits

    def omission(self) -> list[float]:
        """Return the log odds of the stretch of each row's target units that its source explains least.

        In a stretch that was left out, `OMITTED` of the units are explained by nothing. Only units count that
        the lexicon explains well in the other rows; one that it does not explain in this row is missing. The
        base rate of missing units is that of all rows.
        """
        seen = np.bincount(self._unit, minlength=self._n_targets)[self._unit]
        sums = np.bincount(self._unit, weights=self._ratio, minlength=self._n_targets)[self._unit]
        usual = (sums - self._ratio) / np.maximum(1, seen - 1)
        evident = (seen >= 3) & (usual >= EVIDENT)
        missing = evident & (self._ratio < usual / 2)
        rate = (missing.sum() + 1) / (evident.sum() + 2)
        odds = np.where(missing, np.log(OMITTED / rate), np.log((1 - OMITTED) / (1 - rate))) * evident
        ends = np.cumsum([len(row) for row in self._targets])[:-1]
        return [round(_largest_stretch(values), 3) for values in np.split(odds, ends)]


def _largest_stretch(values: Array) -> float:
    """Return the largest sum of consecutive `values`, 0 for none of them."""
    totals = np.concatenate([[0.0], np.cumsum(values)])
    return float((totals - np.minimum.accumulate(totals)).max())
