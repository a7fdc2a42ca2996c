"""Read published test sets of labelled prompts from a user's file, each by the columns of its publication.

No prompt is shipped or fetched here. `PROMPT_SETS` is the table of known sets: where a set was published, the
columns that its file must have, and how its labels are read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyrefuse_data.core.display import counted
from polyrefuse_data.core.errors import unknown_name
from polyrefuse_data.core.languages import LANGUAGES, SOURCE_LANGUAGE
from polyrefuse_data.core.packed_tables import parse_published_table
from polyrefuse_data.core.reading import Record, Table, read_bytes
from polyrefuse_data.core.surrogates import REPLACEMENT
from polyrefuse_eval.errors import GuardError
from polyrefuse_eval.results.user_prompts import Say, UserPrompt, silent

MODERATION_FLAGS = {
    "S": "sexual",
    "H": "hate",
    "V": "violence",
    "HR": "harassment",
    "SH": "self-harm",
    "S3": "sexual/minors",
    "H2": "hate/threatening",
    "V2": "violence/graphic",
}
"""Columns of the OpenAI moderation evaluation and the categories that they flag (Markov et al. 2022)."""

_FLAGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


@dataclass(frozen=True)
class PublishedPrompt(UserPrompt):
    """A prompt of a published set; `kind` is the set's name, `categories` what the set calls its content."""

    categories: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LabelledRecord:
    """What a record of a set says: `harmful` is None where it has no label, `lang` a code or English name."""

    prompt: str | None
    harmful: bool | None
    categories: tuple[str, ...] = ()
    lang: str = SOURCE_LANGUAGE


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """A published set: its `source`, the `columns` that its file must have, and what its `labels` mean.

    `read` takes a record of the file and raises `ValueError` for a label that the set does not know.
    """

    source: str
    columns: tuple[str, ...]
    labels: str
    read: Callable[[Record], LabelledRecord]


@dataclass(frozen=True, kw_only=True)
class PromptSetFile:
    """The prompts of a published set in a user's file, whose content has the hash `sha256`."""

    name: str
    sha256: str
    prompts: tuple[PublishedPrompt, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what a result cites: no prompt."""
        known = PROMPT_SETS[self.name]
        return {
            "source": known.source,
            "labels": known.labels,
            "sha256": self.sha256,
            "prompts": dict(Counter(str(prompt.label) for prompt in self.prompts)),
        }


def _toxicchat(record: Record) -> LabelledRecord:
    jailbreaking = _flag(record, "jailbreaking")
    return LabelledRecord(
        prompt=record.text(("user_input",)),
        harmful=_flag(record, "toxicity"),
        categories=() if jailbreaking is None else ("jailbreaking" if jailbreaking else "not jailbreaking",),
    )


def _openai_moderation(record: Record) -> LabelledRecord:
    flags = {category: _flag(record, column) for column, category in MODERATION_FLAGS.items()}
    known = [flag for flag in flags.values() if flag is not None]
    return LabelledRecord(
        prompt=record.text(("prompt",)),
        harmful=any(known) if known else None,
        categories=tuple(category for category, flag in flags.items() if flag),
    )


def _xstest(record: Record) -> LabelledRecord:
    kind = str(record.value(("type",)) or "")
    label = record.value(("label",))
    if label is None:
        label = "unsafe" if kind.startswith("contrast_") else "safe"
    return LabelledRecord(
        prompt=record.text(("prompt",)),
        harmful=_named(label, {"unsafe": True, "safe": False}, "label"),
        categories=(kind,) if kind else (),
    )


def _sorry_bench(record: Record) -> LabelledRecord:
    category, style = record.value(("category",)), str(record.value(("prompt_style",)) or "base")
    translated = style.removeprefix("translate-") if style.startswith("translate-") else None
    return LabelledRecord(
        prompt=record.text(("turns",)),
        harmful=True,
        categories=(*([] if category is None else [f"category {category}"]), f"style {style}"),
        lang=SOURCE_LANGUAGE if translated is None else translated.partition("-")[0],
    )


def _harmbench(record: Record) -> LabelledRecord:
    behavior, context = record.text(("Behavior",)), record.text(("ContextString",))
    categories = (record.text((column,)) for column in ("FunctionalCategory", "SemanticCategory"))
    return LabelledRecord(
        prompt=f"{context}\n\n---\n\n{behavior}" if behavior and context else behavior,
        harmful=True,
        categories=tuple(dict.fromkeys(category for category in categories if category)),
    )


def _polyguardprompts(record: Record) -> LabelledRecord:
    label, subcategory = record.value(("prompt_harm_label",)), record.text(("subcategory",))
    adversarial = _flag(record, "adversarial")
    known = {"harmful": True, "unharmful": False}
    return LabelledRecord(
        prompt=record.text(("prompt",)),
        harmful=None if label is None else _named(label, known, "prompt_harm_label"),
        categories=(
            *([subcategory] if subcategory else []),
            *([] if adversarial is None else ["adversarial" if adversarial else "vanilla"]),
        ),
        lang=str(record.value(("language",)) or ""),
    )


PROMPT_SETS: dict[str, PromptSet] = {
    "toxicchat": PromptSet(
        source="ToxicChat (Lin et al. 2023), lmsys/toxic-chat",
        columns=("user_input", "toxicity"),
        labels="toxicity 1 is harmful, 0 harmless",
        read=_toxicchat,
    ),
    "openai-moderation": PromptSet(
        source="OpenAI moderation evaluation (Markov et al. 2022), samples-1680.jsonl.gz",
        columns=("prompt", "S", "H", "V"),
        labels=f"any of {', '.join(MODERATION_FLAGS)} 1 is harmful, else harmless; an absent flag is unknown",
        read=_openai_moderation,
    ),
    "xstest": PromptSet(
        source="XSTest (Röttger et al. 2024), xstest_prompts.csv",
        columns=("prompt", "type"),
        labels="label unsafe is harmful, safe harmless; without labels, types contrast_… are harmful",
        read=_xstest,
    ),
    "sorry-bench": PromptSet(
        source="SORRY-Bench (Xie et al. 2025), sorry-bench-202406 or -202503, question*.jsonl",
        columns=("turns", "category"),
        labels="every prompt is harmful",
        read=_sorry_bench,
    ),
    "harmbench": PromptSet(
        source="HarmBench (Mazeika et al. 2024), harmbench_behaviors_text_*.csv",
        columns=("Behavior", "BehaviorID"),
        labels="every behaviour is harmful; its context, where it has one, stands before it",
        read=_harmbench,
    ),
    "polyguardprompts": PromptSet(
        source="PolyGuardPrompts (Kumar et al. 2025), ToxicityPrompts/PolyGuardPrompts",
        columns=("prompt", "prompt_harm_label", "language"),
        labels="prompt_harm_label harmful is harmful, unharmful harmless",
        read=_polyguardprompts,
    ),
}
"""By the name that `guard test --prompt-set NAME=FILE` takes."""


def read_prompt_set(text: str, say: Say = silent) -> PromptSetFile:
    """Return the prompts of `NAME=FILE`, with NAME one of `PROMPT_SETS`.

    `say` gets one line with the label mapping and the counts, and one for each reason why records are left
    out: no prompt, no label, or a language that is not known. Raises `GuardError` or `FileFormatError`, with
    the place, for a file that is not in the set's format.
    """
    name, sign, place = text.partition("=")
    if not sign or not place:
        raise GuardError(f"'{text}': expected NAME=FILE with NAME one of {', '.join(PROMPT_SETS)}")
    if name not in PROMPT_SETS:
        raise unknown_name("prompt set", name, PROMPT_SETS)
    known, path = PROMPT_SETS[name], Path(place)
    content = read_bytes(path)
    table = parse_published_table(content, str(path))
    _check_columns(table, name, known)
    prompts: list[PublishedPrompt] = []
    left_out: Counter[str] = Counter()
    for record in table.records:
        try:
            labelled = known.read(record)
        except ValueError as error:
            raise GuardError(f"{table.where(record)}: {error}") from None
        lang = _language_code(labelled.lang)
        if labelled.prompt is None or REPLACEMENT in labelled.prompt:
            left_out["no prompt, or one with lost characters"] += 1
        elif labelled.harmful is None:
            left_out["no label"] += 1
        elif lang is None:
            left_out[f"language '{labelled.lang}'"] += 1
        else:
            prompts.append(
                PublishedPrompt(
                    prompt=labelled.prompt,
                    label="harmful" if labelled.harmful else "harmless",
                    lang=lang,
                    kind=name,
                    categories=labelled.categories,
                )
            )
    if not prompts:
        raise GuardError(f"'{path}' holds no prompt of {name} that can be tested: {_reasons(left_out)}")
    _say_what_was_read(path, name, prompts, left_out, say)
    return PromptSetFile(name=name, sha256=hashlib.sha256(content).hexdigest(), prompts=tuple(prompts))


def _say_what_was_read(
    path: Path, name: str, prompts: Sequence[PublishedPrompt], left_out: Counter[str], say: Say
) -> None:
    counts = Counter(prompt.label for prompt in prompts)
    say(
        f"'{path}': {counted(len(prompts), 'prompt')} of {name}, {counts['harmful']} harmful and "
        f"{counts['harmless']} harmless ({PROMPT_SETS[name].labels})"
    )
    if left_out:
        say(f"'{path}': left out {_reasons(left_out)}")


def _reasons(left_out: Counter[str]) -> str:
    return "; ".join(f"{counted(count, 'record')} with {reason}" for reason, count in left_out.items())


def _check_columns(table: Table, name: str, known: PromptSet) -> None:
    present = {str(column).strip().casefold() for record in table.records for column in record.values}
    missing = [column for column in known.columns if column.casefold() not in present]
    if missing:
        raise GuardError(
            f"'{table.source}' is not in the format of {name}: no column {', '.join(missing)}; expected "
            f"{', '.join(known.columns)}, as in {known.source}"
        )


def _language_code(name: str) -> str | None:
    """Return the code of the language that `name`, a code or an English name, means; None if unknown."""
    folded = name.strip().casefold()
    codes = (code for code, row in LANGUAGES.items() if folded in (code, row.name.casefold()))
    return next(codes, None)


def _flag(record: Record, column: str) -> bool | None:
    """Return the binary label in `column`, None where it is absent; raises `ValueError` for other values."""
    value = record.value((column,))
    return None if value is None else _named(value, _FLAGS, column)


def _named(value: Any, meanings: dict[str, bool], column: str) -> bool:
    folded = str(value).strip().casefold()
    if folded not in meanings:
        raise ValueError(f"{column} is '{value}'; expected {' or '.join(_shown(meanings))}")
    return meanings[folded]


def _shown(meanings: dict[str, bool]) -> list[str]:
    """Return one spelling of each meaning: the first."""
    return list({meaning: name for name, meaning in reversed(meanings.items())}.values())[::-1]
