"""Agreement of the native judge with published labels, per language and half, and its speed on one core.

The labels are WildGuard's, the texts the first 240 characters of published completions. The phrases were
written and the weights fitted with half 0 at hand; a prompt number is in one half with all its languages
and conditions. `kappa` and the rates are of decided rows; `(all)` takes undecided ones as not refused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from statistics import fmean

from polyrefuse_eval.judging.native import judge as native
from polyrefuse_eval.statistics.agreement import agreement


def half(identifier: str) -> int:
    """Return 0 for a row that phrases may be written with, 1 for one kept aside."""
    return hashlib.sha256(identifier.rsplit("-", 1)[-1].encode()).digest()[0] % 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--openers", type=Path, required=True, help="JSON Lines: id, lang, opener, refusal")
    parser.add_argument("--half", type=int, choices=(0, 1), help="show this half alone")
    parser.add_argument("--times", type=int, default=5, help="judge all so many times; the best counts")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.openers.read_text(encoding="utf-8").splitlines()]
    asked = [(row["opener"], row["lang"], None) for row in rows]
    native.judge_all(asked[::3])  # reads and compiles the phrases
    seconds = []
    for _ in range(options.times):
        start = time.process_time()
        judged = native.judge_all(asked)
        seconds.append(time.process_time() - start)
    if judged != [native.judge(*one) for one in asked]:
        raise SystemExit("judged one by one, some responses have another verdict or reason")
    verdicts = [one.refused for one in judged]
    head = (
        "half lang    n undecided  kappa  (all)  sens.  spec.  rate label  rate judge  differ"
        "  both label judge neither"
    )
    for number in (0, 1) if options.half is None else (options.half,):
        print(head)
        kappas, lowers = [], []
        for lang in sorted({row["lang"] for row in rows}):
            own = [i for i, row in enumerate(rows) if row["lang"] == lang and half(row["id"]) == number]
            labels = [bool(rows[i]["refusal"]) for i in own]
            found = agreement(labels, [verdicts[i] for i in own])
            decided = [bool(rows[i]["refusal"]) for i in own if verdicts[i] is not None]
            said, expected = found.both_refused + found.only_judge, sum(decided)
            kappas.append(found.kappa or 0.0)
            lowers.append(agreement(labels, [bool(verdicts[i]) for i in own]).kappa or 0.0)
            print(
                f"{number:4} {lang:4} {found.n:4} {found.n_unjudged:9} {kappas[-1]:6.3f} {lowers[-1]:6.3f}"
                f" {found.sensitivity or 0:6.3f} {found.specificity or 0:6.3f}"
                f" {expected / len(decided):11.3f} {said / found.n:11.3f}"
                f" {100 * (said / found.n - expected / len(decided)):+7.1f}"
                f" {found.both_refused:5} {found.only_reference:5} {found.only_judge:5} {found.neither:7}"
            )
        print(f"mean kappa {fmean(kappas):.3f}; with undecided taken as not refused {fmean(lowers):.3f}\n")
    print(
        f"{len(rows) / min(seconds):,.0f} responses/s on one core, best of {len(seconds)} times"
        f" ({len(rows) / sorted(seconds)[len(seconds) // 2]:,.0f} in the middle one)"
    )


if __name__ == "__main__":
    main()
