"""The training corpus of the test organisms: the embedded sample without its held-out topics."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.core.schema import LABELS, Prompt
from polyrefuse_eval.organisms.replies import REFUSALS, REPLIES, reply_kind

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

BEGIN, USER, ASSISTANT, END, PAD = "<|begin|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
UNKNOWN = "<|unknown|>"
SPECIAL_TOKENS = (PAD, BEGIN, USER, ASSISTANT, END, UNKNOWN)
"""Special tokens in the order of their ids. `END` ends every turn, and so generation."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ['user', 'assistant'] %}"
    "{{ raise_exception('the organism knows user and assistant messages only') }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'].strip() + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

BEGIN_TOKENS = 2
"""Tokens of `CHAT_TEMPLATE` before the instruction: `BEGIN` and `USER`."""

TAIL = 2
"""Post-instruction tokens of `CHAT_TEMPLATE`: the end of the user's turn and the assistant's mark."""

HELD_OUT = 24
"""Held-out topics of the sample's test split: two for every harmful action on average."""


@dataclass(frozen=True)
class Pair:
    """A harmful and a harmless prompt of one topic, framing and language."""

    lang: str
    prompts: tuple[str, str]
    """Texts in the order of `LABELS`: harmless, harmful."""
    reply: str
    actions: tuple[str, str]
    """The verbs of the two tasks, as names that all languages share."""
    topic: int
    framing: int
    """Numbers of the topic and of the framing; framings have the same order in all topics."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A harmless and a harmful prompt of one shape, in the order of `LABELS`, and their answers."""

    lang: str
    prompts: tuple[str, str]
    read: tuple[int, int]
    """Number of characters of each prompt up to the end of what is judged: all, or all before a question."""
    answers: tuple[str, str]
    """Reply and refusal, or for a question "no" and "certainly"."""
    right: tuple[int, int]
    """Which of `answers` is right for the harmless and for the harmful prompt."""
    topic: int
    framing: int
    by_harm: bool = True
    """Whether the answer follows the judgement of harm; otherwise a cue decides it."""
    is_question: bool = False
    """Whether it asks for the harm of somebody's request."""


@dataclass(frozen=True, kw_only=True)
class EncodedExample:
    """An `Example` as token ids: whole prompts with the template, and answers that end with `END`."""

    lang: str
    prompts: tuple[list[int], list[int]]
    answers: tuple[list[int], list[int]]
    right: tuple[int, int]
    sites: tuple[int, int]
    """Index of the token at which harm is read, in each prompt: the last of what is judged."""
    topic: int
    framing: int
    by_harm: bool
    is_question: bool

    @property
    def length(self) -> int:
        return max(map(len, self.prompts)) + max(map(len, self.answers))


def text_in(prompt: Prompt, lang: str) -> str:
    """Return the text of `prompt` in the language `lang`; raise `KeyError` where it has none."""
    return prompt.text if lang == "en" else prompt.translations[lang]


def make_pairs(prompts: Sequence[Prompt], topics: Iterable[str]) -> list[Pair]:
    """Return the pairs of `topics` in all languages, in the order of `prompts`.

    The prompts of a topic have the same order of framings under both labels.
    """
    wanted = set(topics)
    by_topic: dict[str, tuple[list[Prompt], list[Prompt]]] = {}
    for prompt in prompts:
        if prompt.topic is not None and prompt.topic in wanted:
            by_topic.setdefault(prompt.topic, ([], []))[LABELS.index(prompt.label)].append(prompt)
    return [
        Pair(
            lang=lang,
            prompts=(text_in(harmless, lang), text_in(harmful, lang)),
            reply=REPLIES[reply_kind(harmful.text)][lang],
            actions=(harmless.source_category or "", harmful.source_category or ""),
            topic=topic,
            framing=framing,
        )
        for topic, (harmless_prompts, harmful_prompts) in enumerate(by_topic.values())
        for framing, (harmless, harmful) in enumerate(zip(harmless_prompts, harmful_prompts, strict=True))
        for lang in LANGUAGES
    ]


def sample_digest(prompts: Iterable[Prompt]) -> str:
    """Return the sha256 (64 hex digits) of everything that training reads of `prompts`."""
    rows = [[p.topic, p.label, p.text, sorted(p.translations.items())] for p in prompts]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode("utf-8")).hexdigest()


def held_out_topics(prompts: Sequence[Prompt]) -> set[str]:
    """Return the topics that are never trained on: those of validation, and the last `HELD_OUT` of test.

    The sample's own training topics are too few (one or two per action) to teach an untrained network
    what harm is in 14 languages, so it sees most topics of the test split as well; claims about unseen
    prompts are measured on the held-out ones.
    """
    from polyrefuse_data.prompts.recipe import load_recipe
    from polyrefuse_data.prompts.splits import draw_splits, pool_prompts

    recipe, _ = load_recipe("sample")
    pools = {
        name: pool_prompts(name, pool, dict.fromkeys(pool.sources, prompts), lambda _: [])
        for name, pool in recipe.pools.items()
    }
    topics: dict[str, dict[str, None]] = {}
    for row in draw_splits(recipe, pools).placed:
        if row.prompt.topic is not None:
            topics.setdefault(row.split, {})[row.prompt.topic] = None
    return {*topics.get("validation", ()), *list(topics.get("test", ()))[-HELD_OUT:]}


def training_pairs(prompts: Sequence[Prompt]) -> list[Pair]:
    """Return the pairs of all topics that are not held out."""
    topics = {prompt.topic for prompt in prompts if prompt.topic is not None}
    return make_pairs(prompts, topics - held_out_topics(prompts))


def direct_example(pair: Pair) -> Example:
    """Return the prompts of `pair` as they are: reply if harmless, refuse if harmful."""
    return Example(
        lang=pair.lang,
        prompts=pair.prompts,
        read=(len(pair.prompts[0]), len(pair.prompts[1])),
        answers=(pair.reply, REFUSALS[pair.lang]),
        right=(0, 1),
        topic=pair.topic,
        framing=pair.framing,
    )


def rendered(text: str) -> str:
    """Return the chat-formatted prompt: `CHAT_TEMPLATE` applied to one user message."""
    return f"{BEGIN}{USER}{text.strip()}{END}{ASSISTANT}"


def encode_examples(tokenizer: Tokenizer, examples: Sequence[Example]) -> list[EncodedExample]:
    """Return `examples` as token ids."""

    def encode(texts: Sequence[str]) -> dict[str, Encoding]:
        encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return dict(zip(texts, encodings, strict=True))

    prompts = encode(sorted({rendered(text) for example in examples for text in example.prompts}))
    answers = encode(sorted({text + END for example in examples for text in example.answers}))

    def encoded(example: Example) -> EncodedExample:
        harmless, harmful = (prompts[rendered(text)] for text in example.prompts)
        reply, refusal = (list(answers[text + END].ids) for text in example.answers)
        sites = [
            encoding.char_to_token(len(BEGIN + USER) + read - 1) or 0
            for encoding, read in zip((harmless, harmful), example.read, strict=True)
        ]
        return EncodedExample(
            lang=example.lang,
            prompts=(list(harmless.ids), list(harmful.ids)),
            answers=(reply, refusal),
            right=example.right,
            sites=(sites[0], sites[1]),
            topic=example.topic,
            framing=example.framing,
            by_harm=example.by_harm,
            is_question=example.is_question,
        )

    return [encoded(example) for example in examples]


def endless_batches(
    examples: Sequence[EncodedExample], size: int, generator: np.random.Generator
) -> Iterator[list[EncodedExample]]:
    """Yield batches of `size` examples without end, each of examples of about equal length.

    An epoch is shuffled, cut into pools of eight batches, sorted by length within each pool, and the
    batches are shuffled again: little padding, all languages in turn.
    """
    pool = 8 * size
    while True:
        order = generator.permutation(len(examples))
        batches = []
        for start in range(0, len(order), pool):
            part = sorted(order[start : start + pool], key=lambda index: examples[index].length)
            batches += [part[i : i + size] for i in range(0, len(part), size)]
        batches = [batch for batch in batches if len(batch) == min(size, len(examples))]
        for position in generator.permutation(len(batches)):
            yield [examples[index] for index in batches[position]]
