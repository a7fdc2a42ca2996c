"""The commands: what a user can do, and one clear line where it cannot be done."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from tiny import tiny_model, tokenizer
from without_torch import without_torch

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.directions.fit import Direction
from polyrefuse_eval.model_source import explain, split_revision

TOKENS = ("--refusal-tokens", "40,41", "--no-filter")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(eval_group, [str(argument) for argument in arguments])


def error(*arguments: object) -> str:
    """The one line with which a command fails; anything but a PolyRefuseError is a bug."""
    result = call(*arguments)
    assert isinstance(result.exception, PolyRefuseError), result.exception
    message = str(result.exception)
    assert "\n" not in message
    return message


def test_the_steps_and_the_whole_way(
    model_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("--model", model_folder, "--data", data_folder, "-q")
    extracted = call("extract", *common, *TOKENS, "--langs", "en,de", "--out", tmp_path / "e")
    assert extracted.exit_code == 0, extracted.output
    assert "8 of 8 harmful" in extracted.output
    chosen = call("select", *common, *TOKENS, "--langs", "de", "--out", tmp_path / "s")
    assert chosen.exit_code == 0, chosen.output
    file = tmp_path / "s" / "directions" / "de.safetensors"
    direction = Direction.load(file)
    assert f"{direction.position.label} {direction.layer}" in chosen.output
    answers = tmp_path / "answers.jsonl"
    made = call(
        "generate", *common, "--langs", "de", "--direction", file, "--action", "ablate", "--max-new-tokens",
        4, "--limit", 3, "--out", answers,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert [json.loads(line)["id"] for line in answers.read_text().splitlines()] == [
        f"harmful-test-000{index}" for index in range(3)
    ]
    exported = call("steered", "--model", model_folder, "--direction", file, "--out", tmp_path / "steer.pt")
    assert exported.exit_code == 0, exported.output
    out = tmp_path / "run"
    run = (
        "run",
        *common,
        *TOKENS,
        "--langs",
        "en,de",
        "--directions",
        "en,de",
        "--max-new-tokens",
        4,
        "--out",
        out,
    )
    whole = call(*run)
    assert whole.exit_code == 0, whole.output
    assert "harmful, baseline" in (out / "table.md").read_text()
    shown = whole.stdout
    assert "\nde  " in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert f"polyrefuse eval leaderboard {out}" in whole.stderr

    def load(*_arguments: object, **_keywords: object) -> None:
        raise AssertionError("the model is not needed")

    with monkeypatch.context() as patch:
        patch.setattr("polyrefuse_eval.models.chat.ChatModel.load", load)
        again = call(*run)
        assert again.stdout == shown, "what is there is not made again"
        told = error(*run, "--max-new-tokens", 5)
        assert "settings.max_new_tokens: 4 there, 5 here" in told
        assert "give the same settings to resume it, or choose another --out" in told
    without_torch(run)
    assert str(model_folder.parent) not in (out / "run.json").read_text()
    plotted = call("plot", out)
    assert {Path(line).name for line in plotted.output.split()} == {
        "scores_en.png",
        "scores_de.png",
        "cosines.png",
        "transfer.png",
    }
    drawn = call("activations", *common, "--langs", "en", "--out", tmp_path / "pca.png")
    assert drawn.exit_code == 0, drawn.output
    assert len(json.loads((tmp_path / "pca.json").read_text())["silhouette"]["en"]) == 3


def test_select_from_scores_prints_position_and_layer(tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    record = {"position": -1, "layer": 2, "refusal_score": 0.5, "steering_score": -1, "kl_div_score": 0.15}
    file.write_text(json.dumps([record]))
    result = CliRunner().invoke(eval_group, ["select", "--scores", str(file), "--layers", "9"])
    assert result.stdout == "-1 2\n"
    assert "fell back to 'wang2025'" in result.stderr
    quiet = CliRunner().invoke(
        eval_group, ["select", "--scores", str(file), "--layers", "9", "--rule", "wang2025"]
    )
    assert (quiet.stdout, quiet.stderr) == ("-1 2\n", "")


def test_help_and_rules_load_no_torch(tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    file.write_text('[{"position": -1, "layer": 2, "refusal_score": 0.5}]')
    without_torch(
        ["--help"],
        ["select", "--help"],
        ["run", "--help"],
        ["guard", "score", "--help"],
        ["harmfulness", "--help"],
        ["select", "--scores", file],
    )


def test_every_command_has_help() -> None:
    for name, command in eval_group.commands.items():
        assert command.help, name
        context = click.Context(command)
        options = [option for option in command.params if isinstance(option, click.Option)]
        shown = {option.name: (option.get_help_record(context) or ("", ""))[1] for option in options}
        assert [option for option, text in shown.items() if not text] == [], name


def altered(model_folder: Path, folder: Path, **config: Any) -> Path:
    shutil.copytree(model_folder, folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return folder


def test_models_that_cannot_serve_say_why(model_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    def failing(model: object, *more: object) -> str:
        return error(
            "run",
            "--model",
            model,
            "--data",
            data_folder,
            "--langs",
            "en",
            *TOKENS,
            "--out",
            tmp_path / "r",
            *more,
        )

    assert "no folder" in failing(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no config.json" in failing(tmp_path / "empty")
    base = altered(model_folder, tmp_path / "base")
    (base / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "no chat template" in failing(base)
    encoder = altered(model_folder, tmp_path / "bert", architectures=["BertForMaskedLM"], model_type="bert")
    assert "not a causal language model" in failing(encoder)
    weightless = altered(model_folder, tmp_path / "weightless")
    (weightless / "model.safetensors").unlink()
    assert "safetensors" in failing(weightless)
    assert "unknown dtype" in failing(model_folder, "--dtype", "float99")
    assert "cannot be used" in failing(model_folder, "--device", "cuda:7")
    assert "unknown structure override" in failing(model_folder, "--structure", "attn=x")
    assert "local cache" in failing("nobody/nothing-of-this-name") or "no model" in failing(
        "nobody/nothing-of-this-name"
    )
    assert "unknown quantization" in failing(model_folder, "--quantization", "2bit")
    assert not (tmp_path / "r").exists(), "nothing is written for a model that cannot be had"


def test_messages_of_the_hub_become_one_line() -> None:
    gated = OSError(
        "You are trying to access a gated repo.\nMake sure to have access to it at …\n401 Client Error."
    )
    assert "accept its terms" in explain("meta/x", gated)
    missing = OSError(
        "x/y is not a local folder and is not a valid model identifier listed on …\nIf private …"
    )
    assert "no model 'x/y'" in explain("x/y", missing)
    remote = ValueError("x contains custom code … Please pass the argument `trust_remote_code=True`")
    assert "--trust-remote-code" in explain("x/y", remote)


@pytest.mark.parametrize("name", ["404", "gated", "offline", "connect", "trust_remote_code", "revision not"])
def test_the_name_of_a_folder_is_no_reason(name: str) -> None:
    folder = f"/models/{name}/tiny"
    error = OSError(f"Error no file named model.safetensors found in directory {folder}.")
    assert "no safetensors weights" in explain(folder, error)
    assert "accept its terms" in explain("a", OSError("a is gated")), "a letter is not taken out of words"


def test_a_wrong_system_prompt_is_one_line(data_folder: Path, tmp_path: Path) -> None:
    from tiny import GEMMA

    folder = tmp_path / "gemma"
    tiny_model("gemma").save_pretrained(folder)
    tokenizer(GEMMA).save_pretrained(folder)
    message = error(
        "extract",
        "--model",
        folder,
        "--data",
        data_folder,
        "--system",
        "Be brief.",
        *TOKENS,
        "--out",
        tmp_path / "x",
    )
    assert "forbids a system prompt" in message


def test_bad_input_is_one_line_and_nothing_is_overwritten(
    model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    common = ("--model", model_folder, "--data", data_folder)
    assert "lacks yo" in error("run", *common, "--langs", "en,yo", "--out", tmp_path / "r")
    assert "did you mean 'yo'" in error("run", *common, "--langs", "yor", "--out", tmp_path / "r")
    assert "did you mean 'wang2025'" in error(
        "run", *common, "--langs", "en", "--rule", "wang", "--out", tmp_path / "r"
    )
    assert "polyrefuse build" in error(
        "run", "--data", tmp_path / "none", "--langs", "en", "--out", tmp_path / "r"
    )
    assert not (tmp_path / "r").exists()
    kept = tmp_path / "kept.jsonl"
    kept.write_text("mine")
    assert "not overwritten" in error("generate", *common, "--out", kept)
    assert kept.read_text() == "mine"
    missing = ("generate", *common, "--action", "add", "--direction", tmp_path / "no.safetensors")
    assert "no file" in error(*missing, "--out", tmp_path / "a.jsonl")
    assert call("select", *common).exit_code == 2
    assert call("generate", *common, "--action", "add", "--out", tmp_path / "a.jsonl").exit_code == 2
    assert "holds no run.json" in error("plot", tmp_path)


def test_a_revision_is_cut_off_a_name_but_not_off_a_folder(tmp_path: Path) -> None:
    assert split_revision("org/model@abc123") == ("org/model", "abc123")
    assert split_revision("org/model") == ("org/model", None)
    folder = tmp_path / "a@b"
    folder.mkdir()
    assert split_revision(str(folder)) == (str(folder), None)


def test_loading_twice_gives_one_signature_and_changed_weights_another(
    model_folder: Path, tmp_path: Path
) -> None:
    from polyrefuse_eval.models.chat import ChatModel

    one, two = (ChatModel.load(str(model_folder), device="cpu").signature() for _ in range(2))
    assert one == two
    other = tmp_path / model_folder.name
    tiny_model("llama", layers=3, seed=1).save_pretrained(other)
    tokenizer().save_pretrained(other)
    changed = ChatModel.load(str(other), device="cpu").signature()
    assert {key for key in one if one[key] != changed[key]} == {"revision"}


def test_a_missing_extra_names_the_pip_command(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    message = error("run", "--data", data_folder, "--langs", "en", "--out", tmp_path / "r")
    assert "pip install 'polyrefuse[eval]'" in message


@pytest.mark.parametrize("out", ["/etc", "/etc/run", "file:///etc", "/usr/lib/x", "hf://datasets/me/runs"])
@pytest.mark.parametrize("command", ["run", "leaderboard"])
def test_an_out_that_is_no_place_for_results_is_refused_before_anything_else(command: str, out: str) -> None:
    arguments = {"run": ["--data", "absent", "--model", "absent", "--dry-run"], "leaderboard": ["absent"]}
    result = CliRunner().invoke(eval_group, [command, *arguments[command], "--out", out])
    assert result.exit_code != 0
    message = f"{result.exception} {result.output}"
    assert any(
        words in message for words in ("belongs to the system", "answers are not sent", "is an address")
    )
