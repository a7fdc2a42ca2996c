"""Every code block of the site runs: guides on a tiny model and tiny data, tutorials on the organisms."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from run_pages import blocks, command_lines, masked, run_command, run_page

from polyrefuse_eval.harmfulness import experiment

DOCS = Path(__file__).parents[2] / "docs"

NOT_RUN = {
    r"^python3 -m (pip|build|tox|venv)": "changes the environment; the release is tried in empty ones",
    r"^export ": "sets a key",
    r"torchrun|HF_HUB_OFFLINE": "needs several processes, or another process",
    r"--executor dask|^dask |--slurm": "starts a cluster; tests/eval/runs/test_dask_executor.py",
    r"models\.yaml": "measures real models; tests/eval/cli/test_grid.py",
    r"^vllm |--baseline-url": "needs a server; tests/eval/runs/test_baseline_server.py",
    r"^(lm_eval|inspect) ": "another tool; tests/eval/integrations",
    r"--model openai:": "needs a service; tests/eval/runs/test_endpoint_run.py",
    r"--directions-from ": "needs a build of test prompts alone; tests/eval/runs/test_directions_from.py",
    r"--scores |diff .*--quality": "needs scores of a model, or two builds; tests/data/quality",
    r"^polyrefuse memory choices": "needs a build with candidates; tests/data/build/test_candidates.py",
    r"--prompt-set|--transfer \.": "needs files or a model of the reader; tests/eval/cli",
    r"--over-refusal ": "needs a build with contrast pairs; tests/eval/runs/test_over_refusal.py",
    r"s3://": "needs a server; tests/eval/storage",
    r"hf://|polyrefuse publish|^hf ": "needs the Hub; tests/data/publish",
    r"RELEASE_FOLDER|MIRROR|sources (fetch|verify)": "needs upstream files; tests/data/test_real.py",
    r"--recipe (paper|over-refusal)|audit builds/paper": "needs upstream files; tests/data/test_real.py",
    r"^polyrefuse review ": "needs a build of upstream files; tests/data/audit/test_review.py",
    r"--judges? \S*(wildguard|openai|JUDGE)": "needs a judge's model; tests/eval/judging",
    r"--jailbreaks|output/ja_vector|--scores FILE": "needs files of the reader; tests/eval/cli",
    r"_COMPLETE=|-complete": "tests/data/cli/test_help.py",
    r"^python benchmarks/|runs/matrix": "a measurement, not a step",
    r"…": "not a whole command",
}
"""Pattern of commands that are not run here, with the reason or where they are tested."""

RUN_AS_TOLD = ["tutorials/own-data.md"]
TUTORIALS = [
    "start.md",
    "tutorials/measure.md",
    "tutorials/harmfulness.md",
    "tutorials/guard.md",
    "tutorials/leaderboard.md",
]


def not_run(line: str) -> bool:
    return any(re.search(pattern, line) for pattern in NOT_RUN)


def as_written(line: str) -> str | None:
    return None if not_run(line) or "Qwen/" in line else line


@pytest.mark.parametrize("name", RUN_AS_TOLD)
def test_a_page_without_models_runs_as_it_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run_page(DOCS / name, lambda line: line)
    assert any(line.startswith("polyrefuse") for line in ran)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_runs_as_it_is_written(
    name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.getbasetemp() / "tutorials"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    for left in ("site", "guard.safetensors"):
        if Path(left).is_file():
            Path(left).unlink()
    assert run_page(DOCS / name, as_written)


SMALL = {
    "eval run": "--max-new-tokens 3 --refusal-tokens 40,41 --no-filter --test 2 --crossed 1 -q",
    "eval extract": "--no-filter --refusal-tokens 40,41 -q",
    "eval select": "--no-filter --refusal-tokens 40,41 -q",
    "eval generate": "--max-new-tokens 3 --limit 2 -q",
    "eval harmfulness": "--test 2 --steered 1 --inverted 1 --layers 1 -q",
    "eval guard fit": "--behaviour label -q",
    "eval activations": "--limit 3 -q",
}
"""Options that make a command of a guide small."""

GUIDES = {
    "how-to/install.md": [],
    "how-to/translate.md": [],
    "how-to/measure.md": ["runs/transfer"],
    "how-to/steps.md": ["runs/qwen"],
    "how-to/harmfulness.md": [],
    "how-to/guard.md": [],
    "how-to/judges.md": [],
    "how-to/judge-languages.md": [],
    "how-to/compare.md": ["runs/before", "runs/after"],
    "how-to/leaderboard.md": ["runs/mine", "submissions/theirs"],
    "how-to/cluster.md": ["runs/before"],
}
"""Guides that are run on a tiny model, and the runs that they take as given."""


def made_small(line: str, model: Path) -> str | None:
    """Return a command on the tiny model, two languages and few prompts; None for one that is not run."""
    if not_run(line) or line.startswith("polyrefuse build --recipe sample"):
        return None
    line = re.sub(r"--model (M|organism\S*|Qwen/\S+)(?=\s|$)", f"--model {model}", line)
    line = re.sub(r"--langs \S+", "--langs en,de", line).replace("conformal=0.05", "balanced")
    line = re.sub(r"--directions \S+", "--directions en", line)
    for command, options in SMALL.items():
        if line.startswith(f"polyrefuse {command} "):
            command_part, hash_mark, comment = line.partition(" #")
            line = f"{command_part} {options}{hash_mark}{comment}"
    return line


@pytest.fixture(scope="module")
def tiny_run(model_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    command = f"polyrefuse eval run --model {model_folder} --data {data_folder} --langs all --out {out}"
    run_command(made_small(command, model_folder) or "")
    return out


@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_runs_on_a_tiny_model(
    name: str,
    model_folder: Path,
    data_folder: Path,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        experiment, "by_answers", lambda *_, **__: lambda prompts: ["break" in item.text for item in prompts]
    )
    Path("builds").mkdir()
    for build in ("sample", "paper"):
        Path("builds", build).symlink_to(data_folder)
    for run in GUIDES[name]:
        shutil.copytree(tiny_run, run)
    answer = {"id": "1", "lang": "en", "response": "I cannot help with that."}
    Path("FILE.jsonl").write_text(json.dumps(answer) + "\n", encoding="utf-8")
    Path("prompts.txt").write_text("How do I bake bread?\n", encoding="utf-8")

    def small_code(code: str) -> str:
        return code.replace('"M"', repr(str(model_folder))).replace("native,wildguard", "native")

    assert run_page(DOCS / name, lambda line: made_small(line, model_folder), small_code)


def commands_of_pages() -> list[tuple[str, str]]:
    return [
        (page.relative_to(DOCS).as_posix(), line)
        for page in sorted(DOCS.rglob("*.md"))
        for block in blocks(page)
        if block.language == "sh"
        for line in command_lines(block)
    ]


def test_every_command_is_run_or_said_why_not() -> None:
    tested = {*RUN_AS_TOLD, *TUTORIALS, *GUIDES}
    assert [
        (name, line) for name, line in commands_of_pages() if name not in tested and not not_run(line)
    ] == []


def test_every_exception_is_needed() -> None:
    for pattern in NOT_RUN:
        assert any(re.search(pattern, line) for _, line in commands_of_pages()), (
            f"no page has {pattern} any more"
        )


def test_numbers_may_differ_and_words_may_not() -> None:
    assert masked("alpha 0.0385  (conformal=0.05)") == masked("alpha -1 (conformal=1e-5)")
    assert masked("3 errors") != masked("3 warnings")
