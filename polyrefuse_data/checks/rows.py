"""Register the row checks: each scores a batch of translations; thresholds decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from polyrefuse_data.checks import intent, numbers
from polyrefuse_data.checks import text as scores
from polyrefuse_data.checks.language import LanguageVotes
from polyrefuse_data.checks.lexicon import LexicalFit, lexical_fit
from polyrefuse_data.checks.recorded import RECORDED_CHECKS, Recorded, RecordedCheck
from polyrefuse_data.checks.thresholds import Thresholds
from polyrefuse_data.checks.translator_talk import translator_talk
from polyrefuse_data.checks.truncation import truncation
from polyrefuse_data.core.findings import Finding
from polyrefuse_data.core.languages import SOURCE_LANGUAGE, Language
from polyrefuse_data.core.schema import ROW_CHECKS

VERSION = 8
"""Raised whenever a check scores differently: kept scores of another version are not reused."""


@dataclass(frozen=True)
class Batch:
    """Translations into one language with their English; `backs` are back-translations, None where none.

    `texts_en` and `texts` have equal length; an English text is None where nobody knows it, and checks
    that compare with it then say nothing. Some checks learn from all rows of a batch: give them all the rows
    of a language at once.
    """

    language: Language
    texts: Sequence[str]
    texts_en: Sequence[str | None]
    backs: Sequence[str | None] = ()
    votes: LanguageVotes = field(default_factory=LanguageVotes)
    recorded: Mapping[str, Recorded] = field(default_factory=dict)
    """Scores of checks of `RECORDED_CHECKS`, one for each row."""

    @property
    def known(self) -> list[int]:
        """Return the positions of the rows that have both text and English."""
        pairs = enumerate(zip(self.texts, self.texts_en, strict=True))
        return [row for row, (text, english) in pairs if english is not None and scores.has_visible(text)]

    @cached_property
    def lexical_fit(self) -> LexicalFit | None:
        """Return how the rows of `known` fit a lexicon learned from them; None if they are too few."""
        return lexical_fit(*self._known_texts(), self.language)

    @cached_property
    def truncation(self) -> list[float] | None:
        """Return the log odds that a part of a row of `known` is missing; None if they are too few."""
        fit = self.lexical_fit
        return None if fit is None else truncation(*self._known_texts(), fit.omission, self.language)

    def _known_texts(self) -> tuple[list[str], list[str]]:
        return [self.texts_en[row] or "" for row in self.known], [self.texts[row] for row in self.known]


Scorer = Callable[[Batch], list[float | None]]


@dataclass(frozen=True)
class Check:
    """One row check: what it measures, how bad a flag is, and how it scores."""

    name: str
    severity: str
    measures: str
    flagged: str
    scorer: Scorer
    originals: bool = False
    """Whether English rows are scored too, which nobody translated."""


def _alone(score: Callable[[str], float | None]) -> Scorer:
    return lambda batch: [score(text) for text in batch.texts]


def _against_english(score: Callable[[str, str], float | None]) -> Scorer:
    return lambda batch: [
        None if english is None else score(text, english)
        for text, english in zip(batch.texts, batch.texts_en, strict=True)
    ]


def _with_language(score: Callable[[str, str, str], float | None]) -> Scorer:
    return lambda batch: [
        None if english is None else score(text, english, batch.language.code)
        for text, english in zip(batch.texts, batch.texts_en, strict=True)
    ]


def _diacritics(batch: Batch) -> list[float | None]:
    if not batch.language.diacritics:
        return [None] * len(batch.texts)
    return [scores.diacritic_share(text) for text in batch.texts]


def _round_trips(batch: Batch) -> list[float | None]:
    backs = batch.backs or [None] * len(batch.texts)
    return [
        None if english is None or back is None else scores.round_trip(english, back)
        for english, back in zip(batch.texts_en, backs, strict=True)
    ]


def _spread(batch: Batch, known: Sequence[float]) -> list[float | None]:
    """Return the scores of the batch's `known` rows at their positions, None at the others."""
    values: list[float | None] = [None] * len(batch.texts)
    for row, value in zip(batch.known, known, strict=True):
        values[row] = value
    return values


def _fit(batch: Batch) -> list[float | None]:
    fit = batch.lexical_fit
    return [None] * len(batch.texts) if fit is None else _spread(batch, fit.better_fitting)


def _cut(batch: Batch) -> list[float | None]:
    odds = batch.truncation
    return [None] * len(batch.texts) if odds is None else _spread(batch, odds)


_CHECKS = (
    Check("empty", "error", "visible characters", "have no text", _alone(scores.visible_length), True),
    Check(
        "echo",
        "error",
        "token Jaccard with the English",
        "are the English text, untranslated",
        _against_english(scores.echo),
    ),
    Check(
        "untranslated",
        "warning",
        "share of the English words that stand there in runs of three or more",
        "are in part the English text, untranslated",
        _against_english(scores.untranslated),
    ),
    Check(
        "script",
        "error",
        "share of letters in the language's script",
        "are mostly in another script",
        lambda batch: [
            scores.script_share(text, batch.language, english)
            for text, english in zip(batch.texts, batch.texts_en, strict=True)
        ],
        True,
    ),
    Check(
        "language",
        "error",
        "1 in the language, 0 in another, 0.5 undecided",
        "are in another language",
        lambda batch: batch.votes.scores(batch.texts, batch.language.code),
        True,
    ),
    Check(
        "length_ratio",
        "warning",
        "characters, translation / English",
        "are far shorter or longer than the English",
        _against_english(scores.length_ratio),
    ),
    Check(
        "digits",
        "warning",
        "numbers that the English has in digits, missing as digits and as words",
        "lack a number that the English has in digits",
        _with_language(numbers.missing_digits),
    ),
    Check(
        "line_breaks",
        "warning",
        "line breaks, translation - English",
        "have different line breaks from the English",
        _against_english(scores.line_break_difference),
    ),
    Check(
        "invisible",
        "warning",
        "added zero-width and control characters",
        "hold zero-width or control characters",
        lambda batch: [
            scores.invisible_characters(text, english or "")
            for text, english in zip(batch.texts, batch.texts_en, strict=True)
        ],
    ),
    Check(
        "diacritics",
        "warning",
        "share of words with a diacritic",
        "are written without diacritics",
        _diacritics,
    ),
    Check(
        "refusal",
        "error",
        "1 if the translator answers or comments instead of translating",
        "open with a refusal or a remark of the translator",
        lambda batch: [
            translator_talk(text, english or "", batch.language.code)
            for text, english in zip(batch.texts, batch.texts_en, strict=True)
        ],
    ),
    Check(
        "round_trip",
        "warning",
        "chrF++ of the back-translation, 0-100",
        "come back from a round trip with another meaning",
        _round_trips,
    ),
    Check(
        "fit",
        "warning",
        "share of other rows that fit as well, by a lexicon learned from the rows",
        "fit their English no better than translations of other rows do",
        _fit,
    ),
    Check(
        "cut",
        "warning",
        "log odds that a part of the text is missing",
        "seem to lack a part of their English",
        _cut,
    ),
    Check(
        "repetition",
        "warning",
        "share of the text that repeats its beginning",
        "repeat themselves",
        _against_english(intent.repetition),
    ),
    Check(
        "verbatim",
        "warning",
        "addresses, code, placeholders, quotations missing",
        "lack an address, code, a placeholder or a quotation of the English",
        _against_english(intent.missing_verbatim),
    ),
    Check(
        "number_words",
        "warning",
        "numbers that the English writes as words, missing as words and as digits",
        "lack a number that the English writes as a word",
        _with_language(numbers.missing_number_words),
    ),
    Check(
        "negation",
        "warning",
        "1 if a negation was dropped, -1 if one was added",
        "have dropped or added a negation",
        _with_language(intent.negation),
    ),
    Check(
        "intent",
        "warning",
        "questions, questions of how, verbs of request lost, hedges added",
        "ask differently from the English: a question lost or added, no request, or a hedge",
        _with_language(intent.intent),
    ),
)

CHECKS: dict[str, Check] = {check.name: check for check in _CHECKS}
"""Row checks by name, in the order of the published columns."""

assert tuple(CHECKS) == ROW_CHECKS, "the registry and the published columns name the same checks"  # noqa: S101


@dataclass(frozen=True)
class Scored:
    """Scores and flags of a batch: check -> one entry a row."""

    scores: Mapping[str, Sequence[float | None]]
    flags: Mapping[str, Sequence[bool]]

    def rows(self, first: int, last: int) -> Scored:
        """Return what is said of the rows from `first` to before `last`."""
        return Scored(
            scores={check: values[first:last] for check, values in self.scores.items()},
            flags={check: values[first:last] for check, values in self.flags.items()},
        )


def run_checks(batch: Batch, thresholds: Thresholds) -> Scored:
    """Return the scores of every check on `batch` and what `thresholds` say of them.

    A row without text is flagged `empty` and by no other check.
    """
    original = batch.language.code == SOURCE_LANGUAGE
    scored: dict[str, list[float | None]] = {}
    flags: dict[str, list[bool]] = {}
    for check in CHECKS.values():
        silent: list[float | None] = [None] * len(batch.texts)
        values = silent if original and not check.originals else check.scorer(batch)
        if check.name != "empty":
            values = [value if full else None for value, full in zip(values, scored["empty"], strict=True)]
        scored[check.name] = values
        flags[check.name] = [thresholds.flagged(check.name, batch.language.code, value) for value in values]
    for name, recorded in batch.recorded.items():
        scored[name] = list(recorded.scores)
        flags[name] = recorded.flags(name, batch.language.code, thresholds)
    return Scored(scored, flags)


def row_findings(
    scored: Scored, ids: Sequence[str], lang: str, label: str, split: str, positions: Sequence[int]
) -> list[Finding]:
    """Return one finding for every check that flags some of the rows at `positions`."""
    findings = []
    checks: list[Check | RecordedCheck] = [*CHECKS.values(), *RECORDED_CHECKS.values()]
    for check in checks:
        flags = scored.flags.get(check.name)
        flagged = [position for position in positions if flags and flags[position]]
        if flagged:
            flagged_ids = tuple(ids[position] for position in flagged)
            share = f"{len(flagged)} of {len(positions)} rows {check.flagged}"
            findings.append(Finding(check.name, check.severity, lang, label, split, flagged_ids, share))
    return findings
