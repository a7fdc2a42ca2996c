"""Answers of the unedited model that `eval run` has made already, and that it need not make after us."""

from __future__ import annotations

from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.generate import Answer
from polyrefuse_eval.processes import world_size
from polyrefuse_eval.results.baseline_cache import BaselineAnswer, BaselineCache, prompt_hash
from polyrefuse_eval.results.content_cache import can_be_kept


class KnownAnswers:
    """The kept answers of `chat` of at most `max_new_tokens` tokens; `add` new ones, then `keep` them.

    There are none of a model whose weights have no name, of one that several processes share (all of them
    must take the same steps), and of one that may think before it answers, as it does in `eval run` alone.
    """

    def __init__(self, chat: ChatModel, max_new_tokens: int) -> None:
        signature = chat.signature()
        self._cache: BaselineCache | None = None
        if can_be_kept(signature) and world_size() == 1 and not chat.template.thinking:
            self._cache = BaselineCache(signature, max_new_tokens)
        self._known: dict[str, dict[str, BaselineAnswer]] = {}
        self._added: dict[str, list[BaselineAnswer]] = {}

    def get(self, lang: str, prompt: str) -> str | None:
        """Return the answer to `prompt`, None where it is not known."""
        if self._cache is None:
            return None
        if lang not in self._known:
            self._known[lang] = self._cache.load(lang)
        answer = self._known[lang].get(prompt_hash(prompt))
        return None if answer is None else answer.response

    def add(self, lang: str, prompt: str, answer: Answer) -> None:
        """Note an answer to `prompt`, which is without edits."""
        self._added.setdefault(lang, []).append(
            BaselineAnswer(
                prompt_hash=prompt_hash(prompt),
                response=answer.text,
                n_tokens=len(answer.ids),
                ended=answer.ended,
            )
        )

    def keep(self) -> None:
        """Keep what was added."""
        if self._cache is not None:
            for lang, answers in self._added.items():
                self._cache.add(lang, answers)
        self._added = {}
