"""Sources of directions: languages, `pooled`, spans; how they are spelled, and what is refused."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.languages import parse_languages
from polyrefuse_eval.results.fields import ConditionName
from polyrefuse_eval.results.settings import (
    Condition,
    RunSettings,
    grid,
    own_source,
    parse_addition_strengths,
    parse_kl,
)
from polyrefuse_eval.results.sources import fitted_sources, members, parse_sources, span_rank

LANGS = ("en", "de", "ja")


def sources(text: str) -> list[str]:
    return parse_sources(text, LANGS, parse_languages)


def test_languages_spans_and_pooled_are_read_in_one_spelling_each_once() -> None:
    assert sources("ja,en") == parse_languages("ja,en")
    assert sources("en,ja+de,span,pooled,span2") == ["en", "de+ja", "span", "pooled", "span2"]
    assert sources("ja+de de+ja") == ["de+ja"]
    assert (span_rank("span2"), span_rank("span"), span_rank("de+ja")) == (2, None, None)


def test_a_span_needs_the_directions_of_its_languages() -> None:
    assert members("de+ja", LANGS) == ("de", "ja")
    assert members("span2", LANGS) == LANGS
    assert fitted_sources(["ja", "de+ja", "span"], LANGS) == ("ja", "de", "en")
    assert RunSettings(("en",), ("de+ja",)).data_langs == ("en", "de", "ja")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("de+de", "'de+de' names de twice"),
        ("de+", "'de+' is not a span; expected languages such as de+ja+yo"),
        ("de+pooled", "'de+pooled' is not a span"),
        ("de+xx", "unknown language 'xx'"),
        ("span4", "'span4' takes 4 of the directions of 3 languages; expected span1 to span3"),
        ("span0", "'span0' takes 0"),
    ],
)
def test_what_is_no_span_is_said_in_one_line(text: str, message: str) -> None:
    with pytest.raises(PolyRefuseError, match="^" + message.replace("+", r"\+")):
        sources(text)


def test_the_span_of_one_language_is_refused() -> None:
    with pytest.raises(PolyRefuseError, match="there is only one"):
        parse_sources("span", ["en"], parse_languages)


def test_a_span_is_ablated_crossed_and_never_added() -> None:
    names = [
        (measurement.label, measurement.condition.name)
        for measurement in grid(
            "de", ["de+ja"], RunSettings(LANGS, strengths=(0.5,), addition_strengths=(2.0,))
        )
    ]
    assert names == [
        ("harmful", "baseline"),
        ("harmless", "baseline"),
        ("harmful", "ablation:de+ja"),
        ("harmless", "ablation:de+ja"),
        ("harmful", "ablation:de+ja@0.5"),
    ]


def test_a_span_stands_in_for_a_language_only_where_no_single_direction_does() -> None:
    assert own_source("ja", ["de+ja", "en", "random"]) == "en"
    assert own_source("ja", ["de+ja", "random"]) == "de+ja"


def test_further_strengths_of_addition_are_named_and_the_first_is_not() -> None:
    settings = RunSettings(
        ("en",), coefficient=2.0, strengths=(), addition_strengths=(0.5, 4.0), controls=False
    )
    added = [m.condition for m in grid("en", ["en"], settings) if m.condition.intervention == "addition"]
    assert [(condition.name, condition.coefficient) for condition in added] == [
        ("addition:en", 2.0),
        ("addition:en", 2.0),
        ("addition:en@0.5", 0.5),
        ("addition:en@4", 4.0),
    ]
    for condition in added:
        again = Condition.parse(condition.name, 2.0)
        assert (again, again.name) == (condition, condition.name)


def test_strengths_of_addition_are_read_or_refused() -> None:
    assert parse_addition_strengths("4, 0.5,1", 1.0) == (0.5, 4.0)
    assert parse_addition_strengths("none", 1.0) == ()
    for text in ("0", "-1", "1001", "nan", "inf", "much", ""):
        with pytest.raises(PolyRefuseError, match="expected numbers above 0 and up to 1000"):
            parse_addition_strengths(text, 1.0)


def test_the_kl_of_selection_is_read_or_refused() -> None:
    assert (parse_kl("first-token"), parse_kl("tokens=1"), parse_kl(" tokens=16")) == (1, 1, 16)
    for text in ("16", "tokens", "tokens=0", "tokens=-1", "tokens=1e3", "last-token", ""):
        with pytest.raises(PolyRefuseError, match="expected first-token, or tokens=N"):
            parse_kl(text)


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("ablation:de+ja+yo", True),
        ("ablation:span@0.5", True),
        ("ablation:span14", True),
        ("addition:en@2", True),
        ("addition:en@0.25", True),
        ("ablation:en@2", False),
        ("ablation:de+", False),
        ("ablation:de+pooled", False),
        ("addition:en@-1", False),
        ("addition:en@0", False),
    ],
)
def test_the_names_of_conditions_that_records_may_hold(name: str, holds: bool) -> None:
    adapter: TypeAdapter[str] = TypeAdapter(ConditionName)
    if holds:
        assert adapter.validate_python(name) == name
    else:
        with pytest.raises(ValidationError):
            adapter.validate_python(name)
