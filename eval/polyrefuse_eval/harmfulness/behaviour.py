"""Detect which prompts a model refuses: by its answers, or by the first token of its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from polyrefuse_data.core.progress import Progress
from polyrefuse_eval.directions.refusal_tokens import RefusalTokens, refusal_scores
from polyrefuse_eval.harmfulness.known_answers import KnownAnswers
from polyrefuse_eval.judging.native import judge as native
from polyrefuse_eval.models.batch_size import default_batch_size
from polyrefuse_eval.models.batching import (
    accepted_arguments,
    kept_logits,
    left_padded,
    memory_told,
    next_rows,
)
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.generate import Request, generate
from polyrefuse_eval.models.intervene import BASELINE, Edits, applied

ANSWER_TOKENS = 32
"""Length of an answer that shows whether it begins with a refusal."""

TOKEN_PROMPTS = 32
"""Prompts of each label whose answers show how refusals begin."""


@dataclass(frozen=True, eq=False)
class EditedPrompt:
    """A prompt in `lang` under `edits`, whose positions count from the prompt's end."""

    text: str
    lang: str
    edits: Edits = BASELINE


RefusalDetector = Callable[[Sequence[EditedPrompt]], "list[bool | None]"]
"""Function of prompts to whether the model refuses each; None where undecided."""


def by_answers(
    chat: ChatModel,
    *,
    max_new_tokens: int = ANSWER_TOKENS,
    batch_size: int | None = None,
    progress: str | None = None,
) -> RefusalDetector:
    """Return the detector that judges greedy answers with the native judge.

    Answers of the unedited model are those of `eval run` where that had the same limit of tokens, and are
    kept for it and for the next detector; see `known_answers`.
    """

    def refuses(prompts: Sequence[EditedPrompt]) -> list[bool | None]:
        known = KnownAnswers(chat, max_new_tokens)
        texts = [None if prompt.edits else known.get(prompt.lang, prompt.text) for prompt in prompts]
        requests = [
            Request(str(index), prompt.text, prompt.edits)
            for index, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
            if text is None
        ]
        for answers in generate(
            chat, requests, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress
        ):
            for answer in answers:
                prompt = prompts[int(answer.key)]
                texts[int(answer.key)] = answer.text
                if not prompt.edits:
                    known.add(prompt.lang, prompt.text, answer)
        known.keep()
        return [native.refuses(text or "", prompt.lang) for prompt, text in zip(prompts, texts, strict=True)]

    return refuses


def by_first_token(
    chat: ChatModel,
    tokens: Mapping[str, RefusalTokens],
    *,
    batch_size: int | None = None,
    progress: str | None = None,
) -> RefusalDetector:
    """Return the detector by the sign of the refusal score, with the refusal `tokens` of each language.

    It takes one forward pass, makes no answer, and does not see what comes after the first token.
    """

    @torch.inference_mode()
    def refuses(prompts: Sequence[EditedPrompt]) -> list[bool | None]:
        encoded = chat.encode([prompt.text for prompt in prompts])
        order = sorted(range(len(prompts)), key=lambda index: (len(encoded[index]), index))
        size = batch_size or default_batch_size(chat, encoded)
        verdicts: list[bool | None] = [None] * len(prompts)
        with Progress(len(prompts), "prompts", progress) as shown:
            while order:
                part = next_rows(chat, encoded, order, size)
                order = order[len(part) :]
                arguments = accepted_arguments(
                    chat, dict(left_padded(chat, [encoded[index].ids for index in part]))
                )
                with memory_told(chat), applied(chat, [prompts[index].edits for index in part]):
                    output = chat.model(**arguments, use_cache=False, **kept_logits(chat, 1))
                for row, index in enumerate(part):
                    score = refusal_scores(output.logits[row, -1:], tokens[prompts[index].lang].ids)
                    verdicts[index] = bool(score > 0)
                shown.advance(len(part))
        return verdicts

    return refuses
