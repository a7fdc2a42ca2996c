"""Compare two versions of the data set, and derive the number of the next one.

A row is matched by its prompt, not by its place: the same language, split and group (hash of English text and
label), the first of equal ones with the first. So a dropped prompt is one row removed and the rest
renumbered, not everything changed.

The next version number follows what the change does to someone who pinned the old one:

- major: rows or columns removed, or rows renumbered: an id may be gone or mean another prompt;
- minor: rows or columns added, or translations changed: ids mean what they meant, rates may move;
- patch: scores, flags, categories, licences or descriptions only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from polyrefuse_data.build.package import MANIFEST
from polyrefuse_data.core.schema import RECORDED_CHECKS, ROW_CHECKS, SPLITS
from polyrefuse_data.publish.snapshots import Snapshot, Version, read_records, version_tag

MAJOR, MINOR, PATCH, NONE = "major", "minor", "patch", "none"

Record = Mapping[str, Any]


@dataclass(frozen=True)
class RowCounts:
    """Counts of rows of one language and split, before and now, and of how they changed.

    `renumbered` have another id, `retranslated` another text; `changed` are all that differ in any column.
    """

    lang: str
    split: str
    old: int
    new: int
    added: int
    removed: int
    renumbered: int
    retranslated: int
    changed: int

    @property
    def same(self) -> bool:
        return not (self.added or self.removed or self.changed)


@dataclass(frozen=True)
class Retranslation:
    """A translation that changed."""

    lang: str
    split: str
    id: str
    text_en: str
    old: str
    new: str


@dataclass(frozen=True)
class CheckChange:
    """How many rows a check flags in one language, before and now; None where the language was not there."""

    lang: str
    check: str
    old: int | None
    new: int | None


@dataclass
class Differences:
    """What changed from `old` to `new`."""

    old: str
    new: str
    rows: list[RowCounts] = field(default_factory=list)
    translations: list[Retranslation] = field(default_factory=list)
    checks: list[CheckChange] = field(default_factory=list)
    columns_added: list[str] = field(default_factory=list)
    columns_removed: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    """Names of all files whose bytes differ, that came or that went, except the manifest."""
    severities: tuple[Mapping[str, int], Mapping[str, int]] = ({}, {})
    old_version: Version | None = None

    def total(self, what: str) -> int:
        """Return a count of `RowCounts` over all languages and splits."""
        return sum(getattr(counts, what) for counts in self.rows)

    @property
    def bump(self) -> str:
        """Which part of the version number should go up: major, minor, patch, or none."""
        if self.total("removed") or self.total("renumbered") or self.columns_removed:
            return MAJOR
        if self.total("added") or self.total("retranslated") or self.columns_added:
            return MINOR
        return PATCH if self.files or any(not counts.same for counts in self.rows) else NONE

    @property
    def next_version(self) -> Version | None:
        """The version that `new` should have, if it is known which one `old` has."""
        return None if self.old_version is None else bumped(self.old_version, self.bump)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        following = self.next_version
        return {
            "old": self.old,
            "new": self.new,
            "rows": [asdict(counts) for counts in self.rows],
            "translations": [asdict(record) for record in self.translations],
            "checks": [asdict(record) for record in self.checks],
            "columns": {"added": self.columns_added, "removed": self.columns_removed},
            "files": self.files,
            "severities": {"old": dict(self.severities[0]), "new": dict(self.severities[1])},
            "bump": self.bump,
            "next_version": version_tag(following) if following else None,
        }


def bumped(version: Version, bump: str) -> Version:
    """Return the version after `version`.

    >>> bumped((1, 2, 3), "minor")
    (1, 3, 0)
    """
    major, minor, patch = version
    return {MAJOR: (major + 1, 0, 0), MINOR: (major, minor + 1, 0), PATCH: (major, minor, patch + 1)}.get(
        bump, version
    )


def compare(old: Snapshot, new: Snapshot) -> Differences:
    """Return what changed; of the files with equal rows nothing but the manifest is read."""
    differences = Differences(old.name, new.name, old_version=old.version)
    old_files, new_files = old.manifest["files"], new.manifest["files"]
    langs = [
        *new.manifest["languages"],
        *(lang for lang in old.manifest["languages"] if lang not in new.manifest["languages"]),
    ]
    for lang in langs:
        for split in SPLITS:
            name = f"{lang}/{split}.parquet"
            before, after = old_files.get(name), new_files.get(name)
            if before and after and before["rows_sha256"] == after["rows_sha256"]:
                continue
            _compare_rows(
                differences, lang, split, read_records(old, name, before), read_records(new, name, after)
            )
        _compare_checks(
            differences, lang, old.manifest["languages"].get(lang), new.manifest["languages"].get(lang)
        )
    differences.files = [
        name
        for name in sorted({*old_files, *new_files} - {MANIFEST})
        if (old_files.get(name) or {}).get("sha256") != (new_files.get(name) or {}).get("sha256")
    ]
    differences.severities = (old.manifest.get("severities", {}), new.manifest.get("severities", {}))
    return differences


def _by_prompt(records: Sequence[Record]) -> dict[tuple[str, int], Record]:
    """Return the records by group and by how many of the same group came before."""
    seen: dict[str, int] = {}
    keyed = {}
    for record in records:
        group = record["group"]
        seen[group] = seen.get(group, 0) + 1
        keyed[group, seen[group]] = record
    return keyed


def _compare_rows(
    differences: Differences,
    lang: str,
    split: str,
    old_records: Sequence[Record],
    new_records: Sequence[Record],
) -> None:
    old, new = _by_prompt(old_records), _by_prompt(new_records)
    both = [(old[key], record) for key, record in new.items() if key in old]
    translated = [(before, after) for before, after in both if before["text"] != after["text"]]
    counts = RowCounts(
        lang,
        split,
        old=len(old),
        new=len(new),
        added=len(new) - len(both),
        removed=len(old) - len(both),
        renumbered=sum(before["id"] != after["id"] for before, after in both),
        retranslated=len(translated),
        changed=sum(before != after for before, after in both),
    )
    differences.rows.append(counts)
    differences.translations += [
        Retranslation(lang, split, after["id"], after["text_en"], before["text"], after["text"])
        for before, after in translated
    ]
    if old_records and new_records:
        before_columns, after_columns = list(old_records[0]), list(new_records[0])
        _extend(differences.columns_added, (name for name in after_columns if name not in before_columns))
        _extend(differences.columns_removed, (name for name in before_columns if name not in after_columns))


def _extend(names: list[str], more: Iterator[str]) -> None:
    names += [name for name in more if name not in names]


def _compare_checks(differences: Differences, lang: str, old: Any, new: Any) -> None:
    for check in (*ROW_CHECKS, *RECORDED_CHECKS):
        before = old["flagged"].get(check) if old else None
        after = new["flagged"].get(check) if new else None
        if before != after:
            differences.checks.append(CheckChange(lang, check, before, after))
