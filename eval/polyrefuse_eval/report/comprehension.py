"""Comprehension: whether a model understood its prompts, from the verdicts on its unedited answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from polyrefuse_data.core.languages import SOURCE_LANGUAGE
from polyrefuse_eval.report.groups import CellName, Groups, Verdicts
from polyrefuse_eval.results.interventions import BASELINE_NAME
from polyrefuse_eval.results.records import VerdictRecord
from polyrefuse_eval.results.settings import LABELS
from polyrefuse_eval.results.summary_records import Comprehension, RefusalGap
from polyrefuse_eval.statistics.rates import interval, rate

AnswerEnds = Mapping[tuple[str, str, str], bool | None]
"""(language, label, key of the answer) to whether it ended by itself; None, or no entry: not known."""


class Comprehensions:
    """The comprehension of each language in the `cells` of one judge.

    Bootstrap samples are drawn once and are the same in all languages, so that their gaps can be compared;
    harmful and harmless prompts are drawn apart from each other, since they come in no pairs.
    """

    def __init__(
        self,
        cells: Mapping[CellName, Verdicts],
        harmful: Groups,
        harmless: Groups,
        ends: AnswerEnds | None = None,
    ) -> None:
        self._cells = cells
        self._harmful = harmful
        self._harmless = harmless
        self._ends = ends or {}

    def of(self, lang: str) -> Comprehension:
        """Return the comprehension of `lang`."""
        verdicts = list(
            chain.from_iterable(
                self._cells.get((lang, label, BASELINE_NAME), {}).values() for label in LABELS
            )
        )
        return Comprehension(
            in_language=rate([written_in(verdict, lang) for verdict in verdicts]),
            in_english=rate([written_in(verdict, SOURCE_LANGUAGE) for verdict in verdicts]),
            incoherent=rate(
                [None if verdict.coherent is None else not verdict.coherent for verdict in verdicts]
            ),
            puzzled=rate([None if verdict.coherent is None else verdict.puzzled for verdict in verdicts]),
            cut=rate([was_cut(verdict, self._ends) for verdict in verdicts]),
            gap=self._gap(lang),
        )

    def _gap(self, lang: str) -> RefusalGap:
        harmful = self._cells.get((lang, "harmful", BASELINE_NAME), {})
        harmless = self._cells.get((lang, "harmless", BASELINE_NAME), {})
        if not harmful or not harmless:
            return RefusalGap(value=None, low=None, high=None)
        refused, samples = self._harmful.rates(harmful)
        over_refused, over_samples = self._harmless.rates(harmless)
        if refused is None or over_refused is None:
            return RefusalGap(value=None, low=None, high=None)
        low, high = interval(samples - over_samples) or (None, None)
        return RefusalGap(value=refused - over_refused, low=low, high=high)


def written_in(verdict: VerdictRecord, lang: str) -> bool | None:
    """Return whether an answer is in `lang`; None where the judge cannot tell its language."""
    return None if verdict.response_lang is None else verdict.response_lang == lang


def was_cut(verdict: VerdictRecord, ends: AnswerEnds) -> bool | None:
    """Return whether an answer was cut at the longest length allowed; None where that is not known."""
    ended = ends.get((verdict.lang, verdict.label, verdict.key))
    return None if ended is None else not ended


def count(told: Sequence[bool | None]) -> int | None:
    """Return how many of `told` are true; None where none is known."""
    known = [value for value in told if value is not None]
    return sum(known) if known else None
