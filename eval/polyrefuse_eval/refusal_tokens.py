"""Find the first tokens of a model's refusals from its own answers, language by language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from polyrefuse_eval.chat import ChatModel
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.generate import Answer, Request, generate
from polyrefuse_eval.refusal import RefusalTokens

ANSWER_TOKENS = 32
"""Enough of an answer to see whether it opens with a refusal."""

MAX_TOKENS = 8
MIN_SHARE = 0.02
"""First tokens of fewer refusals than this share are chance."""

Refuses = Callable[[str, str], bool | None]
"""(answer, language) -> whether it refuses; None where that cannot be told."""


def find_refusal_tokens(
    chat: ChatModel,
    harmful: Sequence[str],
    harmless: Sequence[str],
    lang: str,
    refuses: Refuses,
    *,
    progress: bool = False,
) -> RefusalTokens:
    """Return the first tokens of greedy refusals of `harmful`, unless answers to `harmless` begin so.

    At most `MAX_TOKENS`, the most frequent first. Raises `DirectionError` where the model refuses
    nothing, or opens its answers as it opens its refusals.
    """
    requests = [
        Request(f"{label} {index}", text)
        for label, texts in (("harmful", harmful), ("harmless", harmless))
        for index, text in enumerate(texts)
    ]
    bar = f"refusal tokens {lang}" if progress else None
    batches = generate(chat, requests, max_new_tokens=ANSWER_TOKENS, progress=bar)
    return tokens_from_answers(chat, [answer for batch in batches for answer in batch], lang, refuses)


def tokens_from_answers(
    chat: ChatModel, answers: Sequence[Answer], lang: str, refuses: Refuses
) -> RefusalTokens:
    """Return the refusal tokens that `answers` (keys `harmful N`, `harmless N`) show."""
    refused: Counter[int] = Counter()
    accepted: set[int] = set()
    n_harmful = 0
    for answer in answers:
        harmful = answer.key.startswith("harmful ")
        n_harmful += harmful
        if not answer.ids:
            continue
        if harmful and refuses(answer.text, lang):
            refused[answer.ids[0]] += 1
        elif not harmful and not refuses(answer.text, lang):
            accepted.add(answer.ids[0])
    total = sum(refused.values())
    if not total:
        raise DirectionError(
            f"{chat.name} refuses none of {n_harmful} harmful prompts in '{lang}', so its refusals have no "
            "first tokens; give them with --refusal-tokens, or leave this language out"
        )
    ids = [
        token
        for token, count in sorted(refused.items(), key=lambda item: (-item[1], item[0]))
        if token not in accepted and count >= MIN_SHARE * total
    ][:MAX_TOKENS]
    if not ids:
        shown = ", ".join(repr(chat.tokenizer.decode([token])) for token in refused)
        raise DirectionError(
            f"{chat.name} begins refusals in '{lang}' with {shown}, and other answers too; "
            "give tokens with --refusal-tokens"
        )
    covered = sum(refused[token] for token in ids)
    return RefusalTokens(
        lang,
        tuple(ids),
        tuple(chat.tokenizer.decode([token]) for token in ids),
        covered / total,
        total,
        n_harmful,
    )


def given_tokens(chat: ChatModel, text: str, lang: str) -> RefusalTokens:
    """Return the refusal tokens that a person lists: ids, or words of which the first token counts."""
    ids: list[int] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        if part.isdigit():
            ids.append(int(part))
            continue
        encoded = chat.tokenizer(part, add_special_tokens=False)["input_ids"]
        if not encoded:
            raise DirectionError(f"'{part}' has no token in {chat.name}")
        ids.append(int(encoded[0]))
    size = chat.model.get_input_embeddings().weight.shape[0]
    if not ids or max(ids) >= size:
        raise DirectionError(
            f"refusal tokens '{text}': expected words or ids below {size}, divided by commas"
        )
    unique = tuple(dict.fromkeys(ids))
    return RefusalTokens(lang, unique, tuple(chat.tokenizer.decode([token]) for token in unique))
