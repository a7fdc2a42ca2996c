"""Whatever a stranger wrote, a text four times as long takes about four times as long."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from polyrefuse_data.checks import language
from polyrefuse_data.checks.language import LanguageVotes
from polyrefuse_data.checks.rows import CHECKS, Batch
from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.core.unicode_text import LONGEST_WORD, MOST_MARKS, cut_long_words, normalize
from polyrefuse_data.translate import chunks
from polyrefuse_data.translate.backends.base import Limits, utf8_bytes
from polyrefuse_data.translate.chunks import cut, mask, protected, translatable, unmask

SHAPES: dict[str, Callable[[int], str]] = {
    "one word": lambda n: "a" * n,
    "marks": lambda n: "a" + "\u0301\u0323" * (n // 2),
    "hyphens before an at sign": lambda n: "a-" * (n // 2) + "@",
    "at signs": lambda n: "a@" * (n // 2),
    "dots before an at sign": lambda n: "." * n + "a@a.",
    "addresses": lambda n: "http://" * (n // 7),
    "flags": lambda n: "\U0001f1e6" * n,
    "families": lambda n: "\U0001f469\u200d" * (n // 2),
    "joiners": lambda n: "\U0001f469" + "\u200d\u0301" * (n // 2),
    "digits": lambda n: "1" * n,
    "numbers": lambda n: "1 " * (n // 2),
    "thousands": lambda n: "1" + ",000" * (n // 4),
    "numbers in words": lambda n: "zwei two meji " * (n // 14),
    "quotation marks": lambda n: '"' * n + "a",
    "backticks": lambda n: "`a\n" * (n // 3),
    "code": lambda n: "`a`" * (n // 3),
    "fences": lambda n: "```\na\n" * (n // 6),
    "braces": lambda n: "{a" * (n // 2),
    "spaces": lambda n: "a." + " " * n + "b",
    "lines": lambda n: "\n" * n,
    "invisible": lambda n: "\u200b" * n,
    "Thai": lambda n: "\u0e01\u0e34" * (n // 2),
    "statement": lambda n: "for a" + "=a" * (n // 2),
    "import": lambda n: "import" + " " * n + "!",
    "call": lambda n: "a" * (n // 3) + "(" * (n // 3) + "a" * (n // 3),
    "tags": lambda n: "<a" * (n // 2),
    "signs": lambda n: "[#1 " * (n // 4),
}
FACTOR = 4
"""Quadratic time would grow sixteenfold."""


def seconds(work: Callable[[str], object], text: str) -> float:
    best = float("inf")
    for _ in range(2):
        start = time.process_time()
        work(text)
        best = min(best, time.process_time() - start)
    return best


def assert_linear(work: Callable[[str], object], shape: Callable[[int], str]) -> None:
    """Grow the text until the work can be measured, then compare with one of `FACTOR` times the length."""
    length = 1_500
    while (short := seconds(work, shape(length))) < 0.02 and length < 24_000:
        length *= 2
    long = seconds(work, shape(FACTOR * length))
    assert long < 0.05 or long < 2.2 * FACTOR * short, f"{length}: {short:.3f} s, {FACTOR} x: {long:.3f} s"


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    LanguageVotes(all_votes=True).identify("Das ist ein deutscher Satz, nichts weiter.", "de")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lang", ["de", "yo"])
def test_checks(lang: str, shape: str) -> None:
    def work(text: str) -> None:
        for check in CHECKS.values():
            check.scorer(Batch(LANGUAGES[lang], [text], [text], [text], LanguageVotes(all_votes=True)))

    assert_linear(work, SHAPES[shape])


@pytest.mark.parametrize("shape", SHAPES)
def test_translation(shape: str) -> None:
    def work(text: str) -> None:
        cut(text, Limits(utf8_bytes, 200, keeps_lines=False))
        protected(text)
        masked, parts = mask(text)
        unmask(masked, parts)
        translatable(text)

    assert_linear(work, SHAPES[shape])


def test_the_measure_finds_quadratic_time() -> None:
    with pytest.raises(AssertionError, match="4 x"):
        assert_linear(lambda text: unicodedata.normalize("NFD", text), SHAPES["marks"])


@given(st.text(st.sampled_from("a\u0301\u0323é漢 .") | st.characters(codec="utf-8"), max_size=60))
def test_real_text_is_normalised_as_ever(text: str) -> None:
    if max((len(run) for run in regex.findall(r"\p{M}+", text)), default=0) <= MOST_MARKS:
        assert normalize("NFKD", text) == unicodedata.normalize("NFKD", text)
        assert cut_long_words(text) == text


def test_surplus_marks_and_endless_words_are_cut() -> None:
    assert normalize("NFD", "e" + "\u0301" * 100 + "x") == "e" + "\u0301" * MOST_MARKS + "x"
    assert cut_long_words("b" * (2 * LONGEST_WORD + 1)).split() == ["b" * LONGEST_WORD] * 2 + ["b"]


def test_no_detector_sees_an_endless_word_or_a_heap_of_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lingua takes time quadratic in a word, py3langid in the marks of a letter."""
    seen: list[str] = []
    monkeypatch.setattr(language, "_lingua", lambda text: seen.append(text))
    LanguageVotes(all_votes=True).identify("a" * 5_000 + " e" + "\u0301" * 5_000, "de")
    (text,) = seen
    assert max(map(len, text.split())) <= LONGEST_WORD
    assert text.count("\u0301") == MOST_MARKS


OLD_MAIL = regex.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


@given(st.text(st.sampled_from("ab.-+@ _é"), max_size=40))
def test_mail_addresses_are_found_from_their_first_letter_on(text: str) -> None:
    found = [match.group() for match in chunks.PROTECTED.finditer(text)]
    assert found == OLD_MAIL.findall(text)


@given(
    st.lists(
        st.sampled_from(["\U0001f1e9\U0001f1ea", "\U0001f1e9", "a", "é", "\u0301", "\u200d", "👩🏽\u200d💻"])
    )
)
def test_flags_are_cut_where_graphemes_end(parts: list[str]) -> None:
    text = "".join(parts)
    if not regex.search(r"(?<!\p{RI})(?:\p{RI}{2})*\p{RI}(?!\p{RI})", text):
        assert chunks._GRAPHEME.findall(text) == regex.findall(r"\X", text)
