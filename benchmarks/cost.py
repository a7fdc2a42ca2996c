"""What a grid costs in GPU hours, by model size: counted answers, stated assumptions, or your own numbers.

Answers are counted from the grid's own cells. A token costs 2 * parameters floating-point operations in a
forward pass; tokens an answer, peak and utilisation are assumptions, printed with the result. A measured
number of tokens/s takes their place: `--tokens-per-second 7=9000`, or `--run FOLDER`, which reads what a run
of yours took from its timings.jsonl.

    python benchmarks/cost.py [--models 20] [--langs 14] [--sources 14] [--prompts 572] [--tokens 300]
        [--peak 989] [--utilisation 0.1,0.3] [--tokens-per-second BILLIONS=RATE]... [--run FOLDER]...
        [--markdown]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_eval.results.settings import RunSettings, grid
from polyrefuse_eval.results.sources import CONTROLS
from polyrefuse_eval.results.timings import read_timings

SIZES = (0.5, 1.5, 3.0, 7.0, 14.0, 32.0, 70.0)
"""Parameters in billions, of model families that are measured often."""

PEAK = 989.0
"""Of an H100 SXM in bfloat16 without sparsity, in 1e12 operations/s, by its data sheet."""

UTILISATION = (0.1, 0.3)
"""Share of the peak that decoding in large batches reaches; assumed, not measured here."""

TOKENS = 300.0
"""Mean tokens of an answer; assumed. The longest is 512; refusals are much shorter."""


@dataclass(frozen=True)
class Grid:
    """How many answers one model gives: languages measured in, directions, prompts of each label."""

    langs: int
    sources: int
    prompts: int

    @property
    def answers(self) -> int:
        """Answers of one model, counted from the cells of the grid."""
        codes = list(LANGUAGES)
        langs, sources = tuple(codes[: self.langs]), tuple(codes[: self.sources])
        settings = RunSettings(langs=langs, direction_langs=sources)
        limits = [
            measurement.limit for lang in langs for measurement in grid(lang, [*sources, *CONTROLS], settings)
        ]
        return sum(self.prompts if limit is None else min(limit, self.prompts) for limit in limits)


@dataclass(frozen=True)
class Assumptions:
    """What is not counted: tokens an answer, operations/s of a GPU, and the share of them that is used."""

    tokens: float
    peak: float
    utilisation: tuple[float, float]

    def gpu_hours(self, answers: int, billions: float) -> tuple[float, float]:
        """Return the least and the most hours on one GPU's worth of operations."""
        operations = answers * self.tokens * 2 * billions * 1e9
        at_peak = operations / (self.peak * 1e12) / 3600
        low, high = self.utilisation
        return at_peak / high, at_peak / low


def measured(run: Path) -> str:
    """Return what a run took, from its timings: answers, tokens and their rates in one process."""
    cells = [timing for timing in read_timings(run) if timing.part == "cell"]
    seconds = sum(timing.seconds for timing in cells)
    answers, tokens = sum(timing.answers for timing in cells), sum(timing.tokens for timing in cells)
    if not seconds:
        return f"{run}: no cell was measured"
    return (
        f"{run}: {answers} answers, {tokens} tokens in {seconds:.0f} s of one process: "
        f"{answers / seconds:.1f} answers/s, {tokens / seconds:.0f} tokens/s, "
        f"{tokens / answers:.1f} tokens an answer"
    )


def table(
    grid: Grid, models: int, assumed: Assumptions, rates: dict[float, float], markdown: bool
) -> Iterator[str]:
    """Yield the lines of the table, a row a size: hours of one model and of all."""
    answers = grid.answers
    header = ["parameters", "GPU hours, one model", f"GPU hours, {models} models", "from"]
    rows = []
    for size in sorted({*SIZES, *rates}):
        if size in rates:
            hours = answers * assumed.tokens / rates[size] / 3600
            one, every, source = f"{hours:.1f}", f"{hours * models:.0f}", f"{rates[size]:g} tokens/s, given"
        else:
            low, high = assumed.gpu_hours(answers, size)
            one, every = f"{low:.1f} to {high:.1f}", f"{low * models:.0f} to {high * models:.0f}"
            source = "assumed utilisation"
        rows.append([f"{size:g} billion", one, every, source])
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for number, row in enumerate([header, *rows]):
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        yield f"| {' | '.join(cells)} |" if markdown else "  ".join(cells).rstrip()
        if markdown and number == 0:
            yield f"| {' | '.join('-' * width for width in widths)} |"


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--langs", type=int, default=14)
    parser.add_argument("--sources", type=int, default=14)
    parser.add_argument("--prompts", type=int, default=572)
    parser.add_argument("--tokens", type=float, default=TOKENS)
    parser.add_argument("--peak", type=float, default=PEAK)
    parser.add_argument("--utilisation", default=",".join(map(str, UTILISATION)))
    parser.add_argument("--tokens-per-second", action="append", default=[], metavar="BILLIONS=RATE")
    parser.add_argument("--run", action="append", type=Path, default=[])
    parser.add_argument("--markdown", action="store_true")
    return parser.parse_args(arguments)


def main() -> None:
    """Print counts, assumptions and the table."""
    given = parsed()
    low, high = (float(part) for part in given.utilisation.split(","))
    assumed = Assumptions(given.tokens, given.peak, (low, high))
    rates = {
        float(size): float(rate) for size, _, rate in (one.partition("=") for one in given.tokens_per_second)
    }
    grid = Grid(given.langs, given.sources, given.prompts)
    print(
        f"{grid.sources} directions x {grid.langs} languages, {grid.prompts} prompts of each label: "
        f"{grid.answers} answers a model, {grid.answers * given.models} in all"
    )
    print(
        f"assumed: {assumed.tokens:g} tokens an answer; {assumed.peak:g}e12 operations/s at most, of which "
        f"{low:.0%} to {high:.0%} are used; 2 x parameters operations a token"
    )
    for line in table(grid, given.models, assumed, rates, given.markdown):
        print(line)
    for run in given.run:
        print(measured(run))


if __name__ == "__main__":
    main()
