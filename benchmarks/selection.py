"""What does a race of candidates save on your model and data, and does it choose what all scores choose?

    python benchmarks/selection.py --model MODEL --data BUILD [--langs en,de] [--layers 8-12] [--plain 3]

For each language, in this one run: the race (`CandidateScorer.select`), then all scores of all candidates,
then the published loops (`plain_directions.py`) on `--plain` candidates, multiplied. Seconds are of processor
time, into which other work on the machine does not count. `--layers` restricts the candidates, where the full
sweep would take hours. `--files` keeps refusal tokens and the directions of all layers for another try.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import plain_directions as plain
import torch

from polyrefuse_eval.directions.finder import DirectionFinder
from polyrefuse_eval.directions.fit import DirectionSet
from polyrefuse_eval.directions.scoring import CandidateScorer
from polyrefuse_eval.directions.selection import Selection
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.results.settings import RunSettings


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of `work` and its seconds of processor time."""
    start = time.process_time()
    return work(), time.process_time() - start


def at_layers(directions: DirectionSet, layers: range) -> DirectionSet:
    """Return `directions` at some of their layers."""
    rows = [directions.layers.index(layer) for layer in layers]
    return replace(directions, vectors=directions.vectors[:, rows], layers=tuple(layers))


def choice(selection: Selection) -> str:
    score = selection.score
    return f"position {score.position}, layer {score.layer}, step '{selection.step}'"


def gap(one: Selection, other: Selection) -> float:
    """Return the largest difference of the scores of two selections, in nats."""
    names = ("refusal_score", "steering_score", "kl_div_score")
    return max(abs(getattr(one.score, name) - getattr(other.score, name)) for name in names)


def plain_seconds(scorer: CandidateScorer, count: int) -> float:
    """Return the seconds of the published loops over all candidates, extrapolated from `count` of them."""
    keys = [key for key in scorer.candidates if float(scorer.directions.at(*key).norm()) > 0]
    part = keys[len(keys) // (2 * count) :: max(1, len(keys) // count)][:count]
    first = scorer.directions.layers[0]
    n_post = len(scorer.chat.post_instruction)
    # The plain loops take a layer for its place among the vectors.
    vectors = torch.zeros(n_post, scorer.chat.n_layers, scorer.chat.width, dtype=torch.float64)
    vectors[:, first : first + len(scorer.directions.layers)] = scorer.directions.vectors[:n_post]
    _, seconds = timed(
        lambda: plain.candidate_scores(
            scorer.chat,
            vectors,
            scorer.harmful,
            scorer.harmless,
            scorer.tokens.ids,
            [(position.offset, layer) for position, layer in part],
        )
    )
    return seconds * len(scorer.candidates) / len(part)


def compare(finder: DirectionFinder, lang: str, layers: range | None, rule: str, count: int) -> bool:
    """Print a line for `lang`; return whether the choices are the same."""
    file = finder.path / f"{lang}.all.safetensors"
    if not file.is_file():
        finder.extract(lang).save(file)
    directions = DirectionSet.load(file)
    if layers is not None:
        directions = at_layers(directions, layers)
    prompts = [finder._validation(lang, label) for label in ("harmful", "harmless")]
    racing, full = (
        CandidateScorer(finder.chat, directions, *prompts, finder.tokens(lang), progress=True)
        for _ in range(2)
    )
    raced, race_seconds = timed(lambda: racing.select(rule))
    _, full_seconds = timed(full.complete)
    selected = full.select(rule)
    same = (raced.score.position, raced.score.layer, raced.step) == (
        selected.score.position,
        selected.score.layer,
        selected.step,
    )
    print(
        f"{lang}: {len(full.candidates)} candidates, {len(full.harmful)} harmful and {len(full.harmless)} "
        f"harmless prompts; {choice(raced)}, "
        + (f"as with all scores (gap {gap(raced, selected):.1e})" if same else f"NOT {choice(selected)}")
        + f"; race {race_seconds:.1f} s for {racing.measured:.0%} of the scores, all scores "
        f"{full_seconds:.1f} s: {full_seconds / race_seconds:.1f} times",
        flush=True,
    )
    if count:
        seconds = plain_seconds(full, count)
        print(
            f"    plain loops {seconds:.0f} s, EXTRAPOLATED from {count} candidates: "
            f"{seconds / race_seconds:.1f} times",
            flush=True,
        )
    return same


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="organism")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--langs", default="all")
    parser.add_argument("--layers", help="first-last")
    parser.add_argument("--rule", default="robust")
    parser.add_argument("--validation", type=int, default=32)
    parser.add_argument("--plain", type=int, default=0, help="candidates of the published loops")
    parser.add_argument("--refusal-tokens", help="as of `polyrefuse eval run`, without a filter of prompts")
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = open_data(arguments.data)
    langs = tuple(data.select(arguments.langs))
    settings = RunSettings(
        langs=langs,
        n_validation=arguments.validation,
        refusal_tokens=arguments.refusal_tokens,
        filter_prompts=arguments.refusal_tokens is None,
    )
    arguments.files.mkdir(parents=True, exist_ok=True)
    finder = DirectionFinder(ChatModel.load(arguments.model), data, settings, arguments.files, progress=True)
    layers = None
    if arguments.layers:
        first, last = map(int, arguments.layers.split("-"))
        layers = range(first, last + 1)
    same = [compare(finder, lang, layers, arguments.rule, arguments.plain) for lang in langs]
    print(f"the same choice in {sum(same)} of {len(same)} languages")


if __name__ == "__main__":
    main()
