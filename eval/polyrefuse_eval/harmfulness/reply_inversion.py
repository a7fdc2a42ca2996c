"""Reply inversion: does a direction carry harmfulness, or refusal? (Zhao et al. 2025)

The prompt describes somebody's request in the third person and asks a question whose answer
"certainly" means that the request is harmful, and "no" that it is not. Only the tokens before the
question are steered. A direction that carries harmfulness flips the answer; one that carries
refusal does not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files

import torch
import yaml
from torch import Tensor

from polyrefuse_data.core.languages import language
from polyrefuse_eval.errors import ChatModelError
from polyrefuse_eval.harmfulness.steering_sweep import FORWARD, REVERSED
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.intervene import BASELINE, Addition, Edits
from polyrefuse_eval.models.template import EncodedPrompt
from polyrefuse_eval.models.token_spans import Positions, edited_logits
from polyrefuse_eval.results.harmfulness_records import Flips
from polyrefuse_eval.statistics.rates import Rate, rate

REQUEST = "{request}"
"""Placeholder of the request in `Wording.before`."""


@dataclass(frozen=True)
class Wording:
    """A wording in one language: `before` holds `{request}`; `certainly` and `no` are the answers."""

    before: str
    question: str
    certainly: str
    no: str

    def prompt(self, request: str) -> tuple[str, str]:
        """Return the part before the question, and the question with the space before it."""
        return self.before.replace(REQUEST, request), f"\n{self.question}"


@dataclass(frozen=True)
class AnswerTokens:
    """Tokens by which `certainly` and `no` are told apart.

    The `given` tokens, with which both answers begin, are appended to the prompt, and the next token is
    read: one of `certainly`, or one of `no`.
    """

    given: tuple[int, ...]
    certainly: tuple[int, ...]
    no: tuple[int, ...]

    def log_odds(self, logits: Tensor) -> Tensor:
        """Return log P(certainly) - log P(no) [prompts] of first-token `logits` [prompts, vocabulary]."""
        odds: Tensor = logits[:, list(self.certainly)].logsumexp(-1) - logits[:, list(self.no)].logsumexp(-1)
        return odds


@dataclass(frozen=True)
class Inversion:
    """The rates of one language: `right` of right unedited answers by label, `flips` of flipped ones.

    `right_by_category` is by label and category.
    """

    lang: str
    right: Mapping[str, Rate]
    flips: tuple[Flips, ...]
    right_by_category: Mapping[tuple[str, str], Rate] = field(default_factory=dict)


def wordings(lang: str) -> tuple[Wording, ...]:
    """Return the three wordings of `lang`."""
    return _wordings()[language(lang).code]


@functools.cache
def _wordings() -> dict[str, tuple[Wording, ...]]:
    text = files("polyrefuse_eval.harmfulness").joinpath("inversion.yaml").read_text(encoding="utf-8")
    return {
        lang: tuple(Wording(**record) for record in records) for lang, records in yaml.safe_load(text).items()
    }


def answer_tokens(chat: ChatModel, wording: Wording) -> AnswerTokens:
    """Return the first tokens of the two answers: as written or capitalised, with or without a space.

    First tokens that both answers may have are left out; if none remains, the tokens that both share are
    given and the first that differs is read. Raises `ChatModelError` where one answer is a prefix of the
    other.
    """

    def forms(answer: str) -> list[tuple[int, ...]]:
        texts = dict.fromkeys([answer, answer[:1].upper() + answer[1:]])
        encoded = chat.tokenizer(
            [space + text for space in ("", " ") for text in texts], add_special_tokens=False
        )["input_ids"]
        return [tuple(ids) for ids in encoded if ids]

    certainly, no = forms(wording.certainly), forms(wording.no)
    first = {ids[0] for ids in certainly}, {ids[0] for ids in no}
    apart = first[0] - first[1], first[1] - first[0]
    if all(apart):
        return AnswerTokens((), tuple(sorted(apart[0])), tuple(sorted(apart[1])))
    for length, (left, right) in enumerate(zip(certainly[0], no[0], strict=False)):
        if left != right:
            return AnswerTokens(certainly[0][:length], (left,), (right,))
    raise ChatModelError(
        f"the answers '{wording.certainly}' and '{wording.no}' begin with the same tokens in {chat.name}, "
        "so they cannot be told apart"
    )


def ask(
    chat: ChatModel, wording: Wording, requests: Sequence[str]
) -> tuple[AnswerTokens, list[EncodedPrompt], list[range]]:
    """Return the prompts of `requests` in `wording`, and the span before the question in each."""
    answers = answer_tokens(chat, wording)
    prompts, spans = [], []
    for prompt, stop in chat.encode_before([wording.prompt(request) for request in requests]):
        given = (*prompt.ids, *answers.given)
        prompts.append(replace(prompt, ids=given, n_post=prompt.n_post + len(answers.given)))
        spans.append(range(min(prompt.start, stop - 1), stop))
    return answers, prompts, spans


@torch.inference_mode()
def invert(
    chat: ChatModel,
    vectors: Mapping[str, Tensor],
    requests: Mapping[str, Sequence[str]],
    layers: Sequence[int],
    *,
    lang: str,
    coefficient: float = 1.0,
    tokens_per_batch: int | None = None,
    categories: Mapping[str, Sequence[str | None]] | None = None,
    progress: str | None = None,
) -> Inversion:
    """Return how often each of `vectors` ([L or more, d] by name) flips the answer at each of `layers`.

    Harmful requests are steered in reverse (certainly becomes no), harmless ones forward (no becomes
    certainly).

    requests: by label. categories: of the requests of each label; with them, the rates of each category are
    returned as well.
    """
    right: dict[tuple[str, str | None], list[bool]] = {}
    flipped: dict[tuple[str, str, int, str | None], list[bool]] = {}
    for number, wording in enumerate(wordings(lang), 1):
        for label, texts in requests.items():
            if not texts:
                continue
            sign = _sign(label)
            answers, prompts, spans = ask(chat, wording, texts)
            keys = [(name, layer) for name in vectors for layer in layers]
            makers = [_adding(vectors[name][layer], layer, sign * coefficient) for name, layer in keys]
            logits = edited_logits(
                chat,
                prompts,
                spans,
                [lambda _: BASELINE, *makers],
                tokens_per_batch=tokens_per_batch,
                progress=None if progress is None else f"{progress}, {label}, wording {number}",
            )
            unedited, *edited = [answers.log_odds(of_edit) > 0 for of_edit in logits]
            rightly = unedited == (label == "harmful")
            for category, members in _members((categories or {}).get(label, [None] * len(texts))):
                right.setdefault((label, category), []).extend(rightly[members].tolist())
                for (name, layer), answered in zip(keys, edited, strict=True):
                    marks = (answered != unedited)[members & rightly].tolist()
                    flipped.setdefault((name, label, layer, category), []).extend(marks)
    return Inversion(
        lang=lang,
        right={label: rate(marks) for (label, category), marks in right.items() if category is None},
        flips=tuple(
            Flips(
                direction=name,
                label=label,
                sign=_sign(label),
                layer=layer,
                coefficient=coefficient,
                flipped=rate(flips),
                category=category,
            )
            for (name, label, layer, category), flips in flipped.items()
        ),
        right_by_category={
            (label, category): rate(marks)
            for (label, category), marks in right.items()
            if category is not None
        },
    )


def _members(categories: Sequence[str | None]) -> list[tuple[str | None, Tensor]]:
    """Return a mask [requests] of the requests of each category, after one of all under None."""
    named = [category for category in dict.fromkeys(categories) if category is not None]
    everything = torch.ones(len(categories), dtype=torch.bool)
    return [
        (None, everything),
        *((name, torch.tensor([category == name for category in categories])) for name in named),
    ]


def _sign(label: str) -> int:
    return REVERSED if label == "harmful" else FORWARD


def _adding(vector: Tensor, layer: int, coefficient: float) -> Callable[[Positions], Edits]:
    def edits(positions: Positions) -> Edits:
        return (Addition(vector, layer, coefficient, positions),)

    return edits
