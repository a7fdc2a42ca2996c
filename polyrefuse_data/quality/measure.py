"""Score the translations of lists by models: quality estimation, similarity across languages.

Scores go to a file of scores, language by language, and what it has is not scored again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from polyrefuse_data.checks.text import has_visible
from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_data.quality.estimators import Estimator, load_estimator, parse_estimator
from polyrefuse_data.quality.harm import HarmJudge, load_harm_judge
from polyrefuse_data.quality.known_languages import languages_of
from polyrefuse_data.quality.scores_file import ScoresFile
from polyrefuse_data.quality.sentences import (
    ENGLISH,
    SOURCE,
    SentenceModel,
    compared,
    load_sentence_model,
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Translated:
    """The rows of one language: English (None where nobody knows it), translations, back-translations."""

    lang: str
    english: Sequence[str | None]
    texts: Sequence[str]
    backs: Sequence[str | None]

    def rows(self, need_backs: bool) -> list[int]:
        """Return the rows that have all the texts that a model compares."""
        return [
            row
            for row, (source, text, back) in enumerate(zip(self.english, self.texts, self.backs, strict=True))
            if source is not None and has_visible(text) and (back is not None or not need_backs)
        ]


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """Which models score: `quality` as KIND:MODEL@REVISION, the first that knows a language is taken.

    `similarity` is MODEL[@REVISION]; `similarity_of` says what it compares with the English: the translation
    (`source`), its back-translation (`english`), or by the model (`auto`: the translation where the table of
    models knows it as multilingual). `langs` are the languages that models outside the table know.
    """

    quality: Sequence[str] = ()
    similarity: str | None = None
    similarity_of: str = "auto"
    langs: frozenset[str] = field(default_factory=frozenset)
    intent: str | None = None
    """The judge of prompts that compares the harmfulness of back-translations with that of the English."""

    @property
    def asks(self) -> bool:
        """Whether any model is named."""
        return bool(self.quality) or self.similarity is not None or self.intent is not None


def measure(
    lists: Sequence[Translated], request: ModelRequest, scores: ScoresFile, progress: Progress
) -> Mapping[str, list[str]]:
    """Add to `scores` what the models of `request` say of `lists`; return check -> languages not judged.

    Raises `PolyRefuseError` for a model that cannot be used, before anything is scored.
    """
    unjudged: dict[str, list[str]] = {}
    models = bool(request.quality) + (request.similarity is not None) + (request.intent is not None)
    steps = len(lists) * models
    done = 0

    def step() -> None:
        nonlocal done
        scores.save()
        done += 1
        progress(done, steps)

    if request.quality:
        known = [languages_of(parse_estimator(name).model, request.langs) for name in request.quality]
        loaded: dict[str, Estimator] = {}
        for part in lists:
            names = [name for name, langs in zip(request.quality, known, strict=True) if part.lang in langs]
            if not names:
                unjudged.setdefault("quality", []).append(part.lang)
            else:
                estimator = loaded.get(names[0]) or load_estimator(names[0])
                loaded[names[0]] = estimator
                _estimate(part, estimator, scores)
            step()
    if request.similarity is not None:
        of_source = compared(request.similarity, request.similarity_of) == SOURCE
        langs = languages_of(request.similarity.partition("@")[0], request.langs) if of_source else None
        if not of_source:
            _check_backs(
                lists,
                "--similarity",
                ", or compare the translations by a multilingual model with --similarity-of source",
            )
        model = load_sentence_model(request.similarity, request.similarity_of)
        for part in lists:
            if langs is not None and part.lang not in langs:
                unjudged.setdefault("similarity", []).append(part.lang)
            else:
                _compare(part, model, scores)
            step()
    if request.intent is not None:
        _check_backs(lists, "--intent")
        judge = load_harm_judge(request.intent)
        english: dict[str, float | None] = {}
        for part in lists:
            _judge(part, judge, english, scores)
            step()
    return unjudged


def _judge(part: Translated, judge: HarmJudge, english: dict[str, float | None], scores: ScoresFile) -> None:
    """Score how much less each back-translation asks for harm than its English, whose verdicts are kept."""
    known = scores.scores("harm", judge.identity, part.lang, part.english, part.texts)
    rows = [row for row in part.rows(need_backs=True) if known[row] is None]
    sources = [part.english[row] or "" for row in rows]
    fresh = [text for text in dict.fromkeys(sources) if text not in english]
    english.update(zip(fresh, judge.harmfulness(fresh), strict=True))
    backs = judge.harmfulness([part.backs[row] or "" for row in rows])
    lost = {
        (source, part.texts[row]): before - after
        for row, source, after in zip(rows, sources, backs, strict=True)
        if (before := english[source]) is not None and after is not None
    }
    texts = [text for _, text in lost]
    scores.add("harm", judge.identity, part.lang, [source for source, _ in lost], texts, lost.values())


def _estimate(part: Translated, estimator: Estimator, scores: ScoresFile) -> None:
    known = scores.scores("quality", estimator.identity, part.lang, part.english, part.texts)
    rows = [row for row in part.rows(need_backs=False) if known[row] is None]
    english, texts = [part.english[row] or "" for row in rows], [part.texts[row] for row in rows]
    values = estimator.scores(english, texts) if rows else []
    scores.add("quality", estimator.identity, part.lang, english, texts, values)


def _check_backs(lists: Sequence[Translated], option: str, otherwise: str = "") -> None:
    if not any(back is not None for part in lists for back in part.backs):
        raise DatasetFolderError(
            f"no back-translations for {option} to compare; name them with --back FOLDER (a release) or "
            f"--memory FILE (what `build --back-translate` filled){otherwise}"
        )


def _compare(part: Translated, model: SentenceModel, scores: ScoresFile) -> None:
    """Score all rows of a language at once where a row lacks a score: the nearest row may be any of them."""
    rows = part.rows(need_backs=model.compares == ENGLISH)
    english, texts = [part.english[row] or "" for row in rows], [part.texts[row] for row in rows]
    checks = ("similarity", "nearest")
    known = [scores.scores(check, model.identity, part.lang, english, texts) for check in checks]
    if None not in known[0] and None not in known[1]:
        values: Sequence[Sequence[float]] = [[score or 0.0 for score in column] for column in known]
    else:
        other = texts if model.compares == SOURCE else [part.backs[row] or "" for row in rows]
        values = model.similarity_and_nearest(english, other)
    for check, column in zip(checks, values, strict=True):
        scores.add(check, model.identity, part.lang, english, texts, column)
