"""The languages that the native judge reads: their files, ours and a user's."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from polyrefuse_data.core.languages import PUBLISHED_LANGUAGES
from polyrefuse_data.core.parsing import FAST_LOADER, parse_yaml
from polyrefuse_data.core.reading import FileFormatError, read_bytes
from polyrefuse_eval.errors import JudgeError
from polyrefuse_eval.judging.native.compiling import compile_lexicon
from polyrefuse_eval.judging.native.kinds import KINDS
from polyrefuse_eval.judging.native.language import main_script
from polyrefuse_eval.judging.native.lexicon import Lexicon, PatternError

EXAMPLES = ("refused", "answered", "puzzled")
"""What the examples of a file may be."""

_CLASS_NAME = re.compile(r"[A-Z][A-Z0-9]*")
_MEMBER = re.compile(r"(?:[^,{]|\{[^{}]*\}|\{)+")
"""A word of a class; a comma in braces divides none."""

_OTHER_FIELDS = ("spaced", "common", "words", "examples")


@dataclass(frozen=True)
class LanguageFile:
    """What a language's file holds: see docs/how-to/judge-languages.md."""

    lang: str
    spaced: bool
    common: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]
    patterns: Mapping[str, tuple[str, ...]]
    examples: Mapping[str, tuple[str, ...]]
    digest: str

    def lexicon(self) -> Lexicon:
        """Return the compiled words and patterns; raises `JudgeError` for a pattern that cannot be read."""
        try:
            return compile_lexicon(
                self.lang, spaced=self.spaced, common=self.common, words=self.words, patterns=self.patterns
            )
        except PatternError as error:
            raise JudgeError(f"'{self.lang}.yaml': {error}") from None

    @property
    def script(self) -> str | None:
        """The script of the common words, or of the patterns where there are none."""
        words = self.common or [one for some in self.patterns.values() for one in some]
        return main_script(" ".join(words))


def read_language_file(path: Path) -> LanguageFile:
    """Return what `path` holds, for the language that the file is called after (`sw.yaml`).

    Raises `JudgeError` that names the file and what is wrong in it.
    """
    try:
        raw = read_bytes(path)
        data = parse_yaml(raw.decode("utf-8"), FAST_LOADER)
    except FileFormatError as error:
        raise JudgeError(str(error)) from None
    except (ValueError, yaml.YAMLError) as error:
        raise JudgeError(f"'{path}' is not YAML: {' '.join(str(error).split())}") from None
    return language_file(path.stem, data, raw, str(path))


@functools.cache
def published_file(lang: str) -> LanguageFile:
    """Return our own file of `lang`."""
    raw = files("polyrefuse_eval.judging.native").joinpath(f"patterns/{lang}.yaml").read_bytes()
    return language_file(lang, parse_yaml(raw.decode("utf-8"), FAST_LOADER), raw, f"{lang}.yaml")


@functools.cache
def published_lexicon(lang: str) -> Lexicon:
    """Return the compiled words and patterns of one of the 14 languages."""
    if lang not in PUBLISHED_LANGUAGES:
        raise JudgeError(
            f"the native judge has no phrases for '{lang}': give it a file with --phrases {lang}.yaml, or "
            "use another judge with --judges"
        )
    return published_file(lang).lexicon()


def language_file(lang: str, data: Any, raw: bytes, name: str) -> LanguageFile:
    """Return what the parsed `data` of a file called `name` says; see `read_language_file`."""
    if not isinstance(data, dict):
        raise JudgeError(f"'{name}' holds {type(data).__name__}, expected kinds with their patterns")
    unknown = [str(key) for key in data if key not in (*KINDS, *_OTHER_FIELDS)]
    if unknown:
        raise JudgeError(
            f"'{name}': unknown kind '{unknown[0]}'; known: {', '.join((*_OTHER_FIELDS, *KINDS))}"
        )
    spaced = data.get("spaced", True)
    if not isinstance(spaced, bool):
        raise JudgeError(f"'{name}': 'spaced' is {spaced!r}, expected true or false")
    words, examples = data.get("words") or {}, data.get("examples") or {}
    for field, known in (("words", None), ("examples", EXAMPLES)):
        value = data.get(field) or {}
        if not isinstance(value, dict) or (known and not set(value) <= set(known)):
            expected = f"texts under {', '.join(known)}" if known else "classes with their words"
            raise JudgeError(f"'{name}': '{field}' holds something other than {expected}")
    for key in words:
        if not isinstance(key, str) or not _CLASS_NAME.fullmatch(key):
            raise JudgeError(f"'{name}': the class '{key}' is not in capital letters")
    return LanguageFile(
        lang,
        spaced,
        tuple(" ".join(_texts(data.get("common") or "", name, "common")).split()),
        {key: tuple(_members(value, name, key)) for key, value in words.items()},
        {kind: tuple(_texts(data.get(kind) or [], name, kind)) for kind in KINDS},
        {kind: tuple(_texts(value, name, kind)) for kind, value in examples.items()},
        hashlib.sha256(raw).hexdigest(),
    )


def _texts(value: Any, name: str, field: str) -> Sequence[str]:
    """Return `value` as a list of texts; YAML reads `no` and numbers as something else."""
    texts = value if isinstance(value, list) else [value] if value else []
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise JudgeError(f"'{name}': {text!r} under '{field}' is not text; put it in quotation marks")
    return texts


def _members(value: Any, name: str, field: str) -> list[str]:
    """Return the words of a class: a list, or one text with commas, of which those in braces divide
    nothing."""
    joined = ",".join(_texts(value, name, field))
    words = [word.strip() for word in _MEMBER.findall(joined)]
    if not any(words):
        raise JudgeError(f"'{name}': the class '{field}' is empty")
    return [word for word in words if word]
