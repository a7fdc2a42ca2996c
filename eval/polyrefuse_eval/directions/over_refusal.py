"""The direction of refusal without over-refusal.

The direction of over-refusal is a difference in means as that of refusal is: of harmless prompts that look
harmful and are refused, and of plain harmless ones that are not. Taken from the direction of refusal, what is
left no longer tells such prompts apart from others, so that ablating or adding it should move refusals of
harmful prompts alone.

After `ortho_refusal_directions` in the repository of Wang et al. (2025), `pipeline/run_pipeline.py` at
985169d, which takes off `ortho_lambda` = 0.8 of the projection at each place and chooses a place anew. Here
all of it is taken off, at the place of the direction itself, so that the two can be compared. (Wang et al.,
"Surgical, Cheap, and Flexible", ICLR 2025, do the reverse: they take refusal from over-refusal.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from polyrefuse_eval.directions.fit import Direction, direction_at, fit_directions
from polyrefuse_eval.directions.refusal_tokens import RefusalTokens
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.models.chat import ChatModel

KIND = "without_over_refusal"

LEAST_LEFT = 1e-3
"""Share of a direction's norm below which nothing but rounding is left of it."""


@dataclass(frozen=True, kw_only=True)
class SafePrompts:
    """What a direction of over-refusal is fitted on: `looking_harmful` and `plain` ones.

    `tokens` are the refusal tokens of each prompt, first of those that look harmful; with them only prompts
    count that the model leans to refuse, or not to refuse.
    """

    looking_harmful: Sequence[str]
    plain: Sequence[str]
    tokens: Sequence[RefusalTokens] | None = None


def over_refusal_direction(chat: ChatModel, prompts: SafePrompts, like: Direction) -> Direction:
    """Return the difference in means between the two kinds of `prompts`, at the place of `like`.

    Raises `DirectionError` where fewer than 4 of a kind are left.
    """
    directions = fit_directions(
        chat,
        prompts.looking_harmful,
        prompts.plain,
        lang=like.lang,
        positions=[like.position],
        refusal_tokens=prompts.tokens,
        names=("safe contrast", "harmless"),
    )
    return direction_at(directions, like.position, like.layer)


def without(direction: Direction, other: Direction, source: str, **metadata: Any) -> Direction:
    """Return `direction` minus its projection on `other`, called `source`: d - (d·ô) ô.

    Its norm is that of what is left, ‖d‖ √(1 - cos²). Raises `DirectionError` where nothing is.
    """
    vector, unit = direction.vector.double(), other.unit.double()
    unit = unit / unit.norm()
    left = vector - (vector @ unit) * unit
    norm, share = float(left.norm()), float(left.norm() / vector.norm())
    if share < LEAST_LEFT:
        raise DirectionError(
            f"the direction '{direction.lang}' is the direction of over-refusal: without it nothing is left"
        )
    cosine = float(direction.unit.double() @ unit)
    return replace(
        direction,
        unit=(left / left.norm()).float(),
        norm=norm,
        lang=source,
        kind=KIND,
        metadata={**direction.metadata, "over_refusal": {"cosine": cosine, "left": share, **metadata}},
    )
