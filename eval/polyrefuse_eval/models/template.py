"""A chat template around an instruction: what it adds, and where the instruction ends.

The post-instruction tokens are found by rendering the template around different instructions;
none is typed in.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

from polyrefuse_eval.errors import ChatModelError
from polyrefuse_eval.models.template_date import DATE, FIXED_CLOCK
from polyrefuse_eval.models.thinking import (
    SWITCH_NAME,
    SWITCH_VALUES,
    ThinkingMarks,
    closing_text,
    is_open,
    marks_of,
)

PROBES = ("Qa", "7", "好", "z?", "B.")
"""Instructions with nothing in common at either end: what their renderings share is the template's."""


@dataclass(frozen=True)
class EncodedPrompt:
    """Token ids of one rendered prompt.

    `t_inst` is the index of the instruction's last token; the last `n_post` tokens are the
    post-instruction tokens, position -1 being the last token of the prompt. `start` is the index of
    the instruction's first token: everything before it is the template's.
    """

    ids: tuple[int, ...]
    t_inst: int
    n_post: int
    start: int = 0

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Template:
    """The chat template of `tokenizer`, with a system prompt or none.

    A prompt ends where the answer begins: thoughts are switched off, and a block of thoughts that the
    template leaves open, or that the model opens by itself (`opens_thoughts`), is put there empty. With
    `thinking` there are prompts before which nothing is closed, too (`encode_open`).
    """

    tokenizer: Any
    system: str | None = None
    thinking: bool = False
    opens_thoughts: bool = False

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
        """sha256 of the template, the system prompt, and the date and thoughts it is rendered with."""
        settings = sorted(self._arguments(self.thinking).items())
        more = {"date": DATE.isoformat()} if "strftime_now" in self.source else {}
        if self.thinking_block == "forced":
            more["thoughts"] = "open" if self.thinking else "closed"
        parts = [
            self.source,
            repr(self.system),
            repr(settings),
            *([repr(sorted(more.items()))] if more else []),
        ]
        return hashlib.sha256("\0".join(parts).encode("utf-8")).hexdigest()

    def _arguments(self, thoughts: bool) -> dict[str, Any]:
        """Return what the template is rendered with beside the messages."""
        arguments: dict[str, Any] = {}
        if self.switch is not None:
            name, off, on = self.switch
            arguments[name] = on if thoughts else off
        if "date_string" in self.source:
            arguments["date_string"] = DATE.strftime("%d %b %Y")
        return arguments

    @cached_property
    def marks(self) -> ThinkingMarks | None:
        """How the model marks what it thinks before an answer; None where nothing says that it does."""
        return marks_of(self.tokenizer, self.source)

    @cached_property
    def switch(self) -> tuple[str, Any, Any] | None:
        """The variable by which the template forbids or allows thoughts, and its two values.

        Found by rendering with each name that may be one; None where none changes the prompt.
        """
        for name in sorted(
            set(SWITCH_NAME.findall(self.source)), key=lambda name: ("enable" not in name, name)
        ):
            for off, on in SWITCH_VALUES:
                try:
                    closed, opened = (self._render("Q", self.system, {name: value}) for value in (off, on))
                except Exception:  # noqa: S112 (a value that the template refuses)
                    continue
                if closed != opened:
                    return name, off, on
        return None

    @property
    def thinks(self) -> bool:
        """Whether the template or the model can let thoughts come before an answer."""
        return self.switch is not None or self.thinking_block == "forced"

    @cached_property
    def thinking_block(self) -> str:
        """What a prompt ends with: the `template`'s empty block of thoughts, a `forced` one, or `none`."""
        if self._forced:
            return "forced"
        closed = self.marks is not None and self._end(False).rstrip().endswith(self.marks.closing)
        return "template" if closed else "none"

    def render(self, instruction: str) -> str:
        """Return the prompt as text, up to where the assistant's answer begins, without thoughts."""
        return self._try(instruction, self._arguments(False)) + self._forced

    @cached_property
    def _forced(self) -> str:
        """What must be put behind the template's own prompt so that an answer, not a thought, comes next."""
        if self.marks is None:
            return ""
        if is_open(self.marks, self._end(False)):
            return closing_text(self.marks, self._end(False))
        return self.marks.empty if self.opens_thoughts else ""

    def _end(self, thoughts: bool) -> str:
        """Return the template's own text behind an instruction."""
        return self._try(PROBES[0], self._arguments(thoughts)).rpartition(PROBES[0])[2]

    def _try(self, instruction: str, arguments: dict[str, Any]) -> str:
        try:
            return self._render(instruction, self.system, arguments)
        except Exception as error:  # A template is a program, which may fail in any way.
            raise ChatModelError(self._why_not(instruction, error)) from None

    def _render(
        self, instruction: str, system: str | None, arguments: dict[str, Any], answer: str | None = None
    ) -> str:
        messages = [{"role": "user", "content": instruction}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        return str(
            self.tokenizer.apply_chat_template(
                messages,
                chat_template=(FIXED_CLOCK if "strftime_now" in self.source else "") + self.source,
                tokenize=False,
                add_generation_prompt=answer is None,
                **arguments,
            )
        )

    @cached_property
    def turn_end(self) -> int | None:
        """Id of the token with which the template closes an assistant's turn; None where it has none.

        A token that also stands between thoughts and answer (harmony's) ends no turn.
        """
        try:
            texts = [self._render("Q", self.system, self._arguments(False), answer) for answer in PROBES]
        except Exception:
            return None
        suffix = common_prefix([text[::-1] for text in texts])[::-1]
        special = set(self.tokenizer.added_tokens_decoder)
        ids = self.tokenizer(suffix, add_special_tokens=False)["input_ids"]
        end = next((token for token in ids if token in special), None)
        if end is None or (self.marks and self.tokenizer.decode([end]) in self.marks.before_closing):
            return None
        return int(end)

    def _why_not(self, instruction: str, error: Exception) -> str:
        name = self.tokenizer.name_or_path
        try:
            system = None if self.system is not None else "You are a helpful assistant."
            self._render(instruction, system, self._arguments(False))
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

    @cached_property
    def pre_instruction(self) -> tuple[int, ...]:
        """Ids of the tokens before the instruction; none in some templates."""
        columns = zip(*(self._tokenize([self.render(probe)])[0][0] for probe in PROBES), strict=False)
        return tuple(column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns))

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
        return [self._located(text, ids, offsets) for text, ids, offsets in self._tokenized(instructions)]

    def encode_open(self, instructions: Sequence[str]) -> list[EncodedPrompt]:
        """Return the token ids of prompts behind which the model may think, where it is to; they know no
        positions, since nothing is measured in them."""
        if not self.thinking:
            return self.encode(instructions)
        texts = [self._try(instruction, self._arguments(True)) for instruction in instructions]
        return [EncodedPrompt(tuple(ids), len(ids) - 1, 0) for ids, _ in self._tokenize(texts)]

    @cached_property
    def begins_inside_thoughts(self) -> bool:
        """Whether prompts of `encode_open` end inside a block of thoughts."""
        return self.marks is not None and self.thinking and is_open(self.marks, self._end(True))

    def encode_before(self, parts: Sequence[tuple[str, str]]) -> list[tuple[EncodedPrompt, int]]:
        """Return each instruction `before + after`, encoded, and where the tokens of `before` end.

        The second value is the index one past the last token that holds a character of `before`
        (white space at its end aside).
        """
        found = []
        prefix, _ = self._frame
        whole = self._tokenized([before + after for before, after in parts])
        for (before, _after), (text, ids, offsets) in zip(parts, whole, strict=True):
            encoded = self._located(text, ids, offsets)
            if offsets is None:
                alone = self._tokenize([self.render(before.strip())])[0][0]
                same = takewhile(lambda pair: pair[0] == pair[1], zip(ids, alone, strict=False))
                stop = self._visible(ids, sum(1 for _ in same) - 1) + 1
            else:
                opening = before.strip()
                last = text.index(opening, len(prefix)) + len(opening) - 1
                stop = _covering(last, offsets, encoded.t_inst) + 1
            found.append((encoded, min(max(stop, encoded.start + 1), encoded.t_inst + 1)))
        return found

    def _tokenized(self, instructions: Sequence[str]) -> list[_Tokenized]:
        post = self.post_instruction
        texts = [self.render(instruction) for instruction in instructions]
        found: list[_Tokenized] = []
        for instruction, text, (ids, offsets) in zip(instructions, texts, self._tokenize(texts), strict=True):
            if tuple(ids[-len(post) :]) != post:
                # White space at the end of the instruction has merged with the template's tokens.
                text = self.render(instruction.strip())
                ((ids, offsets),) = self._tokenize([text])
            if tuple(ids[-len(post) :]) != post:
                raise ChatModelError(
                    f"the prompt '{instruction[:40]}' does not end with the template's tokens "
                    f"{self.tokenizer.convert_ids_to_tokens(list(post))}"
                )
            found.append((text, ids, offsets))
        return found

    def _located(self, text: str, ids: list[int], offsets: list[tuple[int, int]] | None) -> EncodedPrompt:
        n_post = len(self.post_instruction)
        pairs = zip(ids, self.pre_instruction, strict=False)
        start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return EncodedPrompt(tuple(ids), self._t_inst(text, ids, offsets), n_post, start)

    def _t_inst(self, text: str, ids: list[int], offsets: list[tuple[int, int]] | None) -> int:
        prefix, suffix = self._frame
        before_post = len(ids) - len(self.post_instruction) - 1
        if offsets is None:
            return self._visible(ids, before_post)
        last = len(text[: len(text) - len(suffix)].rstrip()) - 1
        return before_post if last < len(prefix) else _covering(last, offsets, before_post)

    def _visible(self, ids: list[int], index: int) -> int:
        """Return the last token at or before `index` that is not all white space."""
        while index > 0 and not self.tokenizer.decode([ids[index]]).strip():
            index -= 1
        return index


_Tokenized = tuple[str, list[int], "list[tuple[int, int]] | None"]
"""A rendered prompt, its ids, and where in it each token stands (None from a slow tokenizer)."""


def _covering(character: int, offsets: list[tuple[int, int]], otherwise: int) -> int:
    """Return the last token that holds `character`."""
    return max(
        (index for index, (start, stop) in enumerate(offsets) if start <= character < stop), default=otherwise
    )


def common_prefix(texts: Sequence[str]) -> str:
    """Return the longest beginning that all `texts` share."""
    return os.path.commonprefix(list(texts))  # noqa: RUF071 (character by character is meant)
