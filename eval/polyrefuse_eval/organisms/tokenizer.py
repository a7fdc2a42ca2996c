"""Train the organisms' tokenizer: a BPE in which the verbs that decide harm are tokens of their own."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_eval.organisms.corpus import SPECIAL_TOKENS, UNKNOWN, Pair
from polyrefuse_eval.organisms.replies import REFUSALS, REPLIES

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY = 5120
LONGEST_PIECE = 16
"""Longest token, in characters: whole Thai or Chinese phrases must not become one token each."""

SEPARATOR = "\0"
"""Separates texts that are searched together; no text holds it."""

Tasks = dict[str, tuple[dict[str, list[str]], dict[str, list[str]]]]
"""Language to the tasks of the harmless and of the harmful actions, by action."""


def find_tasks(pairs: Sequence[Pair]) -> Tasks:
    """Return the tasks: the prompts of the first framing without it.

    A framing is the beginning and the end that all its prompts of one language share.
    """
    tasks: Tasks = {}
    for lang in dict.fromkeys(pair.lang for pair in pairs):
        mine = [pair for pair in pairs if (pair.lang, pair.framing) == (lang, 0)]
        texts = [text for pair in mine for text in pair.prompts]
        head, tail = common_prefix(texts), common_prefix([text[::-1] for text in texts])[::-1]
        if LANGUAGES[lang].spaced:
            head, tail = head[: head.rfind(" ") + 1], tail[tail.find(" ") :]
        tasks[lang] = ({}, {})
        for pair in mine:
            for by_action, action, text in zip(tasks[lang], pair.actions, pair.prompts, strict=True):
                by_action.setdefault(action, []).append(text.removeprefix(head).removesuffix(tail))
    return tasks


def common_prefix(texts: Sequence[str]) -> str:
    """Return the longest string with which all `texts` begin."""
    first, last = min(texts), max(texts)
    same = itertools.takewhile(lambda both: both[0] == both[1], zip(first, last, strict=False))
    return "".join(character for character, _ in same)


def find_verbs(pairs: Sequence[Pair], longest: int = 20, least: int = 2) -> dict[str, list[str]]:
    """Return for each language the verbs of the actions that have at least `least` tasks.

    A verb is the longest string, of whole words where a language has spaces, that most tasks of an action
    share and none of the other label has, without what is common at its ends.
    """
    verbs: dict[str, list[str]] = {}
    for lang, by_label in find_tasks(pairs).items():
        spaced = LANGUAGES[lang].spaced
        for actions, others in (by_label, by_label[::-1]):
            contrary = [task for tasks in others.values() for task in tasks]
            all_contrary = SEPARATOR.join(contrary)
            for tasks in actions.values():
                candidates = {text for task in tasks for text in pieces(task, longest, spaced)}
                count = {
                    text: sum(text in task for task in tasks)
                    for text in candidates
                    if text not in all_contrary
                }
                best = max(sorted(count, reverse=True), key=lambda text: (count[text], len(text)), default="")
                if count.get(best, 0) >= least:
                    verbs.setdefault(lang, []).append(trimmed(best, contrary, lang))
    return {lang: list(dict.fromkeys(words)) for lang, words in verbs.items()}


def trimmed(text: str, contrary: Sequence[str], lang: str) -> str:
    """Return `text` without common words at its ends, as long as no task in `contrary` holds the rest.

    Common are words that several of these tasks have, in Japanese and Chinese characters that many have: an
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
    """Return the substrings of `text` of at most `longest` characters, of whole words if `spaced`."""
    edges = range(len(text) + 1)
    if spaced:
        edges_list = [i for i in edges if i in (0, len(text)) or text[i - 1] == " " or text[i] == " "]
    else:
        edges_list = list(edges)
    cuts = {text[i:j].strip() for i in edges_list for j in edges_list if i < j <= i + longest}
    return cuts - {""}


def verb_pattern(pairs: Sequence[Pair], verbs_of: Mapping[str, Sequence[str]]) -> str:
    """Return a regular expression that matches the verbs of all languages, each with the space before it.

    A verb that is always a word of its own in `pairs` matches as one; others (Arabic, which joins its
    prepositions, and languages without spaces) match anywhere.
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

    Verbs and answers are repeated, so that they become tokens in any context; each task counts about once,
    so that framings do not use up the vocabulary. The texts in `more`, not from the sample, count as
    answers do.
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
