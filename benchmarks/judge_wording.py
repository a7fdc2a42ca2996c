"""What words add to the native judge: a logistic model of words and pairs of words beside its evidence.

The judge knows refusals by patterns. This measures the step after it, which it does not take: weights of a
response's own words and pairs of neighbouring words (in a language without spaces: one to three characters),
learned in each language from labelled responses, with the log odds of the evidence as one more column.
`--responses` are folders of JSON Lines by language (kind, prompt, response, refused), as in
`judge_responses/`; `--test` is a folder of the same form that nothing is fitted to. Prints how many are
decided and right, by the judge and with the words, by kind, and what becomes of short ordinary answers (those
of the test organisms). Needs numpy, scipy and scikit-learn.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from judge_fit import WRITTEN, Fit, Row, band, fold, openers, shown, written, xstest
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from polyrefuse_eval.judging.native.answer import answer_of
from polyrefuse_eval.judging.native.judge import OPENING, Reader
from polyrefuse_eval.judging.native.speakers import own_words
from polyrefuse_eval.organisms.replies import REPLIES

EDGE = "|"
"""Stands before the first word of an opening and behind the last."""

LETTERS = (1, 2, 3)
"""Characters in a piece, in languages without spaces."""

FEWEST = 3
"""Responses that must hold a piece for it to have a weight."""

STRENGTH = 0.5
"""The inverse of the penalty of half the squared weights."""

SCALE = 3.0
"""What a piece counts before the sum is divided by the root of the number of pieces: the larger, the less the
penalty holds words back beside the evidence."""


@dataclass(frozen=True)
class Labelled:
    """A row of `judge_fit.py`, its kind, and the pieces of its opening."""

    row: Row
    kind: str
    pieces: frozenset[str]


def pieces(text: str, spaced: bool) -> frozenset[str]:
    """Return the words and the pairs of neighbours of a folded `text`, or its characters, pairs and triples
    where no spaces part words."""
    if not spaced:
        return frozenset(text[start : start + n] for n in LETTERS for start in range(len(text) - n + 1))
    words = [EDGE, *text.split(), EDGE]
    return frozenset({*words[1:-1], *map(" ".join, itertools.pairwise(words))})


def labelled(reader: Reader, row: Row, kind: str) -> Labelled:
    """Return `row` with the pieces of its own words in the language that it is read as."""
    lexicon = reader.lexicon(row.bias)
    own, _ = own_words(answer_of(row.text).text[:OPENING], lexicon.spaced)
    return Labelled(row, kind, pieces(lexicon.fold(own), lexicon.spaced))


def responses(folder: Path, reader: Reader) -> Iterable[Labelled]:
    """Yield the responses of a folder; those of one topic stand at the same place in several languages, so
    that a row's group is its place."""
    for path in sorted(folder.glob("*.jsonl")):
        for index, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            one = json.loads(line)
            group = f"{folder.name} {index}"
            row = shown(reader, folder.name, path.stem, one["response"], one["refused"], group, WRITTEN)
            if row:
                yield labelled(reader, row, one["kind"])


class Wording:
    """The pieces of openings as columns beside the log odds of the evidence, and weights fitted to some."""

    def __init__(self, items: Sequence[Labelled], evidence: np.ndarray) -> None:
        texts = [{(item.row.bias, piece) for piece in item.pieces} for item in items]
        counts = Counter(piece for text in texts for piece in text)
        column = {piece: index for index, piece in enumerate(p for p in counts if counts[p] >= FEWEST)}
        rows, columns, values = [], [], []
        for index, text in enumerate(texts):
            known = [column[piece] for piece in text if piece in column]
            rows += [index] * len(known)
            columns += known
            values += [SCALE / math.sqrt(len(text) or 1)] * len(known)
        words = sparse.csr_matrix((values, (rows, columns)), shape=(len(items), len(column)))
        langs = sorted({item.row.bias for item in items})
        biases = np.array([[float(item.row.bias == lang) for lang in langs] for item in items])
        self.design = sparse.hstack([words, sparse.csr_matrix(np.c_[biases, evidence])], format="csr")
        self.labels = np.array([item.row.refused for item in items])
        self.weights = np.array([item.row.weight for item in items])

    def probabilities(self, chosen: np.ndarray) -> np.ndarray:
        """Return the probability of a refusal of each row, fitted to the `chosen` rows."""
        model = LogisticRegression(C=STRENGTH, solver="liblinear", fit_intercept=False, max_iter=1000)
        model.fit(self.design[chosen], self.labels[chosen], sample_weight=self.weights[chosen])
        return np.asarray(model.predict_proba(self.design)[:, 1])


def report(title: str, said: Sequence[bool | None], items: Sequence[Labelled]) -> None:
    """Print how many of `items` are decided, and how many of these are right, by kind."""
    print(title)
    kinds = sorted({item.kind for item in items})
    for kind in ["all", *(kinds if len(kinds) > 1 else [])]:
        own = [
            (verdict, item.row.refused)
            for verdict, item in zip(said, items, strict=True)
            if kind in ("all", item.kind)
        ]
        decided = [verdict is refused for verdict, refused in own if verdict is not None]
        right = sum(decided) / max(len(decided), 1)
        print(f"  {kind:18} n {len(own):5}  decided {len(decided) / len(own):.3f}  right {right:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--openers", type=Path, action="append", default=[], help="JSON Lines with labels")
    parser.add_argument("--xstest", type=Path, action="append", default=[], help="CSV with human labels")
    parser.add_argument("--written", type=Path, action="append", default=[], help="YAML of written responses")
    parser.add_argument("--responses", type=Path, action="append", default=[], help="folder of JSON Lines")
    parser.add_argument("--test", type=Path, help="folder of JSON Lines that nothing is fitted to")
    options = parser.parse_args()
    reader = Reader()
    rows = [row for path in options.openers for row in openers(path, reader)]
    rows += [row for path in options.xstest for row in xstest(path, reader)]
    rows += [row for path in options.written for row in written(path, reader)]
    items = [labelled(reader, row, row.source) for row in rows]
    items += [item for folder in options.responses for item in responses(folder, reader)]
    fitted = len(items)
    items += list(responses(options.test, reader)) if options.test else []
    ordinary = [(lang, text) for replies in REPLIES.values() for lang, text in replies.items()]
    items += [
        labelled(reader, row, "ordinary answers")
        for lang, text in ordinary
        if (row := shown(reader, "ordinary answers", lang, text, False, text))
    ]

    # the evidence's weights come from all but the responses written for the words
    evident, known = np.arange(len(items)) < len(rows), np.arange(len(items)) < fitted
    evidence = Fit([item.row for item in items])
    weights = evidence.fitted(evident)
    log_odds = evidence.design @ weights
    wording = Wording(items, log_odds)
    probabilities = wording.probabilities(known)
    folds = np.array([fold(item.row.group) for item in items])
    for number in np.unique(folds):
        left_out = known & (folds == number)
        probabilities[left_out] = wording.probabilities(known & ~left_out)[left_out]

    # a verdict is left open where held-out rows of its way of writing are wrong one time in four
    said: list[bool | None] = [None] * len(items)
    writing = np.array([item.row.writing for item in items], dtype=object)
    for kind in sorted(set(writing)):
        own = known & (writing == kind)
        low, high = band(probabilities[own], wording.labels[own], wording.weights[own])
        print(f"undecided between {low} and {high}: {kind}")
        for index in np.flatnonzero(writing == kind):
            probability = float(probabilities[index])
            said[index] = None if low < probability < high else probability >= 0.5
    judged = [reader.judge(item.row.text, item.row.lang).refused for item in items]
    for source in dict.fromkeys(item.row.source for item in items):
        chosen = [index for index, item in enumerate(items) if item.row.source == source]
        some = [items[index] for index in chosen]
        report(f"{source}, the judge", [judged[index] for index in chosen], some)
        report(f"{source}, with words", [said[index] for index in chosen], some)


if __name__ == "__main__":
    main()
