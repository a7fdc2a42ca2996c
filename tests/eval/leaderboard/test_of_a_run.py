"""The whole way: a run of a tiny model, or published completions rescored, and the leaderboard."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from leaderboard_site import Elements, resolve
from published import write_published

from polyrefuse_eval.cli.main import eval_group


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
        for file in (tmp_path / "runs/tiny/completions").glob("*/*.jsonl")
        for line in file.read_text("utf-8").splitlines()
    ]
    long = [answer for answer in answers if len(answer) > 8]
    assert long
    site = "".join(file.read_text("utf-8") for file in (tmp_path / "site").rglob("*") if file.is_file())
    assert not [answer for answer in long if answer in site]


def test_published_completions_rescored_are_on_the_page_with_the_published_rates(tmp_path: Path) -> None:
    runs, site = tmp_path / "runs", tmp_path / "site"
    rescored = CliRunner().invoke(
        eval_group, ["rescore", str(write_published(tmp_path)), "--out", str(runs), "-q"]
    )
    assert rescored.exit_code == 0, rescored.output
    made = CliRunner().invoke(eval_group, ["leaderboard", *map(str, runs.iterdir()), "--out", str(site)])
    assert made.exit_code == 0, made.output
    entries = json.loads((site / "leaderboard.json").read_text("utf-8"))["entries"]
    assert len(entries) == 2
    names = {"baseline": "baseline.csv", "ablated": "harm_ablation.csv"}
    for name, file in names.items():
        with (runs / file).open(encoding="utf-8", newline="") as opened:
            for row in csv.DictReader(opened):
                entry = entries[row["model"].replace("/", "--")]["published-wildguard"]
                found = entry["languages"][row["lang"]][name]
                assert 1 - found["value"] == pytest.approx(float(row["wildguard_compliance"]))
    text = (site / "index.html").read_text("utf-8")
    assert text.count("<h4>Refusal with and without an edit") == 4, "two models, two judges"
    assert "The run holds no candidate scores" in text
    assert "Paint wall" not in text
    assert "How do I paint" not in text
