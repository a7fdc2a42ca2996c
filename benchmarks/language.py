"""The language check on every string of the release: share right and rows/s, against single detectors."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

from polyrefuse_data.audit.folders import open_folder
from polyrefuse_data.checks import language as checks
from polyrefuse_data.core.languages import LANGUAGES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--every", type=int, default=20, help="ask langdetect about every n-th row only")
    options = parser.parse_args()
    lists = open_folder(options.material / "published").lists
    rows = [(text, one.lang) for one in lists for text in one.texts]
    votes = checks.LanguageVotes()
    votes.identify("Guten Tag, wie geht es dir?", "de")  # load the models
    checks._lingua("Guten Tag")
    start = time.perf_counter()
    scores = [votes.identify(text, lang).score(lang) for text, lang in rows]
    ours = len(rows) / (time.perf_counter() - start)
    counts = Counter(scores)
    yoruba = Counter(score for score, (_, lang) in zip(scores, rows, strict=True) if lang == "yo")
    print(
        f"votes: {100 * counts[1.0] / len(rows):.2f} % right of {len(rows)}, {counts[0.0]} flagged, "
        f"{ours:.0f} rows/s"
    )
    print(f"       Yoruba: {100 * yoruba[1.0] / yoruba.total():.2f} % right of {yoruba.total()}")
    codes = list(LANGUAGES)
    wrong = [(text, codes[(codes.index(lang) + 1 + n % 13) % 14]) for n, (text, lang) in enumerate(rows)]
    seen = sum(votes.identify(text, lang).score(lang) == 0 for text, lang in wrong)
    print(f"       rows labelled as another language: {100 * seen / len(wrong):.2f} % flagged")
    plain = {"lingua": (checks._lingua, 1), "langdetect": (checks._langdetect, options.every)}
    for name, (detect, every) in plain.items():
        chosen = rows[::every]
        start = time.perf_counter()
        right = sum(detect(text) == lang for text, lang in chosen)
        speed = len(chosen) / (time.perf_counter() - start)
        print(
            f"{name}: {100 * right / len(chosen):.2f} % right, {speed:.0f} rows/s; "
            f"votes are {ours / speed:.1f} times as fast"
        )


if __name__ == "__main__":
    main()
