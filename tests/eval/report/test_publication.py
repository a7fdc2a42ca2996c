"""From a build to a run, to the Hub, and to what is read there: on what the commands really write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from subprocess import CompletedProcess

from click.testing import CliRunner
from hub_server import LoopbackHub
from publishing import run as run_command

from polyrefuse_data.cli.command import cli
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.verification import verify_run

DATA, RESULTS = "acme/polyrefuse", "acme/polyrefuse-results"


def call(*arguments: object) -> str:
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_build_run_publish_diff(model_folder: Path, tmp_path: Path) -> None:
    build, run = tmp_path / "build", tmp_path / "run"
    call("build", "--recipe", "sample", "--langs", "en,de", "--size", "24/16/24", "--out", build, "-q")
    call(
        "eval", "run", "--model", model_folder, "--data", build, "--langs", "en,de", "--directions", "en",
        "--refusal-tokens", "40,41", "--no-filter", "--max-new-tokens", "12", "--out", run, "-q",
    )  # fmt: skip
    with LoopbackHub() as hub:

        def on_hub(*arguments: str | Path) -> CompletedProcess[str]:
            return run_command(hub, tmp_path / "home", *arguments)

        assert on_hub("publish", build, "--to", DATA, "--gated", "manual").returncode == 0
        published = on_hub("publish", "--results", run, "--to", RESULTS)
        assert published.stdout.startswith(f"Published: {RESULTS} v1.0.0"), published.stderr
        assert "no difference" in on_hub("diff", f"{DATA}@v1.0.0", build).stdout
        refused = on_hub("publish", "--results", run, "--to", DATA)
        assert refused.returncode == 2
        assert "holds a build; publish results to another name" in refused.stderr
        files = hub.files(RESULTS)
        answers = [
            json.loads(line)["response"]
            for file in run.glob("completions/*/*.jsonl")
            for line in file.read_text("utf-8").splitlines()
        ]
        everything = b"".join(hub.contents.values()).decode("utf-8", "replace")
    assert [answer for answer in answers if len(answer) > 8]
    assert not [answer for answer in answers if len(answer) > 8 and answer in everything]
    downloaded = tmp_path / "downloaded"
    for name, content in files.items():
        (downloaded / name).parent.mkdir(parents=True, exist_ok=True)
        (downloaded / name).write_bytes(content)
    verify_run(RunFolder(downloaded))
    for name in ("results.jsonl", "comparisons.jsonl"):
        assert files[name] == (run / name).read_bytes()
    call("eval", "leaderboard", downloaded, "--out", tmp_path / "site")
    call("eval", "compare", run, downloaded)
    shutil.rmtree(run / "completions")
    call("eval", "leaderboard", run, "--out", tmp_path / "site")
