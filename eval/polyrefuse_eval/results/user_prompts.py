"""Read the prompts that a user brings: text with a prompt a line, or a table in any common form.

Nothing is generated and nothing is shipped. `polyrefuse_eval.jailbreaks` reads published jailbreak variants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from polyrefuse_data.core.languages import SOURCE_LANGUAGE, language
from polyrefuse_data.core.reading import (
    PROMPT_COLUMNS,
    Record,
    Table,
    decode,
    parse_table,
    read_bytes,
    read_table,
    text_lines,
)
from polyrefuse_data.core.schema import LABELS
from polyrefuse_data.core.surrogates import REPLACEMENT
from polyrefuse_eval.errors import GuardError

KINDS_OF_THE_BUILD = ("all", "data")
"""What results call all prompts of a language, and those of the build; no user's prompts may be called so."""

LANGUAGE_COLUMNS = ("lang", "language")
KIND_COLUMNS = ("kind", "type", "category", "prompt_style")
LABEL_COLUMNS = ("label",)

LABEL_NAMES = {
    **{label: label for label in LABELS},
    "unsafe": "harmful",
    "safe": "harmless",
    "malicious": "harmful",
    "benign": "harmless",
}
"""What published tables call the labels, in lower case, and what they are called here."""

TEXT_SUFFIXES = ("", ".txt", ".text", ".md")
"""Endings of files that hold a prompt a line, whatever their first character."""

STANDARD_INPUT = "standard input"
"""What messages call prompts that come from no file."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class UserPrompt:
    """A prompt with its label (harmful, harmless; None where nobody says), language and kind."""

    prompt: str
    label: str | None = None
    lang: str | None = None
    kind: str = "extra"


def silent(_line: str) -> None:
    """Say nothing."""


def read_extra(source: str | Path, say: Say = silent) -> list[UserPrompt]:
    """Return the labelled prompts of `source`, a file or LABEL=FILE, in JSON, JSON Lines or CSV.

    Each record holds its prompt in one of `PROMPT_COLUMNS`. Its label stands in `label`, or is LABEL for all;
    its language in `lang` (English unless named), its kind in one of `KIND_COLUMNS` (the file's name unless
    named). `say` gets one line with what was taken. Raises `GuardError` or `FileFormatError`, with the line.
    """
    default_label, path = _label_and_path(source)
    table = read_table(path)
    column = table.column(PROMPT_COLUMNS)
    prompts = []
    for record in table.records:
        where = table.where(record)
        prompts.append(
            UserPrompt(
                prompt=_checked_prompt(_prompt_text(record, column), where),
                label=_label(record, default_label, where),
                lang=language(str(record.value(LANGUAGE_COLUMNS) or SOURCE_LANGUAGE)).code,
                kind=_checked_kind(str(record.value(KIND_COLUMNS) or path.stem), where),
            )
        )
    say(taken(table, column, len(prompts)))
    for note in table.notes:
        say(note)
    return prompts


def read_prompts(path: Path | None, given: bytes = b"", say: Say = silent) -> list[UserPrompt]:
    """Return the prompts to score, of the file at `path` or, without one, of the bytes `given`.

    Text files hold one prompt a line. Anything else is a table (JSON, JSON Lines or CSV) with the prompt in
    one of `PROMPT_COLUMNS` and, perhaps, a language in `lang`; without a file name, text is a table where it
    begins with a brace. Raises `GuardError` or `FileFormatError`, with the line.
    """
    source = STANDARD_INPUT if path is None else str(path)
    text = decode(given if path is None else read_bytes(path), source)
    is_table = text.lstrip().startswith("{") if path is None else path.suffix.lower() not in TEXT_SUFFIXES
    if not text.strip():
        raise GuardError(f"no prompts in '{source}'")
    if not is_table:
        return text_prompts(text, source)
    table = parse_table(text, source)
    prompts = table_prompts(table)
    say(taken(table, table.column(PROMPT_COLUMNS), len(prompts)))
    return prompts


def text_prompts(text: str, source: str, first_line: int = 1) -> list[UserPrompt]:
    """Return the prompts of `text`, one a line, of which the first has the number `first_line`."""
    return [
        UserPrompt(prompt=_checked_prompt(line, f"'{source}', line {number}"))
        for number, line in text_lines(text, first_line)
    ]


def table_prompts(table: Table) -> list[UserPrompt]:
    """Return the prompts of `table`, with the language of those that name one."""
    column = table.column(PROMPT_COLUMNS)
    prompts = []
    for record in table.records:
        lang = record.value(LANGUAGE_COLUMNS)
        prompts.append(
            UserPrompt(
                prompt=_checked_prompt(_prompt_text(record, column), table.where(record)),
                lang=None if lang is None else language(str(lang)).code,
            )
        )
    return prompts


def taken(table: Table, columns: str | Sequence[str], count: int) -> str:
    """Return one line that says what was read from `table`."""
    named = columns if isinstance(columns, str) else ", ".join(columns)
    return f"'{table.source}': {count} prompts from '{named}' ({table.format})"


def _label_and_path(source: str | Path) -> tuple[str | None, Path]:
    """Split LABEL=FILE; a path alone has no label."""
    prefix, sign, rest = str(source).partition("=")
    if sign and prefix in LABELS and rest:
        return prefix, Path(rest)
    return None, Path(source)


def _prompt_text(record: Record, column: str) -> str:
    return record.text((column,)) or ""


def _label(record: Record, default: str | None, where: str) -> str:
    """Return the label of a record; raises `GuardError` where nobody says."""
    named = record.value(LABEL_COLUMNS)
    if named is None:
        if default is None:
            raise GuardError(
                f"{where}: no label; expected 'label', or give the file as harmful=FILE or harmless=FILE"
            )
        return default
    label = LABEL_NAMES.get(str(named).strip().lower())
    if label is None:
        raise GuardError(f"{where}: label '{named}'; expected harmful or harmless")
    return label


def _checked_kind(kind: str, where: str) -> str:
    kind = kind.strip()
    if not kind.isprintable() or kind in ("", *KINDS_OF_THE_BUILD):
        raise GuardError(
            f"{where}: kind '{kind.encode('unicode_escape').decode()}'; expected a name of your own "
            "on one line, "
            f"not {' or '.join(KINDS_OF_THE_BUILD)}"
        )
    return kind


def _checked_prompt(prompt: str, where: str) -> str:
    if not prompt.strip():
        raise GuardError(f"{where}: an empty prompt cannot be scored; remove the line or fill it")
    if REPLACEMENT in prompt:
        raise GuardError(
            f"{where}: the prompt holds half a surrogate pair or U+FFFD, the mark of a lost character; fix it"
        )
    return prompt
