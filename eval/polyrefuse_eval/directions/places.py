"""Where directions lie in a run folder. Imports no torch."""

from __future__ import annotations


def direction_file(lang: str) -> str:
    """Return the place of the direction of `lang` in a run folder."""
    return f"directions/{lang}.safetensors"


def control_file(lang: str) -> str:
    """Return the place of the control of `lang` from shuffled labels in a run folder."""
    return f"directions/{lang}.shuffled.safetensors"


def gate_file(lang: str) -> str:
    """Return the place of the gate of `lang` in a run folder."""
    return f"directions/{lang}.gate.safetensors"


def obstacle_file(source: str, *, control: bool = False) -> str:
    """Return the place in a run folder that says why `source` gave no direction, or no control."""
    return f"directions/{source}{'.shuffled' if control else ''}.none.json"
