"""Keep scores of translations in a file: a model scores a translation once, whoever asks for it later.

One JSON object a line: `check`, `model`, `lang`, the sha256 of the English (`english`) and of the translation
(`text`), `score`. No text of a prompt stands in it. A score belongs to its two texts: a row with another
translation has none until it is scored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from polyrefuse_data.checks.recorded import RECORDED_CHECKS, Recorded
from polyrefuse_data.core.errors import PolyRefuseError, unknown_name
from polyrefuse_data.core.files import write_text
from polyrefuse_data.core.parsing import first_problem
from polyrefuse_data.core.paths import check_output
from polyrefuse_data.core.reading import read_text, text_lines
from polyrefuse_data.core.schema import text_hash

Texts = tuple[str, str]
"""The hashes of an English text and of its translation."""


@with_config(ConfigDict(extra="ignore", strict=True, allow_inf_nan=False))
@dataclass(frozen=True, kw_only=True)
class ScoreRecord:
    """One line of the file."""

    check: str
    model: str
    lang: str
    english: str
    text: str
    score: Annotated[float, Field(ge=-1e15, le=1e15)]


_RECORDS = TypeAdapter(ScoreRecord)


class ScoresFileError(PolyRefuseError):
    """A file of scores that cannot be read: not there, or a line that is none of its format."""


@dataclass
class ScoresFile:
    """The scores of one file; without `path` they are kept for the time of a command."""

    path: Path | None = None
    create: bool = False
    """Whether the file may be absent; it is then written by `save`."""

    _scores: dict[tuple[str, str, str], dict[Texts, float]] = field(default_factory=dict)
    """(check, model, language) -> texts -> score; what was added last stands last."""

    def __post_init__(self) -> None:
        if self.path is None:
            return
        if self.create:
            check_output(self.path, option="--scores")
        if self.path.exists() or not self.create:
            self._read(self.path)

    def _read(self, path: Path) -> None:
        for number, line in text_lines(read_text(path)):
            if not line.strip():
                continue
            try:
                record = _RECORDS.validate_json(line)
            except ValidationError as error:
                raise ScoresFileError(
                    f"{path}, line {number}: expected check, model, lang, english, text and score as "
                    "`polyrefuse audit --quality ... --scores FILE` writes them, each score a finite number "
                    f"({first_problem(error)})"
                ) from None
            if record.check not in RECORDED_CHECKS:
                problem = unknown_name("check", record.check, RECORDED_CHECKS)
                raise ScoresFileError(f"{path}, line {number}: {problem}")
            key, texts = (record.check, record.model, record.lang), (record.english, record.text)
            self._scores.setdefault(key, {})[texts] = record.score

    def models(self, check: str, lang: str) -> list[str]:
        """Return the models with scores of a check in a language, in the order in which they were added."""
        return [model for kind, model, code in self._scores if (kind, code) == (check, lang)]

    def scores(
        self, check: str, model: str, lang: str, english: Iterable[str | None], texts: Iterable[str]
    ) -> list[float | None]:
        """Return the score of each row, None where there is none."""
        known = self._scores.get((check, model, lang), {})
        return [
            None if source is None else known.get((text_hash(source), text_hash(text)))
            for source, text in zip(english, texts, strict=True)
        ]

    def recorded(self, lang: str, english: Sequence[str | None], texts: Sequence[str]) -> dict[str, Recorded]:
        """Return check -> the scores of the rows by the model that was added last, where a row has one."""
        recorded = {}
        for check in RECORDED_CHECKS:
            for model in reversed(self.models(check, lang)):
                scores = self.scores(check, model, lang, english, texts)
                if any(score is not None for score in scores):
                    recorded[check] = Recorded(model=model, scores=scores)
                    break
        return recorded

    def add(
        self,
        check: str,
        model: str,
        lang: str,
        english: Iterable[str],
        texts: Iterable[str],
        values: Iterable[float],
    ) -> None:
        """Add the scores of rows, which then are the latest of their check and language."""
        known = self._scores.pop((check, model, lang), {})
        for source, text, value in zip(english, texts, values, strict=True):
            known[text_hash(source), text_hash(text)] = round(float(value), 6)
        self._scores[check, model, lang] = known

    def save(self) -> None:
        """Write the file whole, if there is one."""
        if self.path is None:
            return
        lines = [
            json.dumps(
                {
                    "check": check,
                    "model": model,
                    "lang": lang,
                    "english": english,
                    "text": text,
                    "score": score,
                }
            )
            for (check, model, lang), known in self._scores.items()
            for (english, text), score in known.items()
        ]
        write_text(self.path, "".join(f"{line}\n" for line in lines))
