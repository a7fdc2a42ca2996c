"""Load a model's weights whole, or say which files or tensors are not there. Imports neither torch nor
transformers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from polyrefuse_data.core.parsing import parse_json

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How the small file begins that Git leaves where the large one was not fetched."""

WHOLE = ("model.safetensors", "adapter_model.safetensors")
"""Files that hold the whole weights of a model or an adapter; else an index names several."""

LONGEST_HEADER = 100 * 2**20
"""Bytes of a safetensors header that the format allows."""

SHOWN = 3
"""Names in a message; the others are counted."""


class WeightsError(ValueError):
    """Weights that are not there, or not whole: one line that names them."""


def load_weights(loader: Any, place: str, **options: Any) -> Any:
    """Return `loader.from_pretrained(place, **options)`, from safetensors files alone.

    Raises `WeightsError` where a file of a folder `place` is a Git LFS pointer, cut off or missing, and where
    tensors are missing, which transformers would fill with random numbers; else what the loader raises.
    """
    if Path(place).is_dir():
        check_files(Path(place))
    try:
        model, loaded = loader.from_pretrained(
            place, use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise WeightsError(f"a weights file of '{place}' is damaged ({error}); download it again") from None
    missing = sorted(loaded["missing_keys"])
    if missing:
        others = sorted(loaded["unexpected_keys"])
        raise WeightsError(
            f"the weights of '{place}' lack {_names(missing)} of {type(model).__name__}"
            + (f" and hold {_names(others)}, which it does not have" if others else "")
            + "; give a complete checkpoint"
        )
    return model


def check_files(folder: Path) -> None:
    """Raise `WeightsError` where a file of the model in `folder` is a Git LFS pointer, cut off or missing."""
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".model") and path.is_file():
            with path.open("rb") as file:
                if file.read(len(LFS_POINTER)) == LFS_POINTER:
                    raise WeightsError(
                        f"'{path}' is a Git LFS pointer, not the file itself; fetch it with: git lfs pull"
                    )
    files = [folder / name for name in WHOLE if (folder / name).is_file()]
    index = folder / "model.safetensors.index.json"
    if index.is_file() and not files:
        files = _indexed(index)
    for path in files:
        _check_length(path)


def _indexed(index: Path) -> list[Path]:
    """Return the weights files that `index` names."""
    try:
        names = sorted({str(name) for name in parse_json(index.read_bytes())["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"'{index}' is not an index of weights files that can be read: {error}") from None
    absent = [name for name in names if not (index.parent / name).is_file()]
    if absent:
        raise WeightsError(
            f"'{index.parent}' lacks {_names(absent)} of the {len(names)} weights files that {index.name} "
            "names; download the whole model"
        )
    return [index.parent / name for name in names]


def _check_length(path: Path) -> None:
    """Compare the file's length with what its header says (8 bytes of the header's length, JSON, tensors)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header_length = int.from_bytes(file.read(8), "little")
        if 8 + header_length > size or header_length > LONGEST_HEADER:
            raise WeightsError(
                f"'{path}' ({size} bytes) is truncated or not a safetensors file; download it again"
            )
        try:
            header = parse_json(file.read(header_length).decode("utf-8"))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise WeightsError(f"'{path}' is not a safetensors file; download it again") from None
    expected = 8 + header_length + max(ends, default=0)
    if size < expected:
        raise WeightsError(f"'{path}' is cut off: {size} of {expected} bytes; download it again")


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(f"'{name}'" for name in listed[:SHOWN]) + more
