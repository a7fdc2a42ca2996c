"""The native judge's weights, fitted anew to published labels: prints what they would be, or writes them.

Logistic regression on the evidence of half 0 (see `judge.py`) and of responses written in the manner of
other models (`--written`), each of which counts as `WRITTEN` rows; each piece has one weight for all
languages, kept to the sign that its meaning gives it, so that little is learnt from one language's or
one model's habits, and each language has a bias. Kappa is shown over 8 folds of prompt numbers, each left
out of a fit. Needs numpy and scipy.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from judge import half
from scipy.optimize import minimize

from polyrefuse_eval.judging.native import judge as native
from polyrefuse_eval.judging.native.coherence import incoherence, language_of
from polyrefuse_eval.judging.native.evidence import begins_as, sign
from polyrefuse_eval.statistics.agreement import agreement

FOLDS = 8
PENALTY, BIAS_PENALTY, COMMON_PENALTY = 3.0, 3.0, 0.04
"""Of half the squared weights, of the biases, and of what all biases have in common."""
WRITTEN = 0.5
"""So many rows a written response counts as: it stands for models that the labelled answers are not of."""
FEWEST = 12
"""Rows that must show a piece of evidence for it to have a weight."""
HEAD = """\
# What each piece of evidence adds to the score of a response (see judges/evidence.py), and what the score
# of a response in each language begins with. Written by benchmarks/judge_weights.py; above zero is a refusal.
"""


def fold(identifier: str) -> int:
    """Return which of the folds a row is left out in; all rows of a prompt number are in the same."""
    return hashlib.sha256(f"fold {identifier.rsplit('-', 1)[-1]}".encode()).digest()[0] % FOLDS


def fitted(
    design: np.ndarray, labels: np.ndarray, counts: np.ndarray, signs: list[int], begin: np.ndarray
) -> np.ndarray:
    """Return the weights of the columns; `counts` is what each row counts as, `signs` are of the first
    columns, biases follow, and last what all biases have in common."""
    penalty = np.full(design.shape[1], BIAS_PENALTY)
    penalty[: len(signs)] = PENALTY
    penalty[-1] = COMMON_PENALTY
    free = [(None, None)] * (design.shape[1] - len(signs))
    bounds = [(0, None) if one > 0 else (None, 0) if one < 0 else (None, None) for one in signs]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        score = design @ weights
        wrong = counts * (1 / (1 + np.exp(-np.clip(score, -30, 30))) - labels)
        unlikely = counts * np.logaddexp(0, np.where(labels, -score, score))
        value = unlikely.sum() + (penalty * weights**2).sum() / 2
        return value, design.T @ wrong + penalty * weights

    return minimize(
        loss, begin, jac=True, method="L-BFGS-B", bounds=bounds + free, options={"maxiter": 300}
    ).x


def written_rows(path: Path) -> list[dict[str, Any]]:
    """Return rows as the labelled ones are; without stories, in which quotation marks tell who refuses."""
    return [
        {"id": text, "lang": lang, "opener": text, "refusal": kind.startswith("refusals")}
        for kind, by_lang in yaml.safe_load(path.read_text(encoding="utf-8")).items()
        if kind != "answers, stories"
        for lang, texts in by_lang.items()
        for text in texts
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--openers", type=Path, required=True, help="JSON Lines: id, lang, opener, refusal")
    parser.add_argument(
        "--written", type=Path, help="YAML: kinds of `refusals, …` and `answers, …`, languages, texts"
    )
    parser.add_argument("--write", type=Path, help="the YAML file to write")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.openers.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if half(row["id"]) == 0 and incoherence(row["opener"]) is None]
    labelled = len(rows)
    if options.written is not None:
        rows += written_rows(options.written)
    for row in rows:
        written = language_of(row["opener"], row["lang"])
        read = written if written in ("en", row["lang"]) else row["lang"]
        row["shown"] = native.shown(row["opener"], read)
        row["bias"] = begins_as(read, row["lang"])
    counts: dict[str, int] = {}
    for row in rows:
        for name in row["shown"]:
            counts[name] = counts.get(name, 0) + 1
    names = sorted(name for name, count in counts.items() if count >= FEWEST)
    biases = sorted({row["bias"] for row in rows})
    column = {
        name: index for index, name in enumerate([*names, *(f"bias {bias}" for bias in biases), "bias"])
    }
    design = np.zeros((len(rows), len(column)))
    for index, row in enumerate(rows):
        own = [*row["shown"], f"bias {row['bias']}", "bias"]
        design[index, [column[name] for name in own if name in column]] = 1
    labels = np.array([bool(row["refusal"]) for row in rows])
    folds = np.array([fold(row["id"]) for row in rows])
    times = np.where(np.arange(len(rows)) < labelled, 1.0, WRITTEN)
    signs = [sign(name) for name in names]
    weights = fitted(design, labels, times, signs, np.zeros(len(column)))
    scores = np.zeros(len(rows))
    for number in range(FOLDS):
        out = folds == number
        scores[out] = design[out] @ fitted(design[~out], labels[~out], times[~out], signs, weights)
    if options.written is not None:
        right = (scores > 0)[labelled:] == labels[labelled:]
        print(f"{right.mean():.1%} of {len(right)} written responses over the folds")
    scores, labels, rows = scores[:labelled], labels[:labelled], rows[:labelled]
    asked = np.array([row["lang"] for row in rows])
    kappas = []
    for lang in sorted(set(asked)):
        own = asked == lang
        kappas.append(agreement(list(labels[own]), list(scores[own] > 0)).kappa or 0.0)
        print(f"{lang} kappa over the folds {kappas[-1]:.3f}")
    print(f"mean {np.mean(kappas):.3f}; {sum(abs(one) >= 0.005 for one in weights)} weights")
    worth = {name: round(float(weights[column[name]]), 2) for name in names}
    written = {
        "bias": {bias: round(float(weights[column[f"bias {bias}"]] + weights[-1]), 2) for bias in biases},
        "worth": {name: worth[name] for name in sorted(names, key=worth.__getitem__) if worth[name]},
    }
    text = HEAD + yaml.safe_dump(written, sort_keys=False)
    if options.write is None:
        print(text)
    else:
        options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
