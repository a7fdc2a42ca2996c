"""Languages of a user's own: read from a YAML file, recorded in builds, and known from there ever after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import regex
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from polyrefuse_data.core.display import visible
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.languages import LANGUAGES, PUBLISHED_LANGUAGES, Language
from polyrefuse_data.core.parsing import parse_yaml
from polyrefuse_data.core.reading import read_text

RECORDED = "own_languages"
"""Key of a build's manifest with the languages that are not among the published ones."""


class _TextLoader(yaml.SafeLoader):
    """Read `no` as text: in YAML 1.1 the code of Norwegian is a boolean."""


_TextLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _shown(text: str) -> str:
    if visible(text) != text:
        raise ValueError("expected one line of visible characters")
    return text


_ShortText = Annotated[str, Field(max_length=100), AfterValidator(_shown)]
_SCRIPT = regex.compile(r"[A-Za-z][A-Za-z_ -]{0,50}")


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    code: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-([A-Za-z]{2,8}|[0-9]{3}))*$")]
    name: Annotated[_ShortText, Field(min_length=1)]
    native_name: _ShortText = ""
    scripts: Annotated[tuple[str, ...], Field(min_length=1, max_length=20)] = ("Latin",)
    required_script: str | None = None
    diacritics: bool = False
    spaced: bool = True
    codes: dict[_ShortText, _ShortText | None] = {}


def load_languages(path: Path) -> list[Language]:
    """Return the languages of a YAML file: a list of rows; raises `PolyRefuseError` naming the row."""
    try:
        rows = parse_yaml(read_text(path), _TextLoader)
    except (ValueError, yaml.YAMLError) as error:
        raise PolyRefuseError(f"cannot read the languages in {path}: {error}") from None
    return _languages(rows, str(path), taken=LANGUAGES)


def recorded(langs: Sequence[str]) -> list[dict[str, Any]]:
    """Return what a manifest keeps of those of `langs` that are not published ones: a row each."""
    return [
        {**asdict(LANGUAGES[lang]), "codes": dict(LANGUAGES[lang].codes)}
        for lang in langs
        if lang not in PUBLISHED_LANGUAGES
    ]


def register_recorded(manifest: Mapping[str, Any], source: object) -> None:
    """Register the languages that the manifest of a build records.

    A code that is known already must mean the same language. Raises `PolyRefuseError` naming the row.
    """
    rows = manifest.get(RECORDED)
    if not rows:
        return
    fresh = []
    for language in _languages(rows, str(source), taken=()):
        known = LANGUAGES.get(language.code)
        if known is None:
            fresh.append(language)
        elif known != language:
            raise PolyRefuseError(
                f"languages {source}: '{language.code}' is {language.name} there and {known.name} with "
                "other settings here; use one definition"
            )
    if fresh:
        register(fresh)


def _languages(rows: object, source: str, taken: Mapping[str, object] | Sequence[str]) -> list[Language]:
    """Return the languages in `rows`, none of them among the codes `taken`; raises naming the row."""
    if not isinstance(rows, list) or not rows:
        raise PolyRefuseError(
            f"languages {source}: expected a list of languages, each with code, name and scripts"
        )
    languages: dict[str, Language] = {}
    for number, row in enumerate(rows, start=1):
        try:
            given = _Row.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise PolyRefuseError(
                f"languages {source}, row {number}, {place or 'all'}: {first['msg']}"
            ) from None
        for script in (*given.scripts, *([given.required_script] if given.required_script else [])):
            _check_script(script, source, number)
        if given.code in taken or given.code in languages or given.code in PUBLISHED_LANGUAGES:
            raise PolyRefuseError(f"languages {source}, row {number}: '{given.code}' is there already")
        languages[given.code] = Language(
            code=given.code,
            name=given.name,
            native_name=given.native_name or given.name,
            scripts=given.scripts,
            required_script=given.required_script,
            diacritics=given.diacritics,
            spaced=given.spaced,
            codes=given.codes,
        )
    return list(languages.values())


def _check_script(script: str, source: str, number: int) -> None:
    names = ("Hiragana",) if script == "Kana" else (script,)
    try:
        for name in names:
            regex.compile(rf"\p{{Script={name}}}")
        known = bool(_SCRIPT.fullmatch(script))  # it becomes part of patterns
    except regex.error:
        known = False
    if not known:
        raise PolyRefuseError(
            f"languages {source}, row {number}: unknown script '{script[:40]}'; expected one such as Latin"
        )


def register(languages: Sequence[Language]) -> None:
    """Add languages to those that everything knows; detectors then choose among them, too."""
    from polyrefuse_data.checks.language import forget_detectors

    LANGUAGES.update({language.code: language for language in languages})
    forget_detectors()


@contextmanager
def registered(languages: Sequence[Language]) -> Iterator[None]:
    """Register `languages` on entry; on exit forget them, and any others that were registered meanwhile."""
    from polyrefuse_data.checks.language import forget_detectors

    before = dict(LANGUAGES)
    if languages:
        register(languages)
    try:
        yield
    finally:
        if before != LANGUAGES:
            LANGUAGES.clear()
            LANGUAGES.update(before)
            forget_detectors()
