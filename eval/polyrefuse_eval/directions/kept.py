"""Keep refusal tokens, direction sets and selected directions by what they depend on; find them again.

What is found is the same to the bit as what was kept; only the digest of its data set is that of the data at
hand, which hold the same prompts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from polyrefuse_data.core.files import temporary_folder, write_bytes
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.core.schema import Row
from polyrefuse_eval.directions.fit import Direction, DirectionSet
from polyrefuse_eval.directions.kept_entries import KeptEntries
from polyrefuse_eval.directions.refusal_tokens import (
    RefusalTokens,
    find_refusal_tokens,
    stored_refusal_tokens,
)
from polyrefuse_eval.directions.selection import read_scores
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.judging.native import judge as native
from polyrefuse_eval.models.chat import ChatModel

TOKENS_FILE = "refusal_tokens.json"
SET_FILE = "directions.safetensors"
DIRECTION_FILE = "direction.safetensors"
SCORES_FILE = "scores.json"


class KeptDirections:
    """What is kept of `chat`; nothing where its weights have no name, or several processes share it.

    `digest` is that of the data at hand, which directions name.
    """

    def __init__(self, chat: ChatModel, digest: str = "") -> None:
        self._chat = chat
        self._digest = digest
        self._entries = KeptEntries(chat)

    def refusal_tokens(
        self, lang: str, harmful: Sequence[str], harmless: Sequence[str], *, progress: bool = False
    ) -> RefusalTokens:
        """Return the refusal tokens that the answers to these prompts in `lang` give: kept, or found now.

        Raises `DirectionError` where they give none.
        """
        inputs = {"lang": lang, "harmful": [*harmful], "harmless": [*harmless], "judge": native.NAME}
        tokens = self.tokens(inputs)
        if tokens is None:
            tokens = find_refusal_tokens(
                self._chat, harmful, harmless, lang, native.refuses, progress=progress
            )
            self.keep_tokens(inputs, tokens)
        return tokens

    def tokens(self, inputs: Mapping[str, Any]) -> RefusalTokens | None:
        """Return the refusal tokens that `inputs` gave, None where they were not kept."""
        files = self._entries.load("refusal-tokens", inputs)
        try:
            if files is None:
                return None
            return stored_refusal_tokens(self._chat, parse_json(files[TOKENS_FILE]), str(inputs["lang"]))
        except (DirectionError, KeyError, ValueError):
            return None

    def keep_tokens(self, inputs: Mapping[str, Any], tokens: RefusalTokens) -> None:
        content = json.dumps(tokens.to_json(), sort_keys=True).encode("utf-8")
        self._entries.keep("refusal-tokens", inputs, {TOKENS_FILE: content})

    def directions(self, inputs: Mapping[str, Any]) -> DirectionSet | None:
        """Return the directions of all layers and positions that `inputs` gave, None where not kept."""
        files = self._entries.load("direction-sets", inputs)
        if files is None or SET_FILE not in files:
            return None
        with _written(files) as folder:
            try:
                kept = DirectionSet.load(folder / SET_FILE)
            except DirectionError:
                return None
        return replace(kept, metadata={**kept.metadata, "data": self._digest})

    def keep_directions(self, inputs: Mapping[str, Any], directions: DirectionSet) -> None:
        with _written({}) as folder:
            directions.save(folder / SET_FILE, dtype=torch.float64)
            self._entries.keep("direction-sets", inputs, {SET_FILE: (folder / SET_FILE).read_bytes()})

    def direction(self, inputs: Mapping[str, Any]) -> tuple[Direction, bytes] | None:
        """Return the direction selected from `inputs`, and the file of scores; None where it was not kept."""
        files = self._entries.load("directions", inputs)
        if files is None or not {DIRECTION_FILE, SCORES_FILE} <= files.keys():
            return None
        with _written(files) as folder:
            try:
                kept = Direction.load(folder / DIRECTION_FILE, self._chat)
                read_scores(folder / SCORES_FILE)
            except DirectionError:
                return None
        direction = replace(kept, metadata={**kept.metadata, "data": self._digest})
        return direction, files[SCORES_FILE]

    def keep_direction(self, inputs: Mapping[str, Any], direction: Direction, scores: bytes) -> None:
        with _written({}) as folder:
            direction.save(folder / DIRECTION_FILE)
            content = (folder / DIRECTION_FILE).read_bytes()
        self._entries.keep("directions", inputs, {DIRECTION_FILE: content, SCORES_FILE: scores})


def row_inputs(rows: Sequence[Row]) -> list[list[str]]:
    """Return what a direction depends on of each of `rows`."""
    return [[row.lang, row.label, row.group, row.text] for row in rows]


@contextmanager
def _written(files: Mapping[str, bytes]) -> Iterator[Path]:
    """Yield a temporary folder that holds those of `files` that are known."""
    with temporary_folder() as folder:
        for name in {SET_FILE, DIRECTION_FILE, SCORES_FILE} & files.keys():
            write_bytes(folder / name, files[name])
        yield folder
