"""One run to go: what an executor needs to know of it, before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyrefuse_eval.data import DataFolder
from polyrefuse_eval.judges.base import Judge
from polyrefuse_eval.settings import BenchSettings

if TYPE_CHECKING:
    from polyrefuse_eval.chat import ChatModel
    from polyrefuse_eval.judges.registry import JudgeSpec


@dataclass(frozen=True)
class RunPlan:
    """A run of the model that `load` gives, on `data`, into `out`, read by `judges`.

    `request` says without the model whether anything is left to do; None where that is not known. To be
    computed elsewhere, `load` is a `works.ModelSpec`.
    """

    load: Callable[[], ChatModel]
    data: DataFolder
    settings: BenchSettings
    judges: Sequence[Judge]
    out: Path
    request: Mapping[str, Any] | None = None
    judge_specs: Mapping[str, JudgeSpec] = field(default_factory=dict)
    """What makes those of the judges that are models, by the name of the judge."""

    @property
    def name(self) -> str:
        """What the run is called in messages."""
        return self.out.name

    @property
    def judge_names(self) -> list[str]:
        """Names of the judges, as a signature holds them."""
        return [judge.name for judge in self.judges]
