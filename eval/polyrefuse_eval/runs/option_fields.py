"""Types of the fields of options, how a field is declared, and how values are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar

from annotated_types import Ge
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from polyrefuse_eval.errors import RunFolderError


def _text(value: Any) -> Any:
    """Return words and numbers as text, and a list of them joined by commas."""
    if isinstance(value, (list, tuple)):
        return ",".join(str(_text(part)) for part in value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return value


def _folder(value: Any) -> Any:
    if isinstance(value, str) and "://" in value:
        raise ValueError("an address")
    return value


Text = Annotated[str, BeforeValidator(_text)]
OptionalText = Annotated[str | None, BeforeValidator(_text)]
Folder = Annotated[Path, BeforeValidator(_folder)]
OptionalFolder = Annotated[Path | None, BeforeValidator(_folder)]
Positive = Annotated[int, Field(ge=1)]
OptionalPositive = Annotated[int | None, Field(ge=1)]


def option(default: Any, help_text: str, **more: Any) -> Any:
    """Return a field with its default and its help on the command line."""
    return Field(default, description=help_text, **more)


class Options(BaseModel):
    """Options that a command, a grid file and Python share; an unknown one is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def option_name(field: str) -> str:
    """Return the name of a field as the command line and grid files write it."""
    return field.replace("_", "-")


AnyOptions = TypeVar("AnyOptions", bound=Options)


def read_options(kind: type[AnyOptions], values: Mapping[str, Any], where: str = "") -> AnyOptions:
    """Return the options `values`, by field name; raises `RunFolderError` that begins with `where`."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0])
        raise RunFolderError(
            f"{where}{option_name(name)} is {fault['input']!r}; expected {_expected(kind.model_fields[name])}"
        ) from None


def value_type(field: FieldInfo) -> Any:
    """Return the type of a field's value, without None."""
    if isinstance(field.annotation, UnionType):
        return next(kind for kind in field.annotation.__args__ if kind is not type(None))
    return field.annotation


def least(field: FieldInfo) -> int | None:
    """Return the least value of a field, None where it has none."""
    return next((int(str(bound.ge)) for bound in field.metadata if isinstance(bound, Ge)), None)


def _expected(field: FieldInfo) -> str:
    kind, minimum = value_type(field), least(field)
    words = {bool: "true or false", float: "a number", Path: "a folder here", str: "a word or a number"}
    if kind is int:
        return "a whole number" + (f" of {minimum} or more" if minimum is not None else "")
    return words.get(kind, "a list of words")
