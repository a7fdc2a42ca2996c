"""Judges that are language models: what differs between them is a row of facts and two functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from polyrefuse_eval.errors import JudgeError
from polyrefuse_eval.judging.base import Advance, JudgeInput, Measures, Verdict
from polyrefuse_eval.judging.local_model import JudgeOptions, LocalModel, ModelSource

Render = Callable[[Any, JudgeInput], list[int]]
"""(tokenizer, completion) -> the token ids that the model reads."""

Decide = Callable[[LocalModel, list[list[int]], Advance | None], list[Verdict]]
"""(model, rendered prompts) -> one verdict each."""


@dataclass(frozen=True)
class ModelJudgeRow:
    """One published judge: `version` rises with our rendering or reading of it, `languages` are those
    that its card names."""

    name: str
    version: int
    source: ModelSource
    measures: Measures
    languages: frozenset[str]
    render: Render
    decide: Decide
    licence: str


class ModelJudge:
    """A published judge run here through transformers; a `Judge`."""

    needs_prompt = True
    chunk = 256

    def __init__(
        self, row: ModelJudgeRow, source: ModelSource | None = None, options: JudgeOptions | None = None
    ) -> None:
        self.row = row
        self._model = LocalModel(source or row.source, options or JudgeOptions())
        self.name = f"{row.name}-{row.version}@{self._model.source.cited(row.source)}"
        self.measures = row.measures
        self.languages: frozenset[str] | None = row.languages

    def load(self) -> None:
        """Load the model; raises `JudgeError` or `MissingExtraError`."""
        self._model.load()

    def check(self) -> None:
        """Raise what `load` would where the model is not at hand, without loading it."""
        self._model.check()

    def close(self) -> None:
        """Give the model's memory back."""
        self._model.close()

    def judge(self, items: Sequence[JudgeInput], advance: Advance | None = None) -> list[Verdict]:
        """Return one verdict for each of `items`; undecided without a prompt, which these models need."""
        found: dict[int, Verdict] = {}
        rendered: dict[int, list[int]] = {}
        for index, item in enumerate(items):
            if not (item.prompt or "").strip():
                found[index] = Verdict(None, "no prompt")
                continue
            ids = self.row.render(self._model.tokenizer, item)
            if len(ids) + MAX_VERDICT_TOKENS > self._model.context:
                found[index] = Verdict(None, "longer than the judge reads")
                continue
            rendered[index] = ids
        if advance is not None and found:
            advance(len(found))
        verdicts = self.row.decide(self._model, list(rendered.values()), advance)
        found.update(zip(rendered, verdicts, strict=True))
        return [found[index] for index in range(len(items))]


TURN_MARKS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<|user|>", "<|assistant|>")
"""Marks of turns in the published formats that are plain text to their tokenizers."""

MAX_VERDICT_TOKENS = 100
"""The longest verdict that any of the published judges is asked for."""


def by_reading(read: Callable[[str], Verdict], max_new_tokens: int) -> Decide:
    """Return a `Decide` that lets the model write and reads the verdict from what it wrote."""

    def decide(model: LocalModel, prompts: list[list[int]], advance: Advance | None) -> list[Verdict]:
        return [read(answer) for answer in model.answers(prompts, max_new_tokens, advance)]

    return decide


def guarded(tokenizer: Any, text: str) -> str:
    """Return `text` with the tokenizer's special tokens, and the marks of turns, broken by a space.

    A response that spells out the end of a turn could else write the judge's verdict itself.
    """
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    for token in dict.fromkeys([*tokenizer.all_special_tokens, *special, *TURN_MARKS]):
        if len(token) > 1:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def clipped(tokenizer: Any, text: str, limit: int) -> str:
    """Return `text` without what comes after its first `limit` tokens."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return text if len(ids) <= limit else str(tokenizer.decode(ids[:limit], skip_special_tokens=True))


def encoded(tokenizer: Any, text: str, *, special: bool) -> list[int]:
    """Return the ids of a whole prompt; `special` adds what the tokenizer puts before every text."""
    return list(tokenizer(text, add_special_tokens=special)["input_ids"])


def encoded_chat(
    tokenizer: Any, messages: Sequence[dict[str, Any]], *, generation_prompt: bool = True
) -> list[int]:
    """Return the ids of `messages` under the tokenizer's own chat template; raises `JudgeError` without.

    `generation_prompt` opens the judge's own turn, where the template does not do so by itself.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise JudgeError(
            f"the judge's tokenizer in '{tokenizer.name_or_path}' has no chat template; give the whole "
            "folder of the published model"
        )
    text = tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=generation_prompt
    )
    return encoded(tokenizer, text, special=False)
