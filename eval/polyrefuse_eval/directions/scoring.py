"""Score candidate directions on validation prompts with few and short forward passes.

Three sweeps, the cheapest first, each over the candidates that passed the ones before:
1. refusal score under addition, harmless prompts: a pass starts at the layer of the addition, from its
   unedited input, which is computed from that of the layer before;
2. KL divergence under ablation, harmless prompts;
3. refusal score under ablation, harmful prompts.
In the published scores (Arditi et al. 2024, Wang et al. 2025) 4 to 44 % of the candidates pass the first, 33
to 94 % the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from polyrefuse_data.core.progress import Progress
from polyrefuse_eval.directions.fit import MINIMUM_PROMPTS, Direction, DirectionSet, direction_at
from polyrefuse_eval.directions.refusal_tokens import (
    FirstTokenReference,
    GivenTokens,
    RefusalTokens,
    as_refusal_tokens,
    refusal_scores,
)
from polyrefuse_eval.directions.selection import CandidateScore, Selection, rule_steps, select
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.models.batching import Batch, forward, forward_without_head, plan_batches
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.intervene import Ablation, Addition, Edits, applied
from polyrefuse_eval.models.partial_forward import bypassed, starting_at
from polyrefuse_eval.models.structure import layer_input
from polyrefuse_eval.results.positions import Position

TOKENS_PER_PASS = {"cpu": 0, "cuda": 8192}
"""Tokens up to which several candidates share a pass, by device: faster on a GPU, slower on a CPU."""

SMALLEST_NORM = 1e-8
"""The published code adds this to a norm before it divides; a smaller difference in means is no direction."""

Key = tuple[Position, int]

Start = tuple[int, Tensor]
"""A layer and its input [rows, tokens, d], at which a pass starts."""


@dataclass(repr=False)
class CandidateScorer:
    """Compute the scores of the candidates of `directions` on demand, each once.

    `harmful` and `harmless` are validation prompts, `refusal_tokens` those of their language: found ones,
    words or ids. Raises `DirectionError` where a label has no prompt, or a token is none of the model's.
    """

    chat: ChatModel
    directions: DirectionSet
    harmful: Sequence[str]
    harmless: Sequence[str]
    refusal_tokens: GivenTokens
    tokens_per_batch: int | None = None
    progress: bool = False

    def __repr__(self) -> str:
        prompts = f"{len(self.harmful)} harmful and {len(self.harmless)} harmless prompts"
        return f"CandidateScorer({self.directions!r}, {prompts}, {len(self.scores)} candidates scored)"

    def __post_init__(self) -> None:
        if not self.harmful or not self.harmless:
            raise DirectionError("selection needs validation prompts of both labels")
        self.tokens = as_refusal_tokens(self.chat, self.refusal_tokens, self.directions.lang)
        self._batches = {
            label: plan_batches(self.chat, self.chat.encode(list(texts)), self.tokens_per_batch)
            for label, texts in (("harmful", self.harmful), ("harmless", self.harmless))
        }
        self.scores: dict[Key, CandidateScore] = {}
        self.baseline: dict[str, float] = {}
        """Mean refusal score of the unedited model on `harmful` and on `harmless` prompts."""

    @property
    def candidates(self) -> list[Key]:
        """Return all post-instruction positions at all layers; t_inst only if there is no other position."""
        positions = [position for position in self.directions.positions if position.offset < 0]
        return [
            (position, layer)
            for position in positions or self.directions.positions
            for layer in self.directions.layers
        ]

    def all_scores(self) -> list[CandidateScore]:
        """Return all scores in the order of the candidates."""
        return [self.scores.get(key, CandidateScore(key[0].label, key[1])) for key in self.candidates]

    def complete(self) -> list[CandidateScore]:
        """Compute and return every score of every candidate, for plots and tables."""
        self.score_kl(self.candidates)
        self.score_steering(self.candidates)
        self.score_refusal(self.candidates)
        return self.all_scores()

    def select(self, rule: str = "robust") -> Selection:
        """Return the selection of `rule`; compute only the scores that decide it."""
        n_layers = self.chat.n_layers
        real = [key for key in self.candidates if self._has_direction(key)]
        # Relax the filter step by step; within a step, each score is computed for what passed the one before.
        for step in rule_steps(rule):
            allowed = [key for key in real if step.allows_layer(key[1], n_layers)]
            if step.min_steering is not None:
                self.score_steering(allowed)
                allowed = [key for key in allowed if step.allows_steering(self.scores[key])]
            self.score_kl(allowed)
            allowed = [key for key in allowed if step.allows_kl(self.scores[key])]
            self.score_refusal(allowed)
            if any(step.allows(self.scores[key], n_layers) for key in allowed):
                break
        return select([self.scores[key] for key in real if key in self.scores], rule, n_layers)

    def _has_direction(self, key: Key) -> bool:
        """Return whether the means differ; at layer 0, the embedding of a template token is constant."""
        return float(self.directions.at(*key).norm()) > SMALLEST_NORM

    def _lacking(self, keys: Iterable[Key], name: str) -> list[Key]:
        """Return those of `keys` without the score `name`."""
        for key in keys:
            self.scores.setdefault(key, CandidateScore(key[0].label, key[1]))
        return [key for key in keys if getattr(self.scores[key], name) is None]

    def _store(
        self, name: str, totals: Mapping[Key, float], keys: Sequence[Key], n: int, unedited: float
    ) -> None:
        """Set score `name` of `keys` to their mean over `n` prompts; to `unedited` without a direction."""
        for key in keys:
            value = totals[key] / n if key in totals else unedited
            self.scores[key] = replace(self.scores[key], **{name: value})  # type: ignore[arg-type]

    def _ablations(self, keys: Sequence[Key]) -> dict[Key, Edits]:
        """Return the ablation of each of `keys` that has a direction."""
        return {key: (Ablation(self.directions.at(*key)),) for key in keys if self._has_direction(key)}

    def score_kl(self, keys: Sequence[Key]) -> None:
        """Compute KL(unedited ‖ ablated) on the harmless prompts for those of `keys` without it."""
        missing = self._lacking(keys, "kl_div_score")
        if not missing:
            return
        edits = self._ablations(missing)
        totals = dict.fromkeys(edits, 0.0)
        base = 0.0
        for batch in self._progress("harmless", "KL"):
            logits = forward(self.chat, batch)
            base += float(self._refusal(logits).sum())
            reference = FirstTokenReference(logits)
            del logits
            self._sweep(batch, edits, totals, reference.kl)
        self.baseline["harmless"] = base / len(self.harmless)
        self._store("kl_div_score", totals, missing, len(self.harmless), 0.0)

    def score_refusal(self, keys: Sequence[Key]) -> None:
        """Compute refusal under ablation on the harmful prompts for those of `keys` without it."""
        missing = self._lacking(keys, "refusal_score")
        if not missing:
            return
        edits = self._ablations(missing)
        totals = dict.fromkeys(edits, 0.0)
        base = 0.0
        for batch in self._progress("harmful", "ablation"):
            base += float(self._refusal(forward(self.chat, batch)).sum())
            self._sweep(batch, edits, totals, self._refusal)
        self.baseline["harmful"] = base / len(self.harmful)
        self._store("refusal_score", totals, missing, len(self.harmful), self.baseline["harmful"])

    def score_steering(self, keys: Sequence[Key]) -> None:
        """Compute refusal under addition on the harmless prompts for those of `keys` without it."""
        missing = self._lacking(keys, "steering_score")
        if not missing:
            return
        real = sorted((key for key in missing if self._has_direction(key)), key=lambda key: key[1])
        totals = dict.fromkeys(real, 0.0)
        base = 0.0
        for batch in self._progress("harmless", "addition"):
            start: Start | None = None
            # Candidates in the order of their layers: each layer's input is computed from the last one's.
            for layer, group in groupby(real, key=lambda key: key[1]):
                start = layer, _layer_input(self.chat, batch, layer, start)
                edits: dict[Key, Edits] = {key: (Addition(self.directions.at(*key), layer),) for key in group}
                self._sweep(batch, edits, totals, self._refusal, start)
            base += float(self._refusal(_logits_from(self.chat, batch, start)).sum())
        self.baseline["harmless"] = base / len(self.harmless)
        self._store("steering_score", totals, missing, len(self.harmless), self.baseline["harmless"])

    def _refusal(self, logits: Tensor) -> Tensor:
        return refusal_scores(logits, self.tokens.ids)

    def _logits(self, batch: Batch, times: int) -> Sequence[Tensor]:
        if times == 1:
            return [forward(self.chat, batch)]
        return list(forward(self.chat, batch, times=times))

    def _progress(self, label: str, name: str) -> Iterator[Batch]:
        """Yield the batches of `label` prompts; show how far the sweep `name` is."""
        batches = self._batches[label]
        with Progress(
            len(batches), "batches", f"{name} on {label} prompts", quiet=not self.progress
        ) as progress:
            for batch in batches:
                yield batch
                progress.advance()

    @torch.inference_mode()
    def _sweep(
        self,
        batch: Batch,
        edits: dict[Key, Edits],
        totals: dict[Key, float],
        measure: Callable[[Tensor], Tensor],
        start: Start | None = None,
    ) -> None:
        """Add the sum of `measure` over the prompts of `batch` under each of `edits` to `totals`."""
        tokens = batch.arguments["input_ids"].numel()
        together = max(1, TOKENS_PER_PASS.get(self.chat.device.type, 0) // tokens) if batch.packed else 1
        keys = list(edits)
        for first in range(0, len(keys), together):
            part = keys[first : first + together]
            n_rows = batch.arguments["input_ids"].shape[0] if len(part) > 1 else 1
            rows = [edits[key] for key in part for _ in range(n_rows)]
            with ExitStack() as stack:
                if start is not None:
                    layer, hidden = start
                    together_hidden = torch.cat([hidden] * len(part), dim=-3)
                    stack.enter_context(starting_at(self.chat, layer, together_hidden))
                stack.enter_context(applied(self.chat, rows[0] if len(rows) == 1 else rows))
                for key, logits in zip(part, self._logits(batch, len(part)), strict=True):
                    totals[key] += float(measure(logits).sum())


@torch.inference_mode()
def _layer_input(chat: ChatModel, batch: Batch, layer: int, start: Start | None) -> Tensor:
    """Return the unedited input [rows, tokens, d] of `layer`; start at an earlier layer's, `start`."""
    inputs: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs.append(layer_input(args, kwargs))

    with ExitStack() as stack:
        if start is not None:
            stack.enter_context(starting_at(chat, *start))
        stack.enter_context(bypassed(chat, range(layer, chat.n_layers)))
        stack.callback(chat.layers[layer].register_forward_pre_hook(keep, with_kwargs=True).remove)
        forward_without_head(chat, batch)
    return inputs[0]


@torch.inference_mode()
def _logits_from(chat: ChatModel, batch: Batch, start: Start | None) -> Tensor:
    """Return the unedited logits [prompts, vocabulary] of `batch`; start at `start`."""
    with starting_at(chat, *start) if start is not None else nullcontext():
        return forward(chat, batch)


@torch.inference_mode()
def prompts_with_tendency(
    chat: ChatModel, prompts: Sequence[str], tokens: RefusalTokens, *, refuse: bool
) -> list[str]:
    """Return those of `prompts` with a refusal score above 0 (`refuse`), or those at or below it.

    The code of Arditi et al. 2024 selects a direction on such prompts alone, as it fits it: a harmless
    prompt that is refused unedited adds a large KL. Returns all where fewer than `MINIMUM_PROMPTS` would be
    left.
    """
    kept = []
    for batch in plan_batches(chat, chat.encode(list(prompts))):
        scores = refusal_scores(forward(chat, batch), tokens.ids)
        kept += [
            index
            for index, score in zip(batch.prompts, scores.tolist(), strict=True)
            if (score > 0) == refuse
        ]
    return [prompts[index] for index in sorted(kept)] if len(kept) >= MINIMUM_PROMPTS else list(prompts)


def choose_direction(scorer: CandidateScorer, rule: str = "robust") -> tuple[Direction, Selection]:
    """Return the direction that `rule` selects, with all scores in its metadata, and the selection."""
    selection = scorer.select(rule)
    scores = [vars(score) for score in scorer.all_scores()]
    direction = direction_at(
        scorer.directions,
        selection.position,
        selection.score.layer,
        selection=selection.to_json(),
        scores=scores,
        refusal_tokens=scorer.tokens.to_json(),
        baseline_refusal=dict(scorer.baseline),
        n_validation={"harmful": len(scorer.harmful), "harmless": len(scorer.harmless)},
    )
    return direction, selection
