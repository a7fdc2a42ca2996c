"""A chat model by its name and options: what it takes to load it, here or elsewhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from polyrefuse_eval import organisms
from polyrefuse_eval.chat import ChatModel
from polyrefuse_eval.loading import LoadOptions


@dataclass(frozen=True)
class ModelSpec:
    """What it takes to load a chat model, wherever that is."""

    name: str
    options: LoadOptions = field(default_factory=LoadOptions)

    def __call__(self) -> ChatModel:
        """Load it."""
        return ChatModel.load(self.name, self.options)

    def settled(self) -> ModelSpec:
        """Return the same model, to be found from any folder: an organism is trained first, once."""
        if self.name in organisms.NAMES:
            organisms.path_of(self.name)
        folder = Path(self.name).expanduser()
        return replace(self, name=str(folder.resolve())) if folder.is_dir() else self

    @property
    def key(self) -> str:
        """What tells loaded models apart."""
        return f"{self.name} {asdict(self.options)}"
