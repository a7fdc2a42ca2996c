"""What a check says of a folder: findings, the same for builds and audits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from polyrefuse_data.core.display import counted

SEVERITIES = ("error", "warning", "note")
"""Most severe first: an error means that rows are unusable or missing; an audit then exits with 1."""


@dataclass(frozen=True)
class Finding:
    """One thing found: by which check, how severe, where, and the ids of the rows it concerns.

    `lang`, `label` and `split` are None where the finding is not about one of them.
    """

    check: str
    severity: str
    lang: str | None
    label: str | None
    split: str | None
    ids: tuple[str, ...]
    message: str

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as it stands in JSON reports and manifests."""
        return {**asdict(self), "ids": list(self.ids)}


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings in reading order: most severe first, then by check, language, label and split."""
    return sorted(
        findings,
        key=lambda finding: (
            SEVERITIES.index(finding.severity),
            finding.check,
            finding.lang or "",
            finding.label or "",
            finding.split or "",
            finding.ids,
        ),
    )


def count_by_severity(findings: Iterable[Finding]) -> dict[str, int]:
    """Return severity -> number of findings, with every severity present."""
    counts = dict.fromkeys(SEVERITIES, 0)
    for finding in findings:
        counts[finding.severity] += 1
    return counts


def severity_line(counts: Mapping[str, int]) -> str:
    """Return the numbers of findings on one line, the most severe first: `1 error, 2 warnings, 0 notes`."""
    return ", ".join(counted(counts.get(severity, 0), severity) for severity in SEVERITIES)
