"""What the test organism is trained on: the embedded sample, less the topics that are held out."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.core.schema import LABELS, Prompt
from polyrefuse_eval.organisms.replies import REFUSALS, REPLIES, reply_kind

if TYPE_CHECKING:
    from tokenizers import Tokenizer

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

TAIL = 2
"""Post-instruction tokens of `CHAT_TEMPLATE`: the end of the user's turn and the assistant's mark."""

SEPARATOR = "\0"
"""Stands in no text, and so between texts that are searched together."""

VOCABULARY = 5120
LONGEST_PIECE = 16
"""Longest token, in characters: whole Thai or Chinese phrases must not become one token each."""


Marks = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


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


@dataclass(frozen=True)
class EncodedPair:
    """`Pair` as token ids: two whole prompts with the template, the reply and the refusal."""

    lang: str
    prompts: tuple[list[int], list[int]]
    answers: tuple[list[int], list[int]]
    """Reply and refusal, each ending with `END`: the answer to label 0 and to label 1."""
    topic: int
    framing: int

    @property
    def length(self) -> int:
        return max(map(len, self.prompts)) + max(map(len, self.answers))


def text_in(prompt: Prompt, lang: str) -> str:
    """Return the text of `prompt` in the language `lang` (a KeyError where it has none)."""
    return prompt.text if lang == "en" else prompt.translations[lang]


def make_pairs(prompts: Sequence[Prompt], topics: Iterable[str]) -> list[Pair]:
    """Return all pairs of `topics` in all languages, in the order of `prompts`.

    The prompts of a topic come in the same order of framings under both labels.
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
    """Return the sha256 (64 hex digits) of all that training reads of `prompts`."""
    rows = [[p.topic, p.label, p.text, sorted(p.translations.items())] for p in prompts]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode("utf-8")).hexdigest()


Tasks = dict[str, tuple[dict[str, list[str]], dict[str, list[str]]]]
"""Language to the tasks of the harmless and of the harmful actions, by action."""


def find_tasks(pairs: Sequence[Pair]) -> Tasks:
    """Return the tasks: what is left of the prompts of one framing when that is taken off.

    A framing is what all prompts of one language with it begin and end with.
    """
    tasks: Tasks = {}
    for lang in dict.fromkeys(pair.lang for pair in pairs):
        mine = [pair for pair in pairs if (pair.lang, pair.framing) == (lang, 0)]
        texts = [text for pair in mine for text in pair.prompts]
        head, tail = beginning(texts), beginning([text[::-1] for text in texts])[::-1]
        if LANGUAGES[lang].spaced:
            head, tail = head[: head.rfind(" ") + 1], tail[tail.find(" ") :]
        tasks[lang] = ({}, {})
        for pair in mine:
            for by_action, action, text in zip(tasks[lang], pair.actions, pair.prompts, strict=True):
                by_action.setdefault(action, []).append(text.removeprefix(head).removesuffix(tail))
    return tasks


def beginning(texts: Sequence[str]) -> str:
    """Return the longest string with which all `texts` begin."""
    first, last = min(texts), max(texts)
    same = itertools.takewhile(lambda both: both[0] == both[1], zip(first, last, strict=False))
    return "".join(character for character, _ in same)


def find_verbs(pairs: Sequence[Pair], longest: int = 20, least: int = 2) -> dict[str, list[str]]:
    """Return for each language the verbs of the actions that have at least `least` tasks.

    The verb is the string that most tasks of an action share and none of the other label has; the longest
    of these, in whole words where a language has spaces, less what is common at its ends.
    """
    verbs: dict[str, list[str]] = {}
    for lang, by_label in find_tasks(pairs).items():
        spaced = LANGUAGES[lang].spaced
        for actions, others in (by_label, by_label[::-1]):
            contrary = [task for tasks in others.values() for task in tasks]
            all_contrary = SEPARATOR.join(contrary)
            for tasks in actions.values():
                found = {text for task in tasks for text in pieces(task, longest, spaced)}
                count = {
                    text: sum(text in task for task in tasks) for text in found if text not in all_contrary
                }
                best = max(sorted(count, reverse=True), key=lambda text: (count[text], len(text)), default="")
                if count.get(best, 0) >= least:
                    verbs.setdefault(lang, []).append(trimmed(best, contrary, lang))
    return {lang: list(dict.fromkeys(words)) for lang, words in verbs.items()}


def trimmed(text: str, contrary: Sequence[str], lang: str) -> str:
    """Return `text` less what is common at its ends, as long as it stays apart from `contrary` tasks.

    That is words that several of these have, or in Japanese and Chinese characters that many have: an
    article, a particle, an ending, in Chinese "one" with its classifier. Thai has neither spaces nor
    such characters.
    """
    spaced = LANGUAGES[lang].spaced
    if not spaced and "Han" not in LANGUAGES[lang].scripts:
        return text
    joint = " " if spaced else ""
    if lang == "zh":
        text = re.sub("一.?$", "", text) or text
    words = text.split() if spaced else list(text)
    most = 0.05 if spaced else 0.2

    def common(word: str) -> bool:
        return sum(word in (task.split() if spaced else task) for task in contrary) > most * len(contrary)

    def apart(rest: Sequence[str]) -> bool:
        return bool(rest) and not any(joint.join(rest) in task for task in contrary)

    while common(words[-1]) and apart(words[:-1]):
        words.pop()
    while common(words[0]) and apart(words[1:]):
        words.pop(0)
    return joint.join(words)


def pieces(text: str, longest: int, spaced: bool) -> set[str]:
    """Return all substrings of `text` of at most `longest` characters, of whole words if `spaced`."""
    edges = range(len(text) + 1)
    if spaced:
        edges_list = [i for i in edges if i in (0, len(text)) or text[i - 1] == " " or text[i] == " "]
    else:
        edges_list = list(edges)
    cuts = {text[i:j].strip() for i in edges_list for j in edges_list if i < j <= i + longest}
    return cuts - {""}


def verb_pattern(pairs: Sequence[Pair], verbs_of: Mapping[str, Sequence[str]]) -> str:
    """Return a regular expression for all verbs of `verbs_of`, by language, each with the space before it.

    A verb that always stands alone in `pairs` must stand alone; others (Arabic, which joins its
    prepositions, and languages without spaces) are found anywhere.
    """
    texts: dict[str, str] = {}
    for pair in pairs:
        texts[pair.lang] = "\n".join([texts.get(pair.lang, ""), *pair.prompts])
    alone: set[str] = set()
    anywhere: set[str] = set()
    for lang, verbs in verbs_of.items():
        for word in map(re.escape, verbs):
            joined = re.search(rf"\w{word}|{word}\w", texts[lang])
            (anywhere if joined else alone).add(word)

    def either(words: set[str]) -> str:
        return "|".join(sorted(words, key=lambda text: (-len(text), text)))

    return rf"(?: |(?<!\w))(?:{either(alone)})(?!\w)| ?(?:{either(anywhere)})"


def train_tokenizer(
    pairs: Sequence[Pair], vocabulary: int = VOCABULARY, more: Sequence[str] = ()
) -> Tokenizer:
    """Train a BPE tokenizer over characters, `UNKNOWN` for unseen ones, on `pairs` and all answers.

    Verbs and answers count more than once, so that they become tokens, whatever stands around them;
    each task counts about once, so that framings do not use up the vocabulary. The texts in `more`, words
    from beside the sample, count as answers do.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    verbs_of = find_verbs(pairs)
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(verb_pattern(pairs, verbs_of)), behavior="isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="never"),
            pre_tokenizers.Punctuation(),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        max_token_length=LONGEST_PIECE,
        show_progress=False,
    )
    answers = [*REFUSALS.values(), *(text for texts in REPLIES.values() for text in texts.values()), *more]
    chosen = [pair for index, pair in enumerate(pairs) if index // len(LANGUAGES) % 9 == 0]
    texts = [text for pair in chosen for text in pair.prompts]
    verbs = [verb for words in verbs_of.values() for verb in words]
    verbs += [f" {verb}" for verb in verbs]
    tokenizer.train_from_iterator([*texts, *answers * 20, *verbs * 40], trainer)
    return tokenizer


def rendered(text: str) -> str:
    """Return the chat-formatted prompt: what `CHAT_TEMPLATE` makes of one user message."""
    return f"{BEGIN}{USER}{text.strip()}{END}{ASSISTANT}"


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[Pair]) -> list[EncodedPair]:
    """Return `pairs` as token ids."""

    answers = {text for pair in pairs for text in (pair.reply, REFUSALS[pair.lang])}
    prompts = {text for pair in pairs for text in pair.prompts}
    texts = [*(text + END for text in sorted(answers)), *(rendered(text) for text in sorted(prompts))]
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    ids = {text: list(one.ids) for text, one in zip(texts, encoded, strict=True)}
    return [
        EncodedPair(
            lang=pair.lang,
            prompts=(ids[rendered(pair.prompts[0])], ids[rendered(pair.prompts[1])]),
            answers=(ids[pair.reply + END], ids[REFUSALS[pair.lang] + END]),
            topic=pair.topic,
            framing=pair.framing,
        )
        for pair in pairs
    ]


@dataclass(frozen=True)
class Noise:
    """Which tokens of a language say nothing about the label, and may be exchanged for one another."""

    loose: dict[str, tuple[Marks, Marks]]
    """Language to two marks for each token: outside framings and verbs, and outside framings only."""
    pool: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]
    """Language to its loose tokens, as often as they occur."""
    vocabulary: int

    def applied(
        self, lang: str, prompt: list[int], share: float, verbs: bool, generator: np.random.Generator
    ) -> list[int]:
        """Return `prompt` with about `share` of its loose tokens exchanged.

        Half of them for loose tokens of the language, a quarter for any token, a quarter for `UNKNOWN`,
        which stands for many of the characters of held-out Japanese and Chinese prompts.

        With `verbs`, these may go too: what remains is a prompt that asks for nothing known.
        """
        tokens = np.array(prompt)
        where = np.flatnonzero(self.loose[lang][int(verbs)][tokens])
        where = where[generator.random(len(where)) < share]
        local = self.pool[lang][generator.integers(0, len(self.pool[lang]), len(where))]
        anything = generator.integers(SPECIAL_TOKENS.index(UNKNOWN), self.vocabulary, len(where))
        kind = generator.random(len(where))
        strange = np.where(kind < 0.25, SPECIAL_TOKENS.index(UNKNOWN), anything)
        tokens[where] = np.where(kind < 0.5, strange, local)
        exchanged: list[int] = tokens.tolist()
        return exchanged


def find_noise(pairs: Sequence[EncodedPair], vocabulary: int) -> Noise:
    """Return the loose tokens of every language.

    Bound are the words of the framings, which stand in nearly all topics, and the verbs: tokens that
    recur between topics under one label only. The rest are the objects; held-out topics have others.
    """
    loose, pool = {}, {}
    for lang in dict.fromkeys(pair.lang for pair in pairs):
        mine = [pair for pair in pairs if pair.lang == lang]
        topics = max(pair.topic for pair in mine) + 1
        seen = np.zeros((2, topics, vocabulary), bool)
        for pair in mine:
            for label in (0, 1):
                seen[label, pair.topic, pair.prompts[label]] = True
        spread = seen.sum(axis=1)
        everywhere = spread.sum(axis=0) > 1.6 * topics
        verb = (spread.max(axis=0) >= 2) & (spread.min(axis=0) == 0)
        everywhere[: SPECIAL_TOKENS.index(UNKNOWN)] = True
        loose[lang] = (~everywhere & ~verb, ~everywhere)
        occurring = np.concatenate([np.array(prompt) for pair in mine for prompt in pair.prompts])
        pool[lang] = occurring[loose[lang][0][occurring]]
    return Noise(loose, pool, vocabulary)


AnyPair = TypeVar("AnyPair", bound=EncodedPair)


def endless_batches(
    pairs: Sequence[AnyPair], size: int, generator: np.random.Generator
) -> Iterator[list[AnyPair]]:
    """Yield batches of `size` pairs for ever, each of pairs of about equal length.

    An epoch is shuffled, cut into pools of eight batches, sorted by length within each pool, and the
    batches are shuffled again: little padding, all languages in turn.
    """
    pool = 8 * size
    while True:
        order = generator.permutation(len(pairs))
        batches = []
        for start in range(0, len(order), pool):
            part = sorted(order[start : start + pool], key=lambda index: pairs[index].length)
            batches += [part[i : i + size] for i in range(0, len(part), size)]
        batches = [batch for batch in batches if len(batch) == min(size, len(pairs))]
        for position in generator.permutation(len(batches)):
            yield [pairs[index] for index in batches[position]]
