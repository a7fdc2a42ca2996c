"""Does a conformal threshold miss as often as it says, in every language?

    python benchmarks/conformal.py [--data BUILD] [--target 0.05] [--calibration 32 199] [--seeds 50]

One guard for all languages is fitted on the training prompts of a build. The harmful validation and test
prompts of each language are scored once; each seed draws as many as `--calibration` says, and the miss rate
is that of the rest, as by `conformal=TARGET`. Drawn like this, they are exchangeable, which is what the
theorem asks for. Printed by language: the mean over the seeds, and the standard error that so many seeds
leave; the same with the rank always rounded down; and, as it is used, the miss rate on the test prompts of a
threshold from the validation prompts, which need not be exchangeable (in the sample they are about other
topics).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def rounded_down(harmful: Sequence[float], target: float) -> float:
    """Return the ⌊(n + 1)·target⌋-th smallest score: the threshold without smoothing."""
    rank = math.floor((len(harmful) + 1) * target + 1e-9)
    return sorted(harmful)[rank - 1] if rank else -math.inf


def miss_rates(
    scores: Sequence[float],
    n: int,
    target: float,
    seeds: int,
    rule: Callable[[Sequence[float], float], float],
) -> list[float]:
    """Return for each seed the miss rate of `rule` from `n` of `scores` on the others."""
    found = []
    for seed in range(seeds):
        drawn = np.random.default_rng(seed).permutation(np.asarray(scores))
        found.append(float((drawn[n:] < rule(drawn[:n].tolist(), target)).mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="organism-harmfulness")
    parser.add_argument("--data", type=Path, default=Path("builds/sample"))
    parser.add_argument("--target", type=float, default=0.05)
    parser.add_argument("--calibration", type=int, nargs="+", default=[32, 199])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    arguments = parser.parse_args()

    from polyrefuse_eval.harmfulness.guard_experiment import FitSettings, fit
    from polyrefuse_eval.models.chat import ChatModel
    from polyrefuse_eval.results.data import open_data
    from polyrefuse_eval.statistics.thresholds import conformal_miss_rate, conformal_threshold

    target = arguments.target
    data = open_data(arguments.data)
    langs = tuple(data.languages)
    guard = fit(ChatModel.load(arguments.model), data, FitSettings(langs, langs, pooled=True))
    pools, as_used = {}, {}
    for lang in langs:
        validation, test = (
            guard.scores([row.text for row in data.prompts(lang, split, "harmful")], lang)
            for split in ("validation", "test")
        )
        as_used[lang] = float((np.array(test) < conformal_threshold(validation, target)).mean())
        # Ties would only make misses rarer: far below any difference, each score gets one of its own.
        pool = np.array(validation + test)
        pools[lang] = (pool + np.random.default_rng(0).uniform(0, 1e-9, len(pool))).tolist()
    result: list[dict[str, Any]] = []
    for n in arguments.calibration:
        print(f"n = {n}, {arguments.seeds} seeds; promised: {100 * conformal_miss_rate(n, target):.2f} %")
        print("lang  smoothed  standard error  rounded down  validation to test")
        languages = {}
        for lang, scores in pools.items():
            smoothed = miss_rates(scores, n, target, arguments.seeds, conformal_threshold)
            plain = miss_rates(scores, n, target, arguments.seeds, rounded_down)
            languages[lang] = {
                "smoothed": float(np.mean(smoothed)),
                "standard_error": float(np.std(smoothed, ddof=1) / math.sqrt(len(smoothed))),
                "rounded_down": float(np.mean(plain)),
                "validation_to_test": as_used[lang],
            }
            print(f"{lang:4}" + "".join(f"{100 * value:12.2f} %" for value in languages[lang].values()))
        worst = max(abs(one["smoothed"] - target) for one in languages.values())
        print(f"farthest from {100 * target:g} %: {100 * worst:.2f} points\n")
        result.append({"target": target, "n": n, "seeds": arguments.seeds, "languages": languages})
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
