"""Grids in files for `polyrefuse eval run`: each model's options are read as that command reads its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml

from polyrefuse_data.core.errors import unknown_name
from polyrefuse_data.core.parsing import parse_yaml
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.runs.plan import RunPlan

OWN_OF_A_MODEL = ("batch-size", "refusal-tokens")
"""Settings that a model may have for itself: what they are depends on it."""

MakePlan = Callable[[dict[str, Any], Path], RunPlan]


def grid_plans(
    command: click.Command,
    file: Path,
    of_model: Sequence[str],
    not_in_a_file: Sequence[str],
    make: MakePlan,
) -> list[RunPlan]:
    """Return the plan of each model in the grid `file`, into a folder of its name.

    `of_model` are names of parameters of `command` that belong to a model; those in `not_in_a_file` stand
    on the command line only. `make` makes a plan of the options that `command` got.
    """
    options = {
        option.opts[0].removeprefix("--"): option
        for option in command.params
        if isinstance(option, click.Option) and option.name not in not_in_a_file
    }
    models = [name for name, option in options.items() if option.name in of_model]
    settings = [name for name in options if name != "model"]
    switches = {
        name: (option.opts[0], next(iter(option.secondary_opts), None))
        for name, option in options.items()
        if option.is_flag
    }
    several = [name for name, option in options.items() if option.multiple]
    plans = []
    for model in read_grid(file, [*models, *OWN_OF_A_MODEL], settings):
        arguments = [*as_arguments(model, switches, several), "--out", model.name]
        try:
            context = command.make_context("run", arguments)
        except click.UsageError as error:
            raise RunFolderError(
                f"the model '{model.name}' of the grid '{file}': {error.format_message()}"
            ) from None
        given = {name: value for name, value in context.params.items() if name not in not_in_a_file}
        plans.append(make(given, Path(model.name)))
    return plans


def refuse_given(context: click.Context, allowed: Sequence[str]) -> None:
    """Raise `RunFolderError` where options other than `allowed` stand beside a grid file."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in allowed
        and context.get_parameter_source(str(parameter.name)) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise RunFolderError(f"a grid file says what is measured: write {', '.join(given)} into it")


PARTS = ("settings", "models")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class GridModel:
    """One model of a grid: `values` are its options and those that all models share, as they stand."""

    name: str
    values: Mapping[str, Any]


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in found:
                raise yaml.YAMLError(f"'{key}' stands twice, line {key_node.start_mark.line + 1}")
            found[key] = self.construct_object(value_node, deep=True)
        return found


_Loader.add_constructor(
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG,
    lambda loader, node: loader.construct_mapping(node),  # type: ignore[arg-type]
)


def read_grid(file: Path, of_model: Sequence[str], of_all: Sequence[str]) -> list[GridModel]:
    """Return the models of a grid in the order of the file.

    `of_model` are the options that a model can have, `of_all` those that `settings` can. Raises
    `RunFolderError`, or `UnknownNameError` with the nearest name, for what is not as it should be.
    """
    where = f"the grid '{file}'"
    try:
        found = parse_yaml(file.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{where} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise RunFolderError(f"{where} is no YAML that can be read: {error}") from None
    parts = _mapping(where, found, PARTS, "part")
    settings = _mapping(f"'settings' of {where}", parts.get("settings") or {}, of_all, "setting")
    models = parts.get("models")
    if not isinstance(models, Mapping) or not models:
        raise RunFolderError(
            f"{where} names no models; expected lines such as  qwen: {{model: NAME@REVISION}}"
        )
    made = []
    for name, given in models.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise RunFolderError(
                f"the model '{name}' of {where} has a name that is no folder's; expected letters, digits, "
                "dots and dashes"
            )
        own = _mapping(f"the model '{name}' of {where}", given, of_model, "option")
        if not isinstance(own.get("model"), str):
            raise RunFolderError(f"the model '{name}' of {where} lacks model: a Hub name or a folder")
        made.append(GridModel(name, {**settings, **own}))
    return made


def as_arguments(
    model: GridModel, switches: Mapping[str, tuple[str, str | None]], several: Sequence[str]
) -> list[str]:
    """Return the options of `model` as a command line holds them.

    `switches` are options without a value, with how they are turned on and off (None where leaving them
    out does that); `several` may be given more than once.
    """
    arguments: list[str] = []
    for name, value in model.values.items():
        if name in switches:
            if not isinstance(value, bool):
                raise RunFolderError(f"the model '{model.name}': {name} is {value}; expected true or false")
            on, off = switches[name]
            arguments += [on] if value else [off] if off else []
        elif isinstance(value, list):
            texts = [_text(model, name, one) for one in value]
            given = texts if name in several else [",".join(texts)]
            arguments += [part for text in given for part in (f"--{name}", text)]
        else:
            arguments += [f"--{name}", _text(model, name, value)]
    return arguments


def _text(model: GridModel, name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise RunFolderError(f"the model '{model.name}': {name} is {value!r}; expected a word or a number")
    return str(value)


def _mapping(where: str, found: Any, known: Sequence[str], kind: str) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise RunFolderError(f"{where} is no list of keys and values; expected {', '.join(known)}")
    for key in found:
        if key not in known:
            raise unknown_name(f"{kind} in {where}", str(key), known)
    return found
