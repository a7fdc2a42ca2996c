"""Rows flagged per 1,000, by check and language, on true translations and on the release's parallel lists.

On the sample every flag is a false alarm. On the release some are defects that are there: zero-width
characters, Yoruba without diacritics, a Russian row that is half English.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from polyrefuse_data.audit.audit import Report, audit
from polyrefuse_data.build.pipeline import BuildRequest, build
from polyrefuse_data.checks.rows import CHECKS


def show(title: str, report: Report) -> None:
    """Print the table of one folder; lists that are not parallel are left out."""
    bad = {(one.lang, one.label, one.split) for one in report.findings if one.check == "alignment"}
    lists = [one for one in report.lists if (one.lang, one.label, one.split) not in bad]
    langs = report.languages()
    rows = {lang: sum(one.rows for one in lists if one.lang == lang) for lang in langs}
    print(f"\n{title}: {sum(rows.values())} rows, flagged per 1,000")
    print("check".ljust(14) + "".join(lang.rjust(7) for lang in langs) + "    all")
    for check in CHECKS:
        flagged = {lang: sum(one.flagged[check] for one in lists if one.lang == lang) for lang in langs}
        cells = [f"{1000 * flagged[lang] / rows[lang]:.2f}" if rows[lang] else "" for lang in langs]
        total = f"{1000 * sum(flagged.values()) / sum(rows.values()):.2f}"
        print(check.ljust(14) + "".join(cell.rjust(7) for cell in cells) + total.rjust(7))
    print(f"lists with an alignment alarm: {len(bad)} of {len(report.lists)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--material", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        build(BuildRequest("sample", out=Path(folder) / "sample"))
        show("the embedded sample", audit(Path(folder) / "sample"))
    if options.material:
        show("the release's parallel lists", audit(options.material / "published"))


if __name__ == "__main__":
    main()
