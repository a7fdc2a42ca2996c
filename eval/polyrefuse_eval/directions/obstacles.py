"""Why a search gave no direction: kept in the run folder, so that a resumed run does not search again."""

from __future__ import annotations

from pathlib import Path

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.directions.places import obstacle_file
from polyrefuse_eval.results.folder import read_json, write_json

OBSTACLE_FORMAT = "polyrefuse-no-direction-1"


def write_obstacle(path: Path, source: str, reason: str, *, control: bool = False) -> None:
    """Write into the run folder `path` why `source` gave no direction, or no control."""
    write_json(path / obstacle_file(source, control=control), {"format": OBSTACLE_FORMAT, "reason": reason})


def read_obstacle(path: Path, source: str, *, control: bool = False) -> str | None:
    """Return why `source` gave no direction in the run in `path`; None where no file says so."""
    file = path / obstacle_file(source, control=control)
    if not file.is_file():
        return None
    try:
        content = read_json(file)
    except PolyRefuseError:
        return None  # it is searched again
    known = content.get("format") == OBSTACLE_FORMAT and "reason" in content
    return str(content["reason"]) if known else None
