"""The embedded sample: prompts made from a phrase bank in 14 languages, a source and its translations in one.

Each topic has one harmful and one harmless task in all languages; each framing is a sentence with a slot
for a task. Contrast pairs are a harmless task that looks harmful (killing time) and its harmful twin, in the
same framings. The prompts are mild: everyday wrongdoing in a few words, without any operational detail.
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
from polyrefuse_data.prompts.readers import CONTRAST
from polyrefuse_data.prompts.recipe import EMBEDDED, EMBEDDED_PAIRS

LICENCE = "Apache-2.0"
TRANSLATOR = "phrase-bank"
"""The backend name of the sample's translations: each was written, together with the English."""

FILES = {
    EMBEDDED: ("framings.yaml", "topics.yaml"),
    EMBEDDED_PAIRS: ("framings.yaml", "pairs.yaml"),
}
"""The files that each embedded source is made from."""

ACTIONS = 12
"""Harmful actions; topics come in blocks of so many, each of which holds every action once."""


def bank_hash(source: str) -> str:
    """Return the sha256 of the phrase bank's files that `source` is made from: its entry in a manifest."""
    return hashlib.sha256("".join(_text(name) for name in FILES[source]).encode("utf-8")).hexdigest()


def embedded_prompts(source: str) -> tuple[Prompt, ...]:
    """Return the prompts of an embedded source, `EMBEDDED` or `EMBEDDED_PAIRS`."""
    return sample_prompts() if source == EMBEDDED else contrast_prompts()


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
                texts = _framed(framing, task)
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


@lru_cache(maxsize=1)
def contrast_prompts() -> tuple[Prompt, ...]:
    """Return the contrast pairs: pair after pair, framing after framing, harmless then harmful.

    The kind of contrast stands in `source_category`, that of a harmful prompt with `contrast_` before it.
    """
    framings: dict[str, dict[str, str]] = _read("framings.yaml")
    prompts = []
    for contrast in _read("pairs.yaml"):
        for name, framing in framings.items():
            for label in LABELS:
                harmful = label == "harmful"
                texts = _framed(framing, contrast[label])
                prompts.append(
                    Prompt(
                        text=texts.pop("en"),
                        label=label,
                        source=EMBEDDED_PAIRS,
                        licence=LICENCE,
                        category=contrast["category"] if harmful else None,
                        source_category=(CONTRAST if harmful else "") + contrast["kind"],
                        topic=contrast["pair"],
                        translations=texts,
                        pair=f"{EMBEDDED_PAIRS}-{contrast['pair']}-{name}",
                    )
                )
    return tuple(prompts)


def _framed(framing: dict[str, str], task: dict[str, str]) -> dict[str, str]:
    """Return the texts of `task` in `framing` by language."""
    return {code: framing[code].format(task=task[code]) for code in framing if code in task}
