"""What the native judge says of labelled responses: agreement and coverage, and its speed on one core.

Openers: the first 240 characters of published completions with WildGuard's labels (JSON Lines: id, lang,
opener, refusal), by model and language. XSTest: whole answers with human labels, full refusals and full
answers, by type of prompt. Written responses: shares read as they are meant, by kind. The published
model was fitted to these openers and to XSTest: `judge_fit.py` tells what it says of a model that it was
not fitted to. Kappa is of what is decided; coverage is the share of that.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from polyrefuse_data.core.languages import PUBLISHED_LANGUAGES
from polyrefuse_eval.judging.base import JudgeInput, Measures, Verdict
from polyrefuse_eval.judging.cascade import Cascade, cascade_statistics
from polyrefuse_eval.judging.native.judge import NAME, NativeJudge, Reader, judge
from polyrefuse_eval.statistics.agreement import agreement

Labelled = tuple[str, JudgeInput, bool]
"""A group, a response, and whether it refuses."""


def openers(path: Path) -> list[Labelled]:
    """Return the openers of a file, grouped by model and language."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        (
            f"{row['model'][:14]} {row['lang']}",
            JudgeInput(row["id"], row["lang"], row["opener"]),
            bool(row["refusal"]),
        )
        for row in rows
    ]


def xstest(path: Path) -> list[Labelled]:
    """Return the answers of a file that people call a full refusal or a full answer, by type of prompt."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            (
                f"{path.stem} {row['type']}",
                JudgeInput(row["id"], "en", row["completion"], row["prompt"]),
                row["final_label"][0] == "2",
            )
            for row in csv.DictReader(file)
            if row["final_label"][0] in "12"
        ]


def show_agreement(rows: Sequence[Labelled], verdicts: Sequence[Verdict]) -> None:
    """Print kappa and coverage of each group and of all."""
    groups = sorted({group for group, _, _ in rows})
    for group in [*groups, "all"]:
        own = [index for index, row in enumerate(rows) if group in (row[0], "all")]
        found = agreement([rows[index][2] for index in own], [verdicts[index].refused for index in own])
        puzzled = sum(verdicts[index].puzzled for index in own)
        print(
            f"{group:40} n {len(own):5} kappa {found.kappa or 0:6.3f} coverage {found.n / len(own):.3f} "
            f"puzzled {puzzled:4} missed {found.only_reference:4} false {found.only_judge:4}"
        )


def show_written(path: Path) -> None:
    """Print the shares of written responses that are read as they are meant, of those that are decided."""
    kinds = yaml.safe_load(path.read_text(encoding="utf-8"))
    right = decided = total = 0
    print(f"{path.stem}: right of the decided, coverage")
    for kind, by_lang in kinds.items():
        verdicts = [judge(text, lang) for lang, texts in by_lang.items() for text in texts]
        if kind == "puzzled":
            print(f"  {kind:34} {sum(one.puzzled for one in verdicts)} of {len(verdicts)} told")
            continue
        said = [one.refused for one in verdicts if one.refused is not None]
        hits = said.count("refusals" in kind)
        right, decided, total = right + hits, decided + len(said), total + len(verdicts)
        print(
            f"  {kind:34} {hits / max(1, len(said)):.3f} {len(said) / len(verdicts):.3f} of {len(verdicts)}"
        )
    print(f"  {'all':34} {right / decided:.3f} {decided / total:.3f} of {total}")


class StandIn:
    """A judge that says what the labels say."""

    name = "stand-in"
    measures: Measures = "refusal"
    languages = None
    needs_prompt = False
    chunk = 4096

    def __init__(self, rows: Iterable[Labelled]) -> None:
        self.labels = {(item.id, item.lang): refused for _, item, refused in rows}

    def load(self) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Nothing to free."""

    def judge(
        self, items: Sequence[JudgeInput], advance: Callable[[int], object] | None = None
    ) -> list[Verdict]:
        """Return the labels of `items`."""
        if advance is not None:
            advance(len(items))
        return [Verdict(self.labels[item.id, item.lang], "label") for item in items]


def show_cascade(rows: Sequence[Labelled]) -> None:
    """Print what a cascade over the labels reads, and how its rates differ from theirs."""
    cascade = Cascade(NativeJudge(), StandIn(rows))
    verdicts = cascade.judge([item for _, item, _ in rows])
    print("cascade:", cascade_statistics(verdicts, cascade.name))
    for lang in sorted({item.lang for _, item, _ in rows}):
        own = [(row[2], verdict) for row, verdict in zip(rows, verdicts, strict=True) if row[1].lang == lang]
        label = sum(refused for refused, _ in own) / len(own)
        said = sum(bool(verdict.refused) for _, verdict in own) / len(own)
        read = sum(verdict.decided_by == "stand-in" for _, verdict in own) / len(own)
        print(f"  {lang} rate {said:.3f}, stand-in alone {label:.3f}, read by it {read:.1%}")


def show_speed(rows: Sequence[Labelled], times: int) -> None:
    """Print how long 14 languages take to get ready, and responses a second: in batches, and one by one."""
    start = time.process_time()
    reader = Reader()
    for lang in PUBLISHED_LANGUAGES:
        reader.lexicon(lang)
    print(f"14 languages ready in {time.process_time() - start:.2f} s")
    items = [item for _, item, _ in rows]
    native = NativeJudge()
    native.load()
    native.judge(items[::7])
    batches, single = [], []
    for _ in range(times):
        start = time.process_time()
        together = native.judge(items)
        batches.append(time.process_time() - start)
        start = time.process_time()
        alone = [native.judge([item])[0] for item in items]
        single.append(time.process_time() - start)
        if [replace(one, reason="") for one in together] != [replace(one, reason="") for one in alone]:
            raise SystemExit("judged one by one, some responses have another verdict")
    print(
        f"{len(items) / min(batches):,.0f} responses/s together, {len(items) / min(single):,.0f} one by one"
        f" (best of {times}, one core)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--openers", type=Path, action="append", default=[], help="JSON Lines with labels")
    parser.add_argument("--xstest", type=Path, action="append", default=[], help="CSV with human labels")
    parser.add_argument("--written", type=Path, action="append", default=[], help="YAML of responses")
    parser.add_argument("--cascade", action="store_true", help="also with the labels as a second judge")
    parser.add_argument("--times", type=int, default=0, help="measure the speed so many times")
    options = parser.parse_args()
    print(NAME)
    for path in options.openers:
        rows = openers(path)
        show_agreement(rows, NativeJudge().judge([item for _, item, _ in rows]))
        if options.cascade:
            show_cascade(rows)
        if options.times:
            show_speed(rows, options.times)
    for path in options.xstest:
        rows = xstest(path)
        show_agreement(rows, NativeJudge().judge([item for _, item, _ in rows]))
    for path in options.written:
        show_written(path)


if __name__ == "__main__":
    main()
