"""`--directions en-over-refusal`: refusal minus over-refusal, fitted on one half of the contrast pairs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from runs_on_clusters import call, contrast_pairs, error, own_cache

from polyrefuse_eval.directions.fit import Direction
from polyrefuse_eval.leaderboard.reproduction import run_command
from polyrefuse_eval.leaderboard.runs import read_runs
from polyrefuse_eval.report.check import check_run
from polyrefuse_eval.report.publication import published_run
from polyrefuse_eval.results.contrast_pairs import FittedPairs, TestedPairs, is_fitted_on
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.subset_files import over_refusal_run, read_contrasts, read_prompts

SMALL = ("--no-filter", "--refusal-tokens", "40,41", "--max-new-tokens", 4, "--test", 6, "--crossed", 1)
NONE = ("--strengths", "none", "--no-controls", "--device", "cpu", "-q")
SOURCES = ["en", "en-over-refusal", "pooled-over-refusal"]


def command(model: object, data: Path, out: Path, *more: object) -> list[object]:
    return ["run", "--model", model, "--data", data, "--langs", "en,de", "--out", out, *SMALL, *NONE, *more]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return contrast_pairs(tmp_path_factory.mktemp("builds") / "pairs", 12)


@pytest.fixture(scope="module")
def measured(
    model_folder: Path, data_folder: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    with own_cache(out.parent / "cache"):
        more = ("--over-refusal", pairs, "--directions", ",".join(SOURCES))
        result = call(*command(model_folder, data_folder, out, *more))
    assert result.exit_code == 0, (result.output, result.exception)
    return out


def direction(run: Path, source: str) -> Direction:
    return Direction.load(run / f"directions/{source}.safetensors")


def test_it_is_a_condition_of_its_own_and_has_no_part_along_over_refusal(measured: Path) -> None:
    folder = RunFolder(measured)
    names = {result.condition for result in folder.results() if result.label == "harmful"}
    assert names == {"baseline"} | {
        f"{edit}:{source}" for edit in ("ablation", "addition") for source in SOURCES
    }
    for name in ("en", "pooled"):
        whole, left = direction(measured, name), direction(measured, f"{name}-over-refusal")
        story = left.metadata["over_refusal"]
        assert (left.layer, left.position) == (whole.layer, whole.position)
        taken = whole.vector.double() - left.vector.double()
        assert abs(float(left.unit.double() @ taken)) < 1e-5 * float(whole.norm)
        assert left.norm == pytest.approx(whole.norm * (1 - story["cosine"] ** 2) ** 0.5, rel=1e-5)
        assert abs(story["cosine"]) > 0.01  # there is something to take
        assert abs(float(left.unit @ whole.unit)) == pytest.approx(story["left"], abs=1e-5)


def test_what_is_fitted_on_is_not_tested_and_both_are_recorded(measured: Path, pairs: Path) -> None:
    build_ = open_data(pairs)
    all_pairs = {row.pair for row in build_.rows("en", "test")}
    story = direction(measured, "en-over-refusal").metadata["over_refusal"]
    assert set(story["pairs"]) == {pair for pair in all_pairs if is_fitted_on(pair)}
    inner = over_refusal_run(RunFolder(measured))
    assert inner is not None
    tested = {prompt.pair for prompt in read_prompts(inner).values()}
    assert tested
    assert not tested & set(story["pairs"])
    assert {contrast.n + contrast.n_unjudged for contrast in read_contrasts(inner)} == {len(tested)}
    identity = f"over-refusal-sample:{build_.digest[:32]}"
    for folder in (RunFolder(measured), inner):
        assert folder.signature["settings"]["over_refusal_from"] == identity
    assert story["data"] == identity
    pooled = direction(measured, "pooled-over-refusal").metadata["over_refusal"]["counts"]
    assert pooled["n_looking_harmful"] == 2 * story["counts"]["n_looking_harmful"]


def test_checked_published_and_named_in_the_command_that_repeats_it(
    measured: Path, pairs: Path, data_folder: Path
) -> None:
    assert check_run(RunFolder(measured), open_data(data_folder)).problems == ()
    settings = json.loads(published_run(measured).files["run.json"])["signature"]["settings"]
    assert settings["direction_langs"] == SOURCES
    (run,), _ = read_runs([measured])
    assert "--over-refusal builds/over-refusal-sample" in run_command(run)
    assert "--directions en,en-over-refusal,pooled-over-refusal" in run_command(run)


def test_a_run_that_tests_what_it_was_fitted_on_is_found(measured: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(measured, tmp_path / "run"))
    file = out / "over_refusal" / "prompts.jsonl"
    fitted = direction(measured, "en-over-refusal").metadata["over_refusal"]["pairs"][0]
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), "pair": fitted})
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert any("1 prompts are tested that" in line for line in check_run(RunFolder(out)).problems)


def test_another_run_can_take_the_direction_and_tests_the_same_half(
    measured: Path, model_folder: Path, data_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    more = ("--directions", "en-over-refusal", "--directions-from", measured, "--over-refusal", pairs)
    result = call(*command(model_folder, data_folder, out, *more))
    assert result.exit_code == 0, (result.output, result.exception)
    name = "directions/en-over-refusal.safetensors"
    assert (out / name).read_bytes() == (measured / name).read_bytes()
    before = {(r.lang, r.label, r.condition): r for r in RunFolder(measured).results()}
    assert len(RunFolder(out).results()) == 2 * 2 * 3
    for outcome in RunFolder(out).results():
        assert outcome == before[outcome.lang, outcome.label, outcome.condition]
    tested, first = (over_refusal_run(RunFolder(run)) for run in (out, measured))
    assert tested is not None
    assert first is not None
    assert read_prompts(tested) == read_prompts(first)


def test_a_run_that_was_made_without_cannot_get_one_since_its_pairs_were_tested(
    measured: Path, model_folder: Path, data_folder: Path, pairs: Path
) -> None:
    line = error(*command(model_folder, data_folder, measured, "--over-refusal", pairs))
    assert "settings.over_refusal_from" in line


def test_bad_input_is_one_line_before_a_model_is_loaded(
    data_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    def line(*more: object) -> str:
        return error(*command(tmp_path / "no-model", data_folder, tmp_path / "run", *more))

    ours = ("--directions", "en-over-refusal")
    assert "'en-over-refusal' is made orthogonal to over-refusal, which is fitted on contrast" in line(*ours)
    assert "holds no contrast pairs; build one" in line(*ours, "--over-refusal", data_folder)
    few = contrast_pairs(tmp_path / "few", 2)
    assert "in the half that directions of over-refusal are fitted on, which needs 4" in line(
        *ours, "--over-refusal", few
    )
    assert "lacks fr" in line("--directions", "fr-over-refusal", "--over-refusal", pairs)
    for name in ("span-over-refusal", "-over-refusal", "all-over-refusal"):
        assert "removes over-refusal from something that is not a single direction" in line(
            "--directions", f"en,{name}"
        )
    assert "is not a span" in line("--directions", "en+de-over-refusal", "--over-refusal", pairs)
    assert "unknown language" in line("--directions", "xx-over-refusal", "--over-refusal", pairs)
    assert not (tmp_path / "run").exists()


def test_halves_depend_on_the_pair_alone(pairs: Path) -> None:
    data = open_data(pairs)
    fitted = FittedPairs(data)
    tested = TestedPairs(data.path, data.digest, data.recipe)
    halves = {}
    for lang in ("en", "de"):
        halves[lang] = {row.pair for row in fitted.safe(lang)}
        left = {row.pair for row in tested.rows(lang, "test")}
        assert halves[lang] | left == {row.pair for row in data.rows(lang, "test")}
        assert not halves[lang] & left
        assert {row.label for row in fitted.safe(lang)} == {"harmless"}
    assert halves["en"] == halves["de"]
    many = [f"pair-{number}" for number in range(2000)]
    assert 900 < sum(map(is_fitted_on, many)) < 1100
    assert not is_fitted_on(None)
