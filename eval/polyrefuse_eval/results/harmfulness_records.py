"""The records of `harmfulness.json`: harmfulness and refusal of each language, measured apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, with_config

from polyrefuse_eval.results.fields import (
    Count,
    Finite,
    Label,
    Lang,
    Layer,
    Name,
    Share,
    check,
    check_signature,
)
from polyrefuse_eval.results.validation import STRICT
from polyrefuse_eval.statistics.rates import Rate

HARMFULNESS_FORMAT = "polyrefuse-harmfulness-2"

Kind = Annotated[str, Field(pattern="^(harmfulness|refusal)$")]
"""Which direction."""

Scope = Annotated[str, Field(pattern="^(instruction|prompt|all)$")]
"""Which tokens are steered."""

Behaviour = Literal["refused", "accepted", "unjudged"]
ScoreName = Literal["harmful by label", "harmful by behaviour", "refuse by label", "refuse by behaviour"]
Sign = Annotated[int, Field(ge=-1, le=1)]
Cosine = Annotated[float, Field(ge=-1.001, le=1.001)]
Reason = Annotated[str, Field(max_length=2000)]


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class BehaviourCounts:
    """How many prompts were refused, accepted, and not judged."""

    refused: Count
    accepted: Count
    unjudged: Count


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class BehaviourFile:
    """Which prompts of one language and split the model refuses, by id, and how that was read."""

    behaviour: Name
    refused: dict[Name, bool | None]


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """Prompts of each label by behaviour: those that directions were fitted on, and those tested."""

    train: dict[Label, BehaviourCounts]
    test: dict[Label, BehaviourCounts]

    def __post_init__(self) -> None:
        for counts in (self.train, self.test):
            check(set(counts) == {"harmful", "harmless"}, f"it counts {', '.join(counts)}, not both labels")


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class Point:
    """A test prompt's cluster scores: `harmful` is Δ_harmful at t_inst, `refuse` Δ_refuse at t_post-inst."""

    id: Name
    label: Label
    kind: Name
    category: Name | None
    behaviour: Behaviour
    harmful: Finite
    refuse: Finite


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class Steered:
    """Refusals of prompts with `label` under h ← h + sign · coefficient · v at the input of `layer`.

    `direction` names v; it and `layer` are None for the unedited model. `category` is that of the prompts,
    None for all of them.
    """

    direction: Kind | None
    label: Label
    sign: Sign
    layer: Layer | None
    coefficient: Finite
    refusal: Rate
    category: Name | None = None

    def __post_init__(self) -> None:
        check((self.direction is None) == (self.layer is None), "it has a direction or a layer, and not both")


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class Flips:
    """Of prompts with `label` that the unedited model answers rightly, the share whose answer flips
    under h ← h + sign · coefficient · v at the input of `layer`, over all wordings.

    `category` is that of the prompts, None for all of them.
    """

    direction: Kind
    label: Label
    sign: Sign
    layer: Layer
    coefficient: Finite
    flipped: Rate
    category: Name | None = None


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class InversionRecord:
    """Reply inversion: `right` is the share of right unedited answers by label."""

    right: dict[Label, Rate]
    flips: tuple[Flips, ...]


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class CategoryCosines:
    """Cosines between the harmfulness directions of categories at one `layer`; None of a zero direction.

    `n` is how many prompts each direction is the mean of; `names` are the rows and columns of `cosine`.
    """

    layer: Layer
    n: dict[Name, Count]
    names: tuple[Name, ...]
    cosine: tuple[tuple[Cosine | None, ...], ...]

    def __post_init__(self) -> None:
        size = len(self.names)
        square = len(self.cosine) == size and all(len(row) == size for row in self.cosine)
        check(square, f"cosine is not a square of its {size} names")


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class CategoryMeasures:
    """What was measured of the harmful test prompts of one category.

    `harmful` and `refuse` are mean cluster scores, `called_harmful` the rate of prompts with Δ_harmful ≥ 0.
    """

    n: BehaviourCounts
    harmful: Finite
    refuse: Finite
    called_harmful: Rate
    steering: tuple[Steered, ...]
    inversion: InversionRecord


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class KindMeasures:
    """What was measured of the test prompts of one kind and label, without an edit.

    `harmful` and `refuse` are mean cluster scores, `called_harmful` and `called_refused` the rates of prompts
    with Δ_harmful ≥ 0 and with Δ_refuse ≥ 0.
    """

    n: BehaviourCounts
    harmful: Finite
    refuse: Finite
    called_harmful: Rate
    called_refused: Rate

    def __post_init__(self) -> None:
        prompts = self.n.refused + self.n.accepted + self.n.unjudged
        for name, share in (("called_harmful", self.called_harmful), ("called_refused", self.called_refused)):
            check(share.n == prompts, f"{name} is of {share.n} of {prompts} prompts")


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class LanguageHarmfulness:
    """What was measured in one language with the directions of language `directions`.

    `cosine` is between the harmfulness and the refusal direction, by layer; `auroc` how well each cluster
    score tells labels or behaviours apart. `by_kind` is there where a user brought prompts: `data` are those
    of the build.
    """

    directions: Lang
    n: SplitCounts
    cosine: tuple[Cosine | None, ...]
    scatter: tuple[Point, ...]
    auroc: dict[ScoreName, Share | None]
    categories: CategoryCosines
    scope: Scope
    steering: tuple[Steered, ...]
    inversion: InversionRecord
    by_category: dict[Name, CategoryMeasures] = field(default_factory=dict)
    by_kind: dict[Name, dict[Label, KindMeasures]] = field(default_factory=dict)


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class HarmfulnessFile:
    """What `harmfulness.json` holds; `lacking` says why a language could not be measured."""

    format: Annotated[str, Field(pattern=f"^{HARMFULNESS_FORMAT}$")]
    signature: dict[str, Any]
    n_layers: Layer
    languages: dict[Lang, LanguageHarmfulness]
    lacking: dict[Lang, Reason]

    def __post_init__(self) -> None:
        check_signature(self.signature)
