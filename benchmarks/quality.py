"""Measure what the checks find of planted errors of meaning, by kind and language, and their false alarms.

Thresholds are calibrated on the even rows of the parallel lists of a release; everything is measured on the
odd rows. `meaning_errors` plants the errors, a few kinds at a time, so that at most a tenth of the rows is
changed. An error is found where a check flags its row; a shifted list, where the list raises the alarm. False
alarms are flags of the odd rows as they are, per 1,000: some of them are defects that are there.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from meaning_errors import EDITS, Pair, plant, shift

from polyrefuse_data.audit.calibrate import calibrate_lists
from polyrefuse_data.audit.folders import AuditList, by_language, open_folder
from polyrefuse_data.checks.lists import alignment_findings
from polyrefuse_data.checks.rows import CHECKS, Batch, run_checks
from polyrefuse_data.checks.thresholds import Thresholds, load_thresholds
from polyrefuse_data.core.languages import SOURCE_LANGUAGE, language

MEANING = ("fit", "cut", "repetition", "verbatim", "number_words", "negation", "intent")
SHARE = 0.03
"""Share of the rows that each kind changes."""

AT_ONCE = 3
"""Kinds that are planted into one copy of the rows."""

Table = dict[str, dict[str, float]]


def every_other(part: AuditList, first: int) -> AuditList:
    """Return every second row of a list, from the row `first` on."""
    rows = slice(first, None, 2)
    return replace(
        part,
        ids=part.ids[rows],
        texts=part.texts[rows],
        english=part.english[rows],
        backs=[None] * len(part.ids[rows]),
    )


def parallel_lists(folder: Path, langs: Sequence[str], thresholds: Thresholds) -> Iterator[AuditList]:
    """Yield the translated lists of a release that are parallel to their English."""
    for part in open_folder(folder).lists:
        if part.lang == SOURCE_LANGUAGE or None in part.english or (langs and part.lang not in langs):
            continue
        english = [text or "" for text in part.english]
        if not alignment_findings(english, part.texts, part.lang, part.label, part.split, thresholds):
            yield part


def row_flags(part: AuditList, thresholds: Thresholds) -> list[set[str]]:
    """Return the names of the checks that flag each row."""
    scored = run_checks(Batch(language(part.lang), part.texts, part.english), thresholds)
    return [{check for check in CHECKS if scored.flags[check][row]} for row in range(len(part.ids))]


def false_alarms(part: AuditList, thresholds: Thresholds) -> Mapping[str, float]:
    """Return flagged rows per 1,000 by check, and of the checks of meaning together."""
    flags = row_flags(part, thresholds)
    rates = {check: 1000 * sum(check in names for names in flags) / len(flags) for check in CHECKS}
    meaning = sum(bool(names & set(MEANING)) for names in flags)
    return {**rates, "any of meaning": 1000 * meaning / len(flags)}


def shares_found(part: AuditList, thresholds: Thresholds, seed: int) -> Iterator[tuple[str, float]]:
    """Yield the share of the planted errors of each kind that is found, in percent."""
    pairs = [
        Pair(lang=part.lang, english=english or "", text=text)
        for english, text in zip(part.english, part.texts, strict=True)
    ]
    names = list(EDITS)
    for kinds in (names[first : first + AT_ONCE] for first in range(0, len(names), AT_ONCE)):
        planted = plant(pairs, kinds, SHARE, seed)
        texts = [planted[row][1] if row in planted else pair.text for row, pair in enumerate(pairs)]
        flags = row_flags(replace(part, texts=texts), thresholds)
        for kind in kinds:
            rows = [row for row, (planted_kind, _) in planted.items() if planted_kind == kind]
            if rows:
                yield kind, 100 * sum(bool(flags[row]) for row in rows) / len(rows)


def shifts_found(lists: Sequence[AuditList], thresholds: Thresholds) -> float:
    """Return the share of lists that raise the alarm once shifted by a row from the middle, in percent."""
    alarms = [
        alignment_findings(
            [text or "" for text in part.english],
            shift(part.texts),
            part.lang,
            part.label,
            part.split,
            thresholds,
        )
        for part in lists
    ]
    return 100 * sum(bool(findings) for findings in alarms) / len(alarms)


def show(title: str, table: Table) -> None:
    """Print a table of kinds or checks by language, with the mean of the languages."""
    langs = list(dict.fromkeys(lang for row in table.values() for lang in row))
    print(f"\n{title}\n{'':20}" + "".join(lang.rjust(7) for lang in langs) + "   mean")
    for name, row in table.items():
        line = "".join((f"{row[lang]:.1f}" if lang in row else "-").rjust(7) for lang in langs)
        print(name.ljust(20) + line + f"{sum(row.values()) / len(row):7.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--material", type=Path, required=True, help="folder with the release in published/")
    parser.add_argument("--langs", default="", help="codes divided by commas; all by default")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shipped = load_thresholds()
    langs = [lang for lang in options.langs.split(",") if lang]
    lists = list(parallel_lists(options.material / "published", langs, shipped))
    thresholds = calibrate_lists([every_other(part, 0) for part in lists], "even rows", shipped)
    if thresholds is None:
        parser.error(f"{options.material}: no parallel list")
    odd = [every_other(part, 1) for part in lists]
    alarms: Table = defaultdict(dict)
    found: Table = defaultdict(dict)
    for part in by_language(odd):
        for check, rate in false_alarms(part, thresholds).items():
            alarms[check][part.lang] = rate
        for kind, share in shares_found(part, thresholds, options.seed):
            found[kind][part.lang] = share
        own = [each for each in odd if each.lang == part.lang]
        found["shifted lists"][part.lang] = shifts_found(own, thresholds)
    show("Odd rows flagged per 1,000, nothing planted", alarms)
    show("Planted errors found, percent", found)


if __name__ == "__main__":
    main()
