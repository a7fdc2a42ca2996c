"""Completions of unedited models, cached so that none is generated twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import with_config

from polyrefuse_data.core.files import make_folder
from polyrefuse_data.core.schema import text_hash
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.results.content_cache import cache_folder, is_behind_link
from polyrefuse_eval.results.files import json_line, locked, write_text
from polyrefuse_eval.results.folder import Signature
from polyrefuse_eval.results.records import Completion
from polyrefuse_eval.results.validation import STRICT, read_records


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class BaselineAnswer:
    """A greedy answer of an unedited model to the prompt with sha256 `prompt_hash`."""

    prompt_hash: str
    response: str
    n_tokens: int
    ended: bool
    reasoning: str | None = None


class BaselineCache:
    """Baseline answers of one model, template and length limit, by language and prompt."""

    def __init__(self, model: Signature, max_new_tokens: int, folder: Path | None = None) -> None:
        key = json.dumps([dict(model), max_new_tokens], sort_keys=True)
        name = hashlib.sha256(key.encode("utf-8")).hexdigest()[:24]
        self._root = folder or cache_folder()
        self.path = self._root / "baselines" / name

    def load(self, lang: str) -> dict[str, BaselineAnswer]:
        """Return the answers in `lang` by the hash of the prompt; none where they cannot be read."""
        file = self.path / f"{lang}.jsonl"
        if is_behind_link(file, self._root):
            return {}
        with suppress(OSError):
            os.utime(file)  # used: the last to be pruned
        try:
            answers = read_records(BaselineAnswer, file)
        except RunFolderError:  # what it held can be generated again
            return {}
        return {answer.prompt_hash: answer for answer in answers}

    def add(self, lang: str, answers: Iterable[BaselineAnswer]) -> None:
        """Add `answers` in `lang`, and replace the file whole. Several runs may do so at the same time.

        A cache that cannot be written is no error.
        """
        if is_behind_link(self.path, self._root):
            return
        with suppress(RunFolderError):
            make_folder(self.path, private=True, error=RunFolderError)
            with locked(self.path, wait=True):
                known = self.load(lang)
                known.update((answer.prompt_hash, answer) for answer in answers)
                lines = [json_line(asdict(known[key])) for key in sorted(known)]
                write_text(self.path / f"{lang}.jsonl", "".join(lines), private=True)

    def add_completions(
        self, lang: str, completions: Iterable[Completion], prompts: Mapping[str, str]
    ) -> None:
        """Add those of `completions` whose key is in `prompts`: keys of baselines to their prompts."""
        self.add(
            lang,
            [
                BaselineAnswer(
                    prompt_hash=prompt_hash(prompts[completion.key]),
                    response=completion.response,
                    n_tokens=completion.n_tokens or 0,
                    ended=bool(completion.ended),
                    reasoning=completion.reasoning,
                )
                for completion in completions
                if completion.key in prompts
            ],
        )


def prompt_hash(prompt: str) -> str:
    """Return the key of `prompt` in the cache."""
    return text_hash(prompt)
