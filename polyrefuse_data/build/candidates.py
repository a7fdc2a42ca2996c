"""Choose among candidate translations by the scores at hand, say why, and measure how far they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from polyrefuse_data.checks.language import LanguageVotes
from polyrefuse_data.checks.recorded import Recorded, badness
from polyrefuse_data.checks.rows import CHECKS, Batch, Scored, run_checks
from polyrefuse_data.checks.thresholds import Thresholds
from polyrefuse_data.core.languages import language
from polyrefuse_data.core.schema import text_hash
from polyrefuse_data.quality.measure import Translated
from polyrefuse_data.quality.scores_file import ScoresFile
from polyrefuse_data.translate.fill import Candidates
from polyrefuse_data.translate.memory.store import Ranked, Translator

CRITERIA = ("errors", "warnings", "quality", "similarity", "round_trip")
"""What decides, the first difference alone: fewer checks that flag, then the better score."""

Key = tuple[str, int]
"""English hash and occurrence of a prompt."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One translation of a prompt with what the checks say of it.

    `badness` holds a number for each of `CRITERIA` that could be measured, lower for a better translation;
    `shown` says the same to people.
    """

    translator: Translator
    text: str
    badness: Mapping[str, float]
    shown: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The choices of one language: what is taken for each prompt, all candidates in order, disagreement."""

    taken: Mapping[Key, tuple[Translator, str]]
    ranked: Sequence[Ranked] = ()
    comparison: str = ""
    """What the scores of `disagreement` compare: the measure and the translators."""
    disagreement: Mapping[Key, float] = field(default_factory=dict)
    """100 - chrF (beta 1, 0 to 100) of what is taken with the most similar other candidate."""


def slots(
    lang: str, candidates: Candidates, english: Mapping[str, str], backs: Mapping[tuple[str, str], str]
) -> list[Translated]:
    """Return the candidates as lists of rows, a list for each place in the chain, in the order of `english`.

    A prompt with fewer candidates stands in the further lists with its last one, so that each list holds all
    prompts: some checks learn from a whole list.
    """
    keys = _ordered(candidates, english)
    lists = []
    for place in range(max((len(entries) for entries in candidates.values()), default=0)):
        texts = [candidates[key][min(place, len(candidates[key]) - 1)][1] for key in keys]
        lists.append(
            Translated(
                lang=lang,
                english=[english[key[0]] for key in keys],
                texts=texts,
                backs=[backs.get((key[0], text_hash(text))) for key, text in zip(keys, texts, strict=True)],
            )
        )
    return lists


def choose(
    lang: str,
    candidates: Candidates,
    english: Mapping[str, str],
    backs: Mapping[tuple[str, str], str],
    scores: ScoresFile,
    thresholds: Thresholds,
    votes: LanguageVotes,
) -> Choices:
    """Return the best candidate of each prompt, by `CRITERIA` and then the order of the chain.

    A criterion counts for a prompt where all its candidates have it. `scores` holds what models said.
    """
    if all(len(entries) < 2 for entries in candidates.values()):
        return Choices(taken={key: entries[0] for key, entries in candidates.items()})
    keys = _ordered(candidates, english)
    columns = []
    for part in slots(lang, candidates, english, backs):
        recorded = scores.recorded(lang, part.english, part.texts)
        batch = Batch(language(lang), part.texts, part.english, part.backs, votes, recorded)
        columns.append((run_checks(batch, thresholds), recorded))
    taken: dict[Key, tuple[Translator, str]] = {}
    ranked: list[Ranked] = []
    disagreement: dict[Key, float] = {}
    for row, key in enumerate(keys):
        scored = [
            _candidate(translator, text, row, *columns[place])
            for place, (translator, text) in enumerate(candidates[key])
        ]
        order = rank(scored)
        best = order[0][0]
        taken[key] = (best.translator, best.text)
        if len(order) < 2:
            continue
        ranked += [
            Ranked(
                english=english[key[0]],
                lang=lang,
                occurrence=key[1],
                place=place,
                translator=candidate.translator,
                text=candidate.text,
                reason=reason,
            )
            for place, (candidate, reason) in enumerate(order, 1)
        ]
        disagreement[key] = disagreement_with([candidate.text for candidate, _ in order])
    names = sorted({one.translator.backend for one in ranked})
    return Choices(
        taken=taken, ranked=ranked, comparison=f"chrF1 of {'+'.join(names)}", disagreement=disagreement
    )


def _ordered(candidates: Candidates, english: Mapping[str, str]) -> list[Key]:
    place = {english_hash: number for number, english_hash in enumerate(english)}
    return sorted(candidates, key=lambda key: (place[key[0]], key[1]))


def _candidate(
    translator: Translator, text: str, row: int, scored: Scored, recorded: Mapping[str, Recorded]
) -> Candidate:
    bad: dict[str, float] = {}
    shown: dict[str, str] = {}
    flagged = [check for check, flags in scored.flags.items() if flags[row]]
    for name, severity in (("errors", "error"), ("warnings", "warning")):
        own = [check for check in flagged if _severity(check) == severity]
        bad[name], shown[name] = float(len(own)), "+".join(own) or "none"
    for check in ("quality", "similarity"):
        score = recorded[check].scores[row] if check in recorded else None
        if score is not None:
            bad[check], shown[check] = badness(check, recorded[check].model, score), f"{score:.3f}"
    score = scored.scores["round_trip"][row]
    if score is not None:
        bad["round_trip"], shown["round_trip"] = -score, f"{score:.1f}"
    return Candidate(translator=translator, text=text, badness=bad, shown=shown)


def _severity(check: str) -> str:
    return CHECKS[check].severity if check in CHECKS else "warning"


def rank(candidates: Sequence[Candidate]) -> list[tuple[Candidate, str]]:
    """Return `candidates`, the best first and equal ones in their order, with the reason for each place."""
    common = [name for name in CRITERIA if all(name in one.badness for one in candidates)]
    order = sorted(candidates, key=lambda one: [one.badness[name] for name in common])
    best = order[0]
    if len(order) == 1:
        return [(best, "the only candidate")]
    reasons = [_reason(best, order[1], common), *(_reason(one, best, common) for one in order[1:])]
    return list(zip(order, reasons, strict=True))


def _reason(candidate: Candidate, other: Candidate, criteria: Sequence[str]) -> str:
    """Return the first criterion by which two candidates differ, with what both have of it."""
    if candidate.text == other.text:
        return "the same text"
    for name in criteria:
        if candidate.badness[name] != other.badness[name]:
            return f"{name}: {candidate.shown[name]} against {other.shown[name]}"
    return "equal scores: order of the chain"


def disagreement_with(texts: Sequence[str]) -> float:
    """Return 100 - chrF of the first of `texts` with the most similar other one: 0 for equal texts, to 100.

    chrF (Popović 2015) with beta 1 is symmetric; no word order, since some languages do not divide words.
    """
    first, *others = texts
    agreement: float = max(_chrf().sentence_score(first, [other]).score for other in others)
    return 100.0 - agreement


@lru_cache(maxsize=1)
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF(char_order=6, word_order=0, beta=1)


def record_disagreement(lang: str, choices: Choices, english: Mapping[str, str], scores: ScoresFile) -> None:
    """Add the disagreement about each taken translation of `lang` to `scores`."""
    pairs: Iterator[tuple[str, str, float]] = (
        (english[key[0]], choices.taken[key][1], value) for key, value in choices.disagreement.items()
    )
    rows = list(pairs)
    if rows:
        scores.add("disagreement", choices.comparison, lang, *zip(*rows, strict=True))
