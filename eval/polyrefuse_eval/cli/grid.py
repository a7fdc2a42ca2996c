"""Grid files of `polyrefuse eval run`: the options of each model, checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from polyrefuse_data.core.errors import unknown_name
from polyrefuse_data.core.parsing import parse_yaml
from polyrefuse_data.core.reading import FileFormatError, read_text
from polyrefuse_eval.endpoint.spec import is_endpoint
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.runs.baseline_server_options import BaselineServerOptions
from polyrefuse_eval.runs.direction_options import ModelOptions
from polyrefuse_eval.runs.endpoint_options import NEEDS_ACTIVATIONS, EndpointOptions, endpoint_fields
from polyrefuse_eval.runs.option_fields import option_name, read_options
from polyrefuse_eval.runs.options import COMMAND_LINE_ONLY, RunOptions

OF_A_MODEL = [
    option_name(field)
    for field in (
        *ModelOptions.model_fields,
        *EndpointOptions.model_fields,
        *BaselineServerOptions.model_fields,
        "batch_size",
        "refusal_tokens",
    )
    if field not in COMMAND_LINE_ONLY
]
"""Options that each model may have for itself."""

OF_ALL = [
    option_name(field) for field in RunOptions.model_fields if field not in (*COMMAND_LINE_ONLY, "model")
]
"""Options that all models may share."""

PARTS = ("settings", "models")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class _Loader(yaml.SafeLoader):
    """Refuse a key that stands twice, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in mapping:
                raise yaml.YAMLError(f"'{key}' stands twice, line {key_node.start_mark.line + 1}")
            mapping[key] = self.construct_object(value_node, deep=True)
        return mapping


_Loader.add_constructor(
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG,
    lambda loader, node: loader.construct_mapping(node),  # type: ignore[arg-type]
)


def read_grid(file: Path, given: Mapping[str, Any], command_line: Iterable[str]) -> dict[str, RunOptions]:
    """Return the options of each model of a grid, by its name, in the order of the file.

    `given` are fields from the command line, which override the file. `command_line` are the names of all
    options that a file may not hold: what runs code, reaches out, or says where to compute is accepted from
    the command line alone. Raises `RunFolderError`, or `UnknownNameError` with the nearest name.
    """
    where = f"the grid '{file}'"
    try:
        content = parse_yaml(read_text(file), _Loader)
    except FileFormatError as error:
        raise RunFolderError(f"{where} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise RunFolderError(f"{where} is not YAML that can be read: {error}") from None
    barred = {*command_line, *map(option_name, COMMAND_LINE_ONLY)}
    parts = _mapping(where, content, PARTS, "part")
    settings = _mapping(f"'settings' of {where}", parts.get("settings") or {}, OF_ALL, "setting", barred)
    models = parts.get("models")
    if not isinstance(models, Mapping) or not models:
        raise RunFolderError(
            f"{where} names no models; expected lines such as  qwen: {{model: NAME@REVISION}}"
        )
    options = {}
    for name, values in models.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise RunFolderError(
                f"the model '{name}' of {where} has a name that is not a folder's; expected letters, digits, "
                "dots and dashes"
            )
        own = _mapping(f"the model '{name}' of {where}", values, OF_A_MODEL, "option", barred)
        if not isinstance(own.get("model"), str):
            raise RunFolderError(f"the model '{name}' of {where} lacks model: a Hub name or a folder")
        shared = settings
        if is_endpoint(own["model"]):  # what the others share may need activations
            shared = {
                key: value
                for key, value in settings.items()
                if key.replace("-", "_") not in NEEDS_ACTIVATIONS
            }
        fields = {key.replace("-", "_"): value for key, value in {**shared, **own}.items()}
        fields = endpoint_fields(fields, dict(given))
        options[name] = read_options(RunOptions, fields, f"the model '{name}' of {where}: ")
        if "judges" not in given:
            _check_judges(options[name].judges, where)
    return options


def _check_judges(judges: str, where: str) -> None:
    """Raise `RunFolderError` for a judge that answers would be sent to."""
    from polyrefuse_eval.judging.registry import ENDPOINT

    for judge in judges.split(","):
        if judge.strip().partition(":")[0] == ENDPOINT:
            raise RunFolderError(
                f"'judges' of {where} names {ENDPOINT}, which sends answers and a key to an address; a "
                "file may not ask for that: give --judges on the command line"
            )


def _mapping(
    where: str, value: Any, known: Iterable[str], kind: str, barred: Iterable[str] = ()
) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RunFolderError(f"{where} is not a list of keys and values; expected {', '.join(known)}")
    for key in value:
        if key in barred:
            raise RunFolderError(
                f"{where} holds {key}, which a grid file may not set: give --{key} on the command line"
            )
        if key not in known:
            raise unknown_name(f"{kind} in {where}", str(key), known)
    return value
