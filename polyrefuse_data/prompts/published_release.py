"""Read a folder in the published release's layout, without believing it.

The layout: `<label>_<split>_translated_<lang>.json`, a JSON list of objects. Test rows carry their English
(`instruction`) beside the translation (`instruction_translated`); train and validation rows carry only the
translation, under `instruction`, and neither id nor English: they can be matched by position alone, and only
where the list proves to be parallel. Back-translations lie in files of their own,
`<label>_<split>_back_translated_<lang>.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import regex

from polyrefuse_data.core.contents import read_file, read_utf8
from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_data.core.findings import Finding
from polyrefuse_data.core.languages import LANGUAGES, SOURCE_LANGUAGE
from polyrefuse_data.core.reading import parse_foreign_json
from polyrefuse_data.core.schema import LABELS, SPLITS

_SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}
_FILE = regex.compile(
    r"(?P<label>harmful|harmless)_(?P<split>train|val|test)_(?P<kind>back_)?translated_(?P<lang>[A-Za-z-]+)\.json"
)
_ENGLISH_FILE = regex.compile(r"(?P<label>harmful|harmless)_(?P<split>train|val|test)(_\d+_sampled)?\.json")


class _BadFileError(Exception):
    """A file that is not in the layout; the message says how."""


@dataclass(frozen=True)
class ReleaseList:
    """One list of the release. `english_in_rows`: the rows carry their English; else it was matched by
    position from the English lists, or is None throughout."""

    label: str
    split: str
    lang: str
    texts: tuple[str, ...]
    english: tuple[str | None, ...]
    english_in_rows: bool
    file: str

    def ids(self) -> list[str]:
        """Return ids by position, as a build would give them to the whole list."""
        return [f"{self.label}-{self.split}-{index:04d}" for index in range(len(self.texts))]


@dataclass(frozen=True)
class BackTranslation:
    """One back-translation: the English, the translation it was made from, and what came back."""

    english: str
    translation: str
    back: str


@dataclass
class Release:
    """What a folder in the release's layout holds, and what is wrong with its structure."""

    lists: list[ReleaseList] = field(default_factory=list)
    english: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    backs: dict[tuple[str, str, str], list[BackTranslation]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    digest: str = ""


def is_release(folder: Path) -> bool:
    """Return whether `folder` holds a file named as the release names its translations."""
    return folder.is_dir() and any(_FILE.fullmatch(path.name) for path in folder.iterdir())


def release_folders(folder: Path) -> tuple[Path, Path | None, Path | None]:
    """Return the folders of translations, English lists and back-translations at or below `folder`.

    `folder` is either the folder of translations itself or holds one for each, as published. Raises
    `DatasetFolderError` if there are no translations.
    """
    if not folder.is_dir():
        raise DatasetFolderError(f"{folder}: no such folder; expected a release of translations")
    if is_release(folder):
        return folder, None, None
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    translated = [path for path in inner if any(_kind(path, back=False))]
    if not translated:
        raise DatasetFolderError(
            f"{folder}: no file named <label>_<split>_translated_<lang>.json in it or in a folder of it"
        )
    english = [path for path in inner if any(_ENGLISH_FILE.fullmatch(one.name) for one in path.iterdir())]
    back = [path for path in inner if any(_kind(path, back=True))]
    return translated[0], english[0] if english else None, back[0] if back else None


def _kind(folder: Path, back: bool) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match and bool(match["kind"]) == back:
            yield path


def read_release(folder: Path, english: Path | None, back: Path | None) -> Release:
    """Return what lies in the three folders; what cannot be read or should not be there is a finding."""
    release = Release()
    hasher = hashlib.sha256()
    if english is not None:
        _read_english(english, release)
    for path in _kind(folder, back=False):
        hasher.update(path.name.encode() + hashlib.sha256(_content(path)).digest())
        _read_list(path, release)
    if back is not None:
        if not back.is_dir():
            raise DatasetFolderError(f"--back {back}: no such folder")
        for path in _kind(back, back=True):
            _read_backs(path, release)
    _missing(release, back is not None)
    release.digest = hasher.hexdigest()
    return release


def _content(path: Path) -> bytes:
    """Return the bytes of a list, none of what cannot be read, which becomes a finding."""
    try:
        return read_file(path)
    except OSError:
        return b""


def _objects(path: Path) -> list[dict[str, Any]]:
    try:
        value = parse_foreign_json(read_utf8(path))
    except UnicodeDecodeError as error:
        raise _BadFileError(f"{path.name} is not UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise _BadFileError(f"{path.name} cannot be read: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise _BadFileError(f"{path.name}, line {error.lineno}: not valid JSON ({error.msg})") from None
    if not isinstance(value, list) or not value:
        raise _BadFileError(f"{path.name}: expected a JSON list of objects")
    for number, item in enumerate(value, start=1):
        if not isinstance(item, dict) or not isinstance(item.get("instruction"), str):
            raise _BadFileError(f"{path.name}, record {number}: expected an object with a text 'instruction'")
    return value


def _text(item: dict[str, Any], key: str, path: Path, number: int) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        raise _BadFileError(
            f"{path.name}, record {number}: expected a text under '{key}', found {value!r:.40}"
        )
    return value


def _structure(
    severity: str, message: str, lang: str | None = None, label: str | None = None, split: str | None = None
) -> Finding:
    return Finding("structure", severity, lang, label, split, (), message)


def _read_english(folder: Path, release: Release) -> None:
    if not folder.is_dir():
        raise DatasetFolderError(f"--english {folder}: no such folder")
    for path in sorted(folder.iterdir()):
        match = _ENGLISH_FILE.fullmatch(path.name)
        if not match:
            continue
        try:
            texts = tuple(item["instruction"].strip() for item in _objects(path))
        except _BadFileError as error:
            release.findings.append(_structure("error", str(error), SOURCE_LANGUAGE))
            continue
        release.english[match["label"], _SPLIT_NAMES[match["split"]]] = texts


def _read_list(path: Path, release: Release) -> None:
    match = _FILE.fullmatch(path.name)
    assert match is not None  # noqa: S101 (only files of that name come here)
    label, split, lang = match["label"], _SPLIT_NAMES[match["split"]], match["lang"]
    if lang not in LANGUAGES:
        message = f"{path.name}: '{lang}' is none of the {len(LANGUAGES)} languages; left out"
        release.findings.append(_structure("warning", message, lang, label, split))
        return
    try:
        items = _objects(path)
        in_rows = all("instruction_translated" in item for item in items)
        key = "instruction_translated" if in_rows else "instruction"
        texts = tuple(_text(item, key, path, number) for number, item in enumerate(items, start=1))
    except _BadFileError as error:
        release.findings.append(_structure("error", str(error), lang, label, split))
        return
    english: tuple[str | None, ...]
    if in_rows:
        english = tuple(item["instruction"].strip() for item in items)
    elif lang == SOURCE_LANGUAGE:
        english = tuple(text.strip() for text in texts)
    else:
        english = release.english.get((label, split), ())
        if len(english) != len(texts):
            if english:
                message = f"{path.name}: {len(texts)} rows for {len(english)} English prompts"
                release.findings.append(_structure("error", message, lang, label, split))
            english = (None,) * len(texts)
    release.lists.append(ReleaseList(label, split, lang, texts, english, in_rows, path.name))


def _read_backs(path: Path, release: Release) -> None:
    match = _FILE.fullmatch(path.name)
    assert match is not None  # noqa: S101 (only files of that name come here)
    label, split, lang = match["label"], _SPLIT_NAMES[match["split"]], match["lang"]
    if lang not in LANGUAGES:
        message = f"{path.name}: stray back-translations in '{lang}', none of the {len(LANGUAGES)} languages"
        release.findings.append(_structure("warning", message, lang, label, split))
        return
    try:
        release.backs[label, split, lang] = [
            BackTranslation(
                item["instruction"].strip(),
                _text(item, "instruction_translated", path, number),
                _text(item, "instruction_back_translated", path, number),
            )
            for number, item in enumerate(_objects(path), start=1)
        ]
    except _BadFileError as error:
        release.findings.append(_structure("error", str(error), lang, label, split))


def _missing(release: Release, with_backs: bool) -> None:
    """Add what a complete release would have and this one lacks."""
    there = {(item.label, item.split, item.lang) for item in release.lists}
    unreadable = {(one.label, one.split, one.lang) for one in release.findings}
    for label in LABELS:
        for split in SPLITS:
            langs = {lang for one_label, one_split, lang in there if (one_label, one_split) == (label, split)}
            if not langs:
                release.findings.append(
                    _structure("error", f"no list of {label} {split} prompts at all", None, label, split)
                )
                continue
            for lang in LANGUAGES:
                if lang in langs or (label, split, lang) in unreadable:
                    continue
                if lang == SOURCE_LANGUAGE and (label, split) in release.english:
                    continue
                message = f"no file of {label} {split} prompts in {lang}"
                severity = "note" if lang == SOURCE_LANGUAGE else "error"
                release.findings.append(_structure(severity, message, lang, label, split))
    without_english = sorted(
        {
            (item.label, item.split)
            for item in release.lists
            if not item.english_in_rows and item.lang != SOURCE_LANGUAGE
        }
    )
    for label, split in without_english:
        message = (
            f"{label} {split} rows carry neither id nor English text; they can be matched by position only"
        )
        release.findings.append(_structure("note", message, None, label, split))
    if with_backs:
        lists = {(label, split) for label, split, _ in release.backs}
        for label, split in sorted(lists):
            for lang in LANGUAGES:
                known = (label, split, lang) in there and lang != SOURCE_LANGUAGE
                if known and (label, split, lang) not in release.backs:
                    message = f"no back-translations of {label} {split} prompts from {lang}"
                    release.findings.append(_structure("warning", message, lang, label, split))
