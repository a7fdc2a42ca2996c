"""A text nested without end is one that is not valid, whoever reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from polyrefuse_data.build.package import read_manifest
from polyrefuse_data.checks.languages_file import load_languages
from polyrefuse_data.checks.thresholds import load_thresholds
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.parsing import DEEPEST, parse_json, parse_yaml
from polyrefuse_data.translate.memory.jsonl import read_jsonl

DEEP = "[" * 200_000


def test_what_is_valid_is_read() -> None:
    assert parse_json('{"a": [1, "é"]}') == parse_json('{"a": [1, "é"]}'.encode()) == {"a": [1, "é"]}
    assert parse_yaml("a: [1, é]") == {"a": [1, "é"]}


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 200_000])
def test_a_text_nested_too_deeply_is_not_valid(text: str) -> None:
    for given in (text, text.encode()):
        with pytest.raises(json.JSONDecodeError, match="nested too deeply"):
            parse_json(given)
    with pytest.raises(yaml.YAMLError, match="nested too deeply"):
        parse_yaml(text)


@pytest.mark.parametrize("levels", [DEEPEST + 1, 300, 900])
def test_levels_that_parsers_take_and_readers_do_not_are_too_many(levels: int) -> None:
    nested = "[" * levels + "]" * levels
    assert parse_json(nested[levels - DEEPEST : levels + DEEPEST])
    for given in (nested, nested.encode(), f'{{"a": {nested[1:-1]}}}'):
        with pytest.raises(json.JSONDecodeError, match="nested too deeply"):
            parse_json(given)
    with pytest.raises(yaml.YAMLError, match="nested too deeply"):
        parse_yaml(nested)


def _aliases(levels: int) -> str:
    """Return YAML whose last list stands for 9 to the power of `levels` texts."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.timeout(60)
def test_what_a_few_lines_of_yaml_stand_for_is_bounded() -> None:
    assert len(parse_yaml(_aliases(3))["a2"]) == 9
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}")["b"] == {"x": 1, "y": 2}
    assert parse_yaml("a: 1:30") == {"a": 90}
    for text, problem in (
        (_aliases(12), "aliases"),
        ("a: &a {b: *a}", "contains itself"),
        ("a: 1" + ":59" * 200_000, "too many digits"),
        ("a: 1" + ":59" * 200_000 + ".5", "too many digits"),
    ):
        with pytest.raises(yaml.YAMLError, match=problem):
            parse_yaml(text)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("t.yaml", load_thresholds),
        ("l.yaml", load_languages),
        ("m.jsonl", lambda path: list(read_jsonl(path))),
        ("manifest.json", lambda path: read_manifest(path.parent)),
    ],
)
def test_files_nested_too_deeply_are_told_in_a_line(
    tmp_path: Path, name: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / name
    path.write_text(DEEP)
    with pytest.raises(PolyRefuseError) as caught:
        read(path)
    assert name in str(caught.value)
    assert len(str(caught.value)) < 400
