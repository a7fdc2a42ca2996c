"""Every file that we write, changed at random: each command that reads it says one line, or succeeds."""

from __future__ import annotations

import json
import random
import shutil
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from leaderboard_runs import write_harmfulness
from mutations import mutated_file
from run_records import finished_run, served_run, write_agreement
from tiny import chat_model
from written_builds import candidate_readers, write_candidates
from written_caches import cache_readers, write_cache
from written_files import other_readers, write_further_results, write_other_files

from polyrefuse_data.build.pipeline import BuildRequest, build
from polyrefuse_data.checks.languages_file import load_languages
from polyrefuse_data.checks.thresholds import load_thresholds
from polyrefuse_data.cli.command import cli
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.prompts.recipe import load_recipe
from polyrefuse_data.publish.local_release import build_release, results_release
from polyrefuse_data.publish.site import site_release
from polyrefuse_eval.cli.grid import read_grid
from polyrefuse_eval.directions.fit import Direction, DirectionSet
from polyrefuse_eval.directions.refusal_tokens import RefusalTokens
from polyrefuse_eval.directions.selection import CandidateScore, read_scores, write_scores
from polyrefuse_eval.harmfulness.latent_guard import LatentGuard
from polyrefuse_eval.results.agreement_records import AgreementRecord
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.results.folder import RunFolder, read_json
from polyrefuse_eval.results.positions import Position
from polyrefuse_eval.results.timings import Timing, add_timing, read_timings
from polyrefuse_eval.runs.direction_source import open_direction_source
from polyrefuse_eval.statistics.thresholds import Threshold

FEW, MANY = 200, 10_000
ALLOWED = (0, 1, 2, 3)
"""Exit statuses: done, findings of an audit, an error in one line, gaps."""

GRID = """settings:
  max-new-tokens: 12
  langs: en,de
models:
  one: {model: organism}
  two:
    model: example/model@main
    dtype: bfloat16
"""
LANGUAGES_FILE = """- code: sw
  name: Swahili
  native_name: Kiswahili
  scripts: [Latin]
  codes: {langdetect: sw}
"""
RECIPE = """name: mine
title: Mine
description: Of the sample.
seed: 1
pools:
  harmful: {label: harmful, sources: [sample]}
  harmless: {label: harmless, sources: [sample]}
draws:
  - {pool: harmful, split: test, size: 4}
  - {pool: harmless, split: test, size: 4}
"""

AGREEMENT = AgreementRecord(
    lang="de",
    reference="native-1",
    judge="native-2",
    n=4,
    n_unjudged=0,
    both_refused=2,
    only_reference=0,
    only_judge=0,
    neither=2,
    kappa=1.0,
    sensitivity=1.0,
    specificity=1.0,
    reference_compliance=0.5,
    judge_compliance=0.5,
)

HUB_FORM = ("--format", "eval-results", "--dataset", "a/b")
DATABASE_FORM = ("--format", "every-eval-ever", "--organisation", "we")

NOTHING_TO_READ = {"scores.jsonl: calibrate", "scores.jsonl: review", "chosen.jsonl: calibrate"}
"""What ends in one line although nothing was changed: scores of other texts than the build's, or too few."""

RUN_FILES = "run/*"
"""Drawn more often than single files: it is many."""

Read = Callable[[], Any]


@dataclass(frozen=True)
class World:
    """A folder of everything that we write, what it held, and who reads which of its files."""

    root: Path
    content: Mapping[Path, bytes]
    readers: Mapping[str, Mapping[str, Read]]

    def restore(self) -> None:
        """Bring the folder back to what it was."""
        for path in sorted(self.root.rglob("*"), reverse=True):
            if path.is_file() and path not in self.content:
                path.unlink()
        for path, content in self.content.items():
            if not path.is_file() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    def files(self, pattern: str) -> list[Path]:
        """Return the files that match `pattern`."""
        return [path for path in sorted(self.content) if fnmatchcase(self.name(path), pattern)]

    def name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    run, out = root / "run", root / "out"
    finished_run(run, rows=3)
    write_agreement(run, AGREEMENT)
    write_further_results(RunFolder(run))
    good = finished_run(tmp_path_factory.mktemp("other") / "good", rows=3).path
    write_harmfulness(run, langs=("de",), layers=2)
    add_timing(run, Timing("cell", 1.0, "de", "harmful", "baseline", 3, 9))
    (run / "scores").mkdir()
    scores = [CandidateScore(-1, 1, 0.5, 0.4, 0.1), CandidateScore(-2, 0, 0.3)]
    write_scores(run / "scores" / "en.json", scores)
    chat = chat_model()
    _write_tensors(root, run, chat)
    size = {"train": 4, "validation": 4, "test": 4}
    build(BuildRequest("sample", langs=("en", "de"), size=size, out=root / "build"))
    for name, text in (("grid.yaml", GRID), ("languages.yaml", LANGUAGES_FILE), ("recipe.yaml", RECIPE)):
        (root / name).write_text(text)
    (root / "thresholds.yaml").write_text(json.dumps(json.loads(load_thresholds().to_json()), indent=1))
    _call("eval", "leaderboard", good, "--out", root / "site")
    tokens = RefusalTokens("en", (40, 41), ("I", "No"), 0.9, 30, 32)
    (root / "tokens.json").write_text(json.dumps(tokens.to_json()))

    write_other_files(root, root / "build", chat, _call)
    write_candidates(root)
    write_cache(root, chat)
    served = served_run(root / "served").path
    commands: dict[str, dict[str, Read]] = {
        RUN_FILES: {
            "leaderboard": lambda: _call("eval", "leaderboard", run, good, "--out", out / "site"),
            "compare": lambda: _call("eval", "compare", run, good),
            "publish --results": lambda: results_release(run, _empty(out / "release")),
            "rescore": lambda: _call("eval", "rescore", run, "--judges", "native", "-q"),
            "check": lambda: _call("eval", "check", run),
            "check with data": lambda: _call("eval", "check", run, "--data", root / "build"),
            "export": lambda: _call("eval", "export", run, *HUB_FORM, "--out", _empty(out / "hub")),
            "export to a database": lambda: _call(
                "eval", "export", run, *DATABASE_FORM, "--out", out / "every"
            ),
            "directions": lambda: open_direction_source(run).stored(),
        },
        "served/*": {
            "check": lambda: _call("eval", "check", served),
            "leaderboard": lambda: _call("eval", "leaderboard", served, good, "--out", out / "served"),
            "publish --results": lambda: results_release(served, _empty(out / "release")),
            "rescore": lambda: _call("eval", "rescore", served, "--judges", "native", "-q"),
        },
        "run/timings.jsonl": {"timings": lambda: read_timings(run)},
        "run/scores/*": {"scores": lambda: read_scores(run / "scores" / "en.json")},
        "run/directions/en.safetensors": {
            "direction": lambda: Direction.load(run / "directions" / "en.safetensors", chat)
        },
        "run/directions/en.all.safetensors": {
            "directions": lambda: DirectionSet.load(run / "directions" / "en.all.safetensors")
        },
        "guard.safetensors": {"guard": lambda: LatentGuard.load(root / "guard.safetensors", chat)},
        "tokens.json": {"tokens": lambda: RefusalTokens.from_json(read_json(root / "tokens.json"))},
        "build/manifest.json": {
            "audit": lambda: _call("audit", root / "build", "-q"),
            "diff": lambda: _call("diff", root / "build", root / "build"),
            "publish": lambda: build_release(root / "build", allow_gaps=False),
            "open_data": lambda: open_data(root / "build"),
            "review": lambda: _call("review", "export", root / "build", "--out", out / "review.csv"),
        },
        "site/*": {
            "leaderboard": lambda: _call("eval", "leaderboard", good, "--out", root / "site"),
            "publish --site": lambda: site_release(root / "site", _empty(out / "card")),
        },
        "grid.yaml": {"grid": lambda: read_grid(root / "grid.yaml", {}, [])},
        "languages.yaml": {"languages": lambda: load_languages(root / "languages.yaml")},
        "recipe.yaml": {"recipe": lambda: load_recipe(str(root / "recipe.yaml"))},
        "thresholds.yaml": {"thresholds": lambda: load_thresholds.__wrapped__(root / "thresholds.yaml")},
    }
    out.mkdir()
    further = (
        other_readers(root, out, root / "build", _call),
        candidate_readers(root, out, _call),
        cache_readers(root, chat, _call),
    )
    for more in further:
        for kind, readers in more.items():
            commands.setdefault(kind, {}).update(readers)
    content = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return World(root, content, commands)


def _write_tensors(root: Path, run: Path, chat: Any) -> None:
    import torch

    unit = torch.zeros(chat.width)
    unit[0] = 1.0
    story = {"model": chat.signature()}
    Direction(unit, 2.0, 1, Position(-1), "en", metadata=story).save(run / "directions" / "en.safetensors")
    vectors = torch.ones(1, 2, chat.width, dtype=torch.float64)
    directions = DirectionSet("en", vectors, (Position(-1),), (0, 1), story)
    directions.save(run / "directions" / "en.all.safetensors")
    contrasts = {"en": torch.ones(2, chat.width)}
    LatentGuard(chat, contrasts, (0, 1), {"en": Threshold(0.5)}, story).save(root / "guard.safetensors")


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _call(*arguments: object) -> None:
    """Run a command in this process; raise what it raises."""
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in ALLOWED, result.output
    assert not any(letter in result.output for letter in "\x1b\x9b\u202e"), "it reaches the terminal"


def _problem(read: Read) -> str | None:
    """Return what is wrong with how `read` ends: nothing after success, or an error in one line."""
    try:
        read()
    except PolyRefuseError as error:
        message = str(error)
        if "\n" in message or not message.isprintable() or len(message) > 5000:
            return f"no plain line: {message[:500]!r}"
    except Exception:
        return traceback.format_exc(limit=-6)
    return None


def _survives(world: World, count: int, seed: int) -> None:
    """Change a file `count` times and let one of its readers read it each time."""
    draw = random.Random(seed)
    kinds = sorted(world.readers) + [RUN_FILES] * 8
    problems: list[str] = []
    for number in range(1, count + 1):
        kind = draw.choice(kinds)
        path, command = draw.choice(world.files(kind)), draw.choice(sorted(world.readers[kind]))
        name = world.name(path)
        changed = mutated_file(name, world.content[path], draw)
        path.write_bytes(changed)
        if problem := _problem(world.readers[kind][command]):
            problems.append(f"change {number}, of {name}, read by {command}: {changed[:2000]!r}\n{problem}")
        world.restore()
        if len(problems) == 10:
            break
    assert not problems, f"{len(problems)} of {number}:\n" + "\n".join(problems)


def test_what_was_not_changed_is_read_by_all(world: World) -> None:
    refusing = set()
    for kind, readers in world.readers.items():
        for command, read in readers.items():
            try:
                read()
            except PolyRefuseError:
                refusing.add(f"{kind}: {command}")
            world.restore()
    assert refusing == NOTHING_TO_READ


def test_no_change_of_a_file_ends_in_a_traceback(world: World) -> None:
    _survives(world, FEW, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_no_change_of_a_file_ends_in_a_traceback_ten_thousand_times(world: World) -> None:
    _survives(world, MANY, seed=1)
