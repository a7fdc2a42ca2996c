"""A chat model by its name and options: what it takes to load it, here or elsewhere. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyrefuse_eval import organisms

if TYPE_CHECKING:
    from polyrefuse_eval.models.chat import ChatModel


@dataclass(frozen=True)
class ModelSpec:
    """What `ChatModel.load` takes: a name, and fields of `loading.LoadOptions`."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> ChatModel:
        """Load it."""
        from polyrefuse_eval.models.chat import ChatModel

        return ChatModel.load(self.name, **self.options)

    def settled(self) -> ModelSpec:
        """Return the same model, to be found from any folder: an organism is trained first, once."""
        if self.name in organisms.ORGANISMS:
            organisms.organism_path(self.name)
        folder = Path(self.name).expanduser()
        return replace(self, name=str(folder.resolve())) if folder.is_dir() else self

    @property
    def key(self) -> str:
        """What tells loaded models apart."""
        return f"{self.name} {json.dumps(dict(self.options), sort_keys=True)}"
