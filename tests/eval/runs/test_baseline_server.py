"""`--baseline-url`: a server that has the weights makes the baselines, once checked against the model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chat_server import KEY
from children import started
from completion_server import CompletionServer, serving_completions
from runs_on_clusters import call, call_in_child, error

from polyrefuse_eval.cli.grid import read_grid
from polyrefuse_eval.leaderboard.reproduction import run_command
from polyrefuse_eval.leaderboard.runs import read_runs
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.records import Completion
from polyrefuse_eval.runs.baseline_server_options import baseline_server

pytest.importorskip("openai", reason="the endpoint extra is not installed")

N_CHECKED, N_BASELINES = 8, 2 * 5
SETTING = "tiny at local"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def server(model_folder: Path) -> Iterator[CompletionServer]:
    with serving_completions(CompletionServer(model_folder)) as behaviour:
        yield behaviour


def command(model: Path, data: Path, out: Path, *more: object) -> list[object]:
    """Return a run in English with its direction, and few conditions."""
    options = ["run", "--model", model, "--data", data, "--langs", "en", "--out", out, "--no-filter"]
    options += ["--refusal-tokens", "40,41", "--max-new-tokens", 6, "--strengths", "none", "--no-controls"]
    return [*options, "--crossed", 0, "--device", "cpu", "-q", *more]


def served(server: CompletionServer, model: Path, data: Path, out: Path, *more: object) -> list[object]:
    """Return the same run with its baselines from `server`."""
    return command(model, data, out, "--baseline-url", server.url, "--baseline-model", "tiny", *more)


def completions(out: Path) -> dict[str, Completion]:
    """Return the answers by their keys, without what a service says of them."""
    return {
        completion.key + completion.label: replace(completion, service=None)
        for completion in RunFolder(out).completions("en")
    }


@pytest.fixture(scope="module")
def plain(model_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run without a server."""
    out = tmp_path_factory.mktemp("plain") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYREFUSE_CACHE", str(out.parent / "cache"))
        result = call(*command(model_folder, data_folder, out))
    assert result.exit_code == 0, result.output + str(result.exception)
    return out


@pytest.fixture(scope="module")
def served_run(model_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with the baselines of a server that tells no version."""
    out = tmp_path_factory.mktemp("served") / "run"
    with pytest.MonkeyPatch.context() as patch, serving_completions(CompletionServer(model_folder)) as server:
        patch.setenv("POLYREFUSE_CACHE", str(out.parent / "cache"))
        patch.setenv("NO_PROXY", "127.0.0.1")
        result = call(*served(server, model_folder, data_folder, out))
    assert result.exit_code == 0, result.output + str(result.exception)
    return out


@pytest.mark.parametrize("gives_ids", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_baselines_of_a_server_are_those_of_the_model(
    gives_ids: bool,
    server: CompletionServer,
    model_folder: Path,
    data_folder: Path,
    plain: Path,
    tmp_path: Path,
) -> None:
    server.gives_ids, server.fault_rate, server.fingerprint = gives_ids, 0.3, "fp_1"
    out = tmp_path / "run"
    asked = served(server, model_folder, data_folder, out)
    result = call(*asked)
    assert result.exit_code == 0, result.output + str(result.exception)
    assert server.n_faulty > 0, "its faults are tried again"
    assert len(server.bodies) == N_CHECKED + N_BASELINES
    assert {(body["model"], body["temperature"], body["repetition_penalty"]) for body in server.bodies} == {
        ("tiny", 0, 1.0)
    }
    ours, theirs = completions(out), completions(plain)
    assert ours.keys() == theirs.keys()
    assert ours == theirs or not gives_ids
    notes = {c.condition: c.service is not None for c in RunFolder(out).completions("en")}
    assert notes == {condition: condition == "baseline" for condition in notes}, "edits are made here"
    run = RunFolder(out)
    assert run.signature["settings"]["baseline_server"] == SETTING
    assert run.signature["versions"]["baseline_server"] == "tiny, system_fingerprint fp_1"
    assert RunFolder(plain).signature["settings"]["baseline_server"] is None
    service = json.loads((out / "service.json").read_text())
    assert service["versions"] == [{"model": "tiny", "system_fingerprint": "fp_1", "answers": N_BASELINES}]
    assert server.keys == {f"Bearer {KEY}"}
    assert [file for file in out.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()] == []
    assert call(*asked).exit_code == 0
    assert len(server.bodies) == N_CHECKED + N_BASELINES, "a finished run asks nothing"
    without = error(*command(model_folder, data_folder, out))
    assert f'settings.baseline_server: "{SETTING}" there, null here' in without
    assert "--baseline-url ADDRESS --baseline-model tiny" in run_command(read_runs([out])[0][0])


def test_another_model_or_template_is_one_line_and_nothing_is_written(
    server: CompletionServer, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    server.adds_token = True
    assert "'tiny' reads " in error(*served(server, model_folder, data_folder, out))
    server.adds_token, server.wrong_after = False, 0
    line = error(*served(server, model_folder, data_folder, out))
    assert "'tiny' begins its answer to prompt 1 of 8 with '" in line
    assert "serve the same model, revision and precision" in line
    server.gives_ids = False
    assert "'tiny' begins its answer to prompt 1 of 8" in error(
        *served(server, model_folder, data_folder, out)
    )
    server.url += "/absent"
    line = error(*served(server, model_folder, data_folder, out))
    assert "check --baseline-url and --baseline-model" in line
    assert KEY not in line
    assert not out.exists()


def test_a_server_that_changes_is_noticed_when_a_run_resumes(
    server: CompletionServer,
    model_folder: Path,
    data_folder: Path,
    plain: Path,
    served_run: Path,
    tmp_path: Path,
) -> None:
    out = shutil.copytree(served_run, tmp_path / "run")
    asked = served(server, model_folder, data_folder, out)
    for file in (out / "answered.json", out / "summary.json", out / "completions/en/harmful.baseline.jsonl"):
        file.unlink()
    for folder in (out / "verdicts").iterdir():
        (folder / "en" / "harmful.baseline.jsonl").unlink()
    there = {file: file.read_bytes() for file in out.rglob("*.jsonl")}
    server.wrong_after = 0
    assert "serve the same model" in error(*asked)
    server.wrong_after, server.fingerprint = None, "fp_2"
    assert 'versions.baseline_server: "tiny, system_fingerprint not stated" there' in error(*asked)
    assert not (out / "completions/en/harmful.baseline.begun.jsonl").exists()
    assert {file: file.read_bytes() for file in there} == there
    server.fingerprint = None
    server.bodies.clear()
    assert call(*asked).exit_code == 0
    assert len(server.bodies) == N_CHECKED + N_BASELINES // 2, "only what is missing is asked"
    assert completions(out) == completions(plain)


@pytest.mark.parametrize(
    ("choice", "usage", "message"),
    [
        ({"token_ids": [5] * 1000}, {}, "'tiny' sends 1000 tokens where at most 6 are asked for"),
        ({"token_ids": None}, {"completion_tokens": 7}, "'tiny' sends 7 tokens where at most 6"),
        ({"token_ids": [2**31 - 1]}, {}, "'tiny' sends token 2147483647, and '"),
        ({}, {"prompt_tokens": 3}, "'tiny' reads 3 tokens of a prompt that has "),
    ],
)
def test_an_answer_that_the_model_cannot_give_is_one_line_and_the_others_stay(
    server: CompletionServer,
    model_folder: Path,
    data_folder: Path,
    plain: Path,
    tmp_path: Path,
    choice: dict[str, object],
    usage: dict[str, object],
    message: str,
) -> None:
    out = tmp_path / "run"
    asked = served(server, model_folder, data_folder, out, "--connections", 1)
    server.wrong_after, server.wrong_choice, server.wrong_usage = N_CHECKED + 2, choice, usage
    assert message in error(*asked)
    server.wrong_after = None
    server.bodies.clear()
    assert call(*asked).exit_code == 0
    assert len(server.bodies) == N_CHECKED + N_BASELINES - 2, "what came before it is not asked again"
    assert completions(out) == completions(plain)


@pytest.mark.slow  # a process that imports everything
def test_killed_and_resumed_at_most_what_was_in_flight_is_asked_again(
    server: CompletionServer, model_folder: Path, data_folder: Path, plain: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    asked = served(server, model_folder, data_folder, out, "--connections", 2)
    server.seconds = 0.1
    run = started(call_in_child, *asked)
    while len(server.bodies) < N_CHECKED + 5:
        assert run.is_alive()
        time.sleep(0.01)
    os.kill(run.pid or 0, signal.SIGKILL)
    run.join()
    server.seconds = 0.0
    server.bodies.clear()
    result = call(*asked)
    assert result.exit_code == 0, result.output
    assert len(server.bodies) <= N_CHECKED + N_BASELINES - 5 + 2
    assert completions(out) == completions(plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--baseline-model", "tiny"), "--baseline-model names a model of --baseline-url, which is missing"),
        (("--baseline-url", "localhost"), "--baseline-url"),
        (("--baseline-url", "http://127.0.0.1:9/v1", "--thinking"), "leave out --thinking"),
        (
            ("--baseline-url", "http://127.0.0.1:9/v1", "--model", "openai:x"),
            "--baseline-url needs the",
        ),
        (
            ("--baseline-url", "http://127.0.0.1:9/v1", "--temperature", 1),
            "--temperature is for a model",
        ),
        (("--connections", 3), "or a server at --baseline-url"),
    ],
)
def test_bad_options_are_one_line(
    options: tuple[object, ...], message: str, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    assert message in error(*command(model_folder, data_folder, tmp_path / "run", *options))
    assert not (tmp_path / "run").exists()


def test_an_address_in_a_grid_file_gets_no_key_unless_the_command_line_names_it(tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text("models: {tiny: {model: organism, baseline-url: 'http://127.0.0.1:9/v1'}}")

    def key_variable(**given: object) -> str | None:
        server = baseline_server(read_grid(grid, given, [])["tiny"])
        assert server is not None
        assert server.pace.connections == 2
        return server.key_variable

    assert key_variable(connections=2) is None
    assert key_variable(connections=2, key_variable="MY_KEY") == "MY_KEY"
