"""Mean hidden states of harmful and of harmless prompts, under their labels and under shuffled ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from polyrefuse_eval.directions.refusal_tokens import (
    GivenTokens,
    RefusalTokens,
    as_refusal_tokens,
    refusal_scores,
)
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.models.activations import ActivationMeans, Captured
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.positions import Position
from polyrefuse_eval.versions import versions

LABELS_IN_WORDS = ("harmful", "harmless")
"""What messages call the two groups of prompts, unless they are others."""

MINIMUM_PROMPTS = 4
"""Least number of prompts of each label for a mean, after filtering."""


class LabelMeans:
    """Means of the hidden states of two groups of prompts, for labels as they are and shuffled ones.

    Prompts are numbered, the harmful first. `shuffles` are seeds, or None for the labels as they are.
    """

    def __init__(
        self,
        chat: ChatModel,
        n_harmful: int,
        n_harmless: int,
        positions: tuple[Position, ...],
        lang: str,
        refusal_tokens: GivenTokens | Sequence[RefusalTokens] | None,
        shuffles: Sequence[int | None],
    ) -> None:
        self._chat = chat
        self._lang = lang
        self._positions = positions
        self._is_harmful = torch.tensor([True] * n_harmful + [False] * n_harmless)
        self._tokens = _tokens_by_prompt(chat, refusal_tokens, n_harmful + n_harmless, lang)
        # The group whose mean a prompt enters: its label, or that of another prompt in a control.
        self._groups = {seed: _shuffled(self._is_harmful, seed) for seed in shuffles}
        self._means = {
            seed: [ActivationMeans(len(positions), chat.n_layers, chat.width) for _ in range(2)]
            for seed in shuffles
        }

    def update(self, captured: Captured, first: int = 0) -> None:
        """Add the states of one batch; `first` is the number of the first prompt of what was captured."""
        indices = first + torch.tensor(captured.prompts)
        # Keep prompts that the model treats as their label says, by the log-odds of refusal.
        kept = torch.ones(len(indices), dtype=torch.bool)
        if self._tokens is not None and captured.logits is not None:
            scores = _scores(captured.logits, [self._tokens[index].ids for index in indices.tolist()])
            kept = (scores > 0) == self._is_harmful[indices]
        for seed, means in self._means.items():
            for label in (0, 1):
                in_group = kept & (self._groups[seed][indices] == bool(label))
                if bool(in_group.any()):
                    hidden = captured.hidden[in_group.to(captured.hidden.device)]
                    means[label].update(hidden[:, :, : self._chat.n_layers])

    def difference(
        self, seed: int | None, metadata: Mapping[str, Any] | None, names: tuple[str, str]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return harmful minus harmless mean [positions, layers, d] under the labels that `seed` gives, and
        `metadata` with what it came from; raises `DirectionError` for too few prompts."""
        harmless_mean, harmful_mean = self._means[seed]
        n_harmful = int(self._is_harmful.sum())
        counts = {
            "n_harmful": n_harmful,
            "n_harmless": len(self._is_harmful) - n_harmful,
            "n_harmful_kept": harmful_mean.count,
            "n_harmless_kept": harmless_mean.count,
            "filtered": self._tokens is not None,
        }
        _check_counts(counts, self._lang, names)
        model = self._chat.signature()
        origin = {**(metadata or {}), "model": model, "counts": counts, "versions": versions()}
        if self._tokens is not None:
            origin["refusal_tokens"] = {shared.lang: shared.to_json() for shared in self._tokens}
        if seed is not None:
            origin["shuffled_labels_seed"] = seed
        return harmful_mean.mean - harmless_mean.mean, origin


def _shuffled(is_harmful: Tensor, seed: int | None) -> Tensor:
    """Return the labels [prompts], permuted by `seed` where it is given."""
    if seed is None:
        return is_harmful
    return is_harmful[torch.randperm(len(is_harmful), generator=torch.Generator().manual_seed(seed))]


def _tokens_by_prompt(
    chat: ChatModel,
    given: GivenTokens | Sequence[RefusalTokens] | None,
    n_prompts: int,
    lang: str,
) -> list[RefusalTokens] | None:
    """Return the refusal tokens of each prompt; None where none are `given`."""
    if given is None:
        return None
    listed = () if isinstance(given, (str, RefusalTokens)) else given
    by_prompt = [tokens for tokens in listed if isinstance(tokens, RefusalTokens)]
    if not by_prompt:
        return [as_refusal_tokens(chat, cast(GivenTokens, given), lang)] * n_prompts
    if len(by_prompt) != n_prompts:
        raise DirectionError(
            f"{len(by_prompt)} refusal tokens for {n_prompts} prompts; give one for all, or one for each"
        )
    return by_prompt


def _scores(logits: Tensor, refusal_ids: Sequence[tuple[int, ...]]) -> Tensor:
    """Return the refusal score of each prompt [prompts] (float64) by its own refusal tokens."""
    scores = torch.zeros(len(refusal_ids), dtype=torch.float64)
    rows_by_ids: dict[tuple[int, ...], list[int]] = {}
    for row, ids in enumerate(refusal_ids):
        rows_by_ids.setdefault(ids, []).append(row)
    for ids, rows in rows_by_ids.items():
        scores[rows] = refusal_scores(logits[rows], ids).cpu()
    return scores


def _check_counts(counts: Mapping[str, Any], lang: str, names: tuple[str, str]) -> None:
    for label, name, behaviour in zip(LABELS_IN_WORDS, names, ("refuses", "accepts"), strict=True):
        left = counts[f"n_{label}_kept"]
        if left < MINIMUM_PROMPTS:
            remedy = (
                f"the model {behaviour} only {left} of them; give more prompts, or use all with --no-filter"
                if counts["filtered"]
                else "give more prompts"
            )
            raise DirectionError(
                f"{left} of {counts[f'n_{label}']} {name} prompts in '{lang}' are left, and a mean needs "
                f"{MINIMUM_PROMPTS}: {remedy}"
            )
