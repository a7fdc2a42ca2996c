"""Measure surface cues: by what of their form alone harmful and harmless prompts can be told apart.

Such differences between labels are what Gururangan et al. (2018) call annotation artifacts: a direction, a
guard or a classifier that was fitted on the labels may have learned them instead of harm.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import regex

from polyrefuse_data.checks.cues_together import area_together
from polyrefuse_data.checks.intent import is_question
from polyrefuse_data.checks.thresholds import Thresholds
from polyrefuse_data.core.display import visible
from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.core.schema import SPLITS
from polyrefuse_data.core.statistics import auroc, auroc_interval, difference_of_rates
from polyrefuse_data.core.unicode_text import without_final_punctuation

CHECK = "surface_cue"

FIRST_WORD = "first word"

LENGTH, TOGETHER = "length", "form together"
"""Cues that are measured by an area under the ROC curve instead of a rate."""

OPENING = 2
"""Characters that stand for the first word where words are not divided by spaces."""

LONGEST_WORD = 20

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+(?:['’][\p{L}\p{M}]+)?")
_LETTER = regex.compile(r"\p{L}")
_DIGIT = regex.compile(r"\p{Nd}")


def ends_with_punctuation(text: str, lang: str) -> bool:
    """Return whether the last visible character is punctuation, in any script."""
    return without_final_punctuation(text) != text.rstrip()


def begins_in_lower_case(text: str, lang: str) -> bool:
    """Return whether the first letter is a lower-case one; no letter of a script without cases is."""
    letter = _LETTER.search(text)
    return letter is not None and unicodedata.category(letter[0]) == "Ll"


def has_digit(text: str, lang: str) -> bool:
    """Return whether there is a digit, of any script."""
    return _DIGIT.search(text) is not None


CUES: dict[str, Callable[[str, str], bool]] = {
    "final punctuation": ends_with_punctuation,
    "question": is_question,
    "digit": has_digit,
    "lower-case first letter": begins_in_lower_case,
}
"""Cues that a prompt has or has not, by name: functions of its text and language."""


def first_word(text: str, lang: str) -> str:
    """Return the first word in lower case, or the first `OPENING` letters in a language without spaces."""
    word = _WORD.search(text)
    if word is None:
        return ""
    whole = word[0].casefold()
    spaced = lang not in LANGUAGES or LANGUAGES[lang].spaced
    return whole[: LONGEST_WORD if spaced else OPENING]


@dataclass(frozen=True, kw_only=True)
class CueRates:
    """How many of the `n` prompts of each label have a cue; harmful first. `word` is the first word meant."""

    cue: str
    hits: tuple[int, int]
    n: tuple[int, int]
    word: str | None = None

    @property
    def rates(self) -> tuple[float, float]:
        """The share of harmful prompts with the cue, and that of harmless ones."""
        return self.hits[0] / self.n[0], self.hits[1] / self.n[1]

    @property
    def difference(self) -> tuple[float, float, float]:
        """The rate among harmful prompts minus that among harmless ones, and its 95 % interval."""
        return difference_of_rates((self.hits[0], self.n[0]), (self.hits[1], self.n[1]))

    @property
    def shown_word(self) -> str:
        """The word that is meant, fit to be shown; empty of other cues."""
        return "" if self.word is None else f"“{visible(self.word)}”"

    @property
    def name(self) -> str:
        """The cue, with the word that is meant."""
        return f"{self.cue} {self.shown_word}".strip()


@dataclass(frozen=True, kw_only=True)
class SurfaceCues:
    """By what the labels of one language and split can be told apart.

    `areas` are areas under the ROC curve (above 0.5: longer, or more like harmful prompts, is harmful):
    of the length in characters, and of a logistic model of length and all cues but the first word, tested on
    prompts that it was not fitted on; None where there are too few.
    """

    lang: str
    split: str
    n: tuple[int, int]
    cues: tuple[CueRates, ...]
    areas: Mapping[str, float | None] = field(hash=False)
    telling: tuple[str, ...] = ()
    """The cues that tell the labels apart, by the thresholds that were asked."""

    def rates_of(self, name: str) -> CueRates | None:
        """Return the rates of the cue called `name`; None of one that has an area."""
        return next((cue for cue in self.cues if cue.cue == name), None)

    def area_interval(self, name: str) -> tuple[float, float] | None:
        """Return the 95 % interval of the area called `name`; None where there is none."""
        area = self.areas.get(name)
        return None if area is None else auroc_interval(area, *self.n)

    def to_dict(self) -> dict[str, Any]:
        """Return the measures as reports and manifests have them."""
        areas = {}
        for name, area in self.areas.items():
            interval = self.area_interval(name)
            ends = [None, None] if interval is None else [round(end, 4) for end in interval]
            areas[name] = {"auroc": area, "interval": ends}
        return {
            "lang": self.lang,
            "split": self.split,
            "n_harmful": self.n[0],
            "n_harmless": self.n[1],
            "cues": [
                {
                    "cue": cue.cue,
                    **({} if cue.word is None else {"word": cue.word}),
                    "harmful": cue.hits[0],
                    "harmless": cue.hits[1],
                    "difference": round(difference, 4),
                    "interval": [round(low, 4), round(high, 4)],
                }
                for cue in self.cues
                for difference, low, high in [cue.difference]
            ],
            "areas": areas,
            "telling": list(self.telling),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SurfaceCues:
        """Return the measures that `to_dict` returned."""
        n = (record["n_harmful"], record["n_harmless"])
        cues = [
            CueRates(cue=cue["cue"], hits=(cue["harmful"], cue["harmless"]), n=n, word=cue.get("word"))
            for cue in record["cues"]
        ]
        areas = {name: area["auroc"] for name, area in record["areas"].items()}
        return cls(
            lang=record["lang"],
            split=record["split"],
            n=n,
            cues=tuple(cues),
            areas=areas,
            telling=tuple(record["telling"]),
        )


def measure_surface_cues(
    lang: str, split: str, harmful: Sequence[str], harmless: Sequence[str], thresholds: Thresholds
) -> SurfaceCues | None:
    """Return the surface cues of the prompts of one language and split; None where a label has none."""
    texts = [[text for text in side if text.strip()] for side in (harmful, harmless)]
    n = (len(texts[0]), len(texts[1]))
    if not all(n):
        return None
    has = {name: [[cue(text, lang) for text in side] for side in texts] for name, cue in CUES.items()}
    words = [[first_word(text, lang) for text in side] for side in texts]
    cues = [CueRates(cue=name, hits=(sum(of[0]), sum(of[1])), n=n) for name, of in has.items()]
    lengths = [[float(len(text)) for text in side] for side in texts]
    area = auroc(*lengths)
    measured = SurfaceCues(
        lang=lang,
        split=split,
        n=n,
        cues=(*cues, _most_telling_word(words, n)),
        areas={
            LENGTH: None if area is None else round(area, 3),
            TOGETHER: area_together(texts, list(has.values())),
        },
    )
    return replace(measured, telling=_telling(measured, thresholds))


def _telling(measured: SurfaceCues, thresholds: Thresholds) -> tuple[str, ...]:
    """Return the cues whose rates differ, or whose area is from 0.5, by more than the bound of `surface_cue`.

    An interval that holds no difference at all is no sign of one. A model that is wrong more often than right
    on unseen prompts, as where each harmful prompt has a harmless one of its form, tells nothing.
    """
    differences = {cue.cue: cue.difference for cue in measured.cues}
    for name, area in measured.areas.items():
        interval = measured.area_interval(name)
        if area is not None and interval is not None and not (name == TOGETHER and area < 0.5):
            differences[name] = area - 0.5, interval[0] - 0.5, interval[1] - 0.5
    return tuple(
        name
        for name, (difference, low, high) in differences.items()
        if thresholds.flagged(CHECK, measured.lang, abs(difference)) and (low > 0 or high < 0)
    )


def _most_telling_word(words: Sequence[Sequence[str]], n: tuple[int, int]) -> CueRates:
    """Return the first word whose rates differ most; the first in the alphabet of equal ones."""
    counts = [Counter(side) for side in words]
    word = min(
        {*counts[0], *counts[1]},
        key=lambda word: (-abs(counts[0][word] / n[0] - counts[1][word] / n[1]), word),
    )
    return CueRates(cue=FIRST_WORD, hits=(counts[0][word], counts[1][word]), n=n, word=word)


def surface_cues_by_split(
    lang: str, prompts: Mapping[tuple[str, str], Sequence[str]], thresholds: Thresholds
) -> list[SurfaceCues]:
    """Return the surface cues of each split of one language; `prompts` are by label and split."""
    measured = [
        measure_surface_cues(
            lang, split, prompts.get(("harmful", split), ()), prompts.get(("harmless", split), ()), thresholds
        )
        for split in SPLITS
    ]
    return [each for each in measured if each is not None]
