from __future__ import annotations

import pytest

from polyrefuse_data.core.errors import PolyRefuseError, unknown_name
from polyrefuse_data.core.languages import LANGUAGES, language, parse_languages
from polyrefuse_data.prompts.recipe import load_recipe, parse_size


@pytest.mark.parametrize(
    ("given", "nearest"), [("jp", "ja"), ("ger", "de"), ("Yoruba", "yo"), ("zh-CN", "zh")]
)
def test_an_unknown_language_suggests_the_nearest(given: str, nearest: str) -> None:
    with pytest.raises(PolyRefuseError, match=f"did you mean '{nearest}'"):
        language(given)


def test_an_error_is_one_line() -> None:
    assert "\n" not in str(PolyRefuseError("one\n  two"))


def test_a_message_that_quotes_a_file_has_a_beginning_and_an_end_alone() -> None:
    text = str(PolyRefuseError(f"'x.json' holds {'y' * 1_000_000}; make it again"))
    assert len(text) < 5_000
    assert text.startswith("'x.json' holds y")
    assert text.endswith("; make it again")


@pytest.mark.timeout(20)
def test_the_nearest_name_is_looked_for_in_bounded_time() -> None:
    names = ["a" * 500_000] * 3 + [f"name{number}" for number in range(10_000)]
    assert len(str(unknown_name("language", "a" * 500_000, names))) < 5_000


def test_nothing_is_suggested_for_a_name_unlike_all() -> None:
    assert "did you mean" not in str(unknown_name("recipe", "qqqq", ["paper", "clean"]))


def test_languages_come_back_once_in_published_order() -> None:
    assert parse_languages("zh,yo, yo de") == ["de", "yo", "zh"]
    assert parse_languages("all") == list(LANGUAGES)
    with pytest.raises(PolyRefuseError, match="no language"):
        parse_languages(" , ")


def test_an_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(PolyRefuseError, match="did you mean 'paper'"):
        load_recipe("papre")


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("128/32/572", {"train": 128, "validation": 32, "test": 572}),
        ("test=5,train=3", {"test": 5, "train": 3}),
    ],
)
def test_sizes(text: str, sizes: dict[str, int]) -> None:
    assert parse_size(text) == sizes


@pytest.mark.parametrize("text", ["", "12", "12/3", "tests=3", "test=x", "test=-1", "1/2/3/4"])
def test_a_size_that_is_none(text: str) -> None:
    with pytest.raises(PolyRefuseError):
        parse_size(text)
