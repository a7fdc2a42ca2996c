"""Read published jailbreak variants of prompts: adversarial suffixes, persuasion, templates."""

from __future__ import annotations

from polyrefuse_eval.results.jailbreaks import (
    READERS,
    read_jailbreaks,
    read_persuasion,
    read_suffixes,
    read_templates,
)

__all__ = ["READERS", "read_jailbreaks", "read_persuasion", "read_suffixes", "read_templates"]
