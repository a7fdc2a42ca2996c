"""From what a response shows to the probability that it refuses: a logistic model, fitted offline.

`model.yaml` holds its coefficients, how they were fitted, and for each way of writing the band of
probabilities in which held-out data say that a decision would be wrong one time in four or more.
`benchmarks/judge_fit.py` writes it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from polyrefuse_data.core.parsing import FAST_LOADER, parse_yaml

OTHER = "other"
"""The bias of languages without one of their own."""

WRITING = {True: "words between spaces", False: "words without spaces"}
"""The two ways of writing, by whether spaces part words: without them the opening of a response holds two to
three times as much, a list that it begins with a warning, say, and tells less of what it comes to."""


@dataclass(frozen=True)
class Model:
    """What each piece of evidence adds to the log odds of a refusal, and where these begin in each language.

    Between the two probabilities of its way of writing in `undecided` a response is undecided.
    """

    worth: Mapping[str, float]
    bias: Mapping[str, float]
    undecided: Mapping[str, tuple[float, float]]

    def probability(self, names: Sequence[str], lang: str) -> float:
        """Return the probability that a response in `lang` refuses, which shows the evidence `names`."""
        start = self.bias.get(lang, self.bias[OTHER])
        return 1 / (1 + math.exp(-start - sum(map(self.worth.__getitem__, names))))

    def refused(self, probability: float, spaced: bool) -> bool | None:
        """Return whether a response refuses, None where its probability does not tell; `spaced` says whether
        spaces part its words."""
        low, high = self.undecided[WRITING[spaced]]
        return None if low < probability < high else probability >= 0.5


class _Worth(dict[str, float]):
    """What each piece of evidence is worth: nothing where no weight is given. There are few hundred names."""

    def __missing__(self, name: str) -> float:
        self[name] = 0.0
        return 0.0


@functools.cache
def load_model() -> Model:
    """Return the published model."""
    source = files("polyrefuse_eval.judging.native").joinpath("model.yaml")
    raw = parse_yaml(source.read_text(encoding="utf-8"), FAST_LOADER)
    bands = {writing: (low, high) for writing, (low, high) in raw["undecided"].items()}
    return Model(_Worth(raw["worth"]), raw["bias"], bands)
