"""A chat model at a revision: its weights, tokenizer, template, and the shape of its decoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from polyrefuse_data.core.errors import unknown_name
from polyrefuse_eval.errors import ChatModelError
from polyrefuse_eval.malloc import keep_freed_memory
from polyrefuse_eval.models.structure import Structure, parse_structure, submodule
from polyrefuse_eval.models.structure_probe import find_structure
from polyrefuse_eval.models.template import EncodedPrompt, Template

if TYPE_CHECKING:
    from polyrefuse_eval.models.loading import LoadOptions


MAX_THINKING_TOKENS = 2048
"""A block of thoughts of a hard question takes hundreds of tokens in most models, thousands in some."""


@dataclass(repr=False)
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
    joins: bool | None = None
    """Whether rows may join a batch while it is decoded (`decoding.can_join`); None until it was tried."""
    max_thinking_tokens: int = MAX_THINKING_TOKENS
    """How many tokens a model that may think takes for its thoughts before they are cut off."""
    ends_only: bool | None = None
    """Whether the last layer's MLP can run for last tokens alone; None until it was tried."""

    @classmethod
    def load(cls, name: str | Path, options: LoadOptions | None = None, **keywords: Any) -> ChatModel:
        """Load `name`: a Hub id or a folder, either with `@REVISION`, of a model or of a LoRA adapter; or one
        of `organisms.NAMES`.

        `keywords` are the fields of `LoadOptions`. Raises `UnknownNameError` for another keyword, and
        `ChatModelError`, in one line, where `name` is no chat model that can be loaded.
        """
        from polyrefuse_eval.models.loading import LoadOptions, load_parts

        known = [field.name for field in fields(LoadOptions)]
        for keyword in keywords:
            if keyword not in known:
                raise unknown_name("option", keyword, known)
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
        max_thinking_tokens: int = MAX_THINKING_TOKENS,
        structure: str = "",
        settings: dict[str, str] | None = None,
    ) -> ChatModel:
        """Return the chat model made of a loaded `model` and `tokenizer`.

        On a CPU the C library is told to keep the memory that a pass frees (see `malloc`).
        Raises `ChatModelError` where the template or the decoder's shape is unknown.
        """
        template = Template(tokenizer, system, thinking)
        _ = template.post_instruction
        model.eval()
        _drop_states_of_other_batches(model)
        template = replace(template, opens_thoughts=_opens_thoughts(model, template))
        if thinking and not template.thinks:
            raise ChatModelError(
                f"--thinking has no effect for '{name}': its chat template has no variable for it "
                "and opens no block of thoughts itself; leave it out"
            )
        if input_device(model).type == "cpu":
            keep_freed_memory()
        ids = template.encode(["Name a colour."])[0].ids
        _check_known(ids, _n_embeddings(model), name)
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
            max_thinking_tokens=max_thinking_tokens,
            settings={**(settings or {}), **_thinking_settings(template, max_thinking_tokens)},
        )

    def __repr__(self) -> str:
        shape = f"{self.n_layers} layers, width {self.width}"
        return f"ChatModel({self.name}@{self.revision}, {shape}, {self.dtype} on {self.device})"

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
    def n_embeddings(self) -> int:
        """How many tokens the model knows: its embeddings may be more, or fewer, than its tokenizer's."""
        return _n_embeddings(self.model)

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
        """A token id to fill with; masked wherever it is used.

        0 where the tokenizer has none, or one that was added to it and not to the model's embeddings.
        """
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None and pad < self.n_embeddings else 0

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end an answer: the tokenizer's and the generation config's EOS tokens, and the token with
        which the template closes an assistant's turn."""
        ids: set[int] = set() if self.template.turn_end is None else {self.template.turn_end}
        config = getattr(self.model, "generation_config", None)
        for given in (self.tokenizer.eos_token_id, getattr(config, "eos_token_id", None)):
            if given is not None:
                ids.update([given] if isinstance(given, int) else given)
        return frozenset(ids)

    def encode(self, prompts: Sequence[str]) -> list[EncodedPrompt]:
        """Return `prompts` inside the chat template; raises where one is longer than the context."""
        encoded = self.template.encode(prompts)
        self.fit_context(encoded, prompts)
        return encoded

    def encode_open(self, prompts: Sequence[str]) -> list[EncodedPrompt]:
        """Return `prompts` for generation: where the model is to think, it may before it answers."""
        encoded = self.template.encode_open(prompts)
        self.fit_context(encoded, prompts)
        return encoded

    def encode_before(self, parts: Sequence[tuple[str, str]]) -> list[tuple[EncodedPrompt, int]]:
        """Return the prompts `before + after`, and where in each the tokens of `before` end (see
        `Template.encode_before`); raises where one is longer than the context."""
        encoded = self.template.encode_before(parts)
        self.fit_context([prompt for prompt, _ in encoded], [before for before, _ in parts])
        return encoded

    def fit_context(self, encoded: Sequence[EncodedPrompt], prompts: Sequence[str]) -> None:
        """Raise `ChatModelError` where one of `encoded`, made of `prompts`, is longer than the context.

        So it does where a prompt has a token that the model does not know.
        """
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        for prompt, given in zip(encoded, prompts, strict=True):
            _check_known(prompt.ids, self.n_embeddings, self.name)
            if context is not None and len(prompt) > context:
                raise ChatModelError(
                    f"the prompt '{given[:40]}…' has {len(prompt)} tokens and {self.name} reads {context}; "
                    "shorten it or leave it out"
                )

    @cached_property
    def _tokenizer_hash(self) -> str:
        """Hash of the tokenizer; kept, since 150,000 tokens take a second of processor time."""
        return tokenizer_hash(self.tokenizer)

    def signature(self) -> dict[str, str]:
        """Return what identifies this model in a result: name, revision, hashes, settings."""
        return {
            "model": self.name,
            "revision": self.revision,
            "template_hash": self.template.hash,
            "tokenizer_hash": self._tokenizer_hash,
            "d_model": str(self.width),
            "n_layers": str(self.n_layers),
            **self.settings,
        }


def _n_embeddings(model: Any) -> int:
    """Return how many tokens the embeddings of `model` know."""
    return int(model.get_input_embeddings().weight.shape[0])


def _check_known(ids: Sequence[int], n_embeddings: int, name: str) -> None:
    """Raise `ChatModelError` where one of `ids` is beyond the embeddings of the model."""
    if max(ids) >= n_embeddings:
        raise ChatModelError(
            f"the tokenizer of '{name}' makes token {max(ids)}, and the model's embeddings end at "
            f"{n_embeddings - 1}: tokenizer and weights are from different models"
        )


def _drop_states_of_other_batches(model: nn.Module) -> None:
    """Keep modules that carry `recurrent_states` from pass to pass from using those of another batch.

    RecurrentGemma does so in transformers 4, and fails where the next batch has more or fewer rows. States of
    as many rows it resets by itself, at the first position of each row.
    """

    def drop(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else next(iter(kwargs.values()), None)
        states = module.recurrent_states
        if isinstance(states, Tensor) and isinstance(hidden, Tensor) and len(states) != len(hidden):
            module.recurrent_states = None

    for module in model.modules():
        if hasattr(module, "recurrent_states"):
            module.register_forward_pre_hook(drop, with_kwargs=True)


@torch.inference_mode()
def _opens_thoughts(model: Any, template: Template) -> bool:
    """Return whether the first token that `model` writes opens a block of thoughts."""
    if template.marks is None or template.thinking_block != "none":
        return False
    ids = torch.tensor([template.encode(["Name a colour."])[0].ids], device=input_device(model))
    token = int(model(input_ids=ids, use_cache=False).logits[0, -1].argmax())
    text = str(template.tokenizer.decode([token])).strip()
    return len(text) > 1 and template.marks.opening.startswith(text)


def _thinking_settings(template: Template, max_thinking_tokens: int) -> dict[str, str]:
    """Return where the answer begins, and how long thoughts may be, where a model marks thoughts at all."""
    if template.thinking_block == "none" and not template.thinking:
        return {}
    begins = {
        "none": "at the end of the prompt",
        "template": "behind the template's empty thinking block",
        "forced": "behind a forced empty thinking block",
    }
    settings = {"answer_begins": begins[template.thinking_block]}
    if template.thinking:
        settings["max_thinking_tokens"] = str(max_thinking_tokens)
    return settings


def input_device(model: Any) -> torch.device:
    """Return the device of the input embeddings."""
    weight: Tensor = model.get_input_embeddings().weight
    return weight.device


def tokenizer_hash(tokenizer: Any) -> str:
    """Return the sha256 of everything that decides how `tokenizer` cuts a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        text = repr(sorted(tokenizer.get_vocab().items()))
    else:
        # Padding and truncation are how it was last called, not what it is.
        parts = json.loads(backend.to_str())
        text = json.dumps({**parts, "padding": None, "truncation": None}, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
