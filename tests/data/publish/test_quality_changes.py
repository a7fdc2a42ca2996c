"""Two builds' quality by language: a better translator is told from chance, over prompts, not copies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from polyrefuse_data.build.package import read_rows
from polyrefuse_data.build.pipeline import BuildResult
from polyrefuse_data.cli.publish import diff_command
from polyrefuse_data.core.schema import SPLITS
from polyrefuse_data.publish.quality import compare_quality, paired_interval, quality_lines
from polyrefuse_data.publish.snapshots import open_snapshot
from polyrefuse_data.quality.scores_file import ScoresFile


def scored(
    small: Callable[..., BuildResult], out: Path, model: str, better: dict[str, float], noise: float = 0.3
) -> Path:
    """Build the small sample with made-up scores: `better` by language, and a part that alternates."""
    plain = small(out=out.with_name(f"{out.name}-plain"))
    file = ScoresFile(out.with_suffix(".jsonl"), create=True)
    for number, (lang, gain) in enumerate(better.items()):
        rows = [row for split in SPLITS for row in read_rows(plain.folder, lang, split)]
        values = [0.5 + gain + noise * ((row + number) % 2) * bool(gain) for row in range(len(rows))]
        file.add("quality", model, lang, [row.text_en for row in rows], [row.text for row in rows], values)
    file.save()
    return small(out=out, scores=out.with_suffix(".jsonl")).folder


def test_a_better_translator_is_told_from_chance(small: Callable[..., BuildResult], tmp_path: Path) -> None:
    old = scored(small, tmp_path / "old", "comet:m@1", {"ja": 0.0, "yo": 0.0})
    new = scored(small, tmp_path / "new", "comet:m@1", {"ja": 0.1, "yo": -0.15})
    changes = {
        change.lang: change for change in compare_quality(open_snapshot(str(old)), open_snapshot(str(new)))
    }
    assert (changes["ja"].verdict, changes["yo"].verdict) == ("better", "unclear")
    assert changes["ja"].difference == pytest.approx(changes["ja"].new - changes["ja"].old, abs=1e-6)
    assert changes["ja"].low < changes["ja"].difference < changes["ja"].high
    assert any("better" in line for line in quality_lines(list(changes.values())))
    # errors of MetricX: fewer is better
    fewer = scored(small, tmp_path / "fewer", "metricx:m@1", {"ja": -0.4})
    more = scored(small, tmp_path / "more", "metricx:m@1", {"ja": 0.0})
    (change,) = compare_quality(open_snapshot(str(more)), open_snapshot(str(fewer)))
    assert change.verdict == "better"
    # scores of different models are not compared
    assert compare_quality(open_snapshot(str(old)), open_snapshot(str(fewer))) == []
    done = CliRunner().invoke(diff_command, [str(old), str(new), "--quality", "--format", "json"])
    assert {change["lang"] for change in json.loads(done.stdout)["quality"]} == {"ja", "yo"}
    assert "better" in CliRunner().invoke(diff_command, [str(old), str(new), "--quality"]).stdout


def test_copies_of_a_prompt_do_not_narrow_the_interval() -> None:
    singles = [[0.1], [-0.2], [0.4], [0.0], [0.3], [-0.1]]
    mean, low, high = paired_interval(singles)
    assert mean == pytest.approx(0.5 / 6)
    copied = paired_interval([group * 50 for group in singles])
    assert copied == pytest.approx((mean, low, high))
    _, low_apart, high_apart = paired_interval([group for group in singles for _ in range(50)])
    assert high_apart - low_apart < (high - low) / 3
    assert paired_interval([[0.2, 0.2]]) == pytest.approx((0.2, 0.2, 0.2))
