"""The instructions that are measured: rows of a build, and prompts of a user's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.schema import Row
from polyrefuse_eval.results.final_punctuation import prompt_reader
from polyrefuse_eval.results.user_prompts import UserPrompt

DATA = "data"
"""The `kind` of a build's own prompts."""


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """A labelled prompt that is measured; `kind` is `data`, or what the user calls it."""

    id: str
    lang: str
    text: str
    label: str
    kind: str = DATA
    category: str | None = None


def build_instructions(rows: Sequence[Row]) -> list[Instruction]:
    """Return the instructions of a build's rows."""
    return [
        Instruction(id=row.id, lang=row.lang, text=row.text, label=row.label, category=row.category)
        for row in rows
    ]


def user_instructions(prompts: Sequence[UserPrompt], lang: str) -> list[Instruction]:
    """Return the instructions of a user's prompts in `lang`; their ids number all of `prompts`."""
    return [
        Instruction(
            id=f"{prompt.kind}-{index:04d}",
            lang=lang,
            text=prompt.prompt,
            label=prompt.label or "harmful",
            kind=prompt.kind,
        )
        for index, prompt in enumerate(prompts)
        if prompt.lang == lang
    ]


def check_languages(
    prompts: Sequence[UserPrompt], langs: Sequence[str], error: type[PolyRefuseError]
) -> None:
    """Raise `error` where a user's prompts are in languages other than `langs`: none is left out unsaid."""
    foreign = sorted({str(prompt.lang) for prompt in prompts} - set(langs))
    if foreign:
        raise error(
            f"extra prompts in {', '.join(foreign)}, which is not among --langs {','.join(langs)}; add it"
        )


def as_read(instructions: Sequence[Instruction], final_punctuation: str) -> list[Instruction]:
    """Return `instructions` as `prompt_reader` reads them."""
    read = prompt_reader(final_punctuation)
    return [replace(instruction, text=read(instruction.text)) for instruction in instructions]


def spread(instructions: Sequence[Instruction], count: int) -> list[Instruction]:
    """Return `count` of `instructions` at even distances, or all where there are no more.

    Parts of a split that lie together, such as categories, are all represented.
    """
    n = min(count, len(instructions))
    return [instructions[index * len(instructions) // n] for index in range(n)]


def prompts_digest(prompts: Sequence[UserPrompt]) -> str:
    """Return the sha256 (64 hex digits) of a user's prompts; an empty string of none."""
    if not prompts:
        return ""
    text = json.dumps([asdict(prompt) for prompt in prompts], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
