"""Steering: refusal rates of prompts with a direction added, one layer at a time (Zhao et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from polyrefuse_eval.harmfulness.behaviour import EditedPrompt, RefusalDetector
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.intervene import Addition
from polyrefuse_eval.models.token_spans import instruction_span, positions_of
from polyrefuse_eval.results.harmfulness_records import Steered
from polyrefuse_eval.statistics.rates import rate

FORWARD, REVERSED = 1, -1

SCOPES = ("instruction", "prompt", "all")
"""Tokens that are steered: those of the instruction, of the whole prompt, or also of the answer."""


def additions(
    chat: ChatModel, prompts: Sequence[str], vector: Tensor, layer: int, coefficient: float, scope: str
) -> list[Addition]:
    """Return for each prompt the addition of `coefficient · vector` [d] at the input of `layer`.

    It edits the tokens of `scope`, one of `SCOPES`.
    """
    if scope != "instruction":
        return [Addition(vector, layer, coefficient, scope)] * len(prompts)
    return [
        Addition(vector, layer, coefficient, positions_of(prompt, instruction_span(prompt)))
        for prompt in chat.encode(prompts)
    ]


def sweep(
    chat: ChatModel,
    refuses: RefusalDetector,
    vectors: dict[str, Tensor],
    prompts: Mapping[str, Sequence[str]],
    layers: Sequence[int],
    *,
    lang: str,
    coefficient: float = 1.0,
    scope: str = "instruction",
    categories: Mapping[str, Sequence[str | None]] | None = None,
) -> list[Steered]:
    """Return refusal rates by direction, label and layer, and those of the unedited model.

    Harmless prompts are steered forward along v (towards harmful, towards refusal), harmful ones in
    reverse.

    vectors: [L or more, d] by the name of the direction. prompts: by label. categories: of the prompts of
    each label; with them, the rates of each category are returned as well.
    """
    edited: list[EditedPrompt] = []
    keys: list[tuple[str | None, str, int, int | None]] = []
    kinds: list[str | None] = []
    for label, texts in prompts.items():
        sign = REVERSED if label == "harmful" else FORWARD
        edited += [EditedPrompt(text, lang) for text in texts]
        keys += [(None, label, sign, None)] * len(texts)
        of_texts = (categories or {}).get(label, [None] * len(texts))
        kinds += [*of_texts] * (1 + len(vectors) * len(layers))
        for name, vector in vectors.items():
            for layer in layers:
                edits = additions(chat, texts, vector[layer], layer, sign * coefficient, scope)
                edited += [EditedPrompt(text, lang, (edit,)) for text, edit in zip(texts, edits, strict=True)]
                keys += [(name, label, sign, layer)] * len(texts)
    verdicts = refuses(edited)
    grouped: dict[tuple[str | None, str, int, int | None, str | None], list[bool | None]] = {}
    for key, kind, verdict in zip(keys, kinds, verdicts, strict=True):
        for category in dict.fromkeys((None, kind)):
            grouped.setdefault((*key, category), []).append(verdict)
    return [
        Steered(
            direction=name,
            label=label,
            sign=sign,
            layer=layer,
            coefficient=0.0 if name is None else coefficient,
            refusal=rate(verdicts),
            category=category,
        )
        for (name, label, sign, layer, category), verdicts in grouped.items()
    ]
