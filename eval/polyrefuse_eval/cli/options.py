"""Options that commands of `polyrefuse eval` share, made from the fields of `runs.options`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from polyrefuse_eval.runs.direction_options import DirectionOptions, ModelOptions
from polyrefuse_eval.runs.option_fields import AnyOptions, least, option_name, read_options, value_type
from polyrefuse_eval.runs.options import ReadingOptions

if TYPE_CHECKING:
    from polyrefuse_eval.models.chat import ChatModel


def _check_output(place: Any, param: click.Parameter | None) -> None:
    """Refuse an `--out` that no run may be written to, before anything else and in a dry run too."""
    from polyrefuse_data.core.paths import check_output
    from polyrefuse_eval.errors import StorageError
    from polyrefuse_eval.storage.address import Address

    if param is None or param.name != "out":
        return
    if not isinstance(place, Address):
        check_output(place, error=StorageError)
    elif place.scheme in ("file", "local"):
        check_output(Path(place.text.split("://", 1)[1]), error=StorageError)
    elif place.scheme == "hf":
        raise StorageError(
            f"'{place}': answers are not sent to the Hub; choose another --out, and send the numbers with: "
            "polyrefuse publish --results RUN"
        )


class _FolderPath(click.Path):
    """A folder on this machine; an address is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from polyrefuse_eval.storage.address import Address, is_address

        if isinstance(value, str) and is_address(value):
            self.fail(f"'{Address(value)}' is an address; expected a folder here.", param, ctx)
        path = super().convert(value, param, ctx)
        _check_output(path, param)
        return path


class _PlacePath(click.Path):
    """A folder on this machine, or the address of one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from polyrefuse_eval.storage.address import Address, is_address

        if isinstance(value, Address):
            return value
        address = isinstance(value, str) and is_address(value)
        place = Address.parse(value) if address else super().convert(value, param, ctx)
        _check_output(place, param)
        return place


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
    help="Training prompts per label.",
)

test_option = click.option(
    "--test",
    metavar="[first:]N",
    help="Test prompts of each label and language: N drawn from all sources, or the first N.  [default: all]",
)

final_punctuation_option = click.option(
    "--final-punctuation",
    type=click.Choice(["kept", "removed"]),
    default="kept",
    show_default=True,
    help="Read all prompts with their final punctuation (kept), or without it (removed).",
)


def click_options(
    kind: type[BaseModel], inherited: type[BaseModel] | None = None
) -> list[Callable[[Any], Any]]:
    """Return a click option for each field of `kind` that is not `inherited`."""
    known = inherited.model_fields if inherited is not None else {}
    return [click_option(name, field) for name, field in kind.model_fields.items() if name not in known]


def click_option(name: str, field: FieldInfo) -> Callable[[Any], Any]:
    """Return the click option of a field: its name, type, default and description."""
    flag, value, minimum = f"--{option_name(name)}", value_type(field), least(field)
    options: dict[str, Any] = {"default": field.default, "help": field.description}
    if isinstance(field.json_schema_extra, dict):
        options |= field.json_schema_extra
    if value is bool:
        return click.option(
            f"{flag}/--no-{option_name(name)}" if field.default else flag, name, is_flag=True, **options
        )
    if value is Path:
        options["type"] = folder_path
    elif value is int and minimum is not None:
        options["type"] = click.IntRange(minimum)
    elif value in (int, float):
        options["type"] = value
    else:
        options["multiple"] = value is not str
    return click.option(flag, name, show_default=field.default not in (None, "", ()), **options)


MODEL_OPTIONS = click_options(ModelOptions)
DIRECTION_OPTIONS = click_options(DirectionOptions, ModelOptions)
READING_OPTIONS = click_options(ReadingOptions)


def with_options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a decorator that adds `options` to a command in this order."""

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


def load_chat(options: dict[str, Any]) -> ChatModel:
    """Load the model that the command's options name, and remove these from `options`."""
    return take_options(ModelOptions, options).spec()()


def take_options(kind: type[AnyOptions], options: dict[str, Any]) -> AnyOptions:
    """Remove the fields of `kind` from the options of a command; return them checked."""
    return read_options(
        kind, {name: options.pop(name) for name in kind.model_fields if name in options}, "--"
    )


def check_ending(path: Path, endings: Sequence[str]) -> None:
    """Raise `RunFolderError` where a file's name has none of `endings`."""
    from polyrefuse_eval.errors import RunFolderError

    if path.suffix.lower() not in endings:
        raise RunFolderError(f"'{path}' ends in '{path.suffix}'; expected {', '.join(endings)}")


def parse_layers(text: str | None) -> tuple[int, ...] | None:
    """Return the layers in `5-20` or `3,7`; None of None."""
    from polyrefuse_eval.errors import ChatModelError

    if text is None:
        return None
    layers: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            layers += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        layers = []
    if not layers:
        raise ChatModelError(f"layers '{text}': expected a range such as 5-20, or numbers such as 3,7")
    return tuple(dict.fromkeys(layers))
