"""Answers of unedited models, kept so that none is generated twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from polyrefuse_data.core.files import make_folder
from polyrefuse_data.core.schema import text_hash
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.results.files import locked
from polyrefuse_eval.results.folder import Signature, read_jsonl, write_jsonl

ENVIRONMENT = "POLYREFUSE_CACHE"


@dataclass(frozen=True)
class BaselineAnswer:
    """An unedited greedy answer to the prompt with sha256 `prompt_hash`."""

    prompt_hash: str
    response: str
    n_tokens: int
    ended: bool
    reasoning: str | None = None


def cache_folder() -> Path:
    """Return where caches lie: `$POLYREFUSE_CACHE`, else the user's cache folder."""
    given = os.environ.get(ENVIRONMENT)
    if given:
        return Path(given)
    from platformdirs import user_cache_path

    return user_cache_path("polyrefuse")


class BaselineCache:
    """Baseline answers of one model, template and length limit, by language and prompt."""

    def __init__(self, model: Signature, max_new_tokens: int, folder: Path | None = None) -> None:
        key = json.dumps([dict(model), max_new_tokens], sort_keys=True)
        name = hashlib.sha256(key.encode("utf-8")).hexdigest()[:24]
        self.path = (folder or cache_folder()) / "baselines" / name

    def load(self, lang: str) -> dict[str, BaselineAnswer]:
        """Return what is known in `lang`, by the hash of the prompt."""
        records = read_jsonl(self.path / f"{lang}.jsonl")
        return {record["prompt_hash"]: BaselineAnswer(**record) for record in records}

    def add(self, lang: str, answers: Mapping[str, BaselineAnswer] | Iterable[BaselineAnswer]) -> None:
        """Add `answers` in `lang`; the file is replaced whole. Several runs may do so at the same time."""
        new = answers.values() if isinstance(answers, Mapping) else answers
        make_folder(self.path, private=True, error=RunFolderError)
        with locked(self.path, wait=True):
            known = self.load(lang)
            known.update((answer.prompt_hash, answer) for answer in new)
            write_jsonl(self.path / f"{lang}.jsonl", (asdict(known[key]) for key in sorted(known)))


def prompt_hash(prompt: str) -> str:
    """Return the key of `prompt` in the cache."""
    return text_hash(prompt)
