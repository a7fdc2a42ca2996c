"""The Latent Guard: judge a prompt by the model's own hidden states at t_inst (Zhao et al. 2025).

Δ(x) = mean over layers l of [cos(h_l(x), μ1_l) - cos(h_l(x), μ2_l)], with μ1 the mean hidden state of
refused harmful and μ2 of accepted harmless prompts at t_inst. A prompt is unsafe if Δ(x) ≥ α. Since
Δ(x) = mean_l h_l/‖h_l‖ · (μ1_l/‖μ1_l‖ - μ2_l/‖μ2_l‖), the guard keeps that difference alone, one vector
a layer: the contrast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyrefuse_eval.directions.label_means import MINIMUM_PROMPTS
from polyrefuse_eval.directions.training_states import training_states
from polyrefuse_eval.errors import GuardError
from polyrefuse_eval.harmfulness.guard_files import FIT_AGAIN, POOLED, read_guard, require_contrast
from polyrefuse_eval.models.activations import ActivationMeans, capture
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.template import EncodedPrompt
from polyrefuse_eval.models.tensor_files import (
    SHAPE,
    check_model,
    check_shape,
    other_model,
    write_tensors,
)
from polyrefuse_eval.results.final_punctuation import KEPT, prompt_reader
from polyrefuse_eval.results.positions import T_INST
from polyrefuse_eval.results.tensor_headers import GUARD_FORMAT
from polyrefuse_eval.statistics.thresholds import Rule, Threshold, choose_threshold
from polyrefuse_eval.versions import versions

FINAL_PUNCTUATION = "final_punctuation"
"""Key of a guard's metadata: whether it reads prompts with their final punctuation, or without it."""


@dataclass(frozen=True, kw_only=True)
class LabelledPrompts:
    """Prompts of one language; those to fit with are refused harmful and accepted harmless ones."""

    harmful: Sequence[str]
    harmless: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class GuardVerdict:
    """`unsafe` is `score >= alpha`; `score` is Δ(x), between -2 and 2."""

    score: float
    unsafe: bool
    alpha: float


@dataclass(frozen=True, eq=False)
class LatentGuard:
    """A guard of one model and template; `guard(prompts)` returns verdicts.

    contrasts: by language it was fitted in, or under `pooled`, a tensor [layers, d] (float32).
    layers: layers at whose input it reads; the model's `n_layers` is the last layer's output.
    thresholds: by language; `default` (α = 0 unless calibrated) applies to all others.
    """

    chat: ChatModel
    contrasts: Mapping[str, Tensor]
    layers: tuple[int, ...]
    thresholds: Mapping[str, Threshold] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def default(self) -> Threshold:
        """The threshold of other and of unnamed languages: the lowest of all.

        So a bound of the miss rate that holds in each calibrated language holds in their mixture.
        """
        return min(self.thresholds.values(), key=lambda threshold: threshold.alpha, default=Threshold(0.0))

    def readable(self, prompts: Sequence[str]) -> list[str]:
        """Return `prompts` as the guard reads them: without their final punctuation if it was fitted so."""
        read = prompt_reader(self.metadata.get(FINAL_PUNCTUATION, KEPT))
        return [read(prompt) for prompt in prompts]

    def contrast(self, lang: str | None) -> str:
        """Return the key in `contrasts` that serves `lang`: its own, `pooled`, or the only one.

        Raises `GuardError` where several languages have contrasts and `lang` has none.
        """
        return require_contrast(list(self.contrasts), lang)

    def __call__(
        self, prompts: str | Sequence[str], lang: str | Sequence[str | None] | None = None
    ) -> list[GuardVerdict]:
        """Return the verdict on each of `prompts`; see `verdicts`."""
        return self.verdicts([prompts] if isinstance(prompts, str) else prompts, lang)

    def verdicts(
        self,
        prompts: Sequence[str],
        lang: str | Sequence[str | None] | None = None,
        *,
        progress: str | None = None,
    ) -> list[GuardVerdict]:
        """Return the verdict on each of `prompts`, with the thresholds of their languages.

        Raises as `scores` does.
        """
        langs = _langs(lang, len(prompts))
        alphas = [self.thresholds.get(code or "", self.default).alpha for code in langs]
        return [
            GuardVerdict(score=score, unsafe=score >= alpha, alpha=alpha)
            for score, alpha in zip(self.scores(prompts, langs, progress=progress), alphas, strict=True)
        ]

    def scores(
        self,
        prompts: Sequence[str],
        lang: str | Sequence[str | None] | None = None,
        *,
        tokens_per_batch: int | None = None,
        progress: str | None = None,
    ) -> list[float]:
        """Return Δ(x) of each of `prompts`, in one forward pass up to t_inst and the last layer read.

        lang: the language of all prompts, or of each. Raises `ChatModelError` for a prompt that is empty or
        longer than the context, and `GuardError` for a language that no contrast serves.
        """
        langs = _langs(lang, len(prompts))
        keys = list(self.contrasts)
        chosen = torch.tensor([keys.index(self.contrast(code)) for code in langs], dtype=torch.long)
        stacked = torch.stack([self.contrasts[key] for key in keys])
        scores = torch.zeros(len(prompts))
        passes = capture(
            self.chat,
            until_t_inst(self.chat.encode(self.readable(prompts))),
            self.layers,
            [T_INST],
            tokens_per_batch=tokens_per_batch,
            progress=progress,
        )
        for captured in passes:
            indices = list(captured.prompts)
            stacked = stacked.to(captured.hidden.device)
            contrasts = stacked[chosen[indices].to(stacked.device)]
            scores[indices] = cluster_scores(captured.hidden[:, 0], contrasts).cpu()
        return [float(score) for score in scores]

    def calibrated(
        self,
        rule: Rule,
        scores: Mapping[str, tuple[Sequence[float], Sequence[float]]],
        **metadata: Any,
    ) -> LatentGuard:
        """Return the guard with thresholds that `rule` draws from the calibration scores of each language.

        scores: (harmful, harmless) by language, of prompts that the guard was not fitted on.
        metadata: added to the guard's. Raises `GuardError` where a language has too few prompts.
        """
        chosen = {
            lang: choose_threshold(rule, harmful, harmless, lang)
            for lang, (harmful, harmless) in scores.items()
        }
        return replace(
            self, thresholds=chosen, metadata={**self.metadata, **metadata, "threshold_rule": str(rule)}
        )

    def transferred(self, chat: ChatModel) -> LatentGuard:
        """Return the guard, contrasts and thresholds as they are, reading the states of `chat`.

        Raises `GuardError` unless `chat` has the width, the number of layers and the template of the guard's
        model, which is what a fine-tune of it has.
        """
        differing = other_model(self.metadata["model"], chat, SHAPE)
        if differing:
            raise GuardError(
                f"'{chat.name}' has another shape or template than the guard's model: {differing}"
            )
        return replace(self, chat=chat)

    def save(self, path: str | Path) -> None:
        """Write contrasts (float32), thresholds and metadata as one safetensors file."""
        header = {
            "format": GUARD_FORMAT,
            "site": "resid_pre",
            "position": T_INST.label,
            "layers": list(self.layers),
            "languages": list(self.contrasts),
            "thresholds": {lang: asdict(threshold) for lang, threshold in self.thresholds.items()},
            "metadata": dict(self.metadata),
        }
        write_tensors(
            Path(path), {lang: tensor.contiguous() for lang, tensor in self.contrasts.items()}, header
        )

    @classmethod
    def load(cls, path: str | Path, chat: ChatModel, *, other_weights: bool = False) -> LatentGuard:
        """Return the guard of `chat` that `save` wrote.

        With `other_weights`, `chat` may be another model with the same width, number of layers and template,
        such as a fine-tune of the guard's: nothing is promised then, so test it first. Raises `GuardError`
        for a missing or broken file, and, saying what differs, for another model's.
        """
        path = Path(path)
        tensors, header = read_guard(path)
        check_model(path, header.metadata, chat, GuardError, FIT_AGAIN, other_weights=other_weights)
        if max(header.layers) > chat.n_layers:
            raise GuardError(
                f"'{path}' reads layer {max(header.layers)}; {chat.name} has layers 0 to {chat.n_layers}"
            )
        shape = (len(header.layers), chat.width)
        return cls(
            chat=chat,
            contrasts={
                lang: check_shape(path, tensors, lang, shape, GuardError) for lang in header.languages
            },
            layers=header.layers,
            thresholds={lang: Threshold(**vars(stored)) for lang, stored in header.thresholds.items()},
            metadata=header.metadata,
        )


def check_layers(chat: ChatModel, layers: Sequence[int] | None) -> None:
    """Raise `GuardError` for layers that `chat` does not have; its last layer's output is one more."""
    if layers is not None and (not layers or min(layers) < 0 or max(layers) > chat.n_layers):
        raise GuardError(f"layers {list(layers)} are not in {chat.name}, which has 0 to {chat.n_layers}")


def cluster_scores(hidden: Tensor, contrasts: Tensor) -> Tensor:
    """Return Δ [prompts] of `hidden` [prompts, layers, d], given contrasts [prompts or 1, layers, d]."""
    exact = hidden.float()
    along = (exact * contrasts).sum(-1)
    scores: Tensor = (along / exact.norm(dim=-1).clamp(min=1e-12)).mean(-1)
    return scores


def contrast_of(first: Tensor, second: Tensor) -> Tensor:
    """Return the contrast [layers, d] (float32) of the centroids μ1 and μ2 [layers, d]."""

    def unit(centroid: Tensor) -> Tensor:
        exact = centroid.double()
        scaled: Tensor = exact / exact.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        return scaled

    contrast: Tensor = (unit(first) - unit(second)).float()
    return contrast


def until_t_inst(prompts: Sequence[EncodedPrompt]) -> list[EncodedPrompt]:
    """Return `prompts` cut after t_inst: a causal model's state there does not depend on the rest."""
    return [
        EncodedPrompt(prompt.ids[: prompt.t_inst + 1], prompt.t_inst, 0, prompt.start) for prompt in prompts
    ]


def fit_guard(
    chat: ChatModel,
    prompts: Mapping[str, LabelledPrompts],
    *,
    pooled: bool = False,
    layers: Sequence[int] | None = None,
    final_punctuation: str = KEPT,
    among: Mapping[str, LabelledPrompts] | None = None,
    metadata: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> LatentGuard:
    """Return the guard fitted on refused harmful and accepted harmless `prompts`, by language.

    It has one contrast a language, or with `pooled` one for all, in which each prompt has the same weight.
    `layers` default to all, 0 to the last layer's output. With `final_punctuation` "removed", t_inst is the
    last token before it, here and wherever the guard reads. `among` are the training prompts that `prompts`
    were chosen from: their hidden states are kept, and shared with other commands. Raises `GuardError`, with
    the numbers, where a centroid would have fewer than 4 prompts.
    """
    reader = LatentGuard(chat, {}, (), metadata={**(metadata or {}), FINAL_PUNCTUATION: final_punctuation})
    chosen = tuple(layers) if layers is not None else tuple(range(chat.n_layers + 1))
    check_layers(chat, chosen)
    means: dict[str, tuple[ActivationMeans, ActivationMeans]] = {}
    for lang, labelled in prompts.items():
        pair = means.setdefault(
            POOLED if pooled else lang,
            (ActivationMeans(1, len(chosen), chat.width), ActivationMeans(1, len(chosen), chat.width)),
        )
        if not pooled:
            check_centroids(len(labelled.harmful), len(labelled.harmless), lang)
        whole = labelled if among is None else among[lang]
        for mean, label in zip(pair, ("harmful", "harmless"), strict=True):
            texts, all_texts = getattr(labelled, label), getattr(whole, label)
            states = training_states(
                chat, reader.readable(all_texts), progress=f"guard {lang}" if progress else None
            )
            if texts:
                rows = [all_texts.index(text) for text in texts]
                mean.update(states[rows][:, :1, list(chosen)])
    counts = {key: {"n_harmful": pair[0].count, "n_harmless": pair[1].count} for key, pair in means.items()}
    for key, count in counts.items():
        check_centroids(count["n_harmful"], count["n_harmless"], key)
    origin = {
        **reader.metadata,
        "model": chat.signature(),
        "languages": list(prompts),
        "counts": counts,
        "versions": versions(),
    }
    contrasts = {key: contrast_of(pair[0].mean[0], pair[1].mean[0]) for key, pair in means.items()}
    return LatentGuard(chat, contrasts, chosen, metadata=origin)


def check_centroids(n_refused: int, n_accepted: int, lang: str) -> None:
    """Raise `GuardError` unless both centroids have enough prompts."""
    for count, kind in ((n_refused, "refused harmful"), (n_accepted, "accepted harmless")):
        if count < MINIMUM_PROMPTS:
            raise GuardError(
                f"{count} {kind} prompts in '{lang}', and a centroid needs {MINIMUM_PROMPTS}: give more with "
                "--train, fit it together with other languages (--langs all --pooled), or use all prompts "
                "by their label with --behaviour label"
            )


def _langs(lang: str | Sequence[str | None] | None, n: int) -> list[str | None]:
    langs = [lang] * n if lang is None or isinstance(lang, str) else list(lang)
    if len(langs) != n:
        raise GuardError(
            f"{n} prompts and {len(langs)} languages; give one language for each, or one for all"
        )
    return langs
