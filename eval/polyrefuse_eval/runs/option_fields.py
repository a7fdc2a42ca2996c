"""Types of the fields of options, and how a field is declared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


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
