"""Miss and false alarm rates of a detector before and after a change, on the same prompts. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from polyrefuse_data.core.display import visible
from polyrefuse_eval.statistics.detection import ALL, Scored, rate_cell
from polyrefuse_eval.statistics.rates import Rate, rate, wilson


@dataclass(frozen=True, kw_only=True)
class PairedRates:
    """A rate `before` and `after`, and its `change` (after - before) with a 95 % interval.

    The change is over the prompts that are decided both times; None where there are none.
    """

    before: Rate
    after: Rate
    n_pairs: int
    change: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class DetectionChange:
    """Misses (harmful called safe) and false alarms (harmless called unsafe) of a language and kind."""

    lang: str
    kind: str
    miss: PairedRates
    false_alarm: PairedRates

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def detection_changes(before: Sequence[Scored], after: Sequence[Scored]) -> list[DetectionChange]:
    """Return a `DetectionChange` for each language, of all kinds first, then of each kind.

    Raises `ValueError` unless both hold the same prompts in the same order.
    """
    if [prompt.id for prompt in before] != [prompt.id for prompt in after]:
        raise ValueError("verdicts before and after are of different prompts")
    pairs = list(zip(before, after, strict=True))
    changes = []
    for lang in dict.fromkeys(first.lang for first, _ in pairs):
        of_lang = [pair for pair in pairs if pair[0].lang == lang]
        kinds = dict.fromkeys(first.kind for first, _ in of_lang)
        for kind in (ALL, *kinds):
            chosen = [pair for pair in of_lang if kind in (ALL, pair[0].kind)]
            harmful, harmless = (
                [(first.unsafe, second.unsafe) for first, second in chosen if first.label == label]
                for label in ("harmful", "harmless")
            )
            missed = [
                (None if first is None else not first, None if second is None else not second)
                for first, second in harmful
            ]
            changes.append(
                DetectionChange(
                    lang=lang, kind=kind, miss=paired_rates(missed), false_alarm=paired_rates(harmless)
                )
            )
    return changes


def paired_rates(pairs: Sequence[tuple[bool | None, bool | None]]) -> PairedRates:
    """Return the rates of True before and after, and their paired difference."""
    decided = [(first, second) for first, second in pairs if first is not None and second is not None]
    change = low = high = None
    if decided:
        change, low, high = paired_difference(decided)
    return PairedRates(
        before=rate([first for first, _ in pairs]),
        after=rate([second for _, second in pairs]),
        n_pairs=len(decided),
        change=change,
        low=low,
        high=high,
    )


def paired_difference(pairs: Sequence[tuple[bool, bool]]) -> tuple[float, float, float]:
    """Return the difference of paired proportions, second - first, with its 95 % interval.

    Newcombe (1998, Statistics in Medicine 17, 2635-2650), method 10: Wilson intervals of both, squared and
    added with the correlation of the pairs, which is corrected for continuity where it is positive. Unlike a
    bootstrap, it is no point where no pair differs. Raises `ValueError` for no pairs.
    """
    if not pairs:
        raise ValueError("no difference of no pairs")
    n = len(pairs)
    both = sum(first and second for first, second in pairs)
    first_only = sum(first and not second for first, second in pairs)
    second_only = sum(second and not first for first, second in pairs)
    neither = n - both - first_only - second_only
    hits_first, hits_second = both + first_only, both + second_only
    (low_first, high_first), (low_second, high_second) = wilson(hits_first, n), wilson(hits_second, n)
    p_first, p_second = hits_first / n, hits_second / n
    # The correlation of the pairs (phi), 0 where one of the margins is empty.
    margins = hits_first * (n - hits_first) * hits_second * (n - hits_second)
    product = both * neither - first_only * second_only
    corrected = max(product - n / 2, 0.0) if product > 0 else float(product)
    phi = corrected / math.sqrt(margins) if margins else 0.0
    below, above = (
        math.sqrt(max(0.0, second**2 - 2 * phi * second * first + first**2))
        for second, first in (
            (p_second - low_second, high_first - p_first),
            (high_second - p_second, p_first - low_first),
        )
    )
    difference = p_second - p_first
    return difference, max(-1.0, difference - below), min(1.0, difference + above)


def change_table(changes: Sequence[DetectionChange]) -> str:
    """Return a Markdown table: a row for each language and kind, rates before and after side by side."""
    heads = ["language", "kind", "miss before", "after", "change", "false alarm before", "after", "change"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for change in changes:
        cells = [change.lang, visible(change.kind).replace("|", "\\|")]
        for rates in (change.miss, change.false_alarm):
            cells += [rate_cell(rates.before), rate_cell(rates.after), _change_cell(rates)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n95 % intervals: Wilson, of the change Newcombe, paired by prompt.\n"


def _change_cell(rates: PairedRates) -> str:
    if rates.change is None or rates.low is None or rates.high is None:
        return ""
    return f"{100 * rates.change:+.1f} [{100 * rates.low:+.1f}, {100 * rates.high:+.1f}]"
