"""Runs of models behind endpoints alone: without torch, and with prompts that look harmful and are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import MODEL, ChatServer, serving
from runs_on_clusters import assert_same, call

from polyrefuse_data.build.pipeline import BuildRequest, build
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.subset_files import over_refusal_run, read_contrasts

pytest.importorskip("openai", reason="the endpoint extra is not installed")

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None  # an import raises
from polyrefuse_data.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    sys.exit(end.code)
"""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(ChatServer()) as behaviour:
        yield behaviour


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of three contrast pairs in English and German."""
    folder = tmp_path_factory.mktemp("builds") / "pairs"
    return build(BuildRequest("over-refusal-sample", langs=("en", "de"), size={"test": 3}, out=folder)).folder


def command(server: ChatServer, data: Path, out: Path, *more: object) -> list[str]:
    options = ["run", "--model", f"openai:{MODEL}", "--url", server.url, "--data", data, "--langs", "en,de"]
    return [str(option) for option in [*options, "--out", out, "-q", *more]]


def test_a_run_its_tables_and_over_refusal_need_no_torch(
    server: ChatServer, data_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    """In a process of its own, in which torch and transformers cannot be imported."""
    out = tmp_path / "run"
    asked = command(server, data_folder, out, "--over-refusal", pairs)
    environment = {**os.environ, "POLYREFUSE_CACHE": str(tmp_path / "cache"), "OPENAI_API_KEY": "none"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "eval", *asked],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "harmless prompts that look harmful" in done.stdout
    assert (out / "table.md").is_file()


def test_over_refusal_of_a_service_is_measured_like_that_of_a_model(
    server: ChatServer, data_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    out, later = tmp_path / "run", tmp_path / "later"
    server.kinds = ("plain", "refusal")
    asked = call(*command(server, data_folder, out, "--over-refusal", pairs))
    assert asked.exit_code == 0, asked.output
    inner = over_refusal_run(RunFolder(out))
    assert inner is not None
    cells = {(result.label, result.lang): result.n + result.n_unjudged for result in inner.results()}
    assert cells == dict.fromkeys(
        [(label, lang) for label in ("harmful", "harmless") for lang in ("en", "de")], 3
    )
    assert {result.condition for result in inner.results()} == {"baseline"}
    assert read_contrasts(inner)
    assert json.loads((inner.path / "service.json").read_text())["versions"][0]["answers"] == 12
    requests = len(server.prompts)
    # A second time nothing is asked; added to a run that is there, the test prompts are not asked again.
    assert call(*command(server, data_folder, out, "--over-refusal", pairs)).exit_code == 0
    assert len(server.prompts) == requests
    assert call(*command(server, data_folder, later)).exit_code == 0
    server.prompts.clear()
    assert call(*command(server, data_folder, later, "--over-refusal", pairs)).exit_code == 0
    assert len(server.prompts) == 12 + 1
    assert_same(out, later)
    site = call("leaderboard", out, "--out", tmp_path / "site")
    assert site.exit_code == 0, site.output
