"""A user's own prompts in the form of a build's test prompts: their kind stands for the source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from polyrefuse_data.core.schema import Row, group_id
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.user_prompts import UserPrompt

RECIPE = "user-prompts"
"""The recipe of a run's data where these are a user's own prompts."""

ID_LENGTH = 16


@dataclass(frozen=True)
class UserPromptData(DataFolder):
    """Test prompts by language; a language may have none. `path` names them in messages alone."""

    by_lang: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)

    @property
    def languages(self) -> list[str]:
        """Codes of the languages that are measured, with and without prompts."""
        return sorted(self.by_lang)

    def has(self, lang: str, split: str) -> bool:
        """Return whether there are prompts of this language and split."""
        return split == "test" and bool(self.by_lang.get(lang))

    def rows(self, lang: str, split: str) -> list[Row]:
        """Return the prompts of one language; none of splits but `test`."""
        return list(self.by_lang.get(lang, ())) if split == "test" else []


def user_prompt_data(prompts: Sequence[UserPrompt], langs: Sequence[str]) -> UserPromptData:
    """Return `prompts` as data of a run in `langs`; a prompt that is there twice counts once.

    Raises `RunFolderError` where there are no prompts, or they are in other languages: none is left out
    unsaid.
    """
    foreign = sorted({str(prompt.lang) for prompt in prompts} - set(langs))
    if foreign:
        raise RunFolderError(
            f"prompts of --extra or --jailbreaks are in {', '.join(foreign)}, which is not among --langs "
            f"({', '.join(langs)}); add it there"
        )
    if not prompts:
        raise RunFolderError("--extra and --jailbreaks hold no prompts")
    rows: dict[str, Row] = {}
    for prompt in prompts:
        row = _row(prompt)
        rows.setdefault(row.id, row)
    text = json.dumps([[row.id, row.lang, row.label, row.text] for row in rows.values()])
    return UserPromptData(
        path=Path("--extra"),
        digest=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        recipe=RECIPE,
        by_lang={lang: tuple(row for row in rows.values() if row.lang == lang) for lang in langs},
    )


def _row(prompt: UserPrompt) -> Row:
    label, lang = prompt.label or "harmful", prompt.lang or "en"
    named = json.dumps([prompt.kind, label, lang, prompt.prompt])
    digest = hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:ID_LENGTH]
    return Row(
        id=f"user-{digest}",
        group=group_id(prompt.prompt, label),
        lang=lang,
        text=prompt.prompt,
        text_en=prompt.prompt if lang == "en" else "",
        label=label,
        split="test",
        category=None,
        source_category=None,
        source=prompt.kind,
        source_licence="",
        translator="original",
        duplicate_of=None,
    )
