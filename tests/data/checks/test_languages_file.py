"""Languages of a user's own: read, recorded in a build, known again from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from polyrefuse_data.checks.languages_file import (
    RECORDED,
    load_languages,
    recorded,
    register,
    register_recorded,
    registered,
)
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.languages import LANGUAGES, Language

SWAHILI = Language("sw", "Swahili", "Kiswahili")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with registered([]):
        yield


def test_norwegian_and_regions_are_codes(tmp_path: Path) -> None:
    path = tmp_path / "l.yaml"
    path.write_text(
        "- {code: no, name: Norwegian, native_name: Norsk, diacritics: yes}\n"
        "- {code: es-419, name: Latin American Spanish}\n- {code: zh-Hant-TW, name: T, scripts: [Han]}\n"
    )
    languages = load_languages(path)
    assert [language.code for language in languages] == ["no", "es-419", "zh-Hant-TW"]
    assert languages[0].diacritics is True


def test_what_a_manifest_records_is_known_again() -> None:
    register([SWAHILI])
    manifest = {RECORDED: recorded(["en", "sw"])}
    LANGUAGES.pop("sw")
    register_recorded(manifest, "b")
    assert LANGUAGES["sw"] == SWAHILI
    register_recorded(manifest, "b")
    register_recorded({}, "b")
    assert recorded(["en", "yo"]) == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"code": "en", "name": "Mine"}, "'en' is there already"),
        ({"code": "sw", "name": "Suaheli"}, "is Suaheli there and Swahili with other"),
        ({"code": "../x", "name": "X"}, "row 1, code"),
        ({"code": "xx"}, "row 1, name"),
        ({"code": "xx", "name": "X", "scripts": ["Elvish"]}, "unknown script 'Elvish'"),
        ({"code": "xx", "name": "X", "scripts": [r"Latin}](?:(x+x+)+y)[\p{L"]}, "unknown script 'Latin}]"),
        ({"code": "xx", "name": "X\n# Mine"}, "row 1, name: Value error, expected one line"),
        ({"code": "xx", "name": "X", "native_name": "a\x1b]0;b\x07"}, "row 1, native_name"),
        ("sw", "row 1, all"),
    ],
)
def test_a_foreign_manifest_is_not_believed(row: object, message: str) -> None:
    register([SWAHILI])
    with pytest.raises(PolyRefuseError, match=message):
        register_recorded({RECORDED: [row]}, "b")
    assert LANGUAGES["sw"] == SWAHILI
