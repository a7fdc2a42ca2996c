"""Open any folder of prompts for audit and calibration: a build, or a release as it was published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from polyrefuse_data.build.package import MANIFEST, altered_files, read_manifest, read_rows
from polyrefuse_data.checks.languages_file import register_recorded
from polyrefuse_data.checks.lists import Item
from polyrefuse_data.core.display import counted
from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_data.core.findings import Finding
from polyrefuse_data.core.schema import LABELS, SPLITS, Row, group_id, text_hash
from polyrefuse_data.prompts.published_release import Release, read_release, release_folders
from polyrefuse_data.translate.memory.store import TranslationMemory

BUILD, RELEASE = "build", "release"


@dataclass(frozen=True)
class AuditList:
    """The rows of one language, label and split, in order. `english` and `backs` are None where unknown.

    `kept_round_trip` holds the round-trip scores that a build stored, which lacks the back-translations.
    """

    lang: str
    label: str
    split: str
    ids: Sequence[str]
    texts: Sequence[str]
    english: Sequence[str | None]
    backs: Sequence[str | None]
    kept_round_trip: Sequence[float | None] | None = None


@dataclass(frozen=True)
class Opened:
    """The lists and English prompts of a folder, and findings about its structure."""

    path: Path
    kind: str
    title: str
    lists: Sequence[AuditList]
    prompts: Sequence[Item]
    findings: Sequence[Finding] = field(default_factory=tuple)


def by_language(lists: Sequence[AuditList]) -> list[AuditList]:
    """Return one list for each language: the rows of its lists, one list after another."""
    joined: dict[str, AuditList] = {}
    for part in lists:
        before = joined.get(part.lang)
        joined[part.lang] = part if before is None else _joined(before, part)
    return list(joined.values())


def _joined(first: AuditList, second: AuditList) -> AuditList:
    kept = None
    if first.kept_round_trip is not None and second.kept_round_trip is not None:
        kept = [*first.kept_round_trip, *second.kept_round_trip]
    return replace(
        first,
        ids=[*first.ids, *second.ids],
        texts=[*first.texts, *second.texts],
        english=[*first.english, *second.english],
        backs=[*first.backs, *second.backs],
        kept_round_trip=kept,
    )


def open_folder(
    folder: Path, english: Path | None = None, back: Path | None = None, memory: Path | None = None
) -> Opened:
    """Open `folder`; `english` and `back` say where a release keeps those lists, if not beside it.

    Back-translations that the folder lacks are taken from the translation memory in the file `memory`: those
    made from the very text of a row. Raises `DatasetFolderError` for a folder that is neither a build nor a
    release, `MemoryFileError` for a memory that cannot be read.
    """
    if not folder.is_dir():
        raise DatasetFolderError(f"{folder}: no such folder; expected a build or a published release")
    if (folder / MANIFEST).exists():
        opened = _open_build(folder)
    else:
        translations, beside_english, beside_back = release_folders(folder)
        release = read_release(translations, english or beside_english, back or beside_back)
        opened = _open_release(folder, release)
    return opened if memory is None else _with_backs(opened, memory)


def _with_backs(opened: Opened, memory: Path) -> Opened:
    with TranslationMemory(memory) as there:
        kept = {lang: there.backs(lang) for lang in {part.lang for part in opened.lists}}
    lists = [
        replace(
            part,
            backs=[
                kept[part.lang].get((text_hash(english), text_hash(text)))
                if back is None and english is not None
                else back
                for english, text, back in zip(part.english, part.texts, part.backs, strict=True)
            ],
        )
        for part in opened.lists
    ]
    return replace(opened, lists=lists)


def _open_release(folder: Path, release: Release) -> Opened:
    lists = []
    findings = list(release.findings)
    english_of = {**release.english, **_english_in_rows(release, findings)}
    for item in release.lists:
        backs = {
            (back.english, back.translation): back.back
            for back in release.backs.get((item.label, item.split, item.lang), ())
        }
        matched = [
            backs.get((english, text)) if english is not None else None
            for english, text in zip(item.english, item.texts, strict=True)
        ]
        if backs and any(back is None for back in matched):
            ids = tuple(row for row, back in zip(item.ids(), matched, strict=True) if back is None)
            message = f"{counted(len(ids), 'row')} without a back-translation of that text"
            findings.append(Finding("structure", "warning", item.lang, item.label, item.split, ids, message))
        lists.append(
            AuditList(item.lang, item.label, item.split, item.ids(), item.texts, item.english, matched)
        )
    prompts = [
        Item(f"{label}-{split}-{index:04d}", label, split, text)
        for (label, split), texts in sorted(english_of.items())
        for index, text in enumerate(texts)
    ]
    return Opened(folder, RELEASE, f"release {release.digest[:12]}", lists, prompts, findings)


def _english_in_rows(release: Release, findings: list[Finding]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the English that rows carry, by label and split: what most languages' files say.

    A file that says something else gets a finding.
    """
    said: dict[tuple[str, str], list[tuple[str, tuple[str, ...]]]] = {}
    for item in release.lists:
        known = tuple(text for text in item.english if text is not None)
        if item.english_in_rows and len(known) == len(item.texts):
            said.setdefault((item.label, item.split), []).append((item.lang, known))
    agreed = {}
    for (label, split), lists in said.items():
        common = Counter(texts for _, texts in lists).most_common(1)[0][0]
        agreed[label, split] = common
        for lang, texts in lists:
            other = [
                index for index, pair in enumerate(zip(texts, common, strict=False)) if pair[0] != pair[1]
            ]
            if texts != common:
                ids = tuple(f"{label}-{split}-{index:04d}" for index in other)
                message = (
                    f"{counted(len(ids), 'row')} whose English text differs from that of the other languages"
                )
                if len(texts) != len(common):
                    message = f"{counted(len(texts), 'row')} where other languages have {len(common)}"
                findings.append(Finding("structure", "error", lang, label, split, ids, message))
    return agreed


def _open_build(folder: Path) -> Opened:
    manifest = read_manifest(folder)
    register_recorded(manifest, folder)
    if not manifest["complete"]:
        raise DatasetFolderError(
            f"{folder}: incomplete build (gaps); build it with --allow-gaps to audit what there is"
        )
    findings = [
        Finding("altered", "error", None, None, None, (), f"{name} is missing or was changed after the build")
        for name in altered_files(folder, manifest)
    ]
    findings += _gap_findings(manifest)
    rows_of: dict[str, list[Row]] = {}
    for lang in manifest["languages"]:
        try:
            rows_of[lang] = [row for split in SPLITS for row in read_rows(folder, lang, split)]
        except DatasetFolderError:
            continue  # a finding says that it is altered
    findings += _structure_findings(rows_of)
    lists = [
        _build_list(rows, lang, label, split)
        for lang, all_rows in rows_of.items()
        for label in LABELS
        for split in SPLITS
        if (rows := [row for row in all_rows if (row.label, row.split) == (label, split)])
    ]
    seen: dict[str, Item] = {}
    for rows in rows_of.values():
        for row in rows:
            seen.setdefault(row.id, Item(row.id, row.label, row.split, row.text_en))
    title = f"build {manifest['recipe']['name']}, digest {manifest['digest'][:12]}"
    return Opened(folder, BUILD, title, lists, [seen[row] for row in sorted(seen)], findings)


def _build_list(rows: Sequence[Row], lang: str, label: str, split: str) -> AuditList:
    return AuditList(
        lang,
        label,
        split,
        [row.id for row in rows],
        [row.text for row in rows],
        [row.text_en for row in rows],
        [None] * len(rows),
        [row.scores.get("round_trip") for row in rows],
    )


def _gap_findings(manifest: Mapping[str, Any]) -> list[Finding]:
    return [
        Finding(
            "gap",
            "error",
            gap["lang"],
            gap["label"],
            gap["split"],
            tuple(gap["ids"]),
            f"{counted(len(gap['ids']), 'prompt')} without a translation",
        )
        for gap in manifest["gaps"]
    ]


def _structure_findings(rows_of: Mapping[str, Sequence[Row]]) -> list[Finding]:
    """Return where the languages do not hold the same prompts: order, English text, group."""
    findings = []
    first: dict[str, Row] = {}
    order: list[str] = []
    for rows in rows_of.values():
        for row in rows:
            if row.id not in first:
                first[row.id] = row
    order = max(([row.id for row in rows] for rows in rows_of.values()), key=len, default=[])
    position = {row: index for index, row in enumerate(order)}
    for lang, rows in rows_of.items():
        other = tuple(
            row.id for row in rows if (row.text_en, row.label) != (first[row.id].text_en, first[row.id].label)
        )
        if other:
            message = (
                f"{counted(len(other), 'row')} whose English text differs from that of the other languages"
            )
            findings.append(Finding("structure", "error", lang, None, None, other, message))
        group = tuple(row.id for row in rows if row.group != group_id(row.text_en, row.label))
        if group:
            message = f"{counted(len(group), 'row')} whose group differs from that of the English text"
            findings.append(Finding("structure", "error", lang, None, None, group, message))
        places = [position.get(row.id, -1) for row in rows]
        if places != sorted(places) or len({row.id for row in rows}) != len(rows):
            message = "rows are in a different order than in the other languages, or appear twice"
            findings.append(Finding("structure", "error", lang, None, None, (), message))
    return findings
