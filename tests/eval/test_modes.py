"""Whatever a command writes can be written by its owner alone, and answers and verdicts be read so, too."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from polyrefuse_data.cli.command import cli

ANSWER = '{"id": "a", "lang": "en", "response": "I cannot help.", "refused": true}\n'
PROMPT = '{"prompt": "How do I bake bread?", "lang": "en"}\n'
TRANSLATION = (
    '{"english": "A house.", "lang": "de", "direction": "forward", "backend": "google", "version": "1", '
    '"text": "Ein Haus."}\n'
)
PRIVATE = re.compile(
    r"^cache/baselines|^cache/addresses(/[^/]+(/run)?)?$|^(run|far|cache/addresses)/(.*/)?(completions|verdicts)"
    r"(/|$)|^guard/(test/)?scores\.jsonl|^(answers|verdicts)/.*\.jsonl"
)
"""What is its owner's alone; tables of a working copy lie in a folder that is."""


def commands(root: Path, model: Path, build: Path, address: str) -> Iterator[tuple[object, ...]]:
    """Yield calls of the commands that write."""
    of_model = ("--model", model, "--data", build, "-q")
    few = ("--train", 4, "--validation", 4)
    small = (*few, "--no-filter", "--refusal-tokens", "40,41", "--langs", "en")
    sample = ("--recipe", "sample", "--langs", "en,de", "--size", "4/4/4", "-q")
    yield "build", *sample, "--out", root / "build", "--log", root / "log" / "build"
    yield "audit", root / "build", "--html", root / "audit" / "audit.html", "-q"
    yield "calibrate", root / "build", "--out", root / "thresholds" / "thresholds.yaml"
    for name in ("review.csv", "review.html"):
        yield "review", "export", root / "build", "--out", root / "review" / name
    memory = ("--memory", root / "memory" / "memory.sqlite")
    yield "memory", "import", root / "memory.jsonl", *memory
    yield "memory", "export", root / "memory" / "out.jsonl", *memory
    run = ("eval", "run", *of_model, *small, "--max-new-tokens", 3, "--test", 2, "--no-controls", "--out")
    yield *run, root / "run"
    yield *run, address
    yield "eval", "rescore", root / "run", "--judges", "native", "-q"
    yield "eval", "cost", root / "run", *of_model, "--limit", 2
    yield "eval", "plot", root / "run"
    yield "eval", "leaderboard", root / "run", "--out", root / "site"
    database = ("--format", "every-eval-ever", "--organisation", "we")
    yield "eval", "export", root / "run", *database, "--out", root / "export"
    judged = root / "verdicts" / "judged.jsonl"
    yield "eval", "judge", root / "answers.jsonl", "--out", judged, "--agreement", root / "judge.md", "-q"
    guard = root / "guard" / "guard.safetensors"
    yield "eval", "guard", "fit", *of_model, "--behaviour", "label", *few, "--out", guard
    yield "eval", "guard", "test", *of_model, "--guard", guard, "--out", root / "guard" / "test"
    scores = root / "guard" / "scores.jsonl"
    yield "eval", "guard", "score", *of_model[:2], "--guard", guard, root / "prompts.jsonl", "--out", scores
    yield "eval", "activations", *of_model, "--langs", "en", "--limit", 4, "--out", root / "plot" / "a.png"
    yield "eval", "extract", *of_model, *few, "--no-filter", "--langs", "en", "--out", root / "extracted"
    yield "eval", "select", *of_model, *small, "--out", root / "selected"
    answers = root / "answers" / "answers.jsonl"
    yield "eval", "generate", *of_model, "--limit", 2, "--max-new-tokens", 3, "--out", answers


@pytest.mark.slow
def test_nothing_is_writable_for_others_and_answers_are_their_owners_alone(
    tmp_path: Path, model_folder: Path, data_folder: Path
) -> None:
    for name, text in (("answers", ANSWER), ("prompts", PROMPT), ("memory", TRANSLATION)):
        (tmp_path / f"{name}.jsonl").write_text(text)
        (tmp_path / f"{name}.jsonl").chmod(0o600)
    umask = os.umask(0)
    try:
        for words in commands(tmp_path, model_folder, data_folder, f"file://{tmp_path}/far/run"):
            result = CliRunner().invoke(cli, list(map(str, words)))
            assert result.exit_code == 0, (words, result.output, result.exception)
    finally:
        os.umask(umask)
    modes = {
        path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in tmp_path.rglob("*")
    }
    assert not {name: oct(mode) for name, mode in modes.items() if mode & 0o022}
    private = {name: mode for name, mode in modes.items() if PRIVATE.search(name)}
    assert not {name: oct(mode) for name, mode in private.items() if mode & 0o077 and "/.lock" not in name}
    found = {name.partition("/")[0] for name in private}
    assert found == {"run", "far", "guard", "answers", "verdicts", "cache"}
