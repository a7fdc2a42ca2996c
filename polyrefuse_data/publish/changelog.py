"""Describe differences in words: for the terminal, and for the changelog published beside the card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polyrefuse_data.core.display import counted
from polyrefuse_data.publish.differences import NONE, Differences, RowCounts
from polyrefuse_data.publish.snapshots import Version, version_tag

HEADING = "# Changes\n"


def difference_lines(differences: Differences, texts: int = 10) -> list[str]:
    """Return the differences as lines to print; the first `texts` changed translations with both texts."""
    lines = [f"{differences.old} -> {differences.new}"]
    if differences.bump == NONE:
        return [*lines, "no difference"]
    changed = [counts for counts in differences.rows if not counts.same]
    if changed:
        lines.append("rows (added, removed, renumbered, retranslated, changed in any column):")
        lines += [f"  {counts.lang} {counts.split}: {_numbers(counts)}" for counts in changed]
    if differences.columns_added or differences.columns_removed:
        lines.append(
            f"columns: added {_list(differences.columns_added)}; removed {_list(differences.columns_removed)}"
        )
    if differences.translations:
        lines.append(f"translations that changed: {len(differences.translations)}")
        for translation in differences.translations[:texts]:
            lines += [
                f"  {translation.lang} {translation.id}  {_line(translation.text_en)}",
                f"    - {_line(translation.old)}",
                f"    + {_line(translation.new)}",
            ]
        if len(differences.translations) > texts:
            lines.append(f"  ... and {len(differences.translations) - texts} more: --format json has all")
    if differences.checks:
        lines.append("rows flagged by checks:")
        lines += [
            f"  {change.lang} {change.check}: {_count(change.old)} -> {_count(change.new)}"
            for change in differences.checks
        ]
    before, after = differences.severities
    if dict(before) != dict(after):
        lines.append(
            "findings: " + ", ".join(f"{key}s {before.get(key, 0)} -> {after[key]}" for key in after)
        )
    others = [name for name in differences.files if not name.endswith(".parquet")]
    if others:
        lines.append(f"other files that changed: {', '.join(others)}")
    following = differences.next_version
    lines.append(f"next version: {differences.bump}" + (f", {version_tag(following)}" if following else ""))
    return lines


def _numbers(counts: RowCounts) -> str:
    return (
        f"+{counts.added} -{counts.removed} #{counts.renumbered} ~{counts.retranslated} *{counts.changed}"
        f" ({counts.old} -> {counts.new})"
    )


def _line(text: str) -> str:
    return " ".join(text.split())


def _list(names: list[str]) -> str:
    return ", ".join(names) or "none"


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)


def changelog(older: str, version: Version, digest: str, entry: list[str]) -> str:
    """Return the changelog with the entry of `version` on top of `older`, the changelog before it.

    The same inputs give the same text (no date stands in it: the tags have theirs), so that publishing again
    after an interruption finds nothing new to send. Counts only, no prompt: changelogs travel further.
    """
    body = "\n".join([f"## {version_tag(version)}", "", *entry, "", f"Digest: `{digest}`.", ""])
    rest = older.removeprefix(HEADING).lstrip("\n")
    return HEADING + "\n" + body + ("\n" + rest if rest else "")


def first_entry(manifest: Mapping[str, Any]) -> list[str]:
    """Return what the changelog says of a first version: of a build, or of results."""
    if "languages" not in manifest:
        return [f"First version: {counted(len(manifest['runs']), 'run')}."]
    rows = sum(facts.get("rows", 0) for facts in manifest["files"].values())
    return [f"First version: {counted(rows, 'row')} in {counted(len(manifest['languages']), 'language')}."]


def entry(differences: Differences) -> list[str]:
    """Return what the changelog says of differences between builds."""
    lines = []
    for what, words in (
        ("removed", "Rows removed"),
        ("renumbered", "Rows with another id"),
        ("added", "Rows added"),
        ("retranslated", "Translations changed"),
    ):
        by_lang: dict[str, int] = {}
        for counts in differences.rows:
            by_lang[counts.lang] = by_lang.get(counts.lang, 0) + getattr(counts, what)
        places = ", ".join(f"{lang} {number}" for lang, number in by_lang.items() if number)
        if places:
            lines.append(f"- {words}: {differences.total(what)} ({places}).")
    if differences.columns_added:
        lines.append(f"- Columns added: {', '.join(differences.columns_added)}.")
    if differences.columns_removed:
        lines.append(f"- Columns removed: {', '.join(differences.columns_removed)}.")
    by_check: dict[str, list[int]] = {}
    for change in differences.checks:
        total = by_check.setdefault(change.check, [0, 0])
        total[0] += change.old or 0
        total[1] += change.new or 0
    lines += [
        f"- Rows flagged by {check}: {old} -> {new}." for check, (old, new) in by_check.items() if old != new
    ]
    return lines or [
        "- Scores, descriptions or metadata only; prompts, ids and translations are as they were."
    ]
