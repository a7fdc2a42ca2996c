"""What the JSON headers of our safetensors files hold: directions and guards, read without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.parsing import first_problem, parse_json
from polyrefuse_eval.results.fields import Count, Lang, Layer, Name, Source, check
from polyrefuse_eval.results.validation import STRICT

DIRECTION_FORMAT = "polyrefuse-direction-1"
SET_FORMAT = "polyrefuse-directions-1"
HARMFULNESS_DIRECTIONS_FORMAT = "polyrefuse-harmfulness-directions-1"
GATE_FORMAT = "polyrefuse-harm-gate-1"
GUARD_FORMAT = "polyrefuse-guard-1"

LARGEST_HEADER = 10**8
"""Bytes of a header: the limit of the safetensors format."""

Offset = Annotated[int, Field(ge=-1000, le=-1)]
PositionLabel = Offset | Literal["t_inst"]
Norm = Annotated[float, Field(gt=0, le=1e30)]


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class DirectionHeader:
    """Of a chosen direction: where it was taken, its `norm`, and its story (`metadata`)."""

    format: str
    site: Literal["resid_pre"]
    norm: Norm
    layer: Layer
    position: PositionLabel
    position_kind: Name
    lang: Source
    kind: Name
    metadata: dict[str, Any]


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class DirectionSetHeader:
    """Of the directions at every position and layer."""

    format: str
    lang: Source
    positions: tuple[PositionLabel, ...]
    layers: tuple[Layer, ...]
    metadata: dict[str, Any]


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class GateHeader:
    """Of what tells harmful prompts for conditional interventions: whose training prompts, and how many."""

    format: str
    lang: Source
    n_harmful: Count
    n_harmless: Count
    metadata: dict[str, Any]


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class HarmfulnessDirectionsHeader:
    """Of the harmfulness and the refusal direction of one language."""

    format: str
    lang: Lang
    categories: tuple[Name, ...]
    metadata: dict[str, Any]


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True, kw_only=True)
class ThresholdHeader:
    """A threshold: `alpha`, -inf where every prompt is unsafe, and where it comes from."""

    alpha: float
    rule: Name
    n_harmful: Count
    n_harmless: Count

    def __post_init__(self) -> None:
        check(self.alpha < float("inf"), f"alpha is {self.alpha}")


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class GuardHeader:
    """Of a Latent Guard: its layers, the languages of its contrasts, their thresholds."""

    format: str
    site: Literal["resid_pre"]
    position: Literal["t_inst"]
    layers: tuple[Layer, ...]
    languages: tuple[Source, ...]
    thresholds: dict[Source, ThresholdHeader]
    metadata: dict[str, Any]

    def __post_init__(self) -> None:
        check(self.layers and self.languages, "it has no layers, or no languages")


Header = TypeVar("Header")


def parse_header(
    text: str, kind: type[Header], expected: str, path: Path, error: type[PolyRefuseError]
) -> Header:
    """Return the header in `text`, of format `expected`, as a `kind`; raises `error` for any other."""
    try:
        header = parse_json(text)
    except ValueError as fault:
        raise error(f"'{path}' has a header that is not JSON: {fault}") from None
    stated = header.get("format", "no format") if isinstance(header, dict) else "no format"
    if stated != expected:
        raise error(f"'{path}' holds {stated}; expected {expected}")
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as fault:
        raise error(f"'{path}' has a header that is no {expected} ({first_problem(fault)})") from None


def read_direction_header(path: Path, error: type[PolyRefuseError]) -> DirectionHeader:
    """Return the header of a direction, without its tensors; raises `error`.

    A safetensors file begins with 8 bytes of length and a JSON header.
    """
    if path.exists() and not path.is_file():  # a pipe would be read forever
        raise error(f"'{path}' is not a direction that can be read")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = parse_json(file.read(min(length, LARGEST_HEADER)))
        text = header["__metadata__"]["polyrefuse"]
    except (OSError, ValueError, KeyError, TypeError):
        raise error(f"'{path}' is not a direction that can be read") from None
    if not isinstance(text, str):
        text = json.dumps(text)
    return parse_header(text, DirectionHeader, DIRECTION_FORMAT, path, error)
