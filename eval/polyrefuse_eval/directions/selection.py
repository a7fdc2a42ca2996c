"""Choose one direction among candidates by their scores: pure rules, every choice with its reason."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeGuard

from polyrefuse_data.core.errors import unknown_name
from polyrefuse_data.core.files import write_text
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.results.positions import Position

LAYER_FRACTION = 0.8
"""Directions of the last fifth of the layers are not considered (Arditi et al. 2024, app. C)."""


@dataclass(frozen=True)
class CandidateScore:
    """Scores of the direction at `position` of the input of `layer`; None where it was not computed.

    `refusal_score`: mean log-odds of refusal on harmful prompts with the direction ablated (less is
    better). `steering_score`: the same on harmless prompts with the direction added (more is
    better). `kl_div_score`: mean KL(unedited ‖ ablated) of the first token on harmless prompts, nats.
    """

    position: int | str
    layer: int
    refusal_score: float | None = None
    steering_score: float | None = None
    kl_div_score: float | None = None


@dataclass(frozen=True)
class Step:
    """One filter: candidates below `LAYER_FRACTION` of the layers (or all), and limits of the scores."""

    name: str
    max_kl: float | None = None
    min_steering: float | None = None
    prune_layers: bool = True
    max_refusal: float | None = None

    def allows_layer(self, layer: int, n_layers: int) -> bool:
        return not self.prune_layers or layer < int(LAYER_FRACTION * n_layers)

    def allows_kl(self, score: CandidateScore) -> bool:
        return self.max_kl is None or (_finite(score.kl_div_score) and score.kl_div_score <= self.max_kl)

    def allows_steering(self, score: CandidateScore) -> bool:
        return self.min_steering is None or (
            _finite(score.steering_score) and score.steering_score >= self.min_steering
        )

    def allows(self, score: CandidateScore, n_layers: int) -> bool:
        """Return whether the candidate passes; one without a refusal score never does."""
        return (
            _finite(score.refusal_score)
            and (self.max_refusal is None or score.refusal_score <= self.max_refusal)
            and self.allows_layer(score.layer, n_layers)
            and self.allows_kl(score)
            and self.allows_steering(score)
        )


STRICT = Step("arditi2024", max_kl=0.1, min_steering=0.0)
PUBLISHED_MULTILINGUAL = Step("wang2025", max_kl=0.2)
RELAXATION = (
    STRICT,
    Step("kl 0.2, steering kept", max_kl=0.2, min_steering=0.0),
    PUBLISHED_MULTILINGUAL,
    Step("kl 0.5", max_kl=0.5),
    Step("no kl limit"),
    Step("all layers", prune_layers=False),
)
"""The order in which filters are relaxed: first the side effects, then the need to steer, then
the layers. What a paper did comes before what none did."""

MEDIATING = tuple(
    Step(f"both ways, {limit}", max_kl=max_kl, min_steering=0.0, max_refusal=0.0)
    for limit, max_kl in (("kl 0.1", 0.1), ("kl 0.2", 0.2), ("kl 0.5", 0.5), ("no kl limit", None))
)
"""A direction that mediates refusal works both ways: without it the model leans to answer harmful prompts,
with it to refuse harmless ones (log-odds of 0). That is kept here, and side effects are given way to."""

RULES: dict[str, tuple[Step, ...]] = {
    "robust": RELAXATION,
    "mediating": (*MEDIATING, *RELAXATION),
    "arditi2024": RELAXATION,
    "wang2025": RELAXATION[2:],
}
"""Each rule's first step is the published filter; the rest is where it falls back to, recorded.
`robust` and `mediating` take a fallback for an answer, `arditi2024` and `wang2025` say that it was none
of theirs."""


@dataclass(frozen=True)
class Selection:
    """The chosen candidate, and why: the rule, the step that found it, and what each step left."""

    score: CandidateScore
    rule: str
    step: str
    relaxed: int
    """How many steps came to nothing before; 0 is the rule itself."""
    passed: tuple[int, ...]
    """How many candidates passed each step that was tried."""

    @property
    def position(self) -> Position:
        return Position.parse(self.score.position)

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def rule_steps(rule: str) -> tuple[Step, ...]:
    """Return the steps of `rule`; raises `UnknownNameError`."""
    if rule not in RULES:
        raise unknown_name("rule", rule, RULES)
    return RULES[rule]


def preference(score: CandidateScore) -> tuple[float, float, int, int]:
    """Return the sort key of the stated order: least refusal score; then least KL, the earlier
    layer, the later position (t_inst last)."""
    kl = score.kl_div_score
    offset = Position.parse(score.position).offset
    return (
        score.refusal_score if score.refusal_score is not None else math.inf,
        kl if kl is not None else math.inf,
        score.layer,
        -offset if offset else 10**6,
    )


def select(scores: Sequence[CandidateScore], rule: str = "robust", n_layers: int | None = None) -> Selection:
    """Return the choice of `rule` among `scores`; `n_layers` defaults to one more than the last layer.

    Raises `DirectionError` only where no candidate has a finite refusal score.
    """
    steps = rule_steps(rule)
    if not scores:
        raise DirectionError("no candidate scores were given, so there is nothing to select")
    total = n_layers if n_layers is not None else max(score.layer for score in scores) + 1
    passed: list[int] = []
    for index, step in enumerate(steps):
        left = [score for score in scores if step.allows(score, total)]
        passed.append(len(left))
        if left:
            return Selection(min(left, key=preference), rule, step.name, index, tuple(passed))
    raise DirectionError(
        f"none of {len(scores)} candidates has a finite refusal score; "
        "was the model loaded in a type that overflows?"
    )


def read_scores(path: Path) -> list[CandidateScore]:
    """Return the candidate scores of a JSON file; raises `DirectionError` where it holds others."""
    try:
        records = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DirectionError(f"'{path}' cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DirectionError(f"'{path}' is no JSON: {error}") from None
    if isinstance(records, dict):
        records = records.get("scores")
    if not isinstance(records, list):
        raise DirectionError(f"'{path}' holds no list of candidate scores")
    scores = []
    for index, record in enumerate(records):
        try:
            scores.append(
                CandidateScore(
                    Position.parse(record["position"]).label,
                    int(record["layer"]),
                    *(_number(record.get(f"{name}_score")) for name in ("refusal", "steering", "kl_div")),
                )
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DirectionError(
                f"'{path}', entry {index}: expected position, layer, refusal_score, "
                "steering_score, kl_div_score"
            ) from None
    return scores


def write_scores(path: Path, scores: Iterable[CandidateScore]) -> None:
    """Write `scores` in the form of the published files, values that are not finite as null."""
    records = [
        {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(s).items()
        }
        for s in scores
    ]
    write_text(path, json.dumps(records, indent=1) + "\n")


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
