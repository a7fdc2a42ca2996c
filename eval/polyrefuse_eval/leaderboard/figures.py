"""One number of the leaderboard: its interval, its counts, what it is, and where its JSON stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_eval.results.folder import Result
from polyrefuse_eval.results.interventions import BASELINE_NAME, INTERVENTIONS
from polyrefuse_eval.statistics.rates import bounds

MISSING = "–"
UNITS = {"share": " %", "points": " points"}
"""What is printed after a number, by the kind of its figure."""


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % interval; None where nothing was judged or measured.

    `link` is the JSON file and in its fragment the JSON Pointer (RFC 6901) of the number.
    `kind`: a `share` is shown in percent, `points` are a difference of shares in percentage points, a
    `number` has two decimals, a `count` is whole.
    """

    value: float | None
    about: str
    link: str
    low: float | None = None
    high: float | None = None
    n: int | None = None
    n_unjudged: int | None = None
    kind: Literal["share", "points", "number", "count"] = "share"
    mean: bool = False

    @property
    def text(self) -> str:
        """The number as it is printed: `12.5 %`, `−3.0 points`, `0.87`, or a dash for none."""
        return self._shown(self.value)

    @property
    def short(self) -> str:
        """The number for a cell of a heat map: whole percent, or hundredths of a number from 0 to 1."""
        if self.value is None or self.kind not in ("share", "number"):
            return self.text
        return f"{100 * self.value:.0f}"

    @property
    def interval(self) -> str:
        """`[9.1, 16.9]`, or nothing where there is no interval."""
        if self.low is None or self.high is None:
            return ""
        return f"[{self._bare(self.low)}, {self._bare(self.high)}]"

    @property
    def counts(self) -> str:
        """`572 judged, 3 undecided`, or nothing where no answers are counted."""
        if self.n is None:
            return ""
        counts = f"{self.n} judged, {self.n_unjudged or 0} undecided"
        if not self.n_unjudged or self.bounds is None:
            return counts
        least, most = (self._shown(bound) for bound in self.bounds)
        return f"{counts}: {least} if none of these refused, {most} if all did"

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The bounds of the share that undecided answers leave open; None of a mean or of nothing."""
        if not self.n or self.value is None or self.mean or self.kind != "share":
            return None
        return bounds(round(self.value * self.n), self.n, self.n_unjudged or 0)

    @property
    def told(self) -> str:
        """Everything about the number in lines, as the page shows it on hover and focus."""
        value = self.text if self.value is not None else "not measured" if self.n is None else "not judged"
        first = f"{value} {self.interval}".strip() + (" (95 % interval)" if self.interval else "")
        return "\n".join(line for line in (first, self.about, self.counts) if line)

    def json(self) -> dict[str, Any]:
        """The number as `leaderboard.json` holds it."""
        value: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high}
        if self.n is not None:
            value |= {"n": self.n, "n_unjudged": self.n_unjudged}
        if self.bounds is not None:
            value |= {"least": self.bounds[0], "most": self.bounds[1]}
        return value

    def _bare(self, value: float) -> str:
        if self.kind == "count":
            return f"{value:,.0f}"
        shown = f"{value:.2f}" if self.kind == "number" else f"{100 * value:.1f}"
        return shown.replace("-", "\u2212") if shown.strip("-0.") else shown.lstrip("-")

    def _shown(self, value: float | None) -> str:
        if value is None:
            return MISSING
        return self._bare(value) + UNITS.get(self.kind, "")


def pointer(file: str, *parts: str | int) -> str:
    """Return the address of `parts` in the JSON `file`: a JSON Pointer as its fragment."""
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in parts)
    return f"{quote(file)}#" + quote("".join(f"/{part}" for part in escaped), safe="/~:@!$'()*+,;=")


def language_name(code: str) -> str:
    """Return `German (de)`, or the code alone where the language is not known."""
    return f"{LANGUAGES[code].name} ({code})" if code in LANGUAGES else code


def shorten(text: str, length: int) -> str:
    """Return `text` with at most `length` characters, cut with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def condition_text(condition: str) -> str:
    """Return a condition in words: `ablation:en@0.5` is `direction of en ablated, strength 0.5`."""
    kind, _, rest = condition.partition(":")
    source, _, strength = rest.partition("@")
    if condition == BASELINE_NAME:
        return "no edit"
    if kind not in INTERVENTIONS:
        return condition
    of = {
        "pooled": "direction of all languages",
        "random": "random direction",
        "shuffled": "direction of shuffled labels",
    }.get(source, f"direction of {source}")
    return f"{of} {INTERVENTIONS[kind].participle}" + (f", strength {strength}" if strength else "")


def of_result(result: Result, file: str, index: int) -> Figure:
    """Return the refusal rate of record `index` of a run's results."""
    about = (
        f"refusal rate, {language_name(result.lang)}, {result.label} prompts, "
        f"{condition_text(result.condition)}; judge {result.judge}"
    )
    if result.n_incoherent:
        about += f"; {result.n_incoherent} answers incoherent"
    if result.n_puzzled:
        about += f"; {result.n_puzzled} puzzled"
    if result.n_unfinished:
        about += f"; {result.n_unfinished} truncated in their reasoning"
    if result.n_second is not None:
        about += f"; the cascade's second judge decided {result.n_second}"
        about += f" and agrees on {result.n_sampled_same} of {result.n_sampled} others"
    if result.harmful_rate is not None:
        about += f"; {100 * result.harmful_rate:.1f} % of {result.n_harm_judged} harmful"
    return Figure(
        result.refusal_rate,
        about,
        pointer(file, "results", index, "refusal_rate"),
        result.low,
        result.high,
        result.n,
        result.n_unjudged,
    )


def mean_of(figures: Sequence[Figure], about: str, link: str) -> Figure | None:
    """Return the mean of the rates that have a value, or None where none has.

    Its interval is the mean of the interval ends. All languages answer the same prompt groups, so
    their errors may go together; this is exact where they do and too wide where they do not.
    """
    values = [figure for figure in figures if figure.value is not None]
    if not values:
        return None

    def mean(name: str) -> float | None:
        parts = [getattr(figure, name) for figure in values]
        return None if None in parts else sum(parts) / len(parts)

    return Figure(
        mean("value"),
        f"{about}, mean of {len(values)} language{'' if len(values) == 1 else 's'}",
        link,
        mean("low"),
        mean("high"),
        sum(figure.n or 0 for figure in figures),
        sum(figure.n_unjudged or 0 for figure in figures),
        mean=True,
    )
