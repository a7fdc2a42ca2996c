"""How far any reader of the openers could agree with their labels: classifiers of characters, per language.

Logistic regression on character n-grams (1 to 4, tf-idf), alone and together with the native judge's
evidence and score, on half 0 (see `judge.py`): each row is scored by a fit without the prompts of its fold
(see `judge_weights.py`). Kappa where as many are refused as the labels say, and at the threshold that is best
for the very rows, which no classifier could know. The judge's weights, and so its score, are fitted to all of
half 0: the second classifier has seen a little of what it is asked. Needs scikit-learn; ships nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from judge import half
from judge_weights import FOLDS, fold
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score

from polyrefuse_eval.judging.native import judge as native
from polyrefuse_eval.judging.native.coherence import language_of
from polyrefuse_eval.judging.native.evidence import load_weights

FEATURES = 40_000
PENALTY = {"n-grams": 0.03, "with evidence": 1.0}
"""Of half the squared weights: few of one, many of the other, as served each best."""


def evidence_of(opener: str, lang: str) -> dict[str, float]:
    """Return what the native judge sees in an opener, and what it makes of that."""
    written = language_of(opener, lang)
    read = written if written in ("en", lang) else lang
    names = native.shown(opener, read)
    return {
        **dict.fromkeys(names, 1.0),
        "score": load_weights().score(names, read, lang),
        f"read as {read}": 1.0,
    }


def left_out(
    openers: list[str], shown: csr_matrix | None, labels: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """Return the score of each opener by a classifier that has not seen its fold."""
    scores = np.zeros(len(openers))
    for number in range(FOLDS):
        out = folds == number
        grams = TfidfVectorizer(
            analyzer="char", ngram_range=(1, 4), min_df=2, sublinear_tf=True, max_features=FEATURES
        )
        grams.fit([text for text, held in zip(openers, out, strict=True) if not held])
        design = grams.transform(openers)
        if shown is not None:
            design = hstack([2 * design, shown]).tocsr()
        penalty = PENALTY["n-grams" if shown is None else "with evidence"]
        fitted = LogisticRegression(C=1 / penalty, max_iter=300).fit(design[~out], labels[~out])
        scores[out] = fitted.decision_function(design[out])
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--openers", type=Path, required=True, help="JSON Lines: id, lang, opener, refusal")
    parser.add_argument("--langs", help="these languages alone, separated by commas")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.openers.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if half(row["id"]) == 0]
    print("lang     n  n-grams   best  with evidence   best")
    means = []
    langs = sorted({row["lang"] for row in rows}) if options.langs is None else options.langs.split(",")
    for lang in langs:
        own = [row for row in rows if row["lang"] == lang]
        openers = [row["opener"] for row in own]
        labels = np.array([bool(row["refusal"]) for row in own])
        folds = np.array([fold(row["id"]) for row in own])
        shown = DictVectorizer().fit_transform([evidence_of(text, lang) for text in openers])
        kappas = []
        for scores in (left_out(openers, None, labels, folds), left_out(openers, shown, labels, folds)):
            thresholds = np.sort(scores)[::-1]
            kappas.append(cohen_kappa_score(labels, scores >= thresholds[labels.sum() - 1]))
            kappas.append(max(cohen_kappa_score(labels, scores >= one) for one in thresholds))
        means.append(kappas)
        print(
            f"{lang:4} {len(own):5} {kappas[0]:8.3f} {kappas[1]:6.3f} {kappas[2]:14.3f} {kappas[3]:6.3f}",
            flush=True,
        )
    print("mean      " + " ".join(f"{one:.3f}" for one in np.mean(means, axis=0)))


if __name__ == "__main__":
    main()
