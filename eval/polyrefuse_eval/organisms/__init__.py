"""The test organisms by name: where each lies on this machine, and what its weights depend on."""

from __future__ import annotations

from pathlib import Path

from polyrefuse_eval.organisms import harmfulness as organism_harmfulness
from polyrefuse_eval.organisms import refusal as organism

HARMFULNESS = "organism-harmfulness"
NAMES = (*organism.ORGANISMS, HARMFULNESS)


def path_of(name: str) -> Path:
    """Return the folder of the organism `name`, one of `NAMES`; it is trained where it is not there yet."""
    if name == HARMFULNESS:
        return organism_harmfulness.organism_harmfulness_path()
    return organism.organism_path(settings=organism.ORGANISMS[name])


def revision_of(name: str) -> str:
    """Return a hash (16 hex digits) of what decides the weights of organism `name`; nothing is trained."""
    if name == HARMFULNESS:
        return organism_harmfulness.key_of()[:16]
    return organism.key_of(settings=organism.ORGANISMS[name])[:16]
