"""Measure round trips of whole lists: chrF++, BLEU, sentence similarity of back-translations and English."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polyrefuse_data.checks.text import round_trip


@dataclass(frozen=True)
class RoundTrip:
    """The round trip of one list, over its `rows` with a back-translation.

    `chrf` is the mean of the rows' chrF++ and `bleu` the corpus BLEU of the list, both 0 to 100 and higher
    for closer texts; `similarity` is the mean cosine of the rows, None if no model was named.
    """

    lang: str
    label: str
    split: str
    rows: int
    chrf: float
    bleu: float
    similarity: float | None


def measure_round_trip(
    lang: str,
    label: str,
    split: str,
    english: Sequence[str | None],
    backs: Sequence[str | None],
    scores: Sequence[float | None] | None = None,
    similarities: Sequence[float | None] | None = None,
) -> RoundTrip | None:
    """Return the round trip of a list, None if no row has both English and a back-translation.

    `scores` are the rows' chrF++ where they are known already, `similarities` their cosines.
    """
    known = [None] * len(backs) if scores is None else scores
    rows = [
        (source, back, round_trip(source, back) if score is None else score)
        for source, back, score in zip(english, backs, known, strict=True)
        if source is not None and back is not None
    ]
    if not rows:
        return None
    sources, returned = [source for source, _, _ in rows], [back for _, back, _ in rows]
    values = [value for value in similarities or () if value is not None]
    return RoundTrip(
        lang,
        label,
        split,
        len(rows),
        sum(score for *_, score in rows) / len(rows),
        corpus_bleu(sources, returned),
        sum(values) / len(values) if values else None,
    )


def corpus_bleu(english: Sequence[str], backs: Sequence[str]) -> float:
    """Return the BLEU (Papineni et al. 2002) of a list of back-translations, 0 to 100, as sacrebleu has it.

    N-gram matches are summed over the list before they are divided: this is no mean over rows.
    """
    from sacrebleu.metrics import BLEU

    return BLEU().corpus_score(list(backs), [list(english)]).score  # type: ignore[no-any-return]


def bleu_signature() -> str:
    """Return sacrebleu's signature of `corpus_bleu`: tokenisation, smoothing, version."""
    from sacrebleu.metrics import BLEU

    metric = BLEU()
    metric.corpus_score(["a"], [["a"]])  # it signs only after it has seen references
    return str(metric.get_signature())


def chrf_signature() -> str:
    """Return sacrebleu's signature of the rows' chrF++."""
    from sacrebleu.metrics import CHRF

    metric = CHRF(word_order=2)
    metric.sentence_score("a", ["a"])
    return str(metric.get_signature())
