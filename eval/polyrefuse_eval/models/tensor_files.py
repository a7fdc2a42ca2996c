"""Tensors on disk: one safetensors file with a JSON header, and whether it belongs to a model."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.files import replacing
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_eval.models.chat import ChatModel

IDENTITY = ("model", "revision", "template_hash", "tokenizer_hash", "d_model", "n_layers")
"""Signature entries in which a file must agree with the model it is used on."""


def other_model(theirs: Mapping[str, Any], chat: ChatModel) -> str:
    """Return in what the signature `theirs` differs from that of `chat`; nothing where it is the same."""
    ours = chat.signature()
    differing = [key for key in IDENTITY if key in theirs and str(theirs[key]) != ours[key]]
    return "; ".join(f"{key} {theirs[key]} there, {ours[key]} here" for key in differing)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write `tensors` and `header` (JSON values, with a `format`) to `path`, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    text = json.dumps(header, ensure_ascii=False, sort_keys=True)
    with replacing(path) as file:
        try:
            save_file(
                {name: tensor.cpu() for name, tensor in tensors.items()}, file.name, {"polyrefuse": text}
            )
        except SafetensorError as fault:
            raise OSError(errno.EIO, str(fault), str(path)) from None


def read_tensors(
    path: Path, expected: str, error: type[PolyRefuseError], how_to_make: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the header in `path`, a file of format `expected`.

    Raises `error`, naming the command `how_to_make`, where it is none.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise error(f"no file '{path}'; make one with: {how_to_make}")
    try:
        with safe_open(path, "pt") as file:
            header = parse_json((file.metadata() or {}).get("polyrefuse", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as fault:
        raise error(f"'{path}' is no safetensors file that can be read: {fault}") from None
    if header.get("format") != expected:
        raise error(f"'{path}' holds {header.get('format', 'no format')}; expected {expected}")
    return tensors, header
