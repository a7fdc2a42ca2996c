"""`eval run --over-refusal`: a second test set under every condition, with the directions of the first."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import Result
from run_records import answer_to, verdict_on
from runs_on_clusters import call, contrast_pairs, error, own_cache

from polyrefuse_data.build.pipeline import BuildRequest, build
from polyrefuse_eval.leaderboard.boards import leaderboard
from polyrefuse_eval.leaderboard.page import page
from polyrefuse_eval.leaderboard.runs import read_runs
from polyrefuse_eval.leaderboard.tables import markdown
from polyrefuse_eval.report.check import check_run
from polyrefuse_eval.report.subsets import contrast_results, subset_results
from polyrefuse_eval.report.tables import write_tables
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.records import VerdictRecord
from polyrefuse_eval.results.subset_files import (
    OVER_REFUSAL,
    PROMPTS_FILE,
    over_refusal_run,
    read_contrasts,
    read_prompts,
    read_subsets,
)
from polyrefuse_eval.results.subset_records import PromptRecord

CONDITIONS = {"baseline", "ablation:en", "addition:en"}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of three contrast pairs in English and German."""
    return contrast_pairs(tmp_path_factory.mktemp("builds") / "pairs", 3)


def run(model: Path, data: Path, out: Path, *more: str) -> Result:
    return call(
        "run", "--model", model, "--data", data, "--out", out, "--langs", "en,de", "--device", "cpu",
        "--max-new-tokens", 4, "--no-filter", "--refusal-tokens", "40,41", "--strengths", "none",
        "--no-controls", "--crossed", 0, "-q", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def measured(
    model_folder: Path, data_folder: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    with own_cache(out.parent / "cache"):
        result = run(model_folder, data_folder, out, "--over-refusal", str(pairs))
    assert result.exit_code == 0, result.output
    assert "harmless prompts that look harmful" in result.stdout
    return out


def test_every_condition_is_measured_on_both_labels_with_the_directions_of_the_run(measured: Path) -> None:
    inner = over_refusal_run(RunFolder(measured))
    assert inner is not None
    cells = {(result.label, result.condition, result.lang): result for result in inner.results()}
    assert set(cells) == {
        (label, condition, lang)
        for label in ("harmful", "harmless")
        for condition in CONDITIONS
        for lang in ("en", "de")
    }
    assert all(result.n + result.n_unjudged == 3 for result in cells.values())
    direction = "directions/en.safetensors"
    assert (inner.path / direction).read_bytes() == (measured / direction).read_bytes()
    assert not (inner.path / "scores").exists()
    assert {(prompt.source, prompt.type) for prompt in read_prompts(inner).values()} == {
        ("sample_pairs", "homonyms"),
        ("sample_pairs", "contrast_homonyms"),
    }


def test_pairs_types_and_a_plot_are_there_and_the_first_test_set_is_as_without(
    measured: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    inner = over_refusal_run(RunFolder(measured))
    assert inner is not None
    assert {(row.lang, row.condition) for row in read_contrasts(inner)} == {
        (lang, condition) for lang in ("en", "de") for condition in CONDITIONS
    }
    assert all(row.n + row.n_unjudged == 3 for row in read_contrasts(inner))
    assert {row.subset for row in read_subsets(inner) if row.kind == "type"} == {
        "homonyms",
        "contrast_homonyms",
    }
    assert (inner.path / "over_refusal.png").read_bytes()[:4] == b"\x89PNG"
    table = (inner.path / "table.md").read_text(encoding="utf-8")
    assert "| language | condition | over-refusal, safe | compliance, unsafe | pairs" in table
    assert run(model_folder, data_folder, tmp_path / "plain").exit_code == 0
    for name in (
        "results.jsonl",
        "comparisons.jsonl",
        "summary.json",
        "table.md",
        "directions/en.safetensors",
    ):
        assert (tmp_path / "plain" / name).read_bytes() == (measured / name).read_bytes()


def test_it_joins_a_finished_run_and_a_second_call_does_nothing(
    measured: Path, model_folder: Path, data_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run(model_folder, data_folder, out).exit_code == 0
    files = {file: file.stat().st_mtime_ns for file in out.rglob("*.jsonl")}
    assert run(model_folder, data_folder, out, "--over-refusal", str(pairs)).exit_code == 0
    assert {file: file.stat().st_mtime_ns for file in files} == files
    for name in ("results.jsonl", "contrasts.jsonl", "subsets.jsonl", "table.md"):
        assert (out / OVER_REFUSAL / name).read_bytes() == (measured / OVER_REFUSAL / name).read_bytes()
    files = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.suffix != ".lock"}
    again = run(model_folder, data_folder, out, "--over-refusal", str(pairs))
    assert again.exit_code == 0
    assert {
        file: file.stat().st_mtime_ns for file in files if file.is_file() and "lock" not in file.name
    } == {file: time for file, time in files.items() if file.is_file() and "lock" not in file.name}


def test_rescoring_reads_both_test_sets_again(measured: Path, tmp_path: Path) -> None:
    shutil.copytree(measured, tmp_path / "run")
    inner = tmp_path / "run" / OVER_REFUSAL
    before = (inner / "contrasts.jsonl").read_bytes()
    (inner / "contrasts.jsonl").unlink()
    result = call("rescore", tmp_path / "run", "-q")
    assert result.exit_code == 0, result.output
    assert (inner / "contrasts.jsonl").read_bytes() == before


def test_the_leaderboard_shows_both_sides(measured: Path) -> None:
    compared = leaderboard(*read_runs([measured]))
    assert "Over-refusal and compliance" in page(compared)
    (of_judge,) = compared.runs[0].json()["over_refusal"].values()
    assert len(of_judge["sides"]) == 2 * len(CONDITIONS)
    assert "### Over-refusal and compliance, no edit: run" in markdown(compared)


def test_bad_input_is_one_line_before_a_model_is_loaded(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("polyrefuse_eval.models.spec.ModelSpec.__call__", fails)
    command = ("run", "--model", "organism", "--data", data_folder, "--out", tmp_path / "out")
    langs = ("--langs", "en,de")
    assert f"'{data_folder}' holds no contrast pairs; build one" in error(
        *command, *langs, "--over-refusal", data_folder
    )
    lacking = build(BuildRequest("over-refusal-sample", langs=("en",), size={"test": 2}, out=tmp_path / "en"))
    assert "lacks de" in error(*command, *langs, "--over-refusal", lacking.folder)
    assert call(*command, *langs, "--over-refusal", tmp_path / "none").exit_code != 0
    assert not (tmp_path / "out").exists()


def records(
    twins: list[tuple[bool | None, bool | None]],
) -> tuple[list[VerdictRecord], dict[str, PromptRecord]]:
    """Return verdicts on pairs, (harmless refused, harmful refused) each, and what their prompts are."""
    verdicts, prompts = [], {}
    for index, twin in enumerate(twins):
        for label, refused in zip(("harmless", "harmful"), twin, strict=True):
            answer = answer_to(f"{label}-{index}", "de", label, "baseline")
            verdicts.append(verdict_on(answer, "native-1", refused=refused))
            prompts[answer.id] = PromptRecord(
                id=answer.id,
                group=answer.group,
                label=label,
                source="a" if index < 2 else "b",
                type=f"{label} kind",
                pair=f"pair-{index}",
            )
    return verdicts, prompts


def test_pairs_answered_differently_are_counted_by_hand() -> None:
    twins = [(False, True)] * 6 + [(True, True)] * 2 + [(True, False)] + [(False, False)] + [(None, True)]
    verdicts, prompts = records(twins)
    (contrast,) = contrast_results(verdicts, prompts)
    assert (contrast.n, contrast.n_unjudged) == (10, 1)
    assert (contrast.only_harmful_refused, contrast.both_refused) == (6, 2)
    assert (contrast.only_harmless_refused, contrast.neither_refused) == (1, 1)
    assert contrast.differently == pytest.approx(0.7)
    assert contrast.difference == pytest.approx(0.5)
    assert contrast.low is not None
    assert contrast.high is not None
    assert 0.0 < contrast.low < 0.5 < contrast.high <= 0.9
    assert contrast.p == pytest.approx(2 * (1 + 7) / 2**7)  # 6 of 7 signs one way, or more
    by_subset = {(row.label, row.kind, row.subset): row for row in subset_results(verdicts, prompts)}
    assert (by_subset["harmless", "source", "b"].n_refused, by_subset["harmless", "source", "b"].n) == (3, 8)
    assert by_subset["harmful", "type", "harmful kind"].n_refused == 9
    # Drawn as pairs, the interval is narrower than that of two rates which are drawn apart.
    alike, of_alike = records([(True, True), (False, False)] * 10)
    (contrast,) = contrast_results(alike, of_alike)
    assert (contrast.difference, contrast.low, contrast.high) == (0.0, 0.0, 0.0)


def test_lies_about_over_refusal_are_found(measured: Path, tmp_path: Path) -> None:
    assert check_run(RunFolder(measured)).problems == ()
    for number, (file, old, new, problem) in enumerate(
        (
            ("contrasts.jsonl", '"both_refused": 0', '"both_refused": 1', "over_refusal/"),
            ("subsets.jsonl", '"subset": "homonyms"', '"subset": "synonyms"', "subsets.jsonl"),
            ("run.json", '"direction_langs": [', '"direction_langs": ["yo",', "names yo in direction_langs"),
            ("run.json", '"model": "', '"model": "another ', "over_refusal/run.json: model.model"),
        )
    ):
        out = Path(shutil.copytree(measured, tmp_path / str(number)))
        text = (out / OVER_REFUSAL / file).read_text(encoding="utf-8")
        assert old in text, (file, text[:600])
        (out / OVER_REFUSAL / file).write_text(text.replace(old, new), encoding="utf-8")
        assert any(problem in line for line in check_run(RunFolder(out)).problems), problem


def test_types_are_those_of_the_data_set(measured: Path, pairs: Path, tmp_path: Path) -> None:
    """Types that were moved, with all tables made again, are found beside the data set alone."""
    data = open_data(pairs)
    assert check_run(RunFolder(measured / OVER_REFUSAL), data).problems == ()
    inner = Path(shutil.copytree(measured / OVER_REFUSAL, tmp_path / "run"))
    prompts = (inner / PROMPTS_FILE).read_text(encoding="utf-8")
    (inner / PROMPTS_FILE).write_text(prompts.replace("homonyms", "synonyms"), encoding="utf-8")
    write_tables(RunFolder(inner))
    assert check_run(RunFolder(inner)).problems == ()
    problems = check_run(RunFolder(inner), data).problems
    assert any(line.endswith(".type is synonyms; the data set states homonyms") for line in problems), (
        problems
    )
