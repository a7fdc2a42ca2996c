"""The whole way: a run of a tiny model, and its leaderboard."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from test_leaderboard import Elements, resolve

from polyrefuse_eval.cli import eval_group


def test_a_run_gets_its_page(model_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke(
        eval_group,
        [
            "run", "--model", str(model_folder), "--data", str(data_folder), "--langs", "en,de",
            "--directions", "en,de", "--refusal-tokens", "40,41", "--no-filter", "--max-new-tokens", "12",
            "--out", str(tmp_path / "runs/tiny"), "-q",
        ],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    made = CliRunner().invoke(
        eval_group, ["leaderboard", str(tmp_path / "runs/tiny"), "--out", str(tmp_path / "site")]
    )
    assert made.exit_code == 0, made.output
    assert made.stderr == ""
    text = (tmp_path / "site/index.html").read_text("utf-8")
    numbers = [link for link, _ in Elements(text).named("a") if link.get("class") == "n"]
    assert len(numbers) > 50
    for link in numbers:
        resolve(tmp_path / "site", link["href"] or "")
    for drawn in ("Transfer: refusal of harmful prompts", "Scores of candidate directions by layer"):
        assert drawn in text
    assert "the ring is what was chosen" in text
    answers = [
        json.loads(line)["response"]
        for file in (tmp_path / "runs/tiny/completions").glob("*.jsonl")
        for line in file.read_text("utf-8").splitlines()
    ]
    long = [answer for answer in answers if len(answer) > 8]
    assert long
    site = "".join(file.read_text("utf-8") for file in (tmp_path / "site").rglob("*") if file.is_file())
    assert not [answer for answer in long if answer in site]
