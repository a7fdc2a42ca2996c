"""Hold all that decides the bytes of a build: prompts with their translations, thresholds, versions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from polyrefuse_data.checks import rows as row_checks
from polyrefuse_data.checks.languages_file import RECORDED, recorded
from polyrefuse_data.checks.recorded import Recorded
from polyrefuse_data.checks.thresholds import Thresholds
from polyrefuse_data.core.display import counted
from polyrefuse_data.core.findings import Finding
from polyrefuse_data.core.languages import LANGUAGES, PUBLISHED_LANGUAGES, SOURCE_LANGUAGE
from polyrefuse_data.core.schema import ORIGINAL, RECORDED_CHECKS, PlacedPrompt, Row, text_hash
from polyrefuse_data.core.unicode_text import LONGEST_TEXT
from polyrefuse_data.core.version import __version__
from polyrefuse_data.prompts.load import SourceUsed
from polyrefuse_data.prompts.recipe import Recipe
from polyrefuse_data.prompts.splits import Selection
from polyrefuse_data.translate.memory.store import HUMAN, Translator

Known = Mapping[tuple[str, int], tuple[Translator, str]]
"""Translations of one language: (hash of the English, occurrence) -> translator and text."""

VERSIONED = ("py3langid", "lingua-language-detector", "langdetect", "sacrebleu", "pyarrow")
"""Packages whose version can change a score or a byte; they stand in the manifest."""


@dataclass(frozen=True)
class Gap:
    """A prompt without a translation: named, never dropped silently."""

    lang: str
    split: str
    label: str
    ids: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    """Why each of `ids` has none: a backend's name and a reason of `http.faults.REASONS`."""

    def record(self) -> dict[str, Any]:
        """Return the gap without its reasons, as digests take it in."""
        return {"lang": self.lang, "split": self.split, "label": self.label, "ids": list(self.ids)}

    def with_reasons(self) -> dict[str, Any]:
        """Return the gap as manifests show it."""
        return {**self.record(), "reasons": dict(zip(self.ids, self.reasons, strict=True))}

    def finding(self) -> Finding:
        """Return the gap as a finding of severity error."""
        counts = Counter(self.reasons)
        why = ", ".join(f"{reason} {number}" for reason, number in sorted(counts.items()))
        message = f"{counted(len(self.ids), 'prompt')} without a translation ({why})"
        return Finding("gap", "error", self.lang, self.label, self.split, self.ids, message)


@dataclass
class Inputs:
    """Everything that decides the bytes of a build."""

    recipe: Recipe
    selection: Selection
    sources: list[SourceUsed]
    thresholds: Thresholds
    rows: dict[str, list[Row]] = field(default_factory=dict)
    backs: dict[str, list[str | None]] = field(default_factory=dict)
    """Back-translations by language, one for each row, None where there is none."""

    recorded: dict[str, dict[str, Recorded]] = field(default_factory=dict)
    """Scores by models, language -> check -> one for each row."""

    gaps: list[Gap] = field(default_factory=list)

    def add_language(
        self,
        lang: str,
        known: Known,
        backs: Mapping[tuple[str, str], str],
        reasons: Mapping[tuple[str, str], str],
        live: bool,
    ) -> None:
        """Make the rows of `lang` from the translations `known`; record what has none as gaps.

        `backs` are back-translations by the hashes of English and translation, `reasons` tell by hash and
        language why a translation is missing. With `live`, a source's own translations do not stand.
        """
        rows: list[Row] = []
        texts_back: list[str | None] = []
        missing: dict[tuple[str, str], dict[str, str]] = {}
        for placed in self.selection.placed:
            translation = _translation(placed, lang, known, live)
            if translation is None or len(translation[1]) > LONGEST_TEXT:
                absent = "not in the memory" if translation is None else "length"
                reason = reasons.get((placed.prompt.hash, lang), absent)
                missing.setdefault((placed.split, placed.prompt.label), {})[placed.id] = reason
                continue
            translator, text = translation
            rows.append(_row(placed, lang, text, translator))
            texts_back.append(backs.get((placed.prompt.hash, text_hash(text))))
        self.rows[lang] = rows
        self.backs[lang] = texts_back
        for (split, label), ids in missing.items():
            self.gaps.append(Gap(lang, split, label, tuple(ids), tuple(ids.values())))

    @property
    def has_pairs(self) -> bool:
        """Whether there are contrast pairs among the prompts: each row then says of which it is."""
        return any(placed.prompt.pair is not None for placed in self.selection.placed)

    @property
    def measured(self) -> list[str]:
        """The checks of `RECORDED_CHECKS` that score rows of some language."""
        named = {check for checks in self.recorded.values() for check in checks}
        return [check for check in RECORDED_CHECKS if check in named]

    def header(self, all_votes: bool) -> dict[str, Any]:
        """Return the part of the manifest that is known before any check has run: all inputs, by hash."""
        versions = {"polyrefuse": __version__, **{name: metadata.version(name) for name in VERSIONED}}
        common = {
            "checks": row_checks.VERSION,
            "thresholds": self.thresholds.digest(),
            "all_votes": all_votes,
            "versions": versions,
        }
        if set(LANGUAGES) != set(PUBLISHED_LANGUAGES):  # detectors choose among all that are known
            common["languages"] = sorted(LANGUAGES)
        languages = {
            lang: _digest(
                [common, [_identity(row) for row in rows], self.backs[lang], *self._recorded_inputs(lang)]
            )
            for lang, rows in self.rows.items()
        }
        topped_up = sorted(self.selection.topped_up.items())
        own_languages = recorded(list(self.rows))
        return {
            **({RECORDED: own_languages} if own_languages else {}),
            **({"pairs": True} if self.has_pairs else {}),
            **({"measured": self.measured, "models": self._models()} if self.measured else {}),
            "recipe": {
                **self.recipe.model_dump(mode="json", exclude_none=True),
                "digest": _digest(self.recipe.model_dump(mode="json")),
            },
            "seed": self.recipe.seed,
            "sizes": self.recipe.sizes(),
            "sources": [vars(source) for source in self.sources],
            "dropped": [vars(prompt) for prompt in self.selection.dropped],
            "topped_up": {f"{label}-{split}": number for (label, split), number in topped_up if number},
            "thresholds": {"digest": self.thresholds.digest(), "provenance": self.thresholds.provenance},
            "all_votes": all_votes,
            "versions": versions,
            "inputs": {"languages": languages, "gaps": _digest([gap.record() for gap in self.gaps])},
        }

    def _recorded_inputs(self, lang: str) -> list[Any]:
        """Return what of the recorded scores decides the rows of `lang`; nothing where there are none."""
        if not self.measured:
            return []
        scores = {
            check: [column.model, list(column.scores)]
            for check, column in self.recorded.get(lang, {}).items()
        }
        return [self.measured, scores]

    def _models(self) -> dict[str, dict[str, list[str]]]:
        """Return check -> model -> the languages that it scored."""
        models: dict[str, dict[str, list[str]]] = {}
        for lang, checks in self.recorded.items():
            for check, scores in checks.items():
                models.setdefault(check, {}).setdefault(scores.model, []).append(lang)
        return models


def _translation(placed: PlacedPrompt, lang: str, known: Known, live: bool) -> tuple[str, str] | None:
    """Return (translator's signature, text) of one prompt in one language, or None.

    A source's own translations stand unless a live translator was asked for or a person corrected them.
    """
    prompt = placed.prompt
    if lang == SOURCE_LANGUAGE:
        return ORIGINAL, prompt.text
    kept = known.get((prompt.hash, placed.occurrence)) or known.get((prompt.hash, 0))
    if lang in prompt.translations and not live and (kept is None or kept[0].backend != HUMAN):
        from polyrefuse_data.prompts.sample import TRANSLATOR

        return Translator(TRANSLATOR, __version__).signature, prompt.translations[lang]
    return (kept[0].signature, kept[1]) if kept else None


def _row(placed: PlacedPrompt, lang: str, text: str, translator: str) -> Row:
    prompt = placed.prompt
    return Row(
        id=placed.id,
        group=prompt.group,
        lang=lang,
        text=text,
        text_en=prompt.text,
        label=prompt.label,
        split=placed.split,
        category=prompt.category,
        source_category=prompt.source_category,
        source=prompt.source,
        source_licence=prompt.licence,
        translator=translator,
        duplicate_of=placed.duplicate_of,
        pair=prompt.pair,
    )


def _identity(row: Row) -> list[str | None]:
    """Return what of a row is an input of the checks and of the package."""
    pair = [] if row.pair is None else [row.pair]
    return [
        row.id,
        row.group,
        row.text,
        row.text_en,
        row.translator,
        row.source,
        row.source_licence,
        row.category,
        row.source_category,
        row.duplicate_of,
        *pair,
    ]


def _digest(value: Any) -> str:
    return text_hash(json.dumps(value, sort_keys=True, ensure_ascii=False))
