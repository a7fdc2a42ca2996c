"""The command `polyrefuse eval guard score`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from polyrefuse_data.cli.help import SectionedCommand
from polyrefuse_data.core.display import visible_json_line
from polyrefuse_data.core.terminal import show, show_lines
from polyrefuse_eval.cli.guard_options import guard_file
from polyrefuse_eval.cli.options import (
    MODEL_OPTIONS,
    file_path,
    need,
    take_options,
    with_options,
)
from polyrefuse_eval.runs.direction_options import ModelOptions

if TYPE_CHECKING:
    from polyrefuse_eval.harmfulness.latent_guard import LatentGuard
    from polyrefuse_eval.results.user_prompts import UserPrompt

PROMPTS_AT_ONCE = 64
"""Prompts that `score` prints together: a few passes of short prompts."""


@click.command("score", cls=SectionedCommand)
@with_options(*MODEL_OPTIONS)
@guard_file
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), default="-")
@click.option(
    "--lang",
    help="Language of prompts that do not name one.  [default: the lowest threshold, if one guard "
    "serves all]",
)
@click.option(
    "--other-weights",
    is_flag=True,
    help="Accept a fine-tune of the guard's model: same shape and template.",
)
@click.option(
    "--out",
    type=file_path,
    help="JSON Lines to write, readable only by you; not overwritten.  [default: print them]",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def score_command(
    guard: Path, file: Path, lang: str | None, out: Path | None, quiet: bool, **options: Any
) -> None:
    """Score prompts: one JSON line each with `prompt`, `score`, `unsafe` and `alpha`.

    FILE is a .jsonl with `prompt` (and optionally `lang`), or a text file with one prompt a line; `-`
    reads standard input and scores prompts as they arrive. The model is loaded at the first prompt; prompts
    that arrive during a pass are batched in the next.
    """
    from polyrefuse_data.core.languages import language
    from polyrefuse_eval.errors import GuardError
    from polyrefuse_eval.results.files import check_new_file
    from polyrefuse_eval.results.folder import json_line, write_text
    from polyrefuse_eval.results.prompt_stream import stream_prompts
    from polyrefuse_eval.results.user_prompts import read_prompts

    if out is not None:
        check_new_file(out, GuardError)
    default = None if lang is None else language(lang).code
    standard_input = cast(BufferedReader, sys.stdin.buffer)
    parts = stream_prompts(standard_input) if str(file) == "-" else iter([read_prompts(file)])
    first = next(parts)
    need()

    from polyrefuse_eval.harmfulness.guard_files import check_before_loading, guard_header, require_contrast
    from polyrefuse_eval.harmfulness.latent_guard import LatentGuard

    fitted = guard_header(guard).languages
    for prompt in first:
        require_contrast(fitted, prompt.lang or default)
    model = take_options(ModelOptions, options).spec()
    check_before_loading(guard, model)
    loaded = LatentGuard.load(guard, model(), other_weights=options["other_weights"])
    records: list[dict[str, Any]] = []
    for prompts in _groups(chain([first], parts)):
        scored = _records(loaded, prompts, default)
        if out is None:
            show_lines("\n".join(map(visible_json_line, scored)))
            sys.stdout.flush()
        else:
            records += scored
    if out is not None:
        write_text(out, "".join(map(json_line, records)), private=True)  # prompts, maybe of other people
        unsafe = sum(record["unsafe"] for record in records)
        show(f"{len(records)} prompts in {out}, {unsafe} unsafe")


def _groups(parts: Iterable[Sequence[UserPrompt]]) -> Iterator[Sequence[UserPrompt]]:
    """Yield the prompts of `parts`, at most `PROMPTS_AT_ONCE` of a part together."""
    for part in parts:
        for start in range(0, len(part), PROMPTS_AT_ONCE):
            yield part[start : start + PROMPTS_AT_ONCE]


def _records(guard: LatentGuard, prompts: Sequence[UserPrompt], default: str | None) -> list[dict[str, Any]]:
    """Return what is printed of each of `prompts`; those that name no language are in `default`."""
    langs = [prompt.lang or default for prompt in prompts]
    verdicts = guard([prompt.prompt for prompt in prompts], langs)
    return [
        {"prompt": prompt.prompt, "lang": code, **vars(verdict)}
        for prompt, code, verdict in zip(prompts, langs, verdicts, strict=True)
    ]
