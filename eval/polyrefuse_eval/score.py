"""Score candidate directions on validation prompts with as few and as short passes as it takes.

Three sweeps: KL under ablation on harmless prompts for every candidate; then, only for those whose
KL lets them be chosen, refusal under ablation on harmful prompts and under addition on harmless.
An addition at layer l starts from the cached input of l.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from polyrefuse_eval.activations import Position
from polyrefuse_eval.batches import Batch, forward, plan_batches
from polyrefuse_eval.bypass import starting_at
from polyrefuse_eval.chat import ChatModel
from polyrefuse_eval.direction import Direction, DirectionSet, direction_at
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.intervene import BASELINE, Ablation, Addition, Edits, applied
from polyrefuse_eval.refusal import FirstTokenReference, RefusalTokens, refusal_scores
from polyrefuse_eval.select import CandidateScore, Selection, rule_steps, select
from polyrefuse_eval.structure import layer_input

TOKENS_PER_PASS = {"cpu": 0, "cuda": 8192}
"""Several candidates share a pass up to so many tokens: a GPU gains, a CPU would lose."""

SMALLEST_NORM = 1e-8
"""What is added to a norm before dividing by it in the published code: below, there is no direction."""

Key = tuple[Position, int]


@dataclass
class CandidateScorer:
    """Scores of the candidates of `directions`, computed when asked for and kept.

    `harmful` and `harmless` are validation prompts, `refusal_tokens` those of their language.
    """

    chat: ChatModel
    directions: DirectionSet
    harmful: Sequence[str]
    harmless: Sequence[str]
    refusal_tokens: RefusalTokens
    tokens_per_batch: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        if not self.harmful or not self.harmless:
            raise DirectionError("selection needs validation prompts of both labels")
        self._batches = {
            label: plan_batches(self.chat, self.chat.encode(list(texts)), self.tokens_per_batch)
            for label, texts in (("harmful", self.harmful), ("harmless", self.harmless))
        }
        self.scores: dict[Key, CandidateScore] = {}
        self.baseline: dict[str, float] = {}
        """Mean refusal score of the unedited model on `harmful` and on `harmless` prompts."""

    @property
    def candidates(self) -> list[Key]:
        """All post-instruction positions at all layers; t_inst is no candidate unless it is alone."""
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
        """Compute every score of every candidate, for plots and tables."""
        self.score_kl(self.candidates)
        self.score_rest(self.candidates)
        return self.all_scores()

    def select(self, rule: str = "robust") -> Selection:
        """Return the choice of `rule`, computing only the scores that decide it."""
        n_layers = self.chat.n_layers
        for step in rule_steps(rule):
            allowed = [key for key in self.candidates if step.allows_layer(key[1], n_layers)]
            self.score_kl(allowed)
            self.score_rest(key for key in allowed if step.allows_kl(self.scores[key]))
            if any(step.allows(self.scores[key], n_layers) for key in allowed if self._has_direction(key)):
                break
        real = [self.scores[key] for key in self.candidates if key in self.scores and self._has_direction(key)]
        return select(real, rule, n_layers)

    def _has_direction(self, key: Key) -> bool:
        """Whether the means differ at all: the embedding of a template token (layer 0) never does."""
        return float(self.directions.at(*key).norm()) > SMALLEST_NORM

    def _ablation(self, key: Key) -> Edits:
        return (Ablation(self.directions.at(*key)),) if self._has_direction(key) else BASELINE

    def _addition(self, key: Key) -> Edits:
        return (Addition(self.directions.at(*key), key[1]),)

    def score_kl(self, keys: Iterable[Key]) -> None:
        """Compute KL(unedited ‖ ablated) on the harmless prompts for those of `keys` that lack it."""
        missing = [key for key in keys if key not in self.scores]
        if not missing:
            return
        totals = dict.fromkeys(missing, 0.0)
        edits = {key: self._ablation(key) for key in missing}
        base = 0.0
        for batch in self._progress("harmless", "KL"):
            logits = _logits(self.chat, batch)
            base += float(refusal_scores(logits, self.refusal_tokens.ids).sum())
            reference = FirstTokenReference(logits)
            del logits
            self._sweep(batch, edits, totals, reference.kl)
        self.baseline["harmless"] = base / len(self.harmless)
        for key, total in totals.items():
            self.scores[key] = CandidateScore(key[0].label, key[1], kl_div_score=total / len(self.harmless))

    def score_rest(self, keys: Iterable[Key]) -> None:
        """Compute refusal and steering scores for those of `keys` that lack them."""
        missing = [key for key in keys if self.scores[key].refusal_score is None]
        if not missing:
            return
        refusal, steering = self._score_refusal(missing), self._score_steering(missing)
        for key in missing:
            self.scores[key] = replace(self.scores[key], refusal_score=refusal[key], steering_score=steering[key])

    def _score_refusal(self, keys: Sequence[Key]) -> dict[Key, float]:
        totals = dict.fromkeys(keys, 0.0)
        edits = {key: self._ablation(key) for key in keys}
        base = 0.0
        for batch in self._progress("harmful", "ablation"):
            base += float(self._refusal(_logits(self.chat, batch)).sum())
            self._sweep(batch, edits, totals, self._refusal)
        self.baseline["harmful"] = base / len(self.harmful)
        return {key: total / len(self.harmful) for key, total in totals.items()}

    def _score_steering(self, keys: Sequence[Key]) -> dict[Key, float]:
        totals = dict.fromkeys(keys, 0.0)
        by_layer = sorted(keys, key=lambda key: key[1])
        for batch in self._progress("harmless", "addition"):
            inputs = _layer_inputs(self.chat, batch, {layer for _, layer in keys})
            for layer, group in groupby(by_layer, key=lambda key: key[1]):
                edits = {key: self._addition(key) for key in group}
                self._sweep(batch, edits, totals, self._refusal, start=(layer, inputs.pop(layer)))
        return {key: total / len(self.harmless) for key, total in totals.items()}

    def _refusal(self, logits: Tensor) -> Tensor:
        return refusal_scores(logits, self.refusal_tokens.ids)

    def _progress(self, label: str, name: str) -> Iterable[Batch]:
        batches = self._batches[label]
        return tqdm(batches, desc=f"{name} on {label}", unit="batch", disable=not self.progress)

    @torch.inference_mode()
    def _sweep(
        self,
        batch: Batch,
        edits: dict[Key, Edits],
        totals: dict[Key, float],
        measure: Callable[[Tensor], Tensor],
        start: tuple[int, Tensor] | None = None,
    ) -> None:
        """Add to `totals` the sum of `measure` over the prompts of `batch` under each of `edits`."""
        tokens = batch.arguments["input_ids"].numel()
        together = max(1, TOKENS_PER_PASS.get(self.chat.device.type, 0) // tokens) if batch.packed else 1
        keys = list(edits)
        for first in range(0, len(keys), together):
            part = keys[first : first + together]
            rows = [edits[key] for key in part]
            with ExitStack() as stack:
                if start is not None:
                    layer, hidden = start
                    stack.enter_context(starting_at(self.chat, layer, hidden.expand(len(rows) * len(hidden), -1, -1)
                                                    if len(rows) > 1 else hidden))
                stack.enter_context(applied(self.chat, rows[0] if len(rows) == 1 else rows))
                for key, logits in zip(part, _repeated_logits(self.chat, batch, len(rows)), strict=True):
                    totals[key] += float(measure(logits).sum())


@torch.inference_mode()
def _logits(chat: ChatModel, batch: Batch) -> Tensor:
    logits = forward(chat, batch)
    if logits is None:
        raise DirectionError(f"{chat.name} returned no logits")
    return logits


def _repeated_logits(chat: ChatModel, batch: Batch, times: int) -> Sequence[Tensor]:
    """Return the last-token logits of a packed `batch` run in `times` rows at once."""
    if times == 1:
        return [_logits(chat, batch)]
    arguments = dict(batch.arguments)
    for name in ("input_ids", "position_ids"):
        arguments[name] = arguments[name].expand(times, -1)
    keep = batch.ends.to(arguments["input_ids"].device)
    logits: Tensor = chat.model(**arguments, use_cache=False, logits_to_keep=keep).logits
    return list(logits)


@torch.inference_mode()
def _layer_inputs(chat: ChatModel, batch: Batch, layers: set[int]) -> dict[int, Tensor]:
    """Return the unedited inputs [rows, tokens, d] of `layers` in a pass over `batch`."""
    found: dict[int, Tensor] = {}

    def keeper(layer: int) -> Callable[..., None]:
        def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found[layer] = layer_input(args, kwargs)

        return keep

    with ExitStack() as stack:
        for layer in layers:
            hook = chat.layers[layer].register_forward_pre_hook(keeper(layer), with_kwargs=True)
            stack.callback(hook.remove)
        forward(chat, batch, logits=False)
    return found


def choose_direction(scorer: CandidateScorer, rule: str = "robust") -> tuple[Direction, Selection]:
    """Return the direction that `rule` chooses, with all scores and the reason in its metadata."""
    chosen = scorer.select(rule)
    scores = [vars(score) for score in scorer.all_scores()]
    direction = direction_at(
        scorer.directions,
        chosen.position,
        chosen.score.layer,
        selection=chosen.to_json(),
        scores=scores,
        refusal_tokens=scorer.refusal_tokens.to_json(),
        baseline_refusal=dict(scorer.baseline),
    )
    return direction, chosen
