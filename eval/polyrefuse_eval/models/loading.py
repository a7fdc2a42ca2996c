"""Get a chat model from the Hub, a folder or the embedded organisms, or say in one line why not."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from polyrefuse_data.core.hub_access import offline_if_unreachable
from polyrefuse_data.core.weights import load_weights
from polyrefuse_eval import organisms
from polyrefuse_eval.errors import ChatModelError, OutOfMemoryError, require
from polyrefuse_eval.model_source import (
    ADAPTER_CONFIG,
    Adapter,
    adapter_in,
    explain,
    folder_revision,
    read_adapter,
    split_revision,
    with_adapter,
)
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
    max_thinking_tokens: int = 2048
    structure: str = ""
    trust_remote_code: bool = False


def silence_loading() -> None:
    """Turn off the bars of transformers: one for each shard, drawn in a batch log as well."""
    require("transformers", "eval").utils.logging.disable_progress_bar()


def load_parts(name: str | Path, options: LoadOptions) -> dict[str, Any]:
    """Return the arguments of `ChatModel.from_parts` for `name`."""
    silence_loading()
    name = str(name)
    if options.dtype not in DTYPES:
        raise ChatModelError(f"unknown dtype '{options.dtype}'; available: {', '.join(DTYPES)}")
    source, revision = _resolved(name, options)
    if Path(source).is_dir():
        return _load(name, source, revision, options)
    with offline_if_unreachable():
        return _load(name, source, revision, options)


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What a chat model's configuration and tokenizer say of it; a number is None where neither says it."""

    width: int | None
    n_layers: int | None
    tokenizer: Any


def read_shape(name: str | Path, options: LoadOptions) -> ModelShape:
    """Return the shape of the chat model `name` and its tokenizer; its weights are not read.

    Raises `ChatModelError` as loading it would.
    """
    source, revision = _resolved(str(name), options)
    with nullcontext() if Path(source).is_dir() else offline_if_unreachable():
        place, _ = _weights_place(source, revision)
        config = _from_hub(
            place.source,
            lambda hub: hub.AutoConfig.from_pretrained(
                place.source, revision=place.revision, trust_remote_code=options.trust_remote_code
            ),
        )
        tokenizer = _load_tokenizer(source, revision, place, options)
    text = config.get_text_config()
    return ModelShape(
        width=getattr(text, "hidden_size", None),
        n_layers=getattr(text, "num_hidden_layers", None),
        tokenizer=tokenizer,
    )


def _resolved(name: str, options: LoadOptions) -> tuple[str, str | None]:
    """Return the folder or the name on the Hub that `name` means, and its revision."""
    source, revision = split_revision(name)
    if source in organisms.ORGANISMS:
        source = str(organisms.organism_path(source))
    folder = Path(source).expanduser()
    if source.startswith((".", "/", "~")) and not folder.is_dir():
        raise ChatModelError(f"no folder '{source}'; give a model folder or a name on the Hub")
    return (str(folder) if folder.is_dir() else source), options.revision or revision


def _load(name: str, source: str, revision: str | None, options: LoadOptions) -> dict[str, Any]:
    """Return the parts of the model that `source` names: a folder, or a name on the Hub."""
    place, adapter = _weights_place(source, revision)
    common = {"revision": place.revision, "trust_remote_code": options.trust_remote_code}
    config = _from_hub(place.source, lambda hub: hub.AutoConfig.from_pretrained(place.source, **common))
    _check_decoder(place.source, config)
    tokenizer = _load_tokenizer(source, revision, place, options)
    model = _from_hub(
        place.source,
        lambda hub: load_weights(_auto_class(hub, config), place.source, **common, **_placement(options)),
    )
    if adapter is not None:
        model = _merged(model, source, revision)
    if not (options.device_map or options.quantization or options.tensor_parallel):
        model = _to_device(model, options.device or _best_device(), source)
    local = Path(source).is_dir()
    commit = _commit(place, config)
    if adapter is not None:
        commit = f"{_commit(_Place(source, revision), None)}+{commit}"
    return {
        "model": model,
        "tokenizer": tokenizer,
        "name": name if name in organisms.ORGANISMS else (Path(source).resolve().name if local else source),
        "revision": commit,
        "system": options.system,
        "thinking": options.thinking,
        "max_thinking_tokens": options.max_thinking_tokens,
        "structure": options.structure,
        "settings": {
            "dtype": str(model.dtype).removeprefix("torch."),
            "quantization": options.quantization or "none",
            "attention": str(getattr(model.config, "_attn_implementation", None)),
            **({"tensor_parallel": str(world_size())} if options.tensor_parallel else {}),
        },
    }


@dataclass(frozen=True)
class _Place:
    """A folder or a name on the Hub, at a revision."""

    source: str
    revision: str | None


def _commit(place: _Place, config: Any) -> str:
    if Path(place.source).is_dir():
        return folder_revision(Path(place.source))
    return getattr(config, "_commit_hash", None) or place.revision or "main"


def _weights_place(source: str, revision: str | None) -> tuple[_Place, Adapter | None]:
    """Return where the weights of `source` are: there, or where the base model of an adapter is."""
    folder = Path(source)
    try:
        if folder.is_dir():
            adapter = adapter_in(folder)
            if adapter is None and not (folder / "config.json").is_file():
                raise ChatModelError(f"'{source}' holds no config.json, so it is not a model folder")
        else:
            adapter = _adapter_on_hub(source, revision)
    except ValueError as error:
        raise ChatModelError(str(error)) from None
    if adapter is None:
        return _Place(source, revision), None
    require("peft", "lora")
    base, base_revision = split_revision(adapter.base)
    place = _Place(base, adapter.base_revision or base_revision)
    try:
        _from_hub(base, lambda hub: hub.AutoConfig.from_pretrained(base, revision=place.revision))
    except ChatModelError as error:
        raise ChatModelError(
            f"'{source}' is an adapter ({adapter.kind}) on the base model '{adapter.base}', which cannot be "
            f"loaded: {error}; put its folder into {ADAPTER_CONFIG}, or merge both and give the whole model"
        ) from None
    return place, adapter


def _adapter_on_hub(source: str, revision: str | None) -> Adapter | None:
    """Return the adapter that the repository `source` holds in place of a model; None where there is none."""
    hub = require("transformers", "eval")
    options = {"revision": revision, "_raise_exceptions_for_missing_entries": False}
    try:
        if hub.utils.cached_file(source, "config.json", **options):
            return None
        path = hub.utils.cached_file(source, ADAPTER_CONFIG, **options)
    except Exception as error:  # of the client's HTTP library, too: redirects in a circle are none of OSError
        raise ChatModelError(explain(source, error)) from None
    return read_adapter(Path(path)) if path else None


def _load_tokenizer(source: str, revision: str | None, place: _Place, options: LoadOptions) -> Any:
    """Return the tokenizer of `source`, an adapter's own where it has one; raises without a template."""
    own = Path(source).is_dir() and (Path(source) / "tokenizer_config.json").is_file()
    chosen = _Place(source, revision) if own else place
    tokenizer = _from_hub(
        chosen.source,
        lambda hub: hub.AutoTokenizer.from_pretrained(
            chosen.source, revision=chosen.revision, trust_remote_code=options.trust_remote_code
        ),
    )
    if not getattr(tokenizer, "chat_template", None):
        raise ChatModelError(
            f"'{source}' has no chat template: a base model, or an incomplete tokenizer; "
            "give an instruction-tuned model"
        )
    return tokenizer


def _auto_class(hub: Any, config: Any) -> Any:
    """Return the class that loads the model of `config`: a decoder, or one that also reads images."""
    wrappers = ("AutoModelForImageTextToText", "AutoModelForMultimodalLM")
    classes = [hub.AutoModelForCausalLM, *(getattr(hub, name, None) for name in wrappers)]
    known = (auto for auto in classes if auto is not None and type(config) in auto._model_mapping)
    return next(known, hub.AutoModelForCausalLM)


def _merged(model: Any, source: str, revision: str | None) -> Any:
    """Return `model` with the adapter at `source` added to its weights, in memory alone."""
    return _from_hub(
        source, lambda _hub: with_adapter(model, source, revision, extra="lora").merge_and_unload()
    )


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
        raise ChatModelError(f"'{source}' is {kind}, which is not a causal language model; give a chat model")


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
