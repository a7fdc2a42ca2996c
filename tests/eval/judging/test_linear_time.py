"""Judges read what strangers write: each reader takes a time that is linear in the length of its text."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pytest

from polyrefuse_data.core.languages import PUBLISHED_LANGUAGES
from polyrefuse_eval.judging import endpoint
from polyrefuse_eval.judging.native.answer import answer_of
from polyrefuse_eval.judging.native.coherence import incoherence
from polyrefuse_eval.judging.native.evidence import evidence
from polyrefuse_eval.judging.native.judge import Reader
from polyrefuse_eval.judging.native.language_files import language_file
from polyrefuse_eval.judging.native.speakers import own_words
from polyrefuse_eval.judging.published import harmbench, llama_guard, prompt_guards, qwen3_guard, wildguard

PIECES = (
    *(" ", "\n", "a", "'", '"', "„", "«", "「", "(", "[", "*", "**", "—", "— ", "--\n", ":", ": ", ":\n"),
    *("<|", "<|a", "</", "analysis", "A\n", "A \n", "a:\n", "a: b\n", "1. ", "# ", "'a ", " 'a", "a'b "),
    *("(a\n", "「a\n", "unsafe\n", "s1,", "s1 ,", "unsafe\n ", "safety:", "yes\n", "{", "}", "{,", "a,"),
    *("i cannot ", "not ", "don t worry ", "你不"),
)
SHORT, TIMES = 4_000, 4
"""Characters of a text, and how many times as long the other is."""


def seconds(read: Callable[[str], object], text: str) -> float:
    """Return the least processor time of a few readings."""
    spent = []
    for _ in range(3):
        start = time.process_time()
        read(text)
        spent.append(time.process_time() - start)
    return min(spent)


def assert_linear(read: Callable[[str], object], opening: str = "", pieces: Sequence[str] = PIECES) -> None:
    """Check that `read` takes at most twice as long as linear time would for four times the text.

    Where that takes next to no time, it is fast enough; twice leaves room for a busy machine.
    """
    for piece in pieces:
        short = (opening + piece * SHORT)[:SHORT]
        long = (opening + piece * SHORT * TIMES)[: SHORT * TIMES]
        spent = seconds(read, long)
        if spent > 0.02:
            assert spent < 2 * TIMES * seconds(read, short), (piece, spent)


READERS: dict[str, Callable[[str], object]] = {
    "answer": answer_of,
    "coherence": incoherence,
    "speakers": lambda text: own_words(text, True),
    "layout": lambda text: evidence([], text, True),
    "harmbench": harmbench.read,
    "llama guard": llama_guard.read,
    "qwen3 guard": qwen3_guard.read,
    "wildguard": wildguard.read,
    "requests": prompt_guards.read_request,
    "endpoint": endpoint.read,
    "members of a class": lambda text: language_file("sw", {"words": {"A": f"a{text}"}}, b"", "sw.yaml"),
}


@pytest.mark.parametrize("name", READERS)
def test_readers_are_linear(name: str) -> None:
    for opening in ("", "unsafe\n", "«", "x {"):
        assert_linear(READERS[name], opening)


@pytest.mark.parametrize("lang", PUBLISHED_LANGUAGES)
def test_patterns_of_a_language_are_linear(lang: str) -> None:
    lexicon = Reader().lexicon(lang)
    kinds = ("refusal", "idiom", "offer")
    phrases = [lexicon.fold(entry.written)[:200] for entry in lexicon.entries if entry.kind in kinds]
    assert_linear(
        lambda text: lexicon.find(lexicon.fold(text)), pieces=(*phrases[::6], "i cannot ", "你不", ". ")
    )
