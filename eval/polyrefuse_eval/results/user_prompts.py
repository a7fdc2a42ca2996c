"""Prompts that a user brings: text files, JSON Lines, and the published formats of jailbreaks.

Every reader gives `UserPrompt`s; nothing is generated and nothing is shipped.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyrefuse_data.core.errors import unknown_name
from polyrefuse_data.core.languages import SOURCE_LANGUAGE, language
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.core.schema import LABELS
from polyrefuse_eval.errors import GuardError

FIELDS = ("prompt", "label", "lang", "kind")
OWN_KINDS = ("all", "data")
"""What results call all prompts of a language, and those of the build."""


@dataclass(frozen=True)
class UserPrompt:
    """A prompt with its label (harmful, harmless; None where nobody says), language and kind."""

    prompt: str
    label: str | None = None
    lang: str | None = None
    kind: str = "extra"


def read_extra(path: Path) -> list[UserPrompt]:
    """Return the prompts of a JSON Lines file with `prompt`, `label`, `lang` and `kind` on every line.

    Raises `GuardError` with the line's number otherwise.
    """
    found = []
    for number, record in _json_lines(path, _text(path)):
        missing = [name for name in FIELDS if not isinstance(record.get(name), str)]
        if missing:
            raise GuardError(f"'{path}', line {number}: no text in {', '.join(missing)}; expected {FIELDS}")
        if record["label"] not in LABELS:
            raise GuardError(
                f"'{path}', line {number}: label '{record['label']}'; expected harmful or harmless"
            )
        where = f"'{path}', line {number}"
        kind = record["kind"].strip()
        if not kind.isprintable() or kind in ("", *OWN_KINDS):
            raise GuardError(
                f"{where}: kind '{kind.encode('unicode_escape').decode()}'; expected a name of your own on "
                f"one line, not {' or '.join(OWN_KINDS)}"
            )
        lang = language(record["lang"]).code
        found.append(UserPrompt(_filled(record["prompt"], where), record["label"], lang, kind))
    return _some(found, path)


def read_prompts(path: Path | None, given: bytes = b"") -> list[UserPrompt]:
    """Return the prompts to score: of a `.jsonl` file with `prompt` (and maybe `lang`), or of any other
    text, one a line; without `path` those `given`, JSON Lines if their first line is a JSON object."""
    where: Path | str = "standard input" if path is None else path
    content = _decoded(given, where) if path is None else _text(path)
    as_json = path.suffix == ".jsonl" if path is not None else content.lstrip().startswith("{")
    if not as_json:
        return _some(
            [
                UserPrompt(_filled(line.removesuffix("\r"), f"'{where}', line {number}"))
                # Not str.splitlines, which would cut a prompt at a form feed or U+2028.
                for number, line in enumerate(content.removesuffix("\n").split("\n"), 1)
                if content
            ],
            where,
        )
    found = []
    for number, record in _json_lines(where, content):
        if not isinstance(record.get("prompt"), str):
            raise GuardError(f"'{where}', line {number} has no text in 'prompt'")
        lang = record.get("lang")
        prompt = _filled(record["prompt"], f"'{where}', line {number}")
        found.append(UserPrompt(prompt, None, None if lang is None else language(str(lang)).code))
    return _some(found, where)


def table(path: Path) -> list[Mapping[str, Any]]:
    """Return the records of a `.csv`, `.jsonl` or `.json` file: a list of objects, an object with one
    such list (as `jailbreaks` of JailbreakBench's artifacts), or an object of columns of one length.

    Raises `GuardError`.
    """
    text = _text(path)
    if path.suffix == ".csv":
        try:
            return list(csv.DictReader(io.StringIO(text, newline="")))
        except csv.Error as error:
            raise GuardError(f"'{path}' is no CSV that can be read: {error}") from None
    if path.suffix == ".jsonl":
        return [record for _, record in _json_lines(path, text)]
    try:
        value = parse_json(text)
    except ValueError as error:
        raise GuardError(f"'{path}' is no JSON: {error}") from None
    return _records(value, path)


def _records(value: Any, path: Path) -> list[Mapping[str, Any]]:
    if isinstance(value, list) and all(isinstance(record, dict) for record in value):
        return value
    if isinstance(value, dict):
        columns = {name: column for name, column in value.items() if isinstance(column, list)}
        if len(columns) == 1:
            (only,) = columns.values()
            if all(isinstance(record, dict) for record in only):
                return only
        if columns and len({len(column) for column in columns.values()}) == 1:
            return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    raise GuardError(f"'{path}' holds neither a list of records nor columns of one length")


def _json_lines(where: object, text: str) -> Iterable[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except ValueError:
            raise GuardError(f"'{where}', line {number} is no JSON") from None
        if not isinstance(record, dict):
            raise GuardError(f"'{where}', line {number} is no JSON object")
        yield number, record


def _text(path: Path) -> str:
    try:
        return _decoded(path.read_bytes(), path)
    except OSError as error:
        raise GuardError(f"'{path}' cannot be read: {error.strerror}") from None


def _decoded(content: bytes, where: object) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise GuardError(f"'{where}', line {line} is no UTF-8 text: {error.reason}") from None


def _filled(prompt: str, where: str) -> str:
    if not prompt.strip():
        raise GuardError(f"{where}: an empty prompt cannot be scored; remove the line or fill it")
    if any("\ud800" <= letter <= "\udfff" for letter in prompt):
        raise GuardError(f"{where}: the prompt holds half a surrogate pair, which is no letter; mend it")
    return prompt


def _some(found: Sequence[UserPrompt], where: object) -> list[UserPrompt]:
    if not found:
        raise GuardError(f"no prompts in '{where}'")
    return list(found)


DEFAULT_LANG = SOURCE_LANGUAGE
"""The language of published jailbreaks that name none."""


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
