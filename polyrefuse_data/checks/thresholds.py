"""Decide on scores by thresholds per language, from a data file with its provenance.

`polyrefuse calibrate` recomputes the file from a trusted folder. A score below `low` or above `high` is
flagged; a language without an entry of its own takes the entry `default`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.parsing import parse_yaml
from polyrefuse_data.core.reading import FileFormatError, read_text

DEFAULT = "default"


class Bounds(BaseModel):
    """A score is accepted if low <= score <= high; a missing bound accepts everything on its side."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    low: float | None = None
    high: float | None = None

    def accept(self, score: float) -> bool:
        return (self.low is None or score >= self.low) and (self.high is None or score <= self.high)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    provenance: str
    checks: dict[str, dict[str, Bounds]]


@dataclass(frozen=True)
class Thresholds:
    """Bounds by check and language, and where they come from."""

    provenance: str
    checks: Mapping[str, Mapping[str, Bounds]]

    def bounds(self, check: str, lang: str) -> Bounds:
        """Return the bounds of `check` for `lang`; bounds that accept everything where there are none."""
        by_language = self.checks.get(check, {})
        return by_language.get(lang) or by_language.get(DEFAULT) or Bounds()

    def flagged(self, check: str, lang: str, score: float | None) -> bool:
        """Return whether `score` is outside its bounds; a missing score is never flagged."""
        return score is not None and not self.bounds(check, lang).accept(score)

    def digest(self) -> str:
        """Return the sha256 of what the thresholds say."""
        return hashlib.sha256(self.to_json().encode("utf-8")).hexdigest()

    def to_json(self) -> str:
        values = {
            check: {lang: bounds.model_dump(exclude_none=True) for lang, bounds in sorted(langs.items())}
            for check, langs in sorted(self.checks.items())
        }
        return json.dumps({"provenance": self.provenance, "checks": values}, sort_keys=True)


@lru_cache(maxsize=4)
def load_thresholds(path: Path | None = None) -> Thresholds:
    """Return the thresholds of `path`, by default those of the package; raises `PolyRefuseError`."""
    where = str(path or "thresholds.yaml")
    try:
        if path is None:
            text = (resources.files("polyrefuse_data") / "data" / "thresholds.yaml").read_text(
                encoding="utf-8"
            )
        else:
            text = read_text(path)
        file = _File.model_validate(parse_yaml(text))
    except (FileFormatError, yaml.YAMLError) as error:
        raise PolyRefuseError(f"cannot read the thresholds {where}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise PolyRefuseError(f"thresholds {where}, at {place}: {first['msg']}") from None
    return Thresholds(file.provenance, file.checks)
