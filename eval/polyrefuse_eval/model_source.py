"""Where a model comes from: name and revision, a folder's hash, an adapter's base, why it cannot be had."""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyrefuse_data.core.contents import read_file
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.core.weights import WeightsError, check_files
from polyrefuse_eval.errors import require

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Adapter:
    """What an adapter's configuration says: its kind (`LORA`), and its base model at a revision."""

    kind: str
    base: str
    base_revision: str | None


def adapter_in(folder: Path) -> Adapter | None:
    """Return the adapter in `folder`; None where it holds none, or a whole model beside it.

    Raises `ValueError` where its configuration cannot be read or names no base model.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file() or any(folder.glob("model*.safetensors")):
        return None
    return read_adapter(path)


def read_adapter(path: Path) -> Adapter:
    """Return what the adapter configuration at `path` says; raises `ValueError` where it cannot be read."""
    try:
        config = parse_json(read_file(path))
        base = config["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' cannot be read: {error or 'it names no base model'}") from None
    if not isinstance(base, str) or not base:
        raise ValueError(f"'{path}' names no base model; put its folder into base_model_name_or_path")
    revision = config.get("revision")
    return Adapter(str(config.get("peft_type", "LORA")), base, str(revision) if revision else None)


def with_adapter(model: Any, place: str, revision: str | None, *, extra: str) -> Any:
    """Return the base `model` with the adapter at `place` upon it, read from safetensors alone.

    Raises `MissingExtraError` naming `extra` without peft, `WeightsError` where the adapter's weights are
    missing, cut off or of another model, and what transformers raises where it cannot be had.
    """
    peft = require("peft", extra)
    if Path(place).is_dir():
        check_files(Path(place))
    require("transformers", extra).utils.cached_file(place, ADAPTER_WEIGHTS, revision=revision)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        adapted = peft.PeftModel.from_pretrained(model, place, revision=revision)
    if any("missing adapter keys" in str(warning.message) for warning in caught):
        raise WeightsError(f"the adapter in '{place}' lacks weights for its base model; give its own base")
    return adapted


def split_revision(name: str) -> tuple[str, str | None]:
    """Return model and revision of `MODEL[@REVISION]`; an existing path is taken whole."""
    if Path(name).exists() or "@" not in name:
        return name, None
    model, _, revision = name.rpartition("@")
    return model, revision


def folder_revision(folder: Path) -> str:
    """Return a hash of the model files in `folder` (16 hex digits): the revision of a local model.

    Of files above 64 MiB only the size and the first MiB (a safetensors header) are read.
    """
    digest = hashlib.sha256()
    wanted = sorted(
        path
        for path in folder.iterdir()
        if path.suffix in (".json", ".safetensors", ".jinja", ".model") and path.is_file()
    )
    for path in wanted:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read() if size <= 64 * 2**20 else file.read(2**20))
    return digest.hexdigest()[:16]


def explain(source: str, error: Exception) -> str:
    """Return one line on why `source` cannot be loaded, from what the library said."""
    if isinstance(error, WeightsError):
        return str(error)
    text = str(error)
    # What the source is called, a folder's path for one, says nothing about what is wrong with it.
    low = re.sub(rf"(?<!\w){re.escape(source)}(?!\w)", "", text).lower()
    first = next(iter(text.strip().splitlines()), type(error).__name__)
    if "gated" in low or "awaiting a review" in low:
        return (
            f"'{source}' is gated or private: accept its terms on its page, then log in with "
            "`hf auth login` or set HF_TOKEN"
        )
    if "trust_remote_code" in low:
        return f"'{source}' needs to run its own code; read that code, then pass --trust-remote-code"
    if "not a valid model identifier" in low or "404" in low or "repository not found" in low:
        return f"no model '{source}' on the Hub and no folder of that name"
    if "is not a valid git identifier" in low or ("revision" in low and "not" in low):
        return f"'{source}' has no such revision: {first}"
    if "connect" in low or "offline" in low or "resolve" in low or "couldn't reach" in low:
        return (
            f"'{source}' is not in the local cache and the Hub cannot be reached; give a folder, or go online"
        )
    if "safetensors" in low and ("no file named" in low or "does not appear to have" in low):
        folder = Path(source)
        if folder.is_dir() and any(folder.glob("*.gguf")):
            return (
                f"'{source}' has GGUF weights only, which are not read: give a folder of safetensors, "
                "or serve it (llama.cpp, Ollama) and pass --model openai:NAME --url ADDRESS"
            )
        return f"'{source}' has no safetensors weights; pickled weights are not read: {first}"
    if "unrecognized configuration class" in low or "unrecognized model" in low:
        return f"'{source}' is not a causal language model that transformers knows: {first}"
    return f"'{source}' cannot be loaded: {first}"
