"""Numbers of the English are found in a translation in whatever form, and a changed number is not."""

from __future__ import annotations

import pytest

from polyrefuse_data.checks.numbers import missing_digits, missing_number_words
from polyrefuse_data.core.languages import LANGUAGES


@pytest.mark.parametrize(
    ("lang", "text", "english", "missing"),
    [
        ("ja", "２０ドル", "20 dollars", 0),
        ("ar", "٢٠ دولارًا", "20 dollars", 0),
        ("th", "๒๐ ดอลลาร์", "20 dollars", 0),
        ("zh", "第①步", "step 1", 0),
        ("de", "30 Dollar", "20 dollars", 1),
        ("de", "02 Dollar", "20 dollars", 1),
        ("de", "Bücher", "books", None),
        ("ja", "20冊の本を5つ", "twenty books, 5", 0),
        ("de", "Nenne 3 und 4", "Name 3 and 3", 1),
        ("de", "Nenne 3, dann 3", "Name 3 and 3", 0),
        ("de", "1.500 Euro", "1,500 euros", 0),
        ("fr", "1\u202f500 euros", "1,500 euros", 0),
        ("pl", "1 500 000 złotych", "1,500,000 zlotys", 0),
        ("es", "3,14", "3.14", 0),
        ("ar", "٣٫١٤", "3.14", 0),
        ("de", "1,5 Liter", "1.50 litres", 0),
        ("de", "1,6 Liter", "1.5 litres", 1),
        ("de", "1500", "1,501", 1),
        ("de", "um 18 Uhr", "at 6:00 p.m.", 0),
        ("de", "um 19 Uhr", "at 6 p.m.", 1),
        ("zh", "500万美元", "$5 million", 0),
        ("ja", "50万ドル", "$5 million", 1),
        ("ko", "3천 명", "3,000 people", 0),
        ("de", "5 Millionen Dollar", "$5 million", 0),
        ("es", "20 mil personas", "20,000 people", 0),
        ("ja", "二千二十四年", "2024", 0),
        ("zh", "二〇二四年", "2024", 0),
        ("th", "ปี 2567", "in 2024", 0),
        ("th", "ปี 2568", "in 2024", 1),
        ("de", "im Jahr 2567", "in 2024", 1),
        ("fr", "le XVIII siècle", "the 18th century", 0),
    ],
)
def test_figures_of_the_english(lang: str, text: str, english: str, missing: float | None) -> None:
    """In any digits, with separators, hours, words of scale, the Thai era, Chinese and Roman numerals."""
    assert missing_digits(text, english, lang) == missing


@pytest.mark.parametrize(
    ("lang", "text", "english", "missing"),
    [
        ("de", "zwanzig Dollar", "20 dollars", 0),
        ("de", "dreißig Dollar", "20 dollars", 1),
        ("de", "vier Bücher", "5 books", 1),
        ("pl", "Nazwij trzech prezydentów", "Name 3 presidents", 0),
        ("it", "il terzo capitolo", "the 3rd chapter", 0),
        ("fr", "le quatrième chapitre", "the 3rd chapter", 1),
        ("ar", "والخمسة كتب", "5 books", 0),
        ("ko", "석유", "3 people", 1),
        ("th", "ผู้สามารถ", "3 people", 1),
        ("de", "Achtung", "8 people", 1),
    ],
)
def test_figures_that_became_words(lang: str, text: str, english: str, missing: float) -> None:
    assert missing_digits(text, english, lang) == missing


@pytest.mark.parametrize(
    ("lang", "text", "english", "missing"),
    [
        ("de", "Nenne fünf Gründe", "Name five reasons", 0),
        ("de", "Nenne 5 Gründe", "Name five reasons", 0),
        ("de", "Nenne vier Gründe", "Name five reasons", 1),
        ("de", "Nenne Gründe", "Name reasons", None),
        ("de", "Nenne Gründe", "Name some five-star hotels", None),
        ("de", "Nenne Gründe", "Name two reasons", 1),
        ("ar", "اذكر سببين", "Name two reasons", None),
    ],
)
def test_numbers_in_words(lang: str, text: str, english: str, missing: float | None) -> None:
    assert missing_number_words(text, english, lang) == missing


def test_in_a_language_without_number_words_figures_are_compared() -> None:
    assert "sw" not in LANGUAGES
    assert missing_digits("vitabu 1 500", "1,500 books", "sw") == 0
    assert missing_digits("vitabu vitano", "5 books", "sw") == 1
    assert missing_number_words("vitabu vitano", "five books", "sw") is None
