"""Read published jailbreak variants of prompts: adversarial suffixes, persuasion, templates.

They turn a file that the user has into `UserPrompt`s whose `kind` names the attack; they make no variant.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from polyrefuse_data.core.errors import unknown_name
from polyrefuse_data.core.languages import SOURCE_LANGUAGE, language
from polyrefuse_data.core.reading import Record, is_missing, read_table
from polyrefuse_eval.errors import GuardError
from polyrefuse_eval.results.user_prompts import LANGUAGE_COLUMNS, Say, UserPrompt, silent, taken

GOAL_COLUMNS = ("goal", "behavior", "original_prompt", "instruction")
SUFFIX_COLUMNS = ("suffix", "adv_suffix", "control", "final_suffix", "best_suffix")
PROMPT_COLUMNS = ("prompt", "jailbreak_prompt", "adversarial_prompt", "attack_prompt")
PERSUASION_COLUMNS = ("ss_prompt", "persuasive_prompt", "pap", "mutated_text", *PROMPT_COLUMNS, "bad_q")
TEMPLATE_COLUMNS = (*PROMPT_COLUMNS, "bad_q")
PLACEHOLDERS = ("[INSERT PROMPT HERE]", "[PROMPT]", "{prompt}", "{goal}", "{question}")

Reader = Callable[[Path, Say], list[UserPrompt]]


def read_suffixes(path: Path, say: Say = silent) -> list[UserPrompt]:
    """Return prompts with adversarial suffixes (GCG; Zou et al. 2023).

    A table holds the whole `prompt`, or a goal and a suffix (`goal`, `suffix` or `control`), joined by a
    space as GCG does; HarmBench's `{behaviour id: [prompts]}` is read, too.
    """

    def text(record: Record) -> str | None:
        goal, suffix = record.text(GOAL_COLUMNS), record.text(SUFFIX_COLUMNS)
        return f"{goal} {suffix}" if goal and suffix else record.text(PROMPT_COLUMNS)

    return _read(path, "suffix", text, (*PROMPT_COLUMNS, "goal and suffix"), say)


def read_persuasion(path: Path, say: Say = silent) -> list[UserPrompt]:
    """Return persuasive prompts (PAP; Zeng et al. 2024): a table with `ss_prompt` or `prompt`.

    Where a table holds none of these, `bad_q` is the prompt, as in the data of Zhao et al. 2025.
    """
    return _read(path, "persuasion", lambda record: record.text(PERSUASION_COLUMNS), PERSUASION_COLUMNS, say)


def read_templates(path: Path, say: Say = silent) -> list[UserPrompt]:
    """Return prompts inside jailbreak templates: a table with the filled `prompt`, or `bad_q`.

    Raises `GuardError` for templates whose placeholder is not filled: this program fills none.
    """
    prompts = _read(path, "template", lambda record: record.text(TEMPLATE_COLUMNS), TEMPLATE_COLUMNS, say)
    for number, prompt in enumerate(prompts, 1):
        if any(placeholder in prompt.prompt for placeholder in PLACEHOLDERS):
            raise GuardError(
                f"'{path}', record {number} still holds a placeholder; give prompts inside templates"
            )
    return prompts


READERS: dict[str, Reader] = {
    "suffix": read_suffixes,
    "persuasion": read_persuasion,
    "template": read_templates,
}
"""By the `kind` that results keep."""


def read_jailbreaks(text: str, say: Say = silent) -> list[UserPrompt]:
    """Return the prompts of `KIND=FILE`, with KIND one of `READERS`.

    `say` gets a line with what was read, and one with the number of records without a prompt, as in
    JailbreakBench's artifacts where an attack gave none. Raises `GuardError` for records without any column
    of prompts.
    """
    kind, sign, path = text.partition("=")
    if not sign or not path:
        raise GuardError(f"'{text}': expected KIND=FILE with KIND one of {', '.join(READERS)}")
    if kind not in READERS:
        raise unknown_name("kind of jailbreak", kind, READERS)
    return READERS[kind](Path(path), say)


def _read(
    path: Path,
    kind: str,
    prompt_of: Callable[[Record], str | None],
    expected: tuple[str, ...],
    say: Say,
) -> list[UserPrompt]:
    """Return the prompts of a table; records whose prompt is missing (null, empty, NaN) are counted "
    "and left out."""
    table = read_table(path)
    prompts, without_prompt = [], 0
    for record in table.records:
        prompt = prompt_of(record)
        if prompt is None:
            folded = {str(name).strip().casefold(): value for name, value in record.values.items()}
            present = [folded[name] for name in expected if name in folded]
            if not present or not all(is_missing(value) for value in present):
                raise GuardError(f"{table.where(record)} has no prompt; expected {', '.join(expected)}")
            without_prompt += 1
            continue
        lang = str(record.value(LANGUAGE_COLUMNS) or SOURCE_LANGUAGE)
        prompts.append(UserPrompt(prompt=prompt, label="harmful", lang=language(lang).code, kind=kind))
    if not prompts:
        raise GuardError(f"no prompts in '{path}': all {without_prompt} records hold null for a prompt")
    for note in table.notes:
        say(note)
    if without_prompt:
        say(
            f"'{path}': {without_prompt} records hold null for a prompt and are left out; "
            f"{len(prompts)} are read"
        )
    else:
        say(taken(table, kind, len(prompts)))
    return prompts
