"""What `polyrefuse build` prints of a build: its rows by language, what the checks found, its gaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from polyrefuse_data.cli.parts import print_table
from polyrefuse_data.core.display import counted
from polyrefuse_data.core.terminal import show

if TYPE_CHECKING:
    from polyrefuse_data.build.pipeline import BuildResult

SHOWN_FINDINGS = 12
"""How many findings a summary shows; `polyrefuse audit` shows all."""

SHOWN_IDS = 3


def print_build(result: BuildResult, quiet: bool) -> None:
    """Print the summary of a build; if `quiet`, only gaps and findings of severity error."""
    if result.gaps and not (quiet and result.complete):
        _print_gaps(result)
    if not result.complete:
        if not quiet:
            show(
                "Nothing was packaged. Translate what is missing, or package the rest with --allow-gaps.",
                err=True,
            )
        return
    if quiet:
        _print_errors(result)
    else:
        _print_rows(result)
        _print_findings(result)
        _print_load_line(result)


def _print_gaps(result: BuildResult) -> None:
    missing = sum(len(gap.ids) for gap in result.gaps)
    show(f"{counted(missing, 'prompt')} without a translation:", err=True)
    for gap in result.gaps:
        why = ", ".join(f"{reason} {number}" for reason, number in sorted(Counter(gap.reasons).items()))
        ids = _first_ids(gap.ids)
        show(f"  {gap.lang} {gap.split} {gap.label}: {len(gap.ids)} ({ids}): {why}", err=True)


def _print_rows(result: BuildResult) -> None:
    from polyrefuse_data.core.schema import LABELS, SPLITS

    manifest = result.manifest
    verb = "Unchanged" if result.unchanged else "Built"
    rows = sum(facts.get("rows", 0) for facts in manifest["files"].values())
    size = f"{counted(len(manifest['languages']), 'language')}, {counted(rows, 'row')}"
    show(f"{verb}: {result.folder} ({manifest['recipe']['name']}, {size})")
    places = [
        f"{label}-{split}"
        for label in reversed(LABELS)
        for split in SPLITS
        if split in manifest["sizes"].get(label, {})
    ]
    table = [
        [lang, *(summary["rows"].get(place, 0) for place in places), summary["flagged_rows"]]
        for lang, summary in manifest["languages"].items()
    ]
    print_table(["lang", *places, "flagged"], table)


def _print_findings(result: BuildResult) -> None:
    from polyrefuse_data.core.findings import severity_line

    findings = result.manifest["findings"]
    show(f"Checks: {severity_line(result.manifest['severities'])}")
    for finding in findings[:SHOWN_FINDINGS]:
        show(f"  {_finding_line(finding)}")
    if len(findings) > SHOWN_FINDINGS:
        show(f"  ... and {len(findings) - SHOWN_FINDINGS} more: polyrefuse audit {result.folder}")


def _print_errors(result: BuildResult) -> None:
    """Print the findings of severity error on standard error: they are there with --quiet, too."""
    errors = [finding for finding in result.manifest["findings"] if finding["severity"] == "error"]
    for finding in errors[:SHOWN_FINDINGS]:
        show(_finding_line(finding), err=True)
    if errors:
        show(
            f"{result.folder} was built with {counted(len(errors), 'error')}: "
            f"polyrefuse audit {result.folder}",
            err=True,
        )


def _print_load_line(result: BuildResult) -> None:
    """Print how to load the last language of the build, in the last split that has rows."""
    files = result.manifest["files"]
    show(f"Digest: {result.manifest['digest']}")
    lang = list(result.manifest["languages"])[-1]
    splits = [name for name in ("train", "validation", "test") if files[f"{lang}/{name}.parquet"]["rows"]]
    if splits:
        show(f'Load:   datasets.load_dataset("{result.folder}", "{lang}", split="{splits[-1]}")')


def _finding_line(finding: Mapping[str, Any]) -> str:
    place = " ".join(finding[key] for key in ("lang", "label", "split") if finding[key])
    ids = f" ({_first_ids(finding['ids'])})" if finding["ids"] else ""
    return f"{finding['severity']:7}  {finding['check']}  {place}: {finding['message']}{ids}"


def _first_ids(ids: Sequence[str]) -> str:
    return ", ".join(ids[:SHOWN_IDS]) + (", ..." if len(ids) > SHOWN_IDS else "")
