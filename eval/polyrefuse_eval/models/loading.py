"""Get a chat model from the Hub, a folder or the embedded organisms, or say in one line why not."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from polyrefuse_eval import organisms
from polyrefuse_eval.errors import ChatModelError, OutOfMemoryError, require
from polyrefuse_eval.model_source import explain, folder_revision, split_revision
from polyrefuse_eval.processes import require_processes, world_size

DTYPES = {
    "auto": "auto",
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
QUANTIZATIONS = ("8bit", "4bit")


@dataclass(frozen=True)
class LoadOptions:
    """How to load: `device` (`cpu`, `cuda`, …; None picks), `device_map` or `tensor_parallel`, and so on."""

    revision: str | None = None
    dtype: str = "auto"
    device: str | None = None
    device_map: str | None = None
    tensor_parallel: bool = False
    quantization: str | None = None
    attention: str | None = None
    system: str | None = None
    thinking: bool = False
    structure: str = ""
    trust_remote_code: bool = False


def silence_loading() -> None:
    """Turn off the library's progress bars."""
    require("transformers", "eval").utils.logging.disable_progress_bar()


def load_parts(name: str, options: LoadOptions) -> dict[str, Any]:
    """Return the arguments of `ChatModel.from_parts` for `name`."""
    source, revision = split_revision(name)
    revision = options.revision or revision
    if options.dtype not in DTYPES:
        raise ChatModelError(f"unknown dtype '{options.dtype}'; available: {', '.join(DTYPES)}")
    if source in organisms.ORGANISMS:
        source = str(organisms.organism_path(source))
    if source.startswith((".", "/", "~")) and not Path(source).expanduser().is_dir():
        raise ChatModelError(f"no folder '{source}'; give a model folder or a name on the Hub")
    if Path(source).expanduser().is_dir():
        source = str(Path(source).expanduser())
        if not (Path(source) / "config.json").is_file():
            raise ChatModelError(f"'{source}' holds no config.json, so it is no model folder")
    common = {"revision": revision, "trust_remote_code": options.trust_remote_code}
    config = _from_hub(source, lambda hub: hub.AutoConfig.from_pretrained(source, **common))
    _check_decoder(source, config)
    tokenizer = _from_hub(source, lambda hub: hub.AutoTokenizer.from_pretrained(source, **common))
    if not getattr(tokenizer, "chat_template", None):
        raise ChatModelError(
            f"'{source}' has no chat template: a base model, or an incomplete tokenizer; "
            "give an instruction-tuned model"
        )
    model = _from_hub(
        source,
        lambda hub: hub.AutoModelForCausalLM.from_pretrained(
            source, use_safetensors=True, **common, **_placement(options)
        ),
    )
    if not (options.device_map or options.quantization or options.tensor_parallel):
        model = _to_device(model, options.device or _best_device(), source)
    local = Path(source).is_dir()
    commit = folder_revision(Path(source)) if local else getattr(config, "_commit_hash", None)
    return {
        "model": model,
        "tokenizer": tokenizer,
        "name": name if name in organisms.ORGANISMS else (Path(source).resolve().name if local else source),
        "revision": commit or revision or "main",
        "system": options.system,
        "thinking": options.thinking,
        "structure": options.structure,
        "settings": {
            "dtype": str(model.dtype).removeprefix("torch."),
            "quantization": options.quantization or "none",
            "attention": str(getattr(model.config, "_attn_implementation", None)),
            **({"tensor_parallel": str(world_size())} if options.tensor_parallel else {}),
        },
    }


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _placement(options: LoadOptions) -> dict[str, Any]:
    arguments: dict[str, Any] = {"dtype": DTYPES[options.dtype]}
    if options.attention:
        arguments["attn_implementation"] = options.attention
    if options.tensor_parallel:
        _check_parallel(options)
        arguments.update(_parallel_arguments())
    if options.device_map:
        require("accelerate", "eval")
        arguments["device_map"] = options.device_map
    if options.quantization:
        if options.quantization not in QUANTIZATIONS:
            raise ChatModelError(
                f"unknown quantization '{options.quantization}'; available: {', '.join(QUANTIZATIONS)}"
            )
        require("bitsandbytes", "bnb")
        from transformers import BitsAndBytesConfig

        arguments["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            **{f"load_in_{options.quantization}": True}
        )
        arguments.setdefault("device_map", options.device or "auto")
    return arguments


def _check_parallel(options: LoadOptions) -> None:
    require_processes()
    given = {"--device-map": options.device_map, "--quantization": options.quantization}
    clash = [name for name, value in given.items() if value]
    if clash:
        raise ChatModelError(f"--tensor-parallel places the model itself; leave out {' and '.join(clash)}")
    if options.device not in (None, "cpu", "cuda"):
        raise ChatModelError(
            f"--tensor-parallel takes one {_best_device()} device a process; leave out --device"
        )


def _parallel_arguments() -> dict[str, Any]:
    """Return the argument that spreads a model: transformers 5.18 renamed it."""
    from transformers.distributed.configuration_utils import DistributedConfig

    if "tp_plan" in inspect.signature(DistributedConfig).parameters:
        return {"distributed_config": DistributedConfig(tp_plan="auto")}
    return {"tp_plan": "auto"}


def _to_device(model: Any, device: str, source: str) -> Any:
    try:
        return model.to(device)
    except torch.OutOfMemoryError:
        raise OutOfMemoryError(
            f"'{source}' does not fit into the memory of {device}; try --dtype bfloat16, "
            "--quantization 8bit, --device-map auto or --device cpu"
        ) from None
    except (RuntimeError, AssertionError) as error:
        raise ChatModelError(f"device '{device}' cannot be used: {str(error).splitlines()[0]}") from None


def _check_decoder(source: str, config: Any) -> None:
    architectures = list(getattr(config, "architectures", None) or [])
    generates = not architectures or any(
        name.endswith(("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")) for name in architectures
    )
    if getattr(config, "is_encoder_decoder", False) or not generates:
        kind = architectures[0] if architectures else config.model_type
        raise ChatModelError(f"'{source}' is {kind}, which is no causal language model; give a chat model")


def _from_hub(source: str, load: Any) -> Any:
    """Return `load(transformers)`, with the library's many errors told in one line each."""
    transformers = require("transformers", "eval")
    try:
        return load(transformers)
    except torch.OutOfMemoryError:
        raise OutOfMemoryError(
            f"'{source}' does not fit into memory; try --dtype bfloat16, --quantization 8bit "
            "or --device-map auto"
        ) from None
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ChatModelError(explain(source, error)) from None
