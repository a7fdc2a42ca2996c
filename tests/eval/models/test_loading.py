"""Models as folders: whole, or with one line on what is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import PROMPTS, VISION, family_model, tiny_model, tokenizer

from polyrefuse_data.core.weights import WeightsError, load_weights
from polyrefuse_eval.errors import ChatModelError
from polyrefuse_eval.models.activations import all_positions, capture
from polyrefuse_eval.models.batching import forward, plan_batches
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.generate import Request, generate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tiny_model(), tmp_path / "model")


def save(model: object, folder: Path) -> Path:
    model.save_pretrained(folder)  # type: ignore[attr-defined]
    tokenizer().save_pretrained(folder)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def write(folder: Path, weights: dict[str, torch.Tensor], name: str = "model.safetensors") -> None:
    from safetensors.torch import save_file

    save_file(weights, folder / name, {"format": "pt"})


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (lambda name: "lm_head" not in name, "lack 'lm_head.weight' of LlamaForCausalLM; give a complete"),
        (
            lambda name: "layers.2." not in name,
            r"lack 'model.layers.2.\S+', .* and 6 more of LlamaForCausalLM",
        ),
    ],
)
def test_missing_tensors_are_named(folder: Path, keep: object, message: str) -> None:
    write(folder, {name: weight for name, weight in tensors(folder).items() if keep(name)})  # type: ignore[operator]
    with pytest.raises(ChatModelError, match=message):
        ChatModel.load(str(folder))


def test_tensors_under_other_names_are_named_as_well(folder: Path) -> None:
    write(folder, {f"base.{name}": weight for name, weight in tensors(folder).items()})
    with pytest.raises(ChatModelError, match=r"and hold 'base\.lm_head\.weight', .* which it does not have"):
        ChatModel.load(str(folder))


def test_a_pointer_a_cut_file_and_a_missing_shard_are_one_line(folder: Path) -> None:
    weights = tensors(folder)
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4976698672\n")
    with pytest.raises(ChatModelError, match=r"is a Git LFS pointer.*git lfs pull"):
        ChatModel.load(str(folder))
    for size in (3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ChatModelError, match=r"is (truncated|cut off)"):
            ChatModel.load(str(folder))
    path.unlink()
    names = list(weights)
    write(folder, {name: weights[name] for name in names[::2]}, "model-00001-of-00002.safetensors")
    index = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(
        ChatModelError, match=r"lacks 'model-00002-of-00002\.safetensors' of the 2 weights files"
    ):
        ChatModel.load(str(folder))


def test_weights_of_any_class_are_loaded_whole_or_not(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = load_weights(AutoModelForCausalLM, str(folder))
    assert torch.equal(model.lm_head.weight, tensors(folder)["lm_head.weight"])
    write(folder, dict(list(tensors(folder).items())[1:]))
    with pytest.raises(WeightsError, match="lack"):
        load_weights(AutoModelForCausalLM, str(folder))


@pytest.mark.parametrize("kind", VISION)
def test_a_decoder_inside_a_model_that_reads_images_is_loaded_for_text(kind: str, tmp_path: Path) -> None:
    model = family_model(kind)
    chat = ChatModel.load(str(save(model, tmp_path / kind)))
    ids = torch.tensor([chat.encode(PROMPTS[:1])[0].ids])
    with torch.inference_mode():
        torch.testing.assert_close(chat.model(input_ids=ids).logits, model(input_ids=ids).logits)


def lora(base: Path, folder: Path, named: str) -> Path:
    peft = pytest.importorskip("peft", reason="the lora extra is not installed")
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.save_pretrained(folder)
    written = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**written, "base_model_name_or_path": named}))
    return folder


def test_an_adapter_is_loaded_upon_its_base_model(folder: Path, tmp_path: Path) -> None:
    adapter = lora(folder, tmp_path / "adapter", str(folder))
    base, adapted = ChatModel.load(str(folder)), ChatModel.load(str(adapter))
    assert adapted.name == "adapter"
    assert adapted.revision.endswith(f"+{base.revision}")
    assert adapted.structure == base.structure
    from peft import PeftModel

    ids = torch.tensor([base.encode(PROMPTS[:1])[0].ids])
    with torch.inference_mode():
        before = base.model(input_ids=ids).logits.clone()
        expected = PeftModel.from_pretrained(base.model, adapter)(input_ids=ids).logits
        torch.testing.assert_close(adapted.model(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert (before - expected).abs().max() > 1e-2


def test_an_adapter_whose_base_or_weights_are_not_there_says_so(folder: Path, tmp_path: Path) -> None:
    adapter = lora(folder, tmp_path / "adapter", "nobody/here")
    with pytest.raises(ChatModelError, match=r"an adapter \(LORA\) on the base model 'nobody/here', which"):
        ChatModel.load(str(adapter))
    adapter = lora(folder, tmp_path / "other", str(folder))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ChatModelError, match="adapter_model"):
        ChatModel.load(str(adapter))


def test_numbers_that_overflow_are_an_error_that_names_the_type_to_take() -> None:
    model = tiny_model().half()
    chat = ChatModel.from_parts(model, tokenizer(), name="tiny")
    chat.packs = chat.pads = chat.caches = True
    chat.ends_only = False
    prompts = chat.encode(PROMPTS[:2])
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(6e4)
    message = r"not finite in float16: .* --dtype bfloat16 or float32"
    with pytest.raises(
        ChatModelError, match=f"the input of layer 2 of tiny holds numbers that are {message}"
    ):
        list(capture(chat, prompts, [2], all_positions(chat)))
    with pytest.raises(ChatModelError, match=message):
        forward(chat, plan_batches(chat, prompts)[0])
    with pytest.raises(ChatModelError, match=message):
        list(generate(chat, [Request("a", PROMPTS[0])], max_new_tokens=2))
    with pytest.raises(ChatModelError, match=f"the output of layer 1 of LlamaForCausalLM .* {message}"):
        ChatModel.from_parts(model, tokenizer())


def test_redirects_of_the_hub_in_a_circle_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class CircleError(Exception):
        """What the client's HTTP library raises."""

    def cached_file(*_arguments: object, **_options: object) -> None:
        raise CircleError("Exceeded 20 redirects")

    monkeypatch.setattr("transformers.utils.cached_file", cached_file)
    with pytest.raises(ChatModelError, match=r"'acme/model' cannot be loaded: Exceeded 20 redirects"):
        ChatModel.load("acme/model")
