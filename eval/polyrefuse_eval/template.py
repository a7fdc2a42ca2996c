"""A chat template around an instruction: what it adds, and where the instruction ends.

The post-instruction tokens are found by rendering the template around different instructions;
none is typed in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from polyrefuse_eval.errors import ChatModelError

PROBES = ("Qa", "7", "好", "z?", "B.")
"""Instructions with nothing in common at either end: what their renderings share is the template's."""

DATE = "26 Jul 2024"
"""Passed to templates that print a date (Llama-3.1's default), so that a rendering never ages."""


@dataclass(frozen=True)
class EncodedPrompt:
    """Token ids of one rendered prompt.

    `t_inst` is the index of the instruction's last token; the last `n_post` tokens are the
    post-instruction tokens, position -1 being the last token of the prompt.
    """

    ids: tuple[int, ...]
    t_inst: int
    n_post: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Template:
    """The chat template of `tokenizer`, with a system prompt or none."""

    tokenizer: Any
    system: str | None = None
    thinking: bool = False

    @cached_property
    def source(self) -> str:
        """The template's text; raises `ChatModelError` where the tokenizer has none."""
        template = getattr(self.tokenizer, "chat_template", None)
        if isinstance(template, dict):
            template = template.get("default")
        if not template:
            raise ChatModelError(
                f"'{self.tokenizer.name_or_path}' has no chat template, so it is a base model or its "
                "tokenizer is incomplete; give an instruction-tuned model"
            )
        return str(template)

    @property
    def hash(self) -> str:
        """sha256 of the template, the system prompt and the arguments it is rendered with."""
        text = "\0".join([self.source, repr(self.system), repr(sorted(self._arguments.items()))])
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    @property
    def _arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if "enable_thinking" in self.source:
            arguments["enable_thinking"] = self.thinking
        if "date_string" in self.source:
            arguments["date_string"] = DATE
        return arguments

    def render(self, instruction: str) -> str:
        """Return the prompt as text, up to where the assistant's answer begins."""
        try:
            return self._render(instruction, self.system)
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "jinja2":
                raise
            raise ChatModelError(self._why_not(instruction, error)) from None

    def _render(self, instruction: str, system: str | None) -> str:
        messages = [{"role": "user", "content": instruction}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        return str(
            self.tokenizer.apply_chat_template(
                messages,
                chat_template=self.source,
                tokenize=False,
                add_generation_prompt=True,
                **self._arguments,
            )
        )

    def _why_not(self, instruction: str, error: Exception) -> str:
        name = self.tokenizer.name_or_path
        try:
            self._render(instruction, None if self.system is not None else "You are a helpful assistant.")
        except Exception:
            return f"the chat template of '{name}' cannot be rendered: {error}"
        if self.system is not None:
            return f"the chat template of '{name}' forbids a system prompt ({error}); leave out --system"
        return f"the chat template of '{name}' needs a system prompt ({error}); give one with --system"

    @cached_property
    def _frame(self) -> tuple[str, str]:
        """The text before and after any instruction."""
        texts = [self.render(probe) for probe in PROBES]
        prefix = common_prefix(texts)
        suffix = common_prefix([text[::-1] for text in texts])[::-1]
        if any(probe not in text for probe, text in zip(PROBES, texts, strict=True)):
            raise ChatModelError(
                f"the chat template of '{self.tokenizer.name_or_path}' leaves out the user's message"
            )
        return prefix, suffix

    @cached_property
    def post_instruction(self) -> tuple[int, ...]:
        """Ids of the tokens after the instruction; raises `ChatModelError` where there are none."""
        reversed_ids = [self._tokenize([self.render(probe)])[0][0][::-1] for probe in PROBES]
        shared: list[int] = []
        for column in zip(*reversed_ids, strict=False):
            if len(set(column)) > 1:
                break
            shared.append(column[0])
        if not shared:
            raise ChatModelError(
                f"the chat template of '{self.tokenizer.name_or_path}' adds no token after the instruction"
            )
        return tuple(shared[::-1])

    @property
    def has_offsets(self) -> bool:
        return bool(getattr(self.tokenizer, "is_fast", False))

    def _tokenize(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]] | None]]:
        # The template already writes the BOS token where the model wants one.
        encoded = self.tokenizer(
            list(texts), add_special_tokens=False, return_offsets_mapping=self.has_offsets
        )
        offsets = encoded["offset_mapping"] if self.has_offsets else [None] * len(texts)
        return list(zip(encoded["input_ids"], offsets, strict=True))

    def encode(self, instructions: Sequence[str]) -> list[EncodedPrompt]:
        """Return the token ids of each instruction inside the template."""
        for instruction in instructions:
            if not instruction.strip():
                raise ChatModelError("an empty prompt cannot be measured; remove it or fill it")
        if not instructions:
            return []
        prefix, suffix = self._frame
        post = self.post_instruction
        texts = [self.render(instruction) for instruction in instructions]
        tokenized = self._tokenize(texts)
        encoded = []
        for instruction, text, (ids, offsets) in zip(instructions, texts, tokenized, strict=True):
            if tuple(ids[-len(post) :]) != post:
                # White space at the end of the instruction has merged with the template's tokens.
                stripped = self.render(instruction.strip())
                ((ids, offsets),) = self._tokenize([stripped])
                text = stripped
            if tuple(ids[-len(post) :]) != post:
                raise ChatModelError(
                    f"the prompt '{instruction[:40]}' does not end with the template's tokens "
                    f"{self.tokenizer.convert_ids_to_tokens(list(post))}"
                )
            encoded.append(
                EncodedPrompt(
                    tuple(ids), _last_instruction_token(text, prefix, suffix, offsets, ids, post), len(post)
                )
            )
        return encoded


def _last_instruction_token(
    text: str,
    prefix: str,
    suffix: str,
    offsets: list[tuple[int, int]] | None,
    ids: list[int],
    post: tuple[int, ...],
) -> int:
    fallback = len(ids) - len(post) - 1
    if offsets is None:
        return fallback
    end = len(text) - len(suffix)
    last = len(text[:end].rstrip()) - 1
    if last < len(prefix):
        return fallback
    covering = [index for index, (start, stop) in enumerate(offsets) if start <= last < stop]
    return max(covering) if covering else fallback


def common_prefix(texts: Sequence[str]) -> str:
    """Return the longest beginning that all `texts` share."""
    first, last = min(texts), max(texts)
    length = 0
    while length < min(len(first), len(last)) and first[length] == last[length]:
        length += 1
    return first[:length]


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
