"""Entries of each kind in a cache, and who reads them, for the test of mutations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from runs_on_clusters import own_cache
from torch import Tensor

from polyrefuse_eval.directions.fit import Direction, DirectionSet
from polyrefuse_eval.directions.kept import KeptDirections
from polyrefuse_eval.directions.kept_entries import KeptEntries
from polyrefuse_eval.directions.refusal_tokens import RefusalTokens
from polyrefuse_eval.directions.training_states import kept_states, training_states
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.baseline_cache import BaselineAnswer, BaselineCache
from polyrefuse_eval.results.content_cache import KINDS, cache_folder
from polyrefuse_eval.results.positions import Position

Read = Callable[[], Any]
INPUTS = {"lang": "en"}
SCORES = b'[{"position": -1, "layer": 1, "refusal_score": 0.5, "steering_score": 0.4, "kl_div_score": 0.1}]\n'


TEXTS = ["Name a colour.", "Sing."]


def _named(chat: ChatModel) -> ChatModel:
    """Return `chat` under a revision: nothing is kept of weights without a name."""
    return replace(chat, revision="0" * 40)


def _kept(chat: ChatModel) -> KeptDirections:
    return KeptDirections(_named(chat))


def _states(chat: ChatModel) -> Tensor | None:
    return kept_states(chat, KeptEntries(_named(chat)), TEXTS)


def write_cache(root: Path, chat: ChatModel) -> None:
    """Keep an entry of each kind in `root`/cache, of the kinds that are archives as `KIND/entry.zip`."""
    unit = torch.zeros(chat.width)
    unit[0] = 1.0
    story = {"model": _named(chat).signature()}
    vectors = torch.ones(1, 2, chat.width, dtype=torch.float64)
    with own_cache(root / "cache"):
        kept = _kept(chat)
        kept.keep_tokens(INPUTS, RefusalTokens("en", (40, 41), ("I", "No"), 0.9, 30, 32))
        kept.keep_directions(INPUTS, DirectionSet("en", vectors, (Position(-1),), (0, 1), story))
        kept.keep_direction(INPUTS, Direction(unit, 2.0, 1, Position(-1), "en", metadata=story), SCORES)
        training_states(_named(chat), TEXTS)
        answers = [
            BaselineAnswer(prompt_hash=letter * 64, response="No.", n_tokens=2, ended=True) for letter in "ab"
        ]
        _baselines(chat).add("de", answers)
        assert {path.name for path in cache_folder().iterdir()} == set(KINDS)


def _baselines(chat: ChatModel) -> BaselineCache:
    return BaselineCache(chat.signature(), 4)


def cache_readers(root: Path, chat: ChatModel, call: Callable[..., None]) -> Mapping[str, Mapping[str, Read]]:
    """Return who reads the entries of `write_cache`, by kind and command."""

    def within(read: Read) -> Read:
        def run() -> Any:
            with own_cache(root / "cache"):
                return read()

        return run

    return {
        "cache/training-states/*": {"training states": within(lambda: _states(chat))},
        "cache/baselines/*": {"baselines": within(lambda: _baselines(chat).load("de"))},
        "cache/refusal-tokens/*": {
            "refusal tokens": within(lambda: _kept(chat).tokens(INPUTS)),
            "cache show": within(lambda: call("eval", "cache", "show")),
        },
        "cache/direction-sets/*": {"direction sets": within(lambda: _kept(chat).directions(INPUTS))},
        "cache/directions/*": {"directions": within(lambda: _kept(chat).direction(INPUTS))},
    }
