"""Languages of a user's own: a YAML file with the columns of `languages.py`, and nothing else to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import regex
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.languages import LANGUAGES, Language
from polyrefuse_data.core.parsing import parse_yaml


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    code: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z]{2,8})?$")]
    name: Annotated[str, Field(min_length=1)]
    native_name: str = ""
    scripts: tuple[str, ...] = ("Latin",)
    required_script: str | None = None
    diacritics: bool = False
    spaced: bool = True
    codes: dict[str, str | None] = {}


def load_languages(path: Path) -> list[Language]:
    """Return the languages of a YAML file: a list of rows; raises `PolyRefuseError` naming the row."""
    try:
        rows = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PolyRefuseError(f"cannot read the languages in {path}: {error}") from None
    if not isinstance(rows, list) or not rows:
        raise PolyRefuseError(
            f"languages {path}: expected a list of languages, each with code, name and scripts"
        )
    found: list[Language] = []
    for number, row in enumerate(rows, start=1):
        try:
            given = _Row.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise PolyRefuseError(
                f"languages {path}, row {number}, {place or 'all'}: {first['msg']}"
            ) from None
        for script in (*given.scripts, *([given.required_script] if given.required_script else [])):
            _check_script(script, path, number)
        if given.code in LANGUAGES or given.code in {one.code for one in found}:
            raise PolyRefuseError(f"languages {path}, row {number}: '{given.code}' is there already")
        found.append(
            Language(
                given.code,
                given.name,
                given.native_name or given.name,
                given.scripts,
                given.required_script,
                given.diacritics,
                given.spaced,
                given.codes,
            )
        )
    return found


def _check_script(script: str, path: Path, number: int) -> None:
    names = ("Hiragana",) if script == "Kana" else (script,)
    try:
        for name in names:
            regex.compile(rf"\p{{Script={name}}}")
    except regex.error:
        raise PolyRefuseError(
            f"languages {path}, row {number}: unknown script '{script}'; expected one such as Latin"
        ) from None


def register(languages: Sequence[Language]) -> None:
    """Add languages to those that everything knows; detectors then choose among them too."""
    from polyrefuse_data.checks.language import forget_detectors

    LANGUAGES.update({language.code: language for language in languages})
    forget_detectors()


@contextmanager
def registered(languages: Sequence[Language]) -> Iterator[None]:
    """Know `languages` within a block."""
    from polyrefuse_data.checks.language import forget_detectors

    before = dict(LANGUAGES)
    register(languages)
    try:
        yield
    finally:
        LANGUAGES.clear()
        LANGUAGES.update(before)
        forget_detectors()
