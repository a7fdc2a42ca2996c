"""What changed between two runs, and what cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from run_records import verdict_on

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.report.compare import RunChange, compare_runs
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.records import Completion

N = 100


def write_run(
    path: Path,
    hits: Mapping[str, Mapping[tuple[str, str], int]],
    *,
    digest: str = "d",
    judges: tuple[str, ...] = ("judge-1",),
    **settings: Any,
) -> RunFolder:
    """Write a run in which the first so many of `N` prompts refuse, by language, label and condition."""
    run = RunFolder.open(
        path,
        {
            "model": {"model": path.name, "revision": "1"},
            "data": {"digest": digest, "recipe": "r"},
            "settings": settings,
            "judges": list(judges),
            "versions": {},
        },
    )
    for lang, cells in hits.items():
        verdicts = []
        for (label, condition), refusing in cells.items():
            for index in range(N):
                row = f"{label}-{index}"
                answer = Completion(
                    key=f"{row}/{condition}",
                    id=row,
                    group=f"g{index}",
                    lang=lang,
                    label=label,
                    condition=condition,
                    response="text",
                    n_tokens=1,
                    ended=True,
                )
                run.append(lang, [answer])
                verdicts.append(verdict_on(answer, judges[0], refused=index < refusing))
        for judge in judges:
            run.append_verdicts(judge, lang, verdicts)
    return run


BASE: dict[tuple[str, str], int] = {
    ("harmful", "baseline"): 90,
    ("harmless", "baseline"): 5,
    ("harmful", "ablation:en"): 20,
}


def changes(first: RunFolder, second: RunFolder) -> dict[tuple[str, str], RunChange]:
    return {(one.measure, one.lang): one for one in compare_runs(first, second).changes}


def test_a_change_is_told_from_chance_language_by_language(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"de": BASE, "en": BASE})
    other = {
        "de": {**BASE, ("harmful", "baseline"): 60, ("harmful", "ablation:en"): 22},
        "en": {**BASE, ("harmless", "baseline"): 30},
    }
    found = changes(first, write_run(tmp_path / "b", other))
    assert len(found) == 6
    down = found["refusal", "de"]
    assert (down.n, down.first, down.second) == (100, 0.9, 0.6)
    assert down.difference == pytest.approx(-0.3)
    assert down.high is not None
    assert down.high < 0
    assert down.p_holm is not None
    assert down.p_holm < 1e-6
    up = found["over-refusal", "en"]
    assert up.difference == pytest.approx(0.25)
    assert up.low is not None
    assert up.low > 0
    assert found["refusal", "en"].p_holm == 1.0
    # Two of a hundred: 2 / 2^2 by the exact test, twice that after Holm's correction over two languages.
    little = found["refusal, ablated", "de"]
    assert (little.p, little.p_holm) == (pytest.approx(0.5), pytest.approx(1.0))


def test_the_command_prints_a_table_or_json(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"de": BASE}, max_new_tokens=512)
    write_run(tmp_path / "b", {"de": {**BASE, ("harmful", "baseline"): 60}}, max_new_tokens=64)
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    result = CliRunner().invoke(eval_group, ["compare", *paths])
    assert result.exit_code == 0, result.output
    assert "| judge-1 | refusal | de | 100 | 90.0 | 60.0 | -30.0 [" in result.output
    assert "| down |" in result.output
    assert "no change shown" in result.output
    assert "also different: settings.max_new_tokens: 512 there, 64 here" in result.output
    printed = json.loads(CliRunner().invoke(eval_group, ["compare", *paths, "--json"]).output)
    assert printed["format"] == "polyrefuse-compare-1"
    assert printed["changes"][0]["difference"] == pytest.approx(-0.3)


def test_runs_of_other_data_or_judges_are_kept_apart(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"de": BASE})
    with pytest.raises(RunFolderError, match=r"different prompts \(digest: \"d\" there, \"e\" here\)"):
        compare_runs(first, write_run(tmp_path / "data", {"de": BASE}, digest="e"))
    with pytest.raises(RunFolderError, match=r"no judge has read both \(judge-1 there, judge-2 here\)"):
        compare_runs(first, write_run(tmp_path / "judge", {"de": BASE}, judges=("judge-2",)))
    both = write_run(tmp_path / "both", {"de": BASE}, judges=("judge-1", "judge-2"))
    found = compare_runs(first, both)
    assert {one.judge for one in found.changes} == {"judge-1"}
    assert "left out: judge judge-2 has read only one of the runs" in found.notes
    with pytest.raises(RunFolderError, match="no language and condition in common"):
        compare_runs(first, write_run(tmp_path / "fr", {"fr": BASE}))
    result = CliRunner().invoke(eval_group, ["compare", str(tmp_path / "a"), str(tmp_path / "none")])
    assert isinstance(result.exception, PolyRefuseError)
    assert "holds no run.json" in str(result.exception)


def test_directions_of_other_languages_are_compared_together(tmp_path: Path) -> None:
    """Runs that differ in transfer alone: nothing else may tell them apart, and this must."""
    shared = {
        ("harmful", "baseline"): 90, ("harmful", "ablation:de"): 0, ("harmful", "ablation:en"): 0,
        ("harmful", "ablation:th"): 2, ("harmful", "ablation:random"): 90, ("harmful", "ablation:en@0.5"): 50,
    }  # fmt: skip
    apart = {**shared, ("harmful", "ablation:en"): 80, ("harmful", "ablation:th"): 90}
    first = write_run(tmp_path / "a", {"de": shared, "yo": BASE})
    found = changes(first, write_run(tmp_path / "b", {"de": apart, "yo": BASE}))
    assert {key: one.difference for key, one in found.items() if one.lang == "de"} == {
        ("refusal", "de"): 0,
        ("refusal, ablated", "de"): 0,
        ("refusal, others ablated", "de"): pytest.approx(0.84),
    }
    one = found["refusal, others ablated", "de"]
    assert (one.n, one.first, one.second) == (200, 0.01, 0.85)
    assert one.low is not None
    assert one.low > 0.7
    assert one.p_holm is not None
    assert one.p_holm < 1e-6
    assert ("refusal, others ablated", "yo") not in found, "it has one direction, the first, which is its own"
