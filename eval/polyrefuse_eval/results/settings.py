"""What a run measures: its settings, and the grid of measurements that follows from them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.results.final_punctuation import KEPT
from polyrefuse_eval.results.interventions import (
    BASELINE_NAME,
    DEFAULT_INTERVENTIONS,
    INTERVENTIONS,
    is_graded,
)
from polyrefuse_eval.results.sources import CONTROLS, base_of, fitted_sources, is_span, languages_of

LABELS = ("harmful", "harmless")
STRENGTHS = (0.25, 0.5, 0.75)
LARGEST_STRENGTH = 1000.0
"""Of addition, in differences in means; far beyond what leaves a model's answers text."""

CROSSED = 128
"""Prompts of crossed measurements (ablation on harmless, addition on harmful prompts).

With 128 the 95 % interval of a rate is at most 9 points wide on each side, and crossed measurements cost a
quarter of the others.
"""


@dataclass(frozen=True)
class Condition:
    """One intervention: `source` names its direction, `coefficient` its strength; None for the baseline.

    `further`: the coefficient is one of the strengths tried besides the run's own, so the name has it.
    """

    intervention: str = BASELINE_NAME
    source: str | None = None
    coefficient: float | None = None
    further: bool = field(default=False, compare=False)

    @property
    def name(self) -> str:
        """`baseline`, `ablation:en`, `ablation:en@0.5`, `addition:en`, `addition:en@2`."""
        if self.source is None:
            return self.intervention
        partly = is_graded(self.intervention) and self.coefficient not in (None, 1.0)
        named = f"@{self.coefficient:g}" if self.further or partly else ""
        return f"{self.intervention}:{self.source}{named}"

    @classmethod
    def parse(cls, name: str, run_coefficient: float | None = 1.0) -> Condition:
        """Return the condition called `name`; one that is not graded has `run_coefficient` unless its name
        has another."""
        intervention, _, rest = name.partition(":")
        source, _, strength = rest.partition("@")
        if not source:
            return cls()
        whole = 1.0 if is_graded(intervention) else run_coefficient
        return cls(intervention, source, float(strength) if strength else whole, bool(strength))


BASELINE_CONDITION = Condition()


@dataclass(frozen=True)
class Measurement:
    """One measurement of the grid: completions in `lang` of prompts of `label` under `condition`.

    `limit` is the number of test prompts, None for all.
    """

    lang: str
    label: str
    condition: Condition
    limit: int | None = None

    def __str__(self) -> str:
        return f"{self.lang} {self.label} {self.condition.name}"


@dataclass(frozen=True)
class RunSettings:
    """What is measured. All fields but `batch_size` belong to the run's signature.

    `direction_langs` are sources of directions, see `results.sources`. `strengths` are further coefficients
    of graded interventions between 0 and 1, for each language's own direction where there is one, else for
    the first; `addition_strengths` the same of addition, whose first coefficient is `coefficient`. `crossed`
    is the number of prompts under an intervention that is not meant for them (ablation on harmless, addition
    on harmful prompts), None for all. `directions_from` is the digest of the run or build that directions
    come from, None where that is the data that is measured. `kl_tokens` are the tokens of the unedited answer
    over which the KL of a candidate direction is taken. `baseline_server` is the server that makes the
    baselines, as `MODEL at PLACE`, None where the model itself does. `over_refusal_from` is the build, as
    `RECIPE:DIGEST`, half of whose contrast pairs (`results.contrast_pairs`) give the directions of
    over-refusal and are not tested, None where no direction is made orthogonal to one. `test_seed` draws the
    test prompts where a limit takes some (`results.prompt_draw`), None takes the first. `final_punctuation`
    says whether directions are found on prompts with the punctuation at their end, or without it.
    """

    langs: tuple[str, ...]
    direction_langs: tuple[str, ...] = ("en",)
    rule: str = "robust"
    max_new_tokens: int = 512
    n_train: int = 128
    n_validation: int = 32
    n_test: int | None = None
    filter_prompts: bool = True
    controls: bool = True
    coefficient: float = 1.0
    strengths: tuple[float, ...] = STRENGTHS
    crossed: int | None = CROSSED
    seed: int = 0
    refusal_tokens: str | None = None
    all_candidates: bool = False
    directions_from: str | None = None
    addition_strengths: tuple[float, ...] = ()
    kl_tokens: int = 1
    interventions: tuple[str, ...] = DEFAULT_INTERVENTIONS
    baseline_server: str | None = None
    over_refusal_from: str | None = None
    test_seed: int | None = None
    final_punctuation: str = KEPT
    batch_size: int | None = None

    @property
    def has_gates(self) -> bool:
        """Whether an intervention is made only on prompts that the model takes for harmful."""
        return any(INTERVENTIONS[name].where_harmful for name in self.interventions)

    @property
    def fitted_sources(self) -> tuple[str, ...]:
        """Sources whose directions are fitted: those of `direction_langs`, and of each span its members."""
        return fitted_sources(self.direction_langs, self.langs)

    @property
    def data_langs(self) -> tuple[str, ...]:
        """Languages whose prompts the run reads: measured ones, and those that give directions."""
        if self.directions_from is not None:
            return self.langs
        of_sources = [lang for source in self.fitted_sources for lang in languages_of(source, self.langs)]
        return tuple(dict.fromkeys([*self.langs, *of_sources]))

    def signature(self) -> dict[str, Any]:
        """Return the settings that numbers depend on."""
        settings = asdict(self)
        del settings["batch_size"]
        return without_defaults(settings)


STATED_IF_CHANGED = {"test_seed": None, "final_punctuation": KEPT}
"""Settings that a signature states only where they are not as here, and so is that of runs made before."""


def without_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return `settings` without those of `STATED_IF_CHANGED` that are as they always were."""
    return {
        name: value
        for name, value in settings.items()
        if name not in STATED_IF_CHANGED or value != STATED_IF_CHANGED[name]
    }


def parse_strengths(text: str) -> tuple[float, ...]:
    """Return the coefficients in `0.25,0.5`, ascending; none of `none`.

    Raises `RunFolderError` for anything but numbers between 0 and 1.
    """
    if text.strip() == "none":
        return ()
    try:
        strengths = sorted({float(part) for part in text.split(",")})
    except ValueError:
        strengths = []
    if not strengths or not all(0 < value < 1 for value in strengths):
        raise RunFolderError(
            f"strengths '{text}': expected numbers between 0 and 1 such as 0.25,0.5,0.75, or 'none' "
            "(0 and 1 are always measured)"
        )
    return tuple(strengths)


def parse_addition_strengths(text: str, coefficient: float) -> tuple[float, ...]:
    """Return the further coefficients of addition in `0.5,2`, ascending; none of `none`.

    The run's own `coefficient` is left out: it is measured in any case. Raises `RunFolderError` for anything
    but numbers above 0 and up to `LARGEST_STRENGTH`.
    """
    if text.strip() == "none":
        return ()
    try:
        strengths = sorted({float(f"{float(part):g}") for part in text.split(",")})
    except ValueError:
        strengths = []
    if not strengths or not all(0 < value <= LARGEST_STRENGTH for value in strengths):
        raise RunFolderError(
            f"addition strengths '{text}': expected numbers above 0 and up to {LARGEST_STRENGTH:g} such as "
            "0.5,2, or 'none' (--coefficient is always measured)"
        )
    return tuple(value for value in strengths if value != coefficient)


FIRST = "first-token"
LARGEST_KL_TOKENS = 512


def parse_kl(text: str) -> int:
    """Return over how many tokens of an answer the KL of a candidate is taken: 1 for `first-token`, N for
    `tokens=N`; raises `RunFolderError` for anything else."""
    name, _, number = text.strip().partition("=")
    if text.strip() == FIRST:
        return 1
    if name != "tokens" or not number.isdecimal() or not 1 <= int(number) <= LARGEST_KL_TOKENS:
        raise RunFolderError(
            f"kl '{text}': expected {FIRST}, or tokens=N with N from 1 to {LARGEST_KL_TOKENS}"
        )
    return int(number)


def parse_crossed(text: str) -> int | None:
    """Return the number of prompts of crossed measurements, None for `all`."""
    if text.strip() == "all":
        return None
    if not text.strip().isdecimal():
        raise RunFolderError(f"crossed '{text}': expected a number of prompts, 0 for none, or 'all'")
    return int(text)


def own_source(lang: str, sources: Sequence[str]) -> str | None:
    """Return the source of a language's own direction: itself, else the first; None without directions.

    One without over-refusal stands in only where no language has a direction, and a span where there is no
    single one.
    """
    real = [source for source in sources if source not in CONTROLS]
    single = [source for source in real if not is_span(source)]
    whole = [source for source in single if base_of(source) is None]
    return lang if lang in real else next(iter([*whole, *single, *real]), None)


def is_language(source: str) -> bool:
    """Return whether a source is a language, neither pooled nor a control."""
    return source in LANGUAGES


def grid(lang: str, sources: Sequence[str], settings: RunSettings) -> Iterator[Measurement]:
    """Yield the measurements in `lang` with directions of `sources` (see `results.sources`), in order.

    Each intervention with each direction is measured on the prompts that it is meant to move, and, unless the
    direction is a control, crossed on fewer of the others. A span has the interventions that take one.
    """
    for label in LABELS:
        yield Measurement(lang, label, BASELINE_CONDITION, settings.n_test)
    crossed = _least(settings.crossed, settings.n_test)
    for source in sources:
        conditions = [
            (row, Condition(row.name, source, 1.0 if row.graded else settings.coefficient))
            for row in map(INTERVENTIONS.__getitem__, settings.interventions)
            if (row.takes_spans or not is_span(source)) and not (row.where_harmful and source in CONTROLS)
        ]
        for row, condition in conditions:
            yield Measurement(lang, row.moves, condition, settings.n_test)
        if source not in CONTROLS and crossed != 0:
            for row, condition in conditions:
                yield Measurement(lang, row.cross_checks, condition, crossed)
    own = own_source(lang, sources)
    for row in map(INTERVENTIONS.__getitem__, settings.interventions):
        if own is None or row.where_harmful or (is_span(own) and not row.takes_spans):
            continue
        for strength in settings.strengths if row.graded else settings.addition_strengths:
            yield Measurement(lang, row.moves, Condition(row.name, own, strength, True), settings.n_test)


def baselines(settings: RunSettings) -> list[Measurement]:
    """Return the measurements without an edit, which need no direction."""
    return [
        Measurement(lang, label, BASELINE_CONDITION, settings.n_test)
        for lang in settings.langs
        for label in LABELS
    ]


def _least(*limits: int | None) -> int | None:
    given = [limit for limit in limits if limit is not None]
    return min(given) if given else None
