"""Tensors on disk: one safetensors file with a JSON header, and whether it belongs to a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.files import write_bytes
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.loading import LoadOptions, read_shape
from polyrefuse_eval.models.spec import ModelSpec
from polyrefuse_eval.models.template import Template
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.tensor_headers import Header, parse_header

IDENTITY = ("model", "revision", "template_hash", "tokenizer_hash", "d_model", "n_layers")
"""Signature entries in which a file must agree with the model it is used on."""

SHAPE = ("template_hash", "d_model", "n_layers")
"""Signature entries in which models agree that differ in their weights alone, as a fine-tune and its base.

The tokenizer is not among them: many a fine-tune adds a token that no prompt holds.
"""


def other_model(theirs: Mapping[str, Any], chat: ChatModel, keys: Sequence[str] = IDENTITY) -> str:
    """Return in which of `keys` the signature `theirs` differs from that of `chat`; nothing if in none."""
    ours = chat.signature()
    differing = [key for key in keys if key in theirs and str(theirs[key]) != ours[key]]
    return "; ".join(f"{key} {theirs[key]} there, {ours[key]} here" for key in differing)


def other_shape(theirs: Mapping[str, Any], model: ModelSpec) -> str:
    """Return in what of `SHAPE` the signature `theirs` differs from `model`, whose weights are not read.

    What only the loaded model shows, such as whether it opens a block of thoughts, is left open.
    """
    options = LoadOptions(**model.options)
    shape = read_shape(model.name, options)
    hashes = [
        Template(shape.tokenizer, options.system, options.thinking, opens_thoughts).hash
        for opens_thoughts in (False, True)
    ]
    ours = {"d_model": shape.width, "n_layers": shape.n_layers}
    differing = [
        f"{key} {theirs[key]} there, {value} here"
        for key, value in ours.items()
        if value is not None and key in theirs and str(theirs[key]) != str(value)
    ]
    if theirs.get("template_hash", hashes[0]) not in hashes:
        differing.append(f"template_hash {theirs['template_hash']} there, {hashes[0]} here")
    return "; ".join(differing)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write `tensors` and `header` (JSON values, with a `format`) to `path`, whole or not at all."""
    from safetensors.torch import save

    text = json.dumps(header, ensure_ascii=False, sort_keys=True)
    content = save({name: tensor.cpu() for name, tensor in tensors.items()}, {"polyrefuse": text})
    write_bytes(path, content)


def check_model(
    path: Path,
    metadata: Mapping[str, Any],
    chat: ChatModel,
    error: type[PolyRefuseError],
    advice: str,
    *,
    other_weights: bool = False,
) -> None:
    """Raise `error`, saying what differs, unless `metadata` of the file at `path` names the model `chat`.

    With `other_weights`, a model of the same shape and template will do.
    """
    theirs = model_signature(path, metadata, error, advice)
    differing = other_model(theirs, chat, SHAPE if other_weights else IDENTITY)
    if differing:
        kind = "a model of another shape or template" if other_weights else "another model"
        raise error(f"'{path}' is of {kind}: {differing}; {advice}")


def model_signature(
    path: Path, metadata: Mapping[str, Any], error: type[PolyRefuseError], advice: str
) -> Mapping[str, Any]:
    """Return the signature of the model that the file at `path` is of; raises `error` where it lacks any."""
    theirs = metadata.get("model")
    unknown = [key for key in IDENTITY if not isinstance(theirs, Mapping) or key not in theirs]
    if unknown or not isinstance(theirs, Mapping):
        raise error(f"'{path}' does not say which model it is for ({', '.join(unknown)} missing); {advice}")
    return theirs


def check_run_model(folder: RunFolder, chat: ChatModel) -> None:
    """Raise `RunFolderError`, saying what differs, where the run in `folder` is of another model."""
    model = folder.signature.get("model", {})
    differing = other_model(model if isinstance(model, Mapping) else {}, chat)
    if differing:
        raise RunFolderError(f"'{folder.path}' is a run of another model ({differing}); choose another --out")


def check_shape(
    path: Path,
    tensors: Mapping[str, Tensor],
    name: str,
    shape: Sequence[int | None],
    error: type[PolyRefuseError],
) -> Tensor:
    """Return the tensor `name` of the file at `path`, which has `shape` (None: any length).

    Raises `error` where it is missing, of another shape, or not of finite numbers.
    """
    tensor = tensors.get(name)
    if tensor is None:
        raise error(f"'{path}' has no tensor {name}; it holds {', '.join(tensors) or 'none'}")
    same = len(tensor.shape) == len(shape) and all(
        expected in (None, length) for length, expected in zip(tensor.shape, shape, strict=True)
    )
    if not same or not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise error(
            f"'{path}', tensor {name}: {tensor.dtype} of shape {list(tensor.shape)}; expected finite numbers "
            f"of shape [{wanted}]"
        )
    return tensor


def read_tensors(
    path: Path, kind: type[Header], expected: str, error: type[PolyRefuseError], how_to_make: str
) -> tuple[dict[str, Tensor], Header]:
    """Return the tensors and the header in `path`, a file of format `expected`, the header as a `kind`.

    Raises `error`, naming the command `how_to_make`, where it is none.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise error(f"no file '{path}'; make one with: {how_to_make}")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("polyrefuse", "{}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as fault:
        raise error(f"'{path}' is not a safetensors file that can be read: {fault}") from None
    return tensors, parse_header(text, kind, expected, path, error)
