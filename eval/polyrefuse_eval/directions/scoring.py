"""Score candidate directions on validation prompts with few and short forward passes.

Steering: refusal score under addition, harmless prompts. A pass starts at the layer of the addition, from its
unedited input, which is computed from that of the layer before. KL: divergence under ablation, harmless
prompts. Refusal: refusal score under ablation, harmful prompts. `racing` says which candidates need which of
them on which prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polyrefuse_data.core.progress import Progress
from polyrefuse_eval.directions.answer_divergence import AnswerBatch, answer_batches
from polyrefuse_eval.directions.fit import Direction, DirectionSet, direction_at
from polyrefuse_eval.directions.label_means import MINIMUM_PROMPTS
from polyrefuse_eval.directions.racing import (
    KL,
    REFUSAL,
    SCORES,
    STEERING,
    Array,
    Key,
    PromptScores,
    Race,
    round_ends,
)
from polyrefuse_eval.directions.refusal_tokens import (
    FirstTokenReference,
    GivenTokens,
    RefusalTokens,
    as_refusal_tokens,
    refusal_scores,
)
from polyrefuse_eval.directions.selection import CandidateScore, Dropped, Selection
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.models.batching import Batch, forward, forward_without_head, plan_batches
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.intervene import Ablation, Addition, Edits, applied
from polyrefuse_eval.models.partial_forward import bypassed, starting_at
from polyrefuse_eval.models.structure import layer_input

TOKENS_PER_PASS = {"cpu": 0, "cuda": 8192}
"""Tokens up to which several candidates share a pass, by device: faster on a GPU, slower on a CPU."""

SMALLEST_NORM = 1e-8
"""The published code adds this to a norm before it divides; a smaller difference in means is no direction."""

Start = tuple[int, Tensor]
"""A layer and its input [rows, tokens, d], at which a pass starts."""

LABELS = {STEERING: "harmless", KL: "harmless", REFUSAL: "harmful"}
"""Score to the label of the prompts that it is a mean over."""


@dataclass(repr=False)
class CandidateScorer:
    """Compute the scores of the candidates of `directions` on demand, each once.

    `harmful` and `harmless` are validation prompts, `refusal_tokens` those of their language: found ones,
    words or ids. Prompts are measured in an order drawn by `seed`, round by round (`racing.round_ends`). KL
    is that of the first token, or with `kl_tokens` above 1 the mean over the first tokens of the unedited
    model's own answer. Raises `DirectionError` where a label has no prompt, or a token is none of the
    model's.
    """

    chat: ChatModel
    directions: DirectionSet
    harmful: Sequence[str]
    harmless: Sequence[str]
    refusal_tokens: GivenTokens
    tokens_per_batch: int | None = None
    progress: bool = False
    seed: int = 0
    kl_tokens: int = 1

    def __repr__(self) -> str:
        prompts = f"{len(self.harmful)} harmful and {len(self.harmless)} harmless prompts"
        return f"CandidateScorer({self.directions!r}, {prompts}, {self.measured:.0%} of scores measured)"

    def __post_init__(self) -> None:
        if not self.harmful or not self.harmless:
            raise DirectionError("selection needs validation prompts of both labels")
        self.tokens = as_refusal_tokens(self.chat, self.refusal_tokens, self.directions.lang)
        self._texts = {"harmful": self._shuffled(self.harmful), "harmless": self._shuffled(self.harmless)}
        self._rounds = {label: self._batches(rounds) for label, rounds in self._texts.items()}
        self._answers: dict[int, list[AnswerBatch]] = {}
        counts = {
            score: len(self.harmful if label == "harmful" else self.harmless)
            for score, label in LABELS.items()
        }
        self._table = PromptScores(self._measure, counts)
        self._unedited: dict[tuple[str, int], list[_Unedited]] = {}
        self.dropped: list[Dropped] = []
        """Candidates that `select` dropped before all of their scores were measured."""

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
        """Return the scores that are complete, in the order of the candidates."""
        return [self._table.candidate_score(key) for key in self.candidates]

    def baseline(self) -> dict[str, float]:
        """Return the mean refusal score of the unedited model by label."""
        return {
            label: float(
                torch.cat(
                    [
                        unedited.refusal
                        for index in range(len(rounds))
                        for unedited in self._of_unedited(label, index)
                    ]
                ).mean()
            )
            for label, rounds in self._rounds.items()
        }

    def complete(self) -> list[CandidateScore]:
        """Compute and return every score of every candidate, for plots and tables."""
        for score in SCORES:
            self._table.extend(score, self.candidates)
        return self.all_scores()

    def select(self, rule: str = "robust") -> Selection:
        """Return the selection of `rule`; compute only the scores that decide it, see `racing`."""
        real = [key for key in self.candidates if self._has_direction(key)]
        race = Race(self._table, real, self.chat.n_layers)
        selection = race.select(rule)
        self.dropped = race.dropped
        return selection

    @property
    def measured(self) -> float:
        """The share of all scores of all candidates on all prompts that was measured."""
        return self._table.size / (len(self.candidates) * sum(self._table.counts.values()))

    def _shuffled(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the prompts of each round, in an order that `seed` draws."""
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(texts), generator=generator).tolist()
        ends = round_ends(len(texts))
        return [
            [texts[index] for index in order[start:end]] for start, end in zip((0, *ends), ends, strict=False)
        ]

    def _batches(self, rounds: Sequence[Sequence[str]]) -> list[list[Batch]]:
        """Return the batches of each round, whose prompts are indices into the round."""
        return [
            plan_batches(self.chat, self.chat.encode(list(texts)), self.tokens_per_batch) for texts in rounds
        ]

    def _has_direction(self, key: Key) -> bool:
        """Return whether the means differ; at layer 0, the embedding of a template token is constant."""
        return float(self.directions.at(*key).norm()) > SMALLEST_NORM

    @torch.inference_mode()
    def _of_unedited(self, label: str, index: int) -> list[_Unedited]:
        """Return what scores of a round are compared to, for each of its batches; computed once."""
        if (label, index) not in self._unedited:
            unedited = []
            for batch in self._rounds[label][index]:
                logits = forward(self.chat, batch)
                reference = FirstTokenReference(logits) if label == "harmless" else None
                unedited.append(_Unedited(self._refusal(logits).cpu(), reference))
            self._unedited[label, index] = unedited
        return self._unedited[label, index]

    @torch.inference_mode()
    def _measure(self, score: str, keys: Sequence[Key], index: int) -> Array:
        """Return `score` of each of `keys` on the prompts of a round [keys, prompts]."""
        label = LABELS[score]
        batches, unedited = self._rounds[label][index], self._of_unedited(label, index)
        ends = round_ends(self._table.counts[score])
        values = np.zeros((len(keys), sum(len(batch.prompts) for batch in batches)))
        rows = {key: row for row, key in enumerate(keys)}
        real = sorted((key for key in keys if self._has_direction(key)), key=lambda key: key[1])
        step = (
            f"selection {self.directions.lang}: {NAMES[score]} of {len(keys)} of {len(self.candidates)} "
            f"candidates, prompts {ends[index] - values.shape[1] + 1} to {ends[index]} of {ends[-1]}"
        )
        if score == KL and self.kl_tokens > 1:
            self._measure_answers(values, rows, real, index, step)
            return values
        with Progress(len(real) * len(batches), "passes", step, quiet=not self.progress) as progress:
            for batch, base in zip(batches, unedited, strict=True):
                columns = list(batch.prompts)
                # A candidate without a direction changes nothing.
                values[:, columns] = 0.0 if score == KL else base.refusal.numpy()
                for key, measured in self._edited(score, batch, base, real):
                    values[rows[key], columns] = measured.double().cpu().numpy()
                    progress.advance()
        return values

    def _measure_answers(
        self, values: Array, rows: dict[Key, int], keys: Sequence[Key], index: int, step: str
    ) -> None:
        """Set the KL along answers of each of `keys`, in its row of `values`, on the prompts of a round."""
        if index not in self._answers:
            texts = self._texts[LABELS[KL]][index]
            self._answers[index] = answer_batches(self.chat, texts, self.kl_tokens, self.tokens_per_batch)
        batches = self._answers[index]
        with Progress(len(keys) * len(batches), "passes", step, quiet=not self.progress) as progress:
            for batch in batches:
                for key in keys:
                    with applied(self.chat, Ablation(self.directions.at(*key))):
                        values[rows[key], list(batch.batch.prompts)] = batch.kl(self.chat).numpy()
                    progress.advance()

    def _edited(
        self, score: str, batch: Batch, unedited: _Unedited, keys: Sequence[Key]
    ) -> Iterator[tuple[Key, Tensor]]:
        """Yield `score` [prompts] of each of `keys`, which are in the order of their layers."""
        if score != STEERING:
            edits: dict[Key, Edits] = {key: (Ablation(self.directions.at(*key)),) for key in keys}
            measure = self._refusal
            if score == KL and unedited.reference is not None:
                measure = unedited.reference.kl
            yield from self._sweep(batch, edits, measure)
            return
        start: Start | None = None
        # Each layer's input is computed from the last one's.
        for layer, group in groupby(keys, key=lambda key: key[1]):
            start = layer, _layer_input(self.chat, batch, layer, start)
            added: dict[Key, Edits] = {key: (Addition(self.directions.at(*key), layer),) for key in group}
            yield from self._sweep(batch, added, self._refusal, start)

    def _refusal(self, logits: Tensor) -> Tensor:
        return refusal_scores(logits, self.tokens.ids)

    def _logits(self, batch: Batch, times: int) -> Sequence[Tensor]:
        if times == 1:
            return [forward(self.chat, batch)]
        return list(forward(self.chat, batch, times=times))

    def _sweep(
        self,
        batch: Batch,
        edits: dict[Key, Edits],
        measure: Callable[[Tensor], Tensor],
        start: Start | None = None,
    ) -> Iterator[tuple[Key, Tensor]]:
        """Yield `measure` of the prompts of `batch` under each of `edits` [prompts]."""
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
                logits = self._logits(batch, len(part))
            for key, of_key in zip(part, logits, strict=True):
                yield key, measure(of_key)


@dataclass(frozen=True)
class _Unedited:
    """Of one batch: the unedited refusal scores [prompts], and for harmless prompts the reference of KL."""

    refusal: Tensor
    reference: FirstTokenReference | None


NAMES = {STEERING: "steering", KL: "KL", REFUSAL: "refusal"}
"""Scores as messages call them."""


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
        measured=scorer.measured,
        dropped=[asdict(dropped) for dropped in scorer.dropped],
        refusal_tokens=scorer.tokens.to_json(),
        baseline_refusal=scorer.baseline(),
        n_validation={"harmful": len(scorer.harmful), "harmless": len(scorer.harmless)},
        **({"kl_tokens": scorer.kl_tokens} if scorer.kl_tokens > 1 else {}),
    )
    return direction, selection
