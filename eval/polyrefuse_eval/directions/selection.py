"""Select a direction among candidates by their scores: pure rules, each choice with its reason."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeGuard

from polyrefuse_data.core.contents import read_utf8
from polyrefuse_data.core.errors import unknown_name
from polyrefuse_data.core.files import write_text
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.results.positions import Position

LARGEST_LAYER = 10_000
"""Far above the layers of any model: more is a mistake in a file."""

LAYER_FRACTION = 0.8
"""Candidates are below this share of the layers (Arditi et al. 2024, appendix C)."""


@dataclass(frozen=True)
class CandidateScore:
    """Scores of the direction at `position` of the input of `layer`; None for those not computed.

    `refusal_score`: mean log-odds of refusal on harmful prompts with the direction ablated (lower is
    better). `steering_score`: the same on harmless prompts with the direction added (higher is
    better). `kl_div_score`: mean KL(unedited ‖ ablated) of the first token on harmless prompts, nats; or,
    where that was asked for, the mean a token over more tokens of the unedited model's answer.
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
        """Return whether candidates of `layer` pass."""
        return not self.prune_layers or layer < int(LAYER_FRACTION * n_layers)

    def allows_kl(self, score: CandidateScore) -> bool:
        """Return whether the candidate passes the limit of the KL divergence."""
        return self.max_kl is None or (_finite(score.kl_div_score) and score.kl_div_score <= self.max_kl)

    def allows_steering(self, score: CandidateScore) -> bool:
        """Return whether the candidate passes the limit of the steering score."""
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
"""Filters in the order in which they are relaxed: first side effects (KL), then steering, then layers.
Published filters come before others."""

MEDIATING = tuple(
    Step(f"both ways, {limit}", max_kl=max_kl, min_steering=0.0, max_refusal=0.0)
    for limit, max_kl in (("kl 0.1", 0.1), ("kl 0.2", 0.2), ("kl 0.5", 0.5), ("no kl limit", None))
)
"""A direction that mediates refusal works both ways: ablated, the model answers harmful prompts; added, it
refuses harmless ones (log-odds of refusal on the right side of 0). These steps keep that, and relax KL."""

RULES: dict[str, tuple[Step, ...]] = {
    "robust": RELAXATION,
    "mediating": (*MEDIATING, *RELAXATION),
    "arditi2024": RELAXATION,
    "wang2025": RELAXATION[2:],
}
"""Rule to its steps: the published filter, then the fallbacks. `Selection.relaxed` counts those used."""


@dataclass(frozen=True)
class Selection:
    """The selected candidate and the reason: the rule, the step that selected it, and what each step left."""

    score: CandidateScore
    rule: str
    step: str
    relaxed: int
    """Number of steps before that no candidate passed; 0 is the rule itself."""
    passed: tuple[int, ...]
    """Number of candidates that passed each step that was tried."""

    @property
    def position(self) -> Position:
        return Position.parse(self.score.position)

    def to_json(self) -> dict[str, object]:
        """Return the selection as JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """A candidate that was dropped before all of its scores were measured, at which step and by which bound.

    After `prompts` prompts, the `bound` of `score` (`refusal`, `steering` or `kl_div`; nats) was out of
    `limit`. For `refusal` with `than`, the position and layer of a better candidate, `bound` is the least
    difference to its score.
    """

    position: int | str
    layer: int
    step: str
    score: str
    prompts: int
    bound: float
    limit: float
    than: tuple[int | str, int] | None = None


def rule_steps(rule: str) -> tuple[Step, ...]:
    """Return the steps of `rule`; raises `UnknownNameError`."""
    if rule not in RULES:
        raise unknown_name("rule", rule, RULES)
    return RULES[rule]


def preference(score: CandidateScore) -> tuple[float, float, int, int]:
    """Return a sort key: the least refusal score, then the least KL, the earliest layer, the latest position.

    t_inst comes after all other positions.
    """
    kl = score.kl_div_score
    offset = Position.parse(score.position).offset
    return (
        score.refusal_score if score.refusal_score is not None else math.inf,
        kl if kl is not None else math.inf,
        score.layer,
        -offset if offset else 10**6,
    )


def select(scores: Sequence[CandidateScore], rule: str = "robust", n_layers: int | None = None) -> Selection:
    """Return the selection of `rule` among `scores`; `n_layers` defaults to one more than the last layer.

    Raises `DirectionError` if no candidate has a finite refusal score.
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
    """Read candidate scores from a JSON file; raise `DirectionError` that names what is wrong."""
    try:
        records = parse_json(read_utf8(path))
    except OSError as error:
        raise DirectionError(f"'{path}' cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DirectionError(f"'{path}' is not JSON: {error}") from None
    if isinstance(records, dict):
        records = records.get("scores")
    if not isinstance(records, list):
        raise DirectionError(f"'{path}' holds no list of candidate scores")
    scores = []
    for index, record in enumerate(records):
        try:
            layer = range(LARGEST_LAYER).index(int(record["layer"]))
            scores.append(
                CandidateScore(
                    Position.parse(record["position"]).label,
                    layer,
                    *(_number(record.get(f"{name}_score")) for name in ("refusal", "steering", "kl_div")),
                )
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise DirectionError(
                f"'{path}', entry {index}: expected position, layer, refusal_score, "
                "steering_score, kl_div_score"
            ) from None
    return scores


def write_scores(path: Path, scores: Iterable[CandidateScore], dropped: Iterable[Dropped] = ()) -> None:
    """Write `scores` in the format of the published files; non-finite values become null.

    A candidate that was dropped before its scores were complete has a list `dropped`: at which step of the
    rule, by which bound of which score, after how many prompts.
    """
    reasons: dict[tuple[int | str, int], list[dict[str, Any]]] = {}
    for reason in dropped:
        values = asdict(reason)
        place = values.pop("position"), values.pop("layer")
        reasons.setdefault(place, []).append(values)
    records = []
    for score in scores:
        record: dict[str, Any] = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(score).items()
        }
        if (score.position, score.layer) in reasons:
            record["dropped"] = reasons[score.position, score.layer]
        records.append(record)
    write_text(path, json.dumps(records, indent=1) + "\n")


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
