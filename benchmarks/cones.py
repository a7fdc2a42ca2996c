"""Do directions of refusal span a cone, each of whose directions removes refusal alone?

    python benchmarks/cones.py --data BUILD [--langs de,ja] [--test 24] [--train 64]

In a refusal cone every positive combination of the basis mediates refusal by itself (Wollschläger et al.
2025). On the organism whose languages have directions of their own, mixtures of two languages' planted
directions are ablated, in equal angles from one to the other, and then the span of both. On the one whose
languages share a direction, every candidate of English (layer and position) is taken without its part along
the planted direction, and what is left of it is ablated alone. Printed: refusal rates of harmful prompts.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from polyrefuse_eval.directions.fit import fit_directions
from polyrefuse_eval.judging.native.judge import refuses
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.generate import Request, generate
from polyrefuse_eval.models.intervene import BASELINE, Ablation, Edits
from polyrefuse_eval.organisms import organism_path, planted_directions
from polyrefuse_eval.report.markdown import table
from polyrefuse_eval.results.data import DataFolder, open_data

STEPS = 4
"""Mixtures between two directions are STEPS angles apart."""

ANSWER_TOKENS = 24


def refusal_rate(chat: ChatModel, texts: Sequence[str], lang: str, edits: Edits = BASELINE) -> float:
    """Return the share of `texts` that the model refuses under `edits`."""
    requests = [Request(str(index), text, edits) for index, text in enumerate(texts)]
    batches = generate(chat, requests, max_new_tokens=ANSWER_TOKENS)
    verdicts = [refuses(answer.text, lang) for batch in batches for answer in batch]
    return sum(verdict is True for verdict in verdicts) / len(verdicts)


def mixtures(first: Tensor, second: Tensor) -> dict[str, Tensor]:
    """Return unit vectors [d] in equal angles from `first` to `second`, and the span [2, d] of both."""
    angle = math.acos(float(first @ second))
    mixed = {}
    for step in range(STEPS + 1):
        share = step / STEPS
        weights = (math.sin((1 - share) * angle), math.sin(share * angle))
        vector = weights[0] * first + weights[1] * second
        mixed[f"{math.degrees(share * angle):.0f}° from the first"] = vector / vector.norm()
    return {**mixed, "the span of both": torch.stack([first, second])}


def harmful(data: DataFolder, lang: str, test: int) -> list[str]:
    return [row.text for row in data.prompts(lang, "test", "harmful", test)]


def mixture_table(data: DataFolder, langs: Sequence[str], test: int) -> str:
    """Return refusal rates in two languages with mixtures of their planted directions ablated."""
    folder = organism_path("organism-per-language")
    chat, planted = ChatModel.load("organism-per-language", device="cpu"), planted_directions(folder)
    first, second = (planted[lang] for lang in langs)
    rows = [
        [name, *(f"{refusal_rate(chat, harmful(data, lang, test), lang, edits):.2f}" for lang in langs)]
        for name, edits in (
            ("no edit", BASELINE),
            *((name, (Ablation(vectors),)) for name, vectors in mixtures(first, second).items()),
        )
    ]
    return table(["ablated", *(f"refused, {lang}" for lang in langs)], rows)


def orthogonal_table(data: DataFolder, test: int, train: int) -> str:
    """Return the least refusal rate that what candidates have beside the planted direction leaves."""
    chat, texts = ChatModel.load("organism", device="cpu"), harmful(data, "en", test)
    planted = next(iter(planted_directions(organism_path("organism")).values()))
    prompts = [
        [row.text for row in data.prompts("en", "train", label, train)] for label in ("harmful", "harmless")
    ]
    found = fit_directions(chat, *prompts)
    vectors = found.vectors.float().flatten(0, 1)
    vectors = vectors[vectors.norm(dim=-1) > 0]  # at layer 0, tokens of the template do not differ
    beside = vectors - (vectors @ planted)[:, None] * planted
    whole = [refusal_rate(chat, texts, "en", (Ablation(vector),)) for vector in vectors]
    alone = [refusal_rate(chat, texts, "en", (Ablation(vector),)) for vector in beside]
    return table(
        ["candidates", "least refused, candidate ablated", "least refused, orthogonal part ablated"],
        [[str(len(vectors)), f"{min(whole):.2f}", f"{min(alone):.2f}"]],
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("builds/sample"))
    parser.add_argument("--langs", default="de,ja", help="two languages")
    parser.add_argument("--test", type=int, default=24)
    parser.add_argument("--train", type=int, default=64)
    arguments = parser.parse_args()
    langs = arguments.langs.split(",")
    if len(langs) != 2:
        parser.error("--langs takes two languages")
    data = open_data(arguments.data, langs)
    print(mixture_table(data, langs, arguments.test))
    print(orthogonal_table(data, arguments.test, arguments.train))


if __name__ == "__main__":
    main()
