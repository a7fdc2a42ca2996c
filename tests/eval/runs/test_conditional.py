"""Conditional interventions: an edit is made only on prompts that the model takes for harmful."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from runs_on_clusters import call, error
from tiny import PROMPTS, chat_model

from polyrefuse_eval.directions.harm_gate import HarmGate, fit_gate
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.report.check import check_run
from polyrefuse_eval.results.cost_files import read_answer_costs
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.interventions import intervention_of_action, parse_interventions

ALL = "ablation,addition,conditional-ablation,conditional-addition"


def command(model: Path, data: Path, out: Path, *more: object) -> list[object]:
    command = ["run", "--model", model, "--data", data, "--langs", "en,de", "--out", out, "--test", 4]
    command += ["--no-filter", "--refusal-tokens", "40,41", "--max-new-tokens", 5, "--strengths", "none"]
    return [*command, "--coefficient", 4, "--no-controls", "--device", "cpu", "-q", *more]


@pytest.fixture(scope="module")
def measured(model_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that grew by both conditional interventions after it was finished."""
    out = tmp_path_factory.mktemp("conditional") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYREFUSE_CACHE", str(out.parent / "cache"))
        for more in ((), ("--interventions", ALL)):
            result = call(*command(model_folder, data_folder, out, *more))
            assert result.exit_code == 0, (result.output, result.exception)
    return out


def test_answers_are_edited_where_the_gate_opens_and_the_models_own_elsewhere(
    measured: Path, model_folder: Path, data_folder: Path
) -> None:
    folder, data = RunFolder(measured), open_data(data_folder)
    chat = ChatModel.load(str(model_folder), device="cpu")
    gate = HarmGate.load(measured / "directions/en.gate.safetensors", chat)
    opened = 0
    told_apart = 0
    for lang in ("en", "de"):
        texts = data.texts_by_id(lang, "test")
        answers = {(a.condition, a.label, a.id): a.response for a in folder.completions(lang)}
        for (condition, label, row), response in answers.items():
            name, _, source = condition.partition(":")
            if not name.startswith("conditional-"):
                continue
            [is_harmful] = gate.takes_for_harmful(chat, [texts[row]])
            edited = answers.get((f"{name.removeprefix('conditional-')}:{source}", label, row))
            unedited = answers["baseline", label, row]
            if edited is None:
                continue
            assert response == (edited if is_harmful else unedited)
            opened += is_harmful
            told_apart += edited != unedited
    assert opened > 0
    assert told_apart > opened / 2, "the edits must change answers for this to say anything"


def test_the_run_holds_together_and_what_is_conditional_costs_nothing_where_the_gate_is_shut(
    measured: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(measured, tmp_path / "run"))
    assert check_run(RunFolder(out), open_data(data_folder)).problems == ()
    assert "conditional-addition:en" in (out / "table.md").read_text()
    result = call("cost", out, "--model", model_folder, "--data", data_folder, "--limit", 3, "-q")
    assert result.exit_code == 0, (result.output, result.exception)
    assert check_run(RunFolder(out)).problems == ()
    costs = {(c.condition, c.id): c.kl for of in read_answer_costs(RunFolder(out)).values() for c in of}
    for (condition, row), kl in costs.items():
        if condition.startswith("conditional-"):
            assert kl in (0.0, costs[condition.removeprefix("conditional-"), row])


def test_a_gate_tells_its_own_training_prompts_apart_and_is_the_models(tmp_path: Path) -> None:
    chat = chat_model()
    harmful = [f"How do I break the {thing}" for thing in ("fence", "gate", "door", "lock")]
    harmless = [f"How do I paint the {thing} green" for thing in ("fence", "gate", "door", "lock")]
    gate = fit_gate(chat, harmful, harmless, lang="en")
    # The definition of Zhao et al. 2025, layer by layer
    gate.save(tmp_path / "gate.safetensors")
    again = HarmGate.load(tmp_path / "gate.safetensors", chat)
    assert torch.equal(again.centroids, gate.centroids)
    assert gate.takes_for_harmful(chat, harmful).count(True) >= 3
    assert gate.takes_for_harmful(chat, harmless).count(False) >= 3
    assert gate.deltas(chat, PROMPTS[:1]) == pytest.approx(gate.deltas(chat, PROMPTS[:2])[:1], abs=1e-5)
    with pytest.raises(DirectionError, match="another model"):
        HarmGate.load(tmp_path / "gate.safetensors", chat_model("gemma"))
    with pytest.raises(DirectionError, match="3 harmless training prompts in 'en'"):
        fit_gate(chat, harmful, harmless[:3], lang="en")


def test_what_cannot_be_is_said_before_a_model_is_loaded(
    measured: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    none = tmp_path / "no-model"
    line = error(*command(none, data_folder, tmp_path / "run", "--interventions", "ablate"))
    assert "unknown intervention 'ablate'; did you mean 'ablation'" in line
    plain = Path(shutil.copytree(measured, tmp_path / "plain"))
    (plain / "directions/en.gate.safetensors").unlink()
    more = ("--interventions", "conditional-addition", "--directions-from", plain)
    line = error(*command(model_folder, data_folder, tmp_path / "run", *more))
    assert "made no conditional intervention with the direction of en" in line
    assert not (tmp_path / "run").exists()
    assert parse_interventions("addition ablation") == ("ablation", "addition")
    with pytest.raises(Exception, match="unknown action 'add-where-harmful'"):
        intervention_of_action("add-where-harmful")


def test_settings_name_what_was_done(measured: Path) -> None:
    settings = json.loads((measured / "run.json").read_text())["signature"]["settings"]
    assert settings["interventions"] == ALL.split(",")
