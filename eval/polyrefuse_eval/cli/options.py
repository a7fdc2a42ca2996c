"""What the commands of `polyrefuse eval` share: options of the model, and how it is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from polyrefuse_eval.models.chat import ChatModel
    from polyrefuse_eval.models.spec import ModelSpec


class _FolderPath(click.Path):
    """A folder here; an address, which would make folders of strange names, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from polyrefuse_eval.storage.address import Address, is_address

        if isinstance(value, str) and is_address(value):
            self.fail(f"'{Address(value)}' is an address; expected a folder here.", param, ctx)
        return super().convert(value, param, ctx)


class _PlacePath(click.Path):
    """A folder here, or the address of one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from polyrefuse_eval.storage.address import Address, is_address

        if isinstance(value, Address):
            return value
        if isinstance(value, str) and is_address(value):
            return Address.parse(value)
        return super().convert(value, param, ctx)


at_least_one = click.IntRange(1)
folder_path = _FolderPath(path_type=Path, file_okay=False)
place_path = _PlacePath(path_type=Path, file_okay=False)
any_place = _PlacePath(path_type=Path)
place_path.name = any_place.name = "folder|address"
file_path = click.Path(path_type=Path, dir_okay=False)

train_option = click.option(
    "--train",
    "n_train",
    type=at_least_one,
    default=100,
    show_default=True,
    help="Training prompts of each label.",
)

MODEL_OPTIONS = (
    click.option(
        "--model",
        default="organism",
        show_default=True,
        help="Hub name or folder, either with @REVISION; 'organism', 'organism-per-language' and "
        "'organism-harmfulness' are tiny models trained here.",
    ),
    click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16."),
    click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: a GPU if there is one]"),
    click.option("--device-map", help="How to spread a large model, e.g. 'auto' (needs accelerate)."),
    click.option("--quantization", help="8bit or 4bit (needs bitsandbytes)."),
    click.option("--attention", help="Attention implementation: sdpa, eager, flash_attention_2."),
    click.option("--system", help="System prompt.  [default: none]"),
    click.option("--thinking", is_flag=True, help="Let models that can think before they answer."),
    click.option(
        "--max-thinking-tokens",
        type=at_least_one,
        default=2048,
        show_default=True,
        help="With --thinking: how many tokens thoughts may take before they are cut off.",
    ),
    click.option(
        "--structure", default="", help="Where the decoder layers are, if they are not found: layers=PATH."
    ),
    click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model."),
)


def with_options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the decorator that adds `options` to a command, in this order."""

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def need(*modules: str) -> None:
    """Raise one line with the pip command where a package of the extra is missing."""
    from polyrefuse_eval.errors import require

    for module in modules or ("torch", "transformers", "safetensors"):
        require(module, "eval")


def load_chat(options: dict[str, Any], *, quiet: bool = False) -> ChatModel:
    """Load the model that the command's options name, and take these from `options`."""
    from polyrefuse_eval.models.loading import silence_loading

    if quiet:
        silence_loading()
    return model_spec(options)()


def model_spec(options: dict[str, Any]) -> ModelSpec:
    """Return what loads the model that the command's options name, and take these from `options`."""
    from polyrefuse_eval.models.spec import ModelSpec

    names = (
        "dtype",
        "device",
        "device_map",
        "quantization",
        "attention",
        "system",
        "thinking",
        "max_thinking_tokens",
        "structure",
        "trust_remote_code",
    )
    given = {name: options.pop(name) for name in names}
    if options.pop("tensor_parallel", False):
        given["tensor_parallel"] = True
    return ModelSpec(options.pop("model"), given)


def check_new_file(path: Path) -> None:
    """Raise `GuardError` where `path` exists or cannot be written: before the work that fills it."""
    from polyrefuse_data.core.files import make_folder
    from polyrefuse_data.core.paths import check_output
    from polyrefuse_eval.errors import GuardError

    if path.exists():
        raise GuardError(f"'{path}' exists and is not overwritten; choose another --out")
    check_output(path, error=GuardError)
    make_folder(path.parent, error=GuardError)
    if not os.access(path.parent, os.W_OK):
        raise GuardError(f"'{path}' cannot be written: its folder is read-only; choose another --out")


def parse_layers(text: str | None) -> tuple[int, ...] | None:
    """Return the layers in `5-20` or `3,7`; None of None."""
    from polyrefuse_eval.errors import ChatModelError

    if text is None:
        return None
    found: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            found += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        found = []
    if not found:
        raise ChatModelError(f"layers '{text}': expected a range such as 5-20, or numbers such as 3,7")
    return tuple(dict.fromkeys(found))
