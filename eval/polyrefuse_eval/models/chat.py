"""A chat model at a revision: its weights, tokenizer, template, and the shape of its decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from polyrefuse_eval.errors import ChatModelError
from polyrefuse_eval.malloc import keep_freed_memory
from polyrefuse_eval.models.structure import Structure, parse_structure, submodule
from polyrefuse_eval.models.structure_probe import find_structure
from polyrefuse_eval.models.template import EncodedPrompt, Template, tokenizer_hash

if TYPE_CHECKING:
    from polyrefuse_eval.models.loading import LoadOptions


@dataclass
class ChatModel:
    """A causal language model with a chat template, in eval mode.

    `name` and `revision` are what a result cites: a Hub id and commit, or a folder's name and a
    hash of its files.
    """

    model: Any
    tokenizer: Any
    name: str
    revision: str
    template: Template
    structure: Structure
    settings: dict[str, str] = field(default_factory=dict)
    """What else changes the numbers: dtype, quantization, attention implementation."""
    packs: bool | None = None
    """Whether prompts can share one row (see `batching.can_pack`); None until it was tried."""
    pads: bool | None = None
    """Whether left-padded rows give the numbers of single prompts; None until it was tried."""
    caches: bool | None = None
    """Whether decoding behind a cache gives the numbers of whole passes; None until it was tried."""
    ends_only: bool | None = None
    """Whether the last layer's MLP can run for last tokens alone; None until it was tried."""

    @classmethod
    def load(cls, name: str, options: LoadOptions | None = None, **keywords: Any) -> ChatModel:
        """Load `name`: a Hub id, a folder, either with `@REVISION`, one of `organism.ORGANISMS`,
        or `organism-harmfulness`.

        `keywords` are the fields of `LoadOptions`. Raises `ChatModelError` with one clear line for
        whatever is not a chat model that can be had.
        """
        from polyrefuse_eval.models.loading import LoadOptions, load_parts

        parts = load_parts(name, options or LoadOptions(**keywords))
        return cls.from_parts(**parts)

    @classmethod
    def from_parts(
        cls,
        model: Any,
        tokenizer: Any,
        *,
        name: str = "local",
        revision: str = "unsaved",
        system: str | None = None,
        thinking: bool = False,
        structure: str = "",
        settings: dict[str, str] | None = None,
    ) -> ChatModel:
        """Return the chat model made of a loaded `model` and `tokenizer`.

        On a CPU the C library is told to keep the memory that a pass frees (see `heap`).
        Raises `ChatModelError` where the template or the decoder's shape is unknown.
        """
        template = Template(tokenizer, system, thinking)
        _ = template.post_instruction
        model.eval()
        if input_device(model).type == "cpu":
            keep_freed_memory()
        ids = template.encode(["Name a colour."])[0].ids
        found = find_structure(
            model, torch.tensor([ids], device=input_device(model)), parse_structure(structure)
        )
        return cls(
            model=model,
            tokenizer=tokenizer,
            name=name,
            revision=revision,
            template=template,
            structure=found,
            settings=dict(settings or {}),
        )

    @property
    def layers(self) -> list[nn.Module]:
        """The decoder layers, first to last."""
        return list(submodule(self.model, self.structure.layers, "decoder layers").children())

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def width(self) -> int:
        """Width of the residual stream (d_model)."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return input_device(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the residual stream: that of the input embeddings."""
        dtype = self.model.get_input_embeddings().weight.dtype
        return dtype if dtype.is_floating_point else torch.get_default_dtype()

    @property
    def post_instruction(self) -> tuple[int, ...]:
        """Ids of the post-instruction tokens; position -1 is the last of them."""
        return self.template.post_instruction

    @property
    def pad_id(self) -> int:
        """A token id to fill with; masked wherever it is used."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else 0

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end an answer: the tokenizer's and the generation config's EOS tokens."""
        ids: set[int] = set()
        config = getattr(self.model, "generation_config", None)
        for given in (self.tokenizer.eos_token_id, getattr(config, "eos_token_id", None)):
            if given is not None:
                ids.update([given] if isinstance(given, int) else given)
        return frozenset(ids)

    def encode(self, prompts: Sequence[str]) -> list[EncodedPrompt]:
        """Return `prompts` inside the chat template; raises where one is longer than the context."""
        encoded = self.template.encode(prompts)
        self._fit_context(encoded, prompts)
        return encoded

    def encode_before(self, parts: Sequence[tuple[str, str]]) -> list[tuple[EncodedPrompt, int]]:
        """Return the prompts `before + after`, and where in each the tokens of `before` end (see
        `Template.encode_before`); raises where one is longer than the context."""
        encoded = self.template.encode_before(parts)
        self._fit_context([prompt for prompt, _ in encoded], [before for before, _ in parts])
        return encoded

    def _fit_context(self, encoded: Sequence[EncodedPrompt], prompts: Sequence[str]) -> None:
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        for prompt, given in zip(encoded, prompts, strict=True):
            if context is not None and len(prompt) > context:
                raise ChatModelError(
                    f"the prompt '{given[:40]}…' has {len(prompt)} tokens and {self.name} reads {context}; "
                    "shorten it or leave it out"
                )

    def signature(self) -> dict[str, str]:
        """Return what identifies this model in a result: name, revision, hashes, settings."""
        return {
            "model": self.name,
            "revision": self.revision,
            "template_hash": self.template.hash,
            "tokenizer_hash": tokenizer_hash(self.tokenizer),
            "d_model": str(self.width),
            "n_layers": str(self.n_layers),
            **self.settings,
        }


def input_device(model: Any) -> torch.device:
    """Return the device of the input embeddings."""
    weight: Tensor = model.get_input_embeddings().weight
    return weight.device
