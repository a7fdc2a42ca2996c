"""Runs of a model behind an endpoint: whatever the service does, each answer is there once, at its prompt."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chat_server import FAULTS, KEY, KINDS, MODEL, ChatServer, kind_of, serving, word
from children import started
from runs_on_clusters import assert_same, call, call_in_child, error

from polyrefuse_data.cluster.tasks import Task
from polyrefuse_data.core.schema import ROW_CHECKS, Row, group_id, row_id
from polyrefuse_eval.endpoint.spec import EndpointSpec, Pace
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.records import Completion
from polyrefuse_eval.results.settings import BASELINE_CONDITION, Measurement
from polyrefuse_eval.runs.endpoint_tasks import AskPrompts

pytest.importorskip("openai", reason="the endpoint extra is not installed")
from polyrefuse_eval.runs.endpoint_executor import EndpointExecutor

QUICK = Pace(connections=16, deadline=1.0, tries=14, backoff=0.01, longest_wait=0.05)
N_PROMPTS = 2 * 2 * 5
"""Test prompts of `data_folder`: two languages, two labels."""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(ChatServer()) as behaviour:
        yield behaviour


def command(server: ChatServer, data: Path, out: Path, *more: object) -> list[object]:
    return [
        *("run", "--model", f"openai:{MODEL}", "--url", server.url, "--data", data, "--langs", "en,de"),
        *("--out", out, "-q", *more),
    ]


def completions(out: Path) -> list[Completion]:
    folder = RunFolder(out)
    return [completion for lang in folder.languages() for completion in folder.completions(lang)]


def row_of(text: str, lang: str, label: str, index: int) -> Row:
    return Row(
        row_id(label, "test", index), group_id(text, label), lang, text, text, label, "test", None, None,
        "tests", "CC0-1.0", "original", None, dict.fromkeys(ROW_CHECKS), dict.fromkeys(ROW_CHECKS, False),
    )  # fmt: skip


@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_service_that_misbehaves_loses_and_swaps_no_answer(server: ChatServer, count: int) -> None:
    """The real client against all faults at once, in three of ten requests."""
    server.fault_rate, server.kinds, server.stall = 0.3, KINDS, 1.5
    spec = EndpointSpec(name=MODEL, url=server.url, key_variable=None, max_tokens=64, pace=QUICK)
    places = [(lang, label) for lang in ("en", "de") for label in ("harmful", "harmless")]
    tasks = deque(
        Task(
            name=f"{lang} {label}",
            model="service",
            compute=AskPrompts(
                endpoint=spec,
                measurement=Measurement(lang, label, BASELINE_CONDITION),
                rows=tuple(
                    row_of(f"{label} question {index} in {lang}?", lang, label, index)
                    for index in range(count // len(places))
                ),
            ),
        )
        for lang, label in places
    )
    texts = {
        (row.lang, row.id): row.text
        for task in tasks
        if isinstance(task.compute, AskPrompts)
        for row in task.compute.rows
    }
    got: dict[tuple[str, str], Completion] = {}
    ended = 0
    with EndpointExecutor() as executor:
        for outcome in executor.run(tasks):
            assert outcome.error is None, outcome.error
            ended += outcome.ended
            for part in outcome.result:
                for completion in part:
                    assert (completion.lang, completion.id) not in got, "given twice"
                    got[completion.lang, completion.id] = completion
    assert ended == len(places)
    assert got.keys() == texts.keys()
    for place, completion in got.items():
        kind, own = kind_of(texts[place], KINDS), word(texts[place])
        assert completion.service is not None
        refused = completion.service.refusal
        if kind in ("content filter", "blocked"):
            assert completion.response == ""
            assert refused == (
                "content_filter" if kind == "content filter" else "blocked prompt: content_filter"
            )
            continue
        assert own in completion.response, "another prompt's answer"
        assert refused == ("refusal" if kind == "refusal" else None)
        reasons = kind in ("field", "field of vLLM", "tags")
        assert completion.reasoning == (f"I think of {own}." if reasons else None)
        assert completion.ended == (kind != "cut")
    assert set(server.faulty) == set(FAULTS)
    assert 0.2 < server.faulty.total() / len(server.prompts) < 0.4


@pytest.mark.parametrize(
    "moments", [(1, 8, 17), pytest.param((1, 2, 3, 5, 7, 9, 12, 15, 18, 20), marks=pytest.mark.slow)]
)
def test_killed_at_several_moments_a_run_has_the_same_bytes(
    moments: tuple[int, ...], server: ChatServer, data_folder: Path, tmp_path: Path
) -> None:
    server.kinds, server.seconds = KINDS, 0.05
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    result = call(*command(server, data_folder, whole, "--connections", 2))
    assert result.exit_code == 0, result.output + str(result.exception)
    assert len(server.prompts) == 1 + N_PROMPTS
    server.prompts.clear()
    for moment in moments:
        run = started(call_in_child, *command(server, data_folder, killed, "--connections", 2))
        while len(server.prompts) < moment:
            assert run.is_alive()
            time.sleep(0.005)
        os.kill(run.pid or 0, signal.SIGKILL)
        run.join()
    result = call(*command(server, data_folder, killed, "--connections", 7))
    assert result.exit_code == 0, result.output + str(result.exception)
    assert_same(whole, killed)
    assert len(server.prompts) <= 2 + N_PROMPTS + 2 * len(moments), "only what was in flight is asked again"


def test_the_key_is_nowhere_in_what_is_written(server: ChatServer, data_folder: Path, tmp_path: Path) -> None:
    server.kinds, server.fault_rate = KINDS, 0.2
    out = tmp_path / "run"
    result = call(*command(server, data_folder, out, "--deadline", 1))
    assert result.exit_code == 0, result.output + str(result.exception)
    assert server.keys == {f"Bearer {KEY}"}
    written = [file for file in out.rglob("*") if file.is_file()]
    assert len(written) > 15
    assert [file for file in written if KEY.encode() in file.read_bytes()] == []
    assert KEY not in result.output
    (out / "summary.json").unlink()
    (out / "answered.json").unlink()
    (out / "completions" / "de" / "harmful.baseline.jsonl").unlink()
    server.status = 401
    message = error(*command(server, data_folder, out))
    assert "refuses the key (status 401); check OPENAI_API_KEY" in message
    assert KEY not in message


def test_of_a_path_that_names_a_model_the_last_part_is_written(
    server: ChatServer, data_folder: Path, tmp_path: Path
) -> None:
    server.model = "/data/models/secret/m1"
    out, site = tmp_path / "run", tmp_path / "site"
    words = [*command(server, data_folder, out), "--model", f"openai:{server.model}"]
    assert call(*words).exit_code == 0
    asked = len(server.prompts)
    assert call(*words).exit_code == 0
    assert len(server.prompts) == asked, "the run is found finished"
    assert {body["model"] for body in server.bodies} == {server.model}
    assert call("leaderboard", out, "--out", site).exit_code == 0
    of_hub = ("--format", "eval-results", "--dataset", "acme/polyrefuse@0123456789abcdef")
    of_schema = ("--format", "every-eval-ever", "--organisation", "us")
    for form, *more in (of_hub[1:], of_schema[1:]):
        exported = call("export", out, "--format", form, *more, "--out", tmp_path / form)
        assert exported.exit_code == 0, exported.output
    assert call("check", out, "--data", data_folder).exit_code == 0
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(written) > 20
    assert [file for file in written if b"secret" in file.read_bytes()] == []
    model = RunFolder(out).signature["model"]
    assert (model["model"], model["revision"]) == ("m1", "m1-1")
    assert "--model openai:m1 " in (site / "index.html").read_text()


def test_refusals_of_the_service_are_counted_apart(
    server: ChatServer, data_folder: Path, tmp_path: Path
) -> None:
    server.kinds = ("content filter", "plain")
    assert call(*command(server, data_folder, tmp_path / "run")).exit_code == 0
    folder = RunFolder(tmp_path / "run")
    withheld = {
        completion.key + completion.lang
        for completion in completions(tmp_path / "run")
        if completion.service is not None and completion.service.refusal == "content_filter"
    }
    assert 0 < len(withheld) < N_PROMPTS
    assert sum(result.n_service_refused for result in folder.results()) == len(withheld)
    assert sum(result.n_refused for result in folder.results()) == len(withheld)
    service = json.loads((folder.path / "service.json").read_text())
    assert service["refusals"] == {"content_filter": len(withheld)}
    assert f"{len(withheld)} refusals are the service's" in (folder.path / "table.md").read_text()
    # Judged again by another, they are still the service's.
    verdicts = [verdict for lang in ("en", "de") for verdict in folder.verdicts(folder.judges()[0], lang)]
    assert {verdict.reason for verdict in verdicts if verdict.service_refused} == {
        "refused by the service: content_filter"
    }


def test_another_version_half_way_is_said_and_counted(
    server: ChatServer, data_folder: Path, tmp_path: Path
) -> None:
    server.renamed_after = 9
    result = call(*command(server, data_folder, tmp_path / "run", "--connections", 1))
    assert result.exit_code == 0
    (line,) = (line for line in result.stderr.splitlines() if "changes" in line)
    assert line.startswith(f"openai:{MODEL} changes: '{MODEL}-2' answers now (system_fingerprint fp_ab)")
    versions = json.loads((tmp_path / "run" / "service.json").read_text())["versions"]
    assert [(version["model"], version["answers"]) for version in versions] == [
        (f"{MODEL}-1", 8),
        (f"{MODEL}-2", N_PROMPTS - 8),
    ]


FINGERPRINTS = {
    "vllm": "not stated",
    "ollama": "fp_ollama",
    "sglang": "not stated",
    "llama.cpp": "b6869-abc",
    "transformers": "not stated",
}


@pytest.mark.parametrize("dialect", FINGERPRINTS)
def test_dialects(dialect: str, server: ChatServer, data_folder: Path, tmp_path: Path) -> None:
    server.dialect = dialect
    server.kinds = ("field of vLLM", "plain", "cut") if dialect == "vllm" else ("tags", "field", "plain")
    assert call(*command(server, data_folder, tmp_path / "run", "--temperature", 0.5)).exit_code == 0
    fingerprint = RunFolder(tmp_path / "run").signature["model"]["system_fingerprint"]
    assert fingerprint == FINGERPRINTS[dialect]
    assert all(completion.response for completion in completions(tmp_path / "run"))
    assert {completion.reasoning is None for completion in completions(tmp_path / "run")} == {True, False}
    assert {body["temperature"] for body in server.bodies} == {0.5}


def test_what_answers_depend_on_is_in_the_signature(
    server: ChatServer, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert call(*command(server, data_folder, out)).exit_code == 0
    asked = len(server.prompts)
    assert call(*command(server, data_folder, out)).exit_code == 0
    assert len(server.prompts) == asked, "a finished run asks nothing"
    for changed in (("--system", "Be brief."), ("--temperature", 1), ("--request", '{"top_p": 0.5}')):
        assert "choose another --out" in error(*command(server, data_folder, out, *changed))
    model = RunFolder(out).signature["model"]
    assert model["revision"] == f"{MODEL}-1"
    assert model["endpoint"] == "local"
    assert call("leaderboard", out, "--out", tmp_path / "site").exit_code == 0
    assert call("compare", out, out).exit_code == 0
    assert call("rescore", out, "-q").exit_code == 0


def test_prompts_without_an_answer_fail_their_condition_and_nothing_else(
    server: ChatServer, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyrefuse_eval.runs.endpoint_options.PACE", replace(QUICK, tries=2))
    server.broken = "Wie kann ich break"
    out = tmp_path / "run"
    result = call(*command(server, data_folder, out, "--connections", 3))
    assert result.exit_code == 3, result.output
    assert (
        "de harmful baseline: 5 prompts have no answer; the last: server_error: status 500" in result.stderr
    )
    assert len(completions(out)) == N_PROMPTS - 5
    assert not (out / "results.jsonl").exists()
    server.broken, server.prompts = None, []
    assert call(*command(server, data_folder, out)).exit_code == 0
    assert len(server.prompts) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--directions", "en,de"), "--directions needs the weights of 'openai:tiny-chat'"),
        (("--strengths", "0.5"), "--strengths needs the weights"),
        (("--dtype", "float32"), "--dtype needs the weights"),
        (("--tensor-parallel",), "--tensor-parallel needs the weights"),
        (("--url", "localhost"), "--url is not an address"),
        (("--url", "http://me:secret@localhost/v1"), "carries a user or password"),
        (("--budget", "1"), "--budget needs the price of 'tiny-chat', which no table holds; give --prices"),
        (("--request", "[]"), "--request '[]' is not a JSON object"),
        (("--model", "openai:"), "names no model"),
        (("--model", "organism"), "--url is for a model behind an endpoint"),
        (("--prices", "absent.yaml"), "the prices 'absent.yaml' cannot be read"),
    ],
)
def test_bad_options_are_one_line_before_anything_is_asked(
    options: tuple[str, ...], message: str, server: ChatServer, data_folder: Path, tmp_path: Path
) -> None:
    told = error(*command(server, data_folder, tmp_path / "run", *options))
    assert message in told
    assert "secret" not in told
    assert not server.prompts
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("step", ["extract", "select", "generate"])
def test_what_needs_activations_is_refused_in_one_line(step: str, data_folder: Path, tmp_path: Path) -> None:
    given = [step, "--model", "openai:gpt", "--data", data_folder]
    assert "returns answers but no activations" in error(*given, "--out", tmp_path / "out")


def test_a_grid_file_names_endpoints_beside_local_models_and_gets_no_key(
    server: ChatServer, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(
        f"settings: {{data: {data_folder}, langs: en, directions: en, no-filter: true, max-new-tokens: 4, "
        "crossed: 2, batch-size: 3, strengths: none, controls: false}\n"
        f"models:\n  local: {{model: {model_folder}, refusal-tokens: '40,41'}}\n"
        f"  service: {{model: 'openai:{MODEL}', url: '{server.url}'}}\n"
    )
    out = tmp_path / "runs"
    result = call("run", file, "--out", out, "-q", "--connections", 3)
    assert result.exit_code == 0, result.output + str(result.exception)
    assert server.keys == {"Bearer none"}
    assert len(completions(out / "service")) == N_PROMPTS // 2
    assert {completion.service is None for completion in completions(out / "local")} == {True}
    server.keys.clear()
    file.write_text(file.read_text().replace("service:", "named:"))
    result = call("run", file, "--out", out, "-q", "--key-variable", "OPENAI_API_KEY")
    assert result.exit_code == 0, result.output + str(result.exception)
    assert server.keys == {f"Bearer {KEY}"}
    for name in ("key-variable", "budget", "prices"):
        file.write_text(f"models: {{a: {{model: 'openai:x', {name}: 1}}}}\n")
        assert f"{name}, which a grid file may not set" in error("run", file, "--out", out)


def test_a_dry_run_says_what_it_would_cost_and_asks_nothing(
    server: ChatServer, data_folder: Path, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(f"{MODEL}: {{input: 100, output: 1000, as_of: 2026-11}}\n")
    asked = command(server, data_folder, tmp_path / "run", "--prices", prices, "--requests-per-minute", 5)
    planned = call(*asked, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert not server.prompts
    assert not (tmp_path / "run").exists()
    rows = [line.split(" | ") for line in planned.stdout.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["| language", "| ---", "| de", "| en", "| all"]
    requests, sent, back, minutes, dollars = (cell.strip(" |").replace(",", "") for cell in rows[-1][1:])
    assert (int(requests), int(back), float(minutes)) == (N_PROMPTS, 512 * N_PROMPTS, N_PROMPTS / 5)
    assert float(dollars) == pytest.approx((int(sent) * 100 + int(back) * 1000) / 1e6, abs=0.01)
    assert "costs US$ 100 a million tokens sent and 1000 a million back, as of 2026-11" in planned.stdout
    assert "the price of" in call(*command(server, data_folder, tmp_path / "run"), "--dry-run").stdout


def test_a_budget_holds_over_commands(server: ChatServer, data_folder: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(f"{MODEL}: {{input: 1000, output: 1000}}\n")  # 15 tokens: 0.015 US$ an answer
    asked = command(
        server, data_folder, tmp_path / "run", "--prices", prices, "--max-new-tokens", 8, "--connections", 1
    )
    for budget in (0.2, 0.2, 0.3):
        told = error(*asked, "--budget", budget)
        assert f"the budget of {budget:g} US$ would be exceeded" in told
        assert sum(server.answered.values()) * 0.015 <= budget + 0.015
    there = len(completions(tmp_path / "run"))
    assert 0 < there < N_PROMPTS
    server.prompts.clear()
    assert call(*asked, "--budget", 5).exit_code == 0
    assert len(server.prompts) == N_PROMPTS - there


def test_long_prompts_are_the_service_s_to_refuse(
    server: ChatServer, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "polyrefuse_eval.runs.model_answers.long_prompts", lambda *_data: {"en": ["a" * 10_000]}
    )
    assert call(*command(server, data_folder, tmp_path / "run", "--langs", "en")).exit_code == 0
