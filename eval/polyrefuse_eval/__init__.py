"""Measure how robustly a chat model refuses, in 14 languages: directions, interventions, rates.

The names in `__all__` are what a user needs. Each is imported when it is first used, so importing the
package loads neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polyrefuse_eval.directions.fit import (
        Direction,
        DirectionSet,
        direction_at,
        fit_directions,
        random_direction,
    )
    from polyrefuse_eval.directions.refusal_tokens import (
        RefusalTokens,
        find_refusal_tokens,
        parse_refusal_tokens,
    )
    from polyrefuse_eval.directions.scoring import CandidateScorer, choose_direction
    from polyrefuse_eval.directions.selection import CandidateScore, Selection, select
    from polyrefuse_eval.harmfulness.latent_guard import GuardVerdict, LatentGuard
    from polyrefuse_eval.judging.base import Judge, JudgeInput, Verdict, opened
    from polyrefuse_eval.judging.native.judge import refuses
    from polyrefuse_eval.judging.registry import judge_by_name, judges_by_name
    from polyrefuse_eval.models.chat import ChatModel
    from polyrefuse_eval.models.generate import Answer, Request, Sampling, generate
    from polyrefuse_eval.models.intervene import Ablation, Addition, Transformation, applied
    from polyrefuse_eval.organisms.build import organism_path
    from polyrefuse_eval.organisms.requests import exception_prompts
    from polyrefuse_eval.results.data import DataFolder, open_data
    from polyrefuse_eval.results.folder import RunFolder

__all__ = [
    "Ablation",
    "Addition",
    "Answer",
    "CandidateScore",
    "CandidateScorer",
    "ChatModel",
    "DataFolder",
    "Direction",
    "DirectionSet",
    "GuardVerdict",
    "Judge",
    "JudgeInput",
    "LatentGuard",
    "RefusalTokens",
    "Request",
    "RunFolder",
    "Sampling",
    "Selection",
    "Transformation",
    "Verdict",
    "applied",
    "choose_direction",
    "direction_at",
    "exception_prompts",
    "find_refusal_tokens",
    "fit_directions",
    "generate",
    "judge_by_name",
    "judges_by_name",
    "open_data",
    "opened",
    "organism_path",
    "parse_refusal_tokens",
    "random_direction",
    "refuses",
    "select",
]

_HOME = {
    "Ablation": "models.intervene.Ablation",
    "Addition": "models.intervene.Addition",
    "Answer": "models.generate.Answer",
    "CandidateScore": "directions.selection.CandidateScore",
    "CandidateScorer": "directions.scoring.CandidateScorer",
    "ChatModel": "models.chat.ChatModel",
    "DataFolder": "results.data.DataFolder",
    "Direction": "directions.fit.Direction",
    "DirectionSet": "directions.fit.DirectionSet",
    "GuardVerdict": "harmfulness.latent_guard.GuardVerdict",
    "Judge": "judging.base.Judge",
    "JudgeInput": "judging.base.JudgeInput",
    "LatentGuard": "harmfulness.latent_guard.LatentGuard",
    "RefusalTokens": "directions.refusal_tokens.RefusalTokens",
    "Request": "models.generate.Request",
    "RunFolder": "results.folder.RunFolder",
    "Sampling": "models.generate.Sampling",
    "Selection": "directions.selection.Selection",
    "Transformation": "models.intervene.Transformation",
    "Verdict": "judging.base.Verdict",
    "applied": "models.intervene.applied",
    "choose_direction": "directions.scoring.choose_direction",
    "direction_at": "directions.fit.direction_at",
    "exception_prompts": "organisms.requests.exception_prompts",
    "find_refusal_tokens": "directions.refusal_tokens.find_refusal_tokens",
    "fit_directions": "directions.fit.fit_directions",
    "generate": "models.generate.generate",
    "judge_by_name": "judging.registry.judge_by_name",
    "judges_by_name": "judging.registry.judges_by_name",
    "open_data": "results.data.open_data",
    "opened": "judging.base.opened",
    "organism_path": "organisms.build.organism_path",
    "parse_refusal_tokens": "directions.refusal_tokens.parse_refusal_tokens",
    "random_direction": "directions.fit.random_direction",
    "refuses": "judging.native.judge.refuses",
    "select": "directions.selection.select",
}
"""Where each name is, imported when it is first used."""


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOME[name].rpartition(".")
    value = getattr(import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
