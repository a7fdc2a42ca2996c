"""Fit and calibrate a Latent Guard on a build, language by language."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from polyrefuse_eval.directions.kept import KeptDirections
from polyrefuse_eval.errors import GuardError
from polyrefuse_eval.harmfulness.behaviour import (
    TOKEN_PROMPTS,
    EditedPrompt,
    RefusalDetector,
    by_answers,
    by_first_token,
)
from polyrefuse_eval.harmfulness.latent_guard import LabelledPrompts, LatentGuard, fit_guard
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.final_punctuation import KEPT
from polyrefuse_eval.statistics.thresholds import Rule

ZERO = Rule("zero")
"""The threshold of the paper, α = 0."""


@dataclass(frozen=True)
class FitSettings:
    """How a guard is fitted: in `langs`, together (`pooled`) or each on its own.

    Thresholds are calibrated in the languages `calibrate`. Raises `GuardError` where a guard of several
    languages, each on its own, is to be calibrated in others.
    """

    langs: tuple[str, ...]
    calibrate: tuple[str, ...]
    pooled: bool = False
    rule: Rule = ZERO
    behaviour: str = "answers"
    n_train: int = 100
    n_validation: int | None = None
    layers: tuple[int, ...] | None = None
    final_punctuation: str = KEPT

    def __post_init__(self) -> None:
        unserved = [lang for lang in self.calibrate if lang not in self.langs]
        if unserved and len(self.langs) > 1 and not self.pooled:
            raise GuardError(
                f"--calibrate {','.join(unserved)}: the guard is fitted in {','.join(self.langs)}, one guard "
                "for each; calibrate in these, or fit it with --pooled"
            )


def fit(
    chat: ChatModel,
    data: DataFolder,
    settings: FitSettings,
    *,
    progress: bool = False,
    say: Callable[[str], None] = lambda _line: None,
) -> LatentGuard:
    """Return the guard fitted on refused harmful and accepted harmless training prompts.

    Its thresholds are calibrated on the validation prompts of each language. Raises `GuardError`, with the
    numbers, where there are too few prompts.
    """
    prompts: dict[str, LabelledPrompts] = {}
    among: dict[str, LabelledPrompts] = {}
    for lang in settings.langs:
        harmful, harmless = (
            [row.text for row in data.prompts(lang, "train", label, settings.n_train)]
            for label in ("harmful", "harmless")
        )
        among[lang] = LabelledPrompts(harmful=harmful, harmless=harmless)
        prompts[lang] = _as_labelled(chat, among[lang], lang, settings.behaviour, progress)
        say(
            f"{lang}: {len(prompts[lang].harmful)} of {len(harmful)} harmful prompts refused, "
            f"{len(prompts[lang].harmless)} of {len(harmless)} harmless accepted"
        )
    guard = fit_guard(
        chat,
        prompts,
        pooled=settings.pooled,
        layers=settings.layers,
        final_punctuation=settings.final_punctuation,
        among=among,
        metadata={"data": data.digest, "behaviour": settings.behaviour},
        progress=progress,
    )
    if settings.rule.name == "zero":
        return guard
    return calibrate(guard, data, settings.rule, settings.calibrate, settings.n_validation, progress=progress)


def calibrate(
    guard: LatentGuard,
    data: DataFolder,
    rule: Rule,
    langs: Sequence[str],
    n_validation: int | None = None,
    *,
    progress: bool = False,
) -> LatentGuard:
    """Return `guard` with thresholds drawn by `rule` from the validation prompts of each of `langs`."""
    scores = {}
    for lang in langs:
        harmful, harmless = (
            guard.scores(
                [row.text for row in data.prompts(lang, "validation", label, n_validation)],
                lang,
                progress=f"calibrate {lang}" if progress else None,
            )
            for label in ("harmful", "harmless")
        )
        scores[lang] = (harmful, harmless)
    return guard.calibrated(rule, scores, calibration_data=data.digest)


def _as_labelled(
    chat: ChatModel, prompts: LabelledPrompts, lang: str, behaviour: str, progress: bool
) -> LabelledPrompts:
    """Return the harmful ones of `prompts` that the model refuses, and the harmless ones that it accepts."""
    if behaviour == "label":
        return prompts
    refuses = _detector(chat, prompts, lang, behaviour, progress)
    refused = refuses([EditedPrompt(text, lang) for text in [*prompts.harmful, *prompts.harmless]])
    n_harmful = len(prompts.harmful)
    return LabelledPrompts(
        harmful=[
            text
            for text, verdict in zip(prompts.harmful, refused[:n_harmful], strict=True)
            if verdict is True
        ],
        harmless=[
            text
            for text, verdict in zip(prompts.harmless, refused[n_harmful:], strict=True)
            if verdict is False
        ],
    )


def _detector(
    chat: ChatModel, prompts: LabelledPrompts, lang: str, behaviour: str, progress: bool
) -> RefusalDetector:
    bar = f"behaviour {lang}" if progress else None
    if behaviour == "answers":
        return by_answers(chat, progress=bar)
    harmful, harmless = (texts[:TOKEN_PROMPTS] for texts in (prompts.harmful, prompts.harmless))
    tokens = KeptDirections(chat).refusal_tokens(lang, harmful, harmless, progress=progress)
    return by_first_token(chat, {lang: tokens}, progress=bar)
