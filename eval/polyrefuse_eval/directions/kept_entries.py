"""Entries of the cache that depend on a model: its name, revision, template, settings, and the libraries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.processes import world_size
from polyrefuse_eval.results.content_cache import can_be_kept, keep_entry, load_entry
from polyrefuse_eval.versions import versions


class KeptEntries:
    """What is kept of `chat`; nothing where its weights have no name, or several processes share it.

    Processes that share a model must all take the same steps, whatever another command keeps meanwhile.
    """

    def __init__(self, chat: ChatModel) -> None:
        self._basis = {"model": chat.signature(), "versions": versions()}
        self._active = can_be_kept(chat.signature()) and world_size() == 1

    def load(self, kind: str, inputs: Mapping[str, Any]) -> dict[str, bytes] | None:
        """Return the files that were kept of `inputs` by name; None where nothing was."""
        return load_entry(kind, {**self._basis, **inputs}) if self._active else None

    def keep(self, kind: str, inputs: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Keep `files` as what `inputs`, a JSON value, give."""
        if self._active:
            keep_entry(kind, {**self._basis, **inputs}, files)
