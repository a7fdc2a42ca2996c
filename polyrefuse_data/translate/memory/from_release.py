"""Fill a translation memory from a published release."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from polyrefuse_data.checks.lists import alignment_findings
from polyrefuse_data.checks.thresholds import Thresholds
from polyrefuse_data.core.languages import SOURCE_LANGUAGE
from polyrefuse_data.prompts.published_release import Release, ReleaseList
from polyrefuse_data.translate.memory.store import BACK, Added, Entry, TranslationMemory, Translator

PUBLISHED = "published"
"""The backend of translations from a release, which does not record their translator."""

KNOWN_RELEASES = {
    "a68c643d7fcaa149870479b8a64e5ef943e90d055792dfccf90593d68fcd0e63": "Multilingual-Refusal@985169d",
}
"""Digest of a release's translation files -> its version (Wang et al., NeurIPS 2025)."""


@dataclass(frozen=True)
class Refused:
    """A list, or rows of a list, that an import leaves out, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Imported:
    """The result of an import."""

    version: str
    added: Added
    refused: tuple[Refused, ...]


def import_release(release: Release, memory: TranslationMemory, thresholds: Thresholds) -> Imported:
    """Add the translations of `release` that can be trusted to `memory`, in one transaction.

    A list without English in its rows is matched by position if its lengths follow the English, and refused
    with the reason if not. Rows without text are refused, each by itself.
    """
    version = KNOWN_RELEASES.get(release.digest, f"sha256-{release.digest[:12]}")
    translator = Translator(PUBLISHED, version)
    refused: list[Refused] = []
    entries: list[Entry] = []
    for item in release.lists:
        if item.lang == SOURCE_LANGUAGE:
            continue
        reason = _not_parallel(item, thresholds)
        if reason:
            refused.append(Refused(item.file, reason))
            continue
        empty = [row for row, text in zip(item.ids(), item.texts, strict=True) if not text.strip()]
        if empty:
            refused.append(Refused(item.file, f"{len(empty)} rows without text: {', '.join(empty[:5])}"))
        entries += _forward_entries(item, translator)
    given = {(entry.english, entry.lang, entry.text) for entry in entries}
    for (_, _, lang), backs in release.backs.items():
        for back in backs:
            if back.back.strip() and (back.english, lang, back.translation) in given:
                entries.append(Entry(back.english, lang, translator, back.back, BACK, back.translation))
    return Imported(version, memory.add(_unique_backs(entries)), tuple(refused))


def _not_parallel(item: ReleaseList, thresholds: Thresholds) -> str | None:
    known = [
        (english, text) for english, text in zip(item.english, item.texts, strict=True) if english is not None
    ]
    if not known:
        return "the rows carry no English text and no English list was given; give --english DIR"
    alarms = alignment_findings(
        [english for english, _ in known],
        [text for _, text in known],
        item.lang,
        item.label,
        item.split,
        thresholds,
    )
    return alarms[0].message if alarms else None


def _forward_entries(item: ReleaseList, translator: Translator) -> Iterator[Entry]:
    seen: dict[str, int] = {}
    for english, text in zip(item.english, item.texts, strict=True):
        if english is None:
            continue
        occurrence = seen.get(english, 0)
        seen[english] = occurrence + 1
        if text.strip():
            yield Entry(english, item.lang, translator, text, occurrence=occurrence)


def _unique_backs(entries: list[Entry]) -> Iterator[Entry]:
    """Yield entries, each key once: repeats of a prompt with equal translations share a back-translation."""
    seen = set()
    for entry in entries:
        key = (entry.direction, entry.lang, entry.english, entry.given, entry.occurrence)
        if key not in seen:
            seen.add(key)
            yield entry
