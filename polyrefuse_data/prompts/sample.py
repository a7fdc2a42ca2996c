"""The embedded sample: prompts made from a phrase bank in 14 languages, a source and its translations in one.

Each topic has one harmful and one harmless task in all languages; each framing is a sentence with a slot
for a task. The prompts are mild: everyday wrongdoing in a few words, without any operational detail.
They were written for this package, and are under its licence.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources
from typing import Any

from polyrefuse_data.core.parsing import FAST_LOADER, parse_yaml
from polyrefuse_data.core.schema import LABELS, Prompt
from polyrefuse_data.prompts.categories import SAMPLE
from polyrefuse_data.prompts.recipe import EMBEDDED

LICENCE = "Apache-2.0"
TRANSLATOR = "phrase-bank"
"""The backend name of the sample's translations: each was written, together with the English."""

FILES = ("framings.yaml", "topics.yaml")

ACTIONS = 12
"""Harmful actions; topics come in blocks of so many, each of which holds every action once."""


def bank_hash() -> str:
    """Return the sha256 of the phrase bank's files: the sample's entry in a manifest."""
    return hashlib.sha256("".join(_text(name) for name in FILES).encode("utf-8")).hexdigest()


def _text(name: str) -> str:
    return (resources.files("polyrefuse_data") / "data" / "sample" / name).read_text(encoding="utf-8")


def _read(name: str) -> Any:
    return parse_yaml(_text(name), FAST_LOADER)


@lru_cache(maxsize=1)
def sample_prompts() -> tuple[Prompt, ...]:
    """Return all prompts of the bank: topic after topic, harmless then harmful, framing after framing."""
    framings: dict[str, dict[str, str]] = _read("framings.yaml")
    prompts = []
    for topic in _read("topics.yaml"):
        for label in LABELS:
            task = topic[label]
            for framing in framings.values():
                texts = {code: framing[code].format(task=task[code]) for code in framing if code in task}
                prompts.append(
                    Prompt(
                        text=texts.pop("en"),
                        label=label,
                        source=EMBEDDED,
                        licence=LICENCE,
                        category=SAMPLE[task["action"]] if label == "harmful" else None,
                        source_category=task["action"],
                        topic=topic["topic"],
                        translations=texts,
                    )
                )
    return tuple(prompts)
