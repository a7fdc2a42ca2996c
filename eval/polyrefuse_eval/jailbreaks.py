"""Readers of published jailbreak variants of prompts: adversarial suffixes, persuasion, templates.

They turn a file that the user has into `UserPrompt`s with `kind` kept; they make no variant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from polyrefuse_data.errors import unknown_name
from polyrefuse_data.languages import language
from polyrefuse_eval.errors import GuardError
from polyrefuse_eval.prompt_files import DEFAULT_LANG, UserPrompt, table

GOALS = ("goal", "behavior", "original_prompt", "instruction")
SUFFIXES = ("suffix", "adv_suffix", "control", "final_suffix", "best_suffix")
FULL = ("prompt", "jailbreak_prompt", "adversarial_prompt", "attack_prompt")
PERSUADING = ("ss_prompt", "persuasive_prompt", "pap", "mutated_text", *FULL)
PLACEHOLDERS = ("[INSERT PROMPT HERE]", "[PROMPT]", "{prompt}", "{goal}", "{question}")

Say = Callable[[str], None]
Reader = Callable[[Path, Say], list[UserPrompt]]


def _silent(_line: str) -> None:
    """Say nothing."""


def read_suffixes(path: Path, say: Say = _silent) -> list[UserPrompt]:
    """Return prompts with adversarial suffixes (GCG): a CSV, JSON or JSON Lines table with the whole
    `prompt`, or with a goal and a suffix (`goal`, `suffix` or `control`), joined by a space as GCG does."""

    def text(record: Mapping[str, Any]) -> str:
        goal, suffix = _first(record, GOALS), _first(record, SUFFIXES)
        if goal and suffix:
            return f"{goal} {suffix}"
        return _first(record, FULL)

    return _read(path, "suffix", text, (*FULL, "goal and suffix"), say)


def read_persuasion(path: Path, say: Say = _silent) -> list[UserPrompt]:
    """Return persuasive prompts (PAP): a table with `ss_prompt` beside `bad_q`, as in the published
    JSON Lines, or with `prompt`."""
    return _read(path, "persuasion", lambda record: _first(record, PERSUADING), PERSUADING, say)


def read_templates(path: Path, say: Say = _silent) -> list[UserPrompt]:
    """Return prompts inside jailbreak templates: a table with the filled `prompt`.

    Raises `GuardError` for templates whose placeholder is not filled: this program fills none.
    """
    found = _read(path, "template", lambda record: _first(record, FULL), FULL, say)
    for number, one in enumerate(found, 1):
        if any(placeholder in one.prompt for placeholder in PLACEHOLDERS):
            raise GuardError(
                f"'{path}', record {number} still holds a placeholder; give prompts inside templates"
            )
    return found


READERS: dict[str, Reader] = {
    "suffix": read_suffixes,
    "persuasion": read_persuasion,
    "template": read_templates,
}
"""By the `kind` that results keep."""


def read_jailbreaks(text: str, say: Say = _silent) -> list[UserPrompt]:
    """Return the prompts of `KIND=FILE`, with KIND one of `READERS`.

    `say` gets a line with the number of records whose prompt is null, as in JailbreakBench's artifacts
    where an attack gave none. Raises `GuardError` for other records without a prompt.
    """
    kind, sign, path = text.partition("=")
    if not sign or not path:
        raise GuardError(f"'{text}': expected KIND=FILE with KIND one of {', '.join(READERS)}")
    if kind not in READERS:
        raise unknown_name("kind of jailbreak", kind, READERS)
    return READERS[kind](Path(path), say)


def _read(
    path: Path, kind: str, text: Callable[[Mapping[str, Any]], str], expected: tuple[str, ...], say: Say
) -> list[UserPrompt]:
    found = []
    n_null = 0
    for number, record in enumerate(table(path), 1):
        prompt = text(record)
        if not prompt and any(name in record and record[name] is None for name in PERSUADING):
            n_null += 1
            continue
        if not prompt.strip():
            raise GuardError(f"'{path}', record {number} has no prompt; expected {', '.join(expected)}")
        lang = _first(record, ("lang", "language")) or DEFAULT_LANG
        found.append(UserPrompt(prompt, "harmful", language(lang).code, kind))
    if not found:
        raise GuardError(f"no prompts in '{path}'")
    if n_null:
        say(f"'{path}': {n_null} records hold null for a prompt and are left out; {len(found)} are read")
    return found


def _first(record: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Return the first text among the columns `names`, in any case of letters."""
    folded = {str(name).strip().lower(): value for name, value in record.items()}
    return next((folded[name] for name in names if isinstance(folded.get(name), str)), "")
