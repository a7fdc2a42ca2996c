"""Grids in files, dry runs and progress: what a user writes and reads."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pydantic import ValidationError
from without_torch import without_torch

from polyrefuse_data.cluster.tasks import Outcome, Task
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.timings import Timing, add_timing, read_timings, seconds_per_answer
from polyrefuse_eval.runs.option_fields import read_options
from polyrefuse_eval.runs.options import RunOptions
from polyrefuse_eval.runs.progress import GridProgress


def call(*arguments: object) -> Result:
    return CliRunner().invoke(eval_group, [str(argument) for argument in arguments])


def error(*arguments: object) -> str:
    result = call(*arguments)
    assert isinstance(result.exception, PolyRefuseError), (result.exception, result.output)
    assert "\n" not in str(result.exception)
    return str(result.exception)


def written(folder: Path, model: Path, data: Path, more: str = "", settings: str = "") -> Path:
    """A grid of the same model under two names, one with a system prompt."""
    file = folder / "models.yaml"
    file.write_text(
        f"settings:\n  data: {data}\n  langs: [en, de]\n  refusal-tokens: '40,41'\n  no-filter: true\n"
        f"  max-new-tokens: 4\n  crossed: 2\n  strengths: none\n  controls: false\n{settings}"
        f"models:\n  plain:\n    model: {model}\n  polite:\n    model: {model}\n    system: Be polite.\n"
        + more
    )
    return file


def test_a_grid_measures_each_model_into_a_folder_of_its_name(
    model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    file = written(tmp_path, model_folder, data_folder)
    command = ("run", file, "--out", out, "-q")
    planned = call(*command, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "plain de harmful baseline 5 prompts: missing" in planned.output
    assert "polite: 12 conditions, 0 there, 12 missing (48 answers); nothing was timed yet" in planned.output
    assert not out.exists()
    result = call(*command)
    assert result.exit_code == 0, result.output + str(result.exception)
    assert result.stdout.split() == [str(out / "plain"), str(out / "polite")]
    assert "harmful, baseline" in (out / "polite" / "table.md").read_text()
    template = [RunFolder(out / name).signature["model"]["template_hash"] for name in ("plain", "polite")]
    assert template[0] != template[1]
    without_torch(command)
    again = call(*command, "--dry-run")
    assert "all: 24 conditions, 24 there, 0 missing (0 answers)\n" in again.output
    # What is missing of a run is measured by what is there of it.
    (out / "plain" / "completions" / "de" / "harmful.ablation-en.jsonl").unlink()
    (out / "plain" / "summary.json").unlink()
    planned = call(*command, "--dry-run")
    assert "plain de harmful ablation:en 5 prompts: missing\n" in planned.output
    told = r"plain: 12 conditions, 11 there, 1 missing \(5 answers\); \d+:\d\d of one"
    assert re.search(told, planned.output)
    without_torch([*command, "--dry-run"])


def test_a_model_that_cannot_be_loaded_does_not_keep_others(
    model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    empty = tmp_path / "empty"
    empty.mkdir()
    file = written(tmp_path, model_folder, data_folder, more=f"  broken:\n    model: {empty}\n")
    file.write_text(file.read_text().replace("models:\n", "models:\n  first:\n    model: /nowhere/at/all\n"))
    result = call("run", file, "--out", out, "-q")
    assert result.exit_code == 3
    assert "failed: first: run: no folder '/nowhere/at/all'" in result.output
    assert "failed: broken: run: " in result.output
    assert "holds no config.json" in result.output
    assert (out / "plain" / "summary.json").is_file()
    assert (out / "polite" / "summary.json").is_file()


@pytest.mark.parametrize(
    ("more", "settings", "told"),
    [
        ("  x:\n    modell: a\n", "", "did you mean 'model'"),
        ("  x:\n    model: a\n    langs: en\n", "", "unknown option in the model 'x'"),
        ("  x:\n    dtype: float32\n", "", "'x' of the grid .* lacks model"),
        ("  x/y:\n    model: a\n", "", "has a name that is not a folder's"),
        ("  plain:\n    model: a\n", "", "'plain' stands twice, line"),
        ("  x: a\n", "", "the model 'x' .* is not a list of keys and values"),
        ("", "  lang: en\n", "did you mean 'langs'"),
        ("", "  out: here\n", "holds out, which a grid file may not set: give --out on the command line"),
        ("", "  executor: dask\n", "give --executor on the command line"),
        ("", "  trust-remote-code: true\n", "give --trust-remote-code on the command line"),
        (
            "  x:\n    model: a\n    trust-remote-code: true\n",
            "",
            "the model 'x' .* give --trust-remote-code",
        ),
        ("", "  judges: native,openai:gpt@http://198.51.100.7/v1\n", "give --judges on the command line"),
        ("", "  test: many\n", "test 'many': expected a number of test prompts"),
        ("", "  test: 0\n", "test '0': expected a number of test prompts"),
        ("", "  coefficient: much\n", "coefficient is 'much'; expected a number"),
        ("", "  no-filter: maybe\n", "stands twice"),
        ("  x:\n    model: a\n    thinking: maybe\n", "", "thinking is 'maybe'; expected true or false"),
        ("  x:\n    model: a\n    system: {a: b}\n", "", "system is .*; expected a word or a number"),
        ("", "  judges: natve\n", "did you mean 'native'"),
        ("", "  rule: arditi\n", "did you mean 'arditi2024'"),
    ],
)
def test_a_bad_grid_is_told_in_one_line(
    more: str, settings: str, told: str, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    file = written(tmp_path, model_folder, data_folder, more, settings)
    assert re.search(told, error("run", file, "--out", tmp_path / "out", "--dry-run"))


def test_what_is_no_grid(data_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    for text, told in {
        "models: [": "not YAML that can be read",
        "- a": "not a list of keys and values",
        "models:": "names no models",
        "model:\n  a: b": "did you mean 'models'",
    }.items():
        file.write_text(text)
        assert told in error("run", file, "--out", tmp_path / "out")
    assert "cannot be read" in error("run", tmp_path / "none.yaml", "--out", tmp_path / "out")
    file.write_text("models: {a: {model: b}}")
    given = error("run", file, "--out", tmp_path / "out", "--langs", "en", "--data", data_folder)
    assert "write --data, --langs into it" in given


def test_what_a_file_may_not_ask_for_holds_for_all_models_on_the_command_line(
    model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    file = written(
        tmp_path, model_folder, data_folder, settings="  judges: openai:m@http://198.51.100.7/v1\n"
    )
    assert "sends answers and a key" in error("run", file, "--out", tmp_path / "out", "--dry-run")
    planned = call(
        "run", file, "--judges", "native", "--trust-remote-code", "--out", tmp_path / "out", "--dry-run"
    )
    assert planned.exit_code == 0, planned.output + str(planned.exception)


def test_options_are_the_same_from_python_a_file_and_the_command_line(data_folder: Path) -> None:
    options = RunOptions(data=data_folder, langs=["en", "de"], strengths=[0.25, 0.5], crossed=2, test=3)
    plan = options.plan(Path("run"))
    assert plan.settings.langs == ("de", "en")
    assert (plan.settings.strengths, plan.settings.crossed, plan.settings.n_test) == ((0.25, 0.5), 2, 3)
    typed = RunOptions(data=data_folder, langs="en,de", strengths="0.25,0.5", crossed="2", test="3")
    assert typed.plan(Path("run")).request == plan.request
    with pytest.raises(ValidationError, match="Extra inputs"):
        RunOptions(lang="en")
    with pytest.raises(RunFolderError, match="data is 's3://bucket/build'; expected a folder here"):
        read_options(RunOptions, {"data": "s3://bucket/build"})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that progress sees: its last element."""
    now = [0.0]
    monkeypatch.setattr("polyrefuse_data.core.progress.time.monotonic", lambda: now[-1])
    return now


def task(size: int | None) -> Task:
    return Task(name="a", model="m", compute=lambda _slot: None, size=size)


def test_progress_says_where_a_grid_stands(seconds: list[float]) -> None:
    stream = io.StringIO()
    grid = GridProgress(stream=stream, show=lambda _line: None)
    first, second, third = task(10), task(10), task(10)
    grid.expect([first, second, third, task(None)], complete=1)
    seconds.append(20.0)  # the search for a direction, which is not part of the pace of answers
    grid.started(first)
    grid.started(second)
    seconds.append(120.0)
    grid.took(Outcome(task=first, result=[[0] * 4], ended=False))
    grid.took(Outcome(task=first, result=[[0] * 6]))
    assert grid.line == (
        "conditions 1/3 done, 1 running, 1 were there: 10/30 answers, 10.0 s each, 3:20 left"
    )
    grid.retried(second, "out of memory")
    grid.started(second)
    grid.took(Outcome(task=second, error="out of memory"))
    grid.started(third)
    grid.took(Outcome(task=third, result=[[0] * 10]))
    assert grid.line == (
        "conditions 2/3 done, 0 running, 1 failed, 1 were there: 20/30 answers, 5.0 s each, 0:50 left"
    )
    seconds.append(160.0)
    grid.waiting()
    grid.close()
    # Few lines, no control characters: this is what a batch job keeps.
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


def test_progress_draws_over_itself_on_a_terminal_and_is_silent_if_quiet() -> None:
    stream, only = Terminal(), task(5)
    grid = GridProgress(stream=stream, show=stream.write)
    grid.expect([only])
    grid.started(only)
    grid.say("a line for the user")
    grid.took(Outcome(task=only, result=[[0] * 5]))
    grid.close()
    assert "\r" in stream.getvalue()
    assert "conditions 0/1 done, 1 running" in stream.getvalue()
    assert "a line for the user" in stream.getvalue()
    quiet = GridProgress(quiet=True, stream=stream)
    before = stream.getvalue()
    quiet.expect([only])
    quiet.started(only)
    quiet.took(Outcome(task=only, result=[[0] * 5]))
    assert stream.getvalue() == before


def test_timings_survive_a_torn_line(tmp_path: Path) -> None:
    add_timing(tmp_path, Timing("cell", 2.0, "en", "harmful", "baseline", 4, 40))
    add_timing(tmp_path, Timing("load", 9.0))
    with (tmp_path / "timings.jsonl").open("a") as file:
        file.write('{"part": "ce')
    timings = read_timings(tmp_path)
    assert len(timings) == 2
    assert seconds_per_answer(timings) == 0.5
    assert seconds_per_answer(timings[1:]) is None
    add_timing(tmp_path, Timing("load", 1.0))
    assert len(read_timings(tmp_path)) == 3


def test_the_page_of_costs_says_what_the_benchmark_prints() -> None:
    root = Path(__file__).parents[3]
    printed = subprocess.run(
        [sys.executable, root / "benchmarks" / "cost.py", "--markdown"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    page = (root / "docs" / "explanation" / "cost.md").read_text()
    for line in printed.splitlines():
        assert line in page, line
