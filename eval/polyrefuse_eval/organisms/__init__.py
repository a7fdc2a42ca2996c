"""Test organisms: tiny chat models with planted directions, trained on this machine."""

from __future__ import annotations

from polyrefuse_eval.organisms.build import (
    ORGANISMS,
    PLANTED_FILE,
    Organism,
    organism_path,
    organism_revision,
    planted_directions,
)
from polyrefuse_eval.organisms.replies import REFUSALS

__all__ = [
    "ORGANISMS",
    "PLANTED_FILE",
    "REFUSALS",
    "Organism",
    "organism_path",
    "organism_revision",
    "planted_directions",
]
