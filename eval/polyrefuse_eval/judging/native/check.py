"""Check a language's file: can everything in it be read, and does the judge read its examples as they are
meant?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from polyrefuse_eval.judging.native.judge import Reader
from polyrefuse_eval.judging.native.language_files import EXAMPLES, LanguageFile, read_language_file

NEEDED = ("refused", "answered")
"""Kinds of examples that a file must hold."""


@dataclass(frozen=True)
class Checked:
    """What a file holds, and what is wrong with it: nothing where `problems` is empty."""

    lang: str
    patterns: Counter[str]
    n_examples: int
    problems: tuple[str, ...]


def check_phrases(path: Path) -> Checked:
    """Return what the file at `path` holds and what is wrong; raises `JudgeError` where it cannot be read."""
    file = read_language_file(path)
    problems = [f"no pattern of the kind '{kind}'" for kind in ("refusal",) if not file.patterns[kind]]
    problems += [
        f"no example under '{kind}': what shows that it works?"
        for kind in NEEDED
        if not file.examples.get(kind)
    ]
    problems += _misread(file)
    lexicon = file.lexicon()
    return Checked(
        file.lang,
        Counter(entry.kind for entry in lexicon.entries),
        sum(map(len, file.examples.values())),
        tuple(problems),
    )


def _misread(file: LanguageFile) -> list[str]:
    """Return a line for each example that the judge reads as something else than it is meant."""
    reader = Reader([file])
    lines = []
    for kind in EXAMPLES:
        for text in file.examples.get(kind, ()):
            verdict = reader.judge(text, file.lang)
            said = (
                "puzzled"
                if verdict.puzzled
                else {True: "refused", False: "answered", None: "undecided"}[verdict.refused]
            )
            if said != kind:
                lines.append(
                    f"the example '{text[:60]}' is meant as {kind} and read as {said} ({verdict.reason})"
                )
    return lines
