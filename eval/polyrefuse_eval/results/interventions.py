"""The table of interventions: what each is called, and what it is for. Its edit is in `models.interventions`.

To add one, add a row here and its function there; commands, grid, tables and plots read them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from polyrefuse_data.core.errors import unknown_name

Label = Literal["harmful", "harmless"]


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """One way to edit a forward pass with a direction."""

    name: str
    """As in conditions and files: `ablation:en`."""
    action: str
    """As on command lines: `--action ablate`."""
    participle: str
    """As in tables and plots: `direction of en ablated`."""
    moves: Label
    """The prompts whose refusal rate it is meant to change; on the others it is a cross-check."""
    graded: bool = False
    """Whether its coefficient runs from 0 (no edit) to 1 (the whole edit): strengths in between are tried,
    and named (`ablation:en@0.5`). Else the run's coefficient, `--coefficient`, is in no name, and further
    ones, of any size above 0, are (`addition:en@2`)."""
    takes_spans: bool = False
    """Whether it can be made with several directions together, which have no one layer and no norm."""
    where_harmful: bool = False
    """Whether it is made only on prompts that the model takes for harmful: Δ_harmful ≥ 0 at t_inst, with
    centroids of the training prompts that its direction is fitted on (Zhao et al. 2025)."""
    default: bool = True
    """Whether a run makes it without being asked."""

    def condition(self, source: str | None) -> str:
        """Return the name of the condition with the direction of `source`, at full strength."""
        return f"{self.name}:{source}"

    @property
    def cross_checks(self) -> Label:
        """The label of the prompts that it is not meant for."""
        return "harmless" if self.moves == "harmful" else "harmful"


ABLATION = Intervention(
    name="ablation", action="ablate", participle="ablated", moves="harmful", graded=True, takes_spans=True
)
ADDITION = Intervention(name="addition", action="add", participle="added", moves="harmless")
CONDITIONAL_ABLATION = Intervention(
    name="conditional-ablation",
    action="ablate-where-harmful",
    participle="ablated where harmful",
    moves="harmful",
    graded=True,
    where_harmful=True,
    default=False,
)
CONDITIONAL_ADDITION = Intervention(
    name="conditional-addition",
    action="add-where-harmful",
    participle="added where harmful",
    moves="harmful",
    where_harmful=True,
    default=False,
)

INTERVENTIONS = {row.name: row for row in (ABLATION, ADDITION, CONDITIONAL_ABLATION, CONDITIONAL_ADDITION)}
"""Name to row, in the order in which a run measures them."""

DEFAULT_INTERVENTIONS = tuple(row.name for row in INTERVENTIONS.values() if row.default)

BASELINE_NAME = "baseline"
"""The condition without an intervention."""


def is_graded(name: str) -> bool:
    """Return whether the intervention `name` is one whose coefficient runs from 0 to 1."""
    return name in INTERVENTIONS and INTERVENTIONS[name].graded


def intervention_of_action(action: str) -> Intervention:
    """Return the intervention that is called `action` on command lines; raises `UnknownNameError`.

    Those that depend on the prompt are made by runs alone, which know the training prompts.
    """
    by_action = {row.action: row for row in INTERVENTIONS.values() if not row.where_harmful}
    if action not in by_action:
        raise unknown_name("action", action, by_action)
    return by_action[action]


def parse_interventions(text: str) -> tuple[str, ...]:
    """Return the names of interventions in `text`, in the order of the table; raises `UnknownNameError`."""
    names = text.replace(",", " ").split()
    for name in names or [text]:
        if name not in INTERVENTIONS:
            raise unknown_name("intervention", name, INTERVENTIONS)
    return tuple(name for name in INTERVENTIONS if name in names)


def condition_pattern(source: str, part: str, strength: str) -> str:
    """Return the regular expression of condition names, given those of a source, of a strength below 1, and
    of any strength."""
    conditions = [
        f"{row.name}:{source}(@{part if row.graded else strength})?" for row in INTERVENTIONS.values()
    ]
    return f"^({'|'.join([BASELINE_NAME, *conditions])})$"


def intervention_pattern() -> str:
    """Return the regular expression of an intervention's name, the baseline included."""
    return f"^({'|'.join([BASELINE_NAME, *INTERVENTIONS])})$"
