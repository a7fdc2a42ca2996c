"""What the model-free checks find of planted errors, by kind and language, and their false alarms.

Errors are planted into the parallel lists of a release and into the embedded sample by `planted_errors`; an
error counts as found where a check flags its row, or raises an alarm over the row's list. False alarms are
flags of rows as they are, per 1,000; some of them are defects that are there.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import planted_errors
from planted_errors import Pair, Planted

from polyrefuse_data.audit.folders import open_folder
from polyrefuse_data.checks.lists import alignment_findings
from polyrefuse_data.checks.rows import CHECKS, Batch, run_checks
from polyrefuse_data.checks.thresholds import load_thresholds
from polyrefuse_data.core.languages import LANGUAGES, SOURCE_LANGUAGE

LEARNED = ("fit", "cut")
"""Checks that look at all rows of a language; the others are run on the planted rows alone."""

MEANING = ("fit", "cut", "repetition", "verbatim", "number_words", "negation", "intent")

THRESHOLDS = load_thresholds()


def flagged(pairs: Sequence[Pair], lang: str, positions: Sequence[int]) -> dict[int, set[str]]:
    """Return the checks that flag each of the rows at `positions`."""
    batch = Batch(LANGUAGES[lang], [pair.text for pair in pairs], [pair.english for pair in pairs])
    chosen = [pairs[position] for position in positions]
    rows = Batch(LANGUAGES[lang], [pair.text for pair in chosen], [pair.english for pair in chosen])
    scored = run_checks(rows, THRESHOLDS)
    learned = {name: CHECKS[name].scorer(batch) for name in LEARNED}
    flags: dict[int, set[str]] = {}
    for number, position in enumerate(positions):
        names = {name for name, values in scored.flags.items() if name not in LEARNED and values[number]}
        names |= {name for name in LEARNED if THRESHOLDS.flagged(name, lang, learned[name][position])}
        flags[position] = names
    for place in dict.fromkeys(pairs[position].place for position in positions):
        inside = [pair for pair in pairs if pair.place == place]
        english, texts = [pair.english for pair in inside], [pair.text for pair in inside]
        if alignment_findings(english, texts, lang, "", "", THRESHOLDS):
            for position in positions:
                if pairs[position].place == place:
                    flags[position].add("alignment")
    return flags


def release_pairs(folder: Path) -> Iterator[tuple[str, list[Pair]]]:
    """Yield each language with the rows of its lists that are parallel."""
    by_lang: dict[str, list[Pair]] = defaultdict(list)
    for part in open_folder(folder).lists:
        if part.lang == SOURCE_LANGUAGE or None in part.english:
            continue
        english = [text or "" for text in part.english]
        if not alignment_findings(english, part.texts, part.lang, part.label, part.split, THRESHOLDS):
            place = f"{part.label}-{part.split}"
            by_lang[part.lang] += [Pair(place, *row) for row in zip(english, part.texts, strict=True)]
    yield from by_lang.items()


def show(title: str, cells: dict[str, dict[str, float]]) -> None:
    """Print a table of kinds or checks by language, with the mean of the languages."""
    langs = list(dict.fromkeys(lang for row in cells.values() for lang in row))
    print(f"\n{title}\n{'':20}" + "".join(lang.rjust(7) for lang in langs) + "   mean")
    for name, row in cells.items():
        mean = sum(row.values()) / len(row)
        line = "".join((f"{row[lang]:.1f}" if lang in row else "-").rjust(7) for lang in langs)
        print(name.ljust(20) + line + f"{mean:7.1f}", flush=True)


def false_alarms(pairs: Sequence[Pair], lang: str) -> dict[str, float]:
    """Return flagged rows per 1,000 by check, and of all checks of meaning together."""
    flags = flagged(pairs, lang, range(len(pairs)))
    rates = {name: 1000 * sum(name in names for names in flags.values()) / len(pairs) for name in CHECKS}
    any_meaning = sum(bool(names & set(MEANING)) for names in flags.values())
    return {**rates, "any of meaning": 1000 * any_meaning / len(pairs)}


def found(planted: Planted, lang: str) -> float:
    """Return the share of planted errors that is found, in percent."""
    flags = flagged(planted.pairs, lang, planted.positions)
    return 100 * sum(bool(names) for names in flags.values()) / len(flags)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--material", type=Path, help="folder with the release in published/")
    parser.add_argument("--langs", default="", help="codes divided by commas; all by default")
    parser.add_argument("--kinds", default="", help="kinds of errors divided by commas; all by default")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wanted = options.langs.split(",") if options.langs else [code for code in LANGUAGES if code != "en"]
    kinds = options.kinds.split(",") if options.kinds else planted_errors.KINDS
    if options.material:
        rates: dict[str, dict[str, float]] = defaultdict(dict)
        shares: dict[str, dict[str, float]] = defaultdict(dict)
        for lang, pairs in release_pairs(options.material / "published"):
            if lang not in wanted:
                continue
            for name, rate in false_alarms(pairs, lang).items():
                rates[name][lang] = rate
            for kind in kinds:
                planted = planted_errors.plant(kind, pairs, lang, options.seed)
                if planted.positions:
                    shares[kind][lang] = found(planted, lang)
        show("The release: rows flagged per 1,000, nothing planted", rates)
        show("The release: planted errors found, percent", shares)
    sample: dict[str, dict[str, float]] = defaultdict(dict)
    for lang in wanted:
        for kind, planted in planted_errors.sample_errors(lang, options.seed).items():
            sample[kind][lang] = found(planted, lang)
    show("The sample: planted errors found, percent", sample)


if __name__ == "__main__":
    main()
