"""Refusal tokens and directions of a model on a data set: found once, then read from the run's folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from polyrefuse_data.core.languages import SOURCE_LANGUAGE
from polyrefuse_data.core.schema import Row
from polyrefuse_eval.directions.fit import (
    Direction,
    DirectionSet,
    direction_at,
    fit_directions,
    random_direction,
)
from polyrefuse_eval.directions.refusal_tokens import RefusalTokens, find_refusal_tokens, parse_refusal_tokens
from polyrefuse_eval.directions.scoring import CandidateScorer, choose_direction, prompts_with_tendency
from polyrefuse_eval.directions.selection import write_scores
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.judging.native import judge as native
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.data import Prompts
from polyrefuse_eval.results.folder import read_json, write_json
from polyrefuse_eval.results.settings import POOLED, BenchSettings

N_TOKEN_PROMPTS = 32
"""Prompts of each label whose answers show how refusals begin."""


@dataclass
class DirectionFinder:
    """Finds the directions of `chat` on `data` and keeps what it finds under `path`."""

    chat: ChatModel
    data: Prompts
    settings: BenchSettings
    path: Path
    progress: bool = False
    say: Callable[[str], None] = lambda _line: None
    _tokens: dict[str, RefusalTokens] = field(default_factory=dict)

    def tokens(self, lang: str) -> RefusalTokens:
        """Return the refusal tokens of `lang`: given, found before, or found now."""
        file = self.path / "refusal_tokens" / f"{lang}.json"
        if lang not in self._tokens:
            if self.settings.refusal_tokens:
                found = parse_refusal_tokens(self.chat, self.settings.refusal_tokens, lang)
            elif file.is_file():
                found = RefusalTokens.from_json(read_json(file))
            else:
                harmful, harmless = (
                    [row.text for row in rows[:N_TOKEN_PROMPTS]] for rows in self._train(lang)
                )
                found = find_refusal_tokens(
                    self.chat, harmful, harmless, lang, native.refuses, progress=self.progress
                )
            write_json(file, found.to_json())
            self._tokens[lang] = found
        return self._tokens[lang]

    def extract(self, lang: str, *, shuffle_labels: int | None = None) -> DirectionSet:
        """Fit the directions of `lang` from its training prompts; of `pooled` from all languages'."""
        parts = [(one, *self._train(one)) for one in (self.settings.langs if lang == POOLED else (lang,))]
        harmful = [row for _, rows, _ in parts for row in rows]
        harmless = [row for _, _, rows in parts for row in rows]
        tokens = None
        if self.settings.filter_prompts:
            tokens = [self.tokens(row.lang) for row in [*harmful, *harmless]]
        groups = {"harmful": _groups(harmful), "harmless": _groups(harmless)}
        return fit_directions(
            self.chat,
            [row.text for row in harmful],
            [row.text for row in harmless],
            lang=lang,
            refusal_tokens=tokens,
            shuffle_labels=shuffle_labels,
            metadata={"data": self.data.digest, "groups": groups, "languages": [one for one, _, _ in parts]},
            progress=self.progress,
        )

    def direction(self, lang: str) -> Direction:
        """Return the chosen direction of `lang`, from the folder where it is there already."""
        file = self.path / "directions" / f"{lang}.safetensors"
        if file.is_file():
            return Direction.load(file, self.chat)
        directions = self.extract(lang)
        directions.save(file.with_name(f"{lang}.all.safetensors"))
        home = self._home(lang)
        scorer = CandidateScorer(
            self.chat,
            directions,
            self._validation(home, "harmful"),
            self._validation(home, "harmless"),
            self.tokens(home),
            progress=self.progress,
        )
        if self.settings.all_candidates:
            scorer.complete()
        direction, chosen = choose_direction(scorer, self.settings.rule)
        (self.path / "scores").mkdir(exist_ok=True)
        write_scores(self.path / "scores" / f"{lang}.json", scorer.all_scores())
        direction.save(file)
        self.say(
            f"direction {lang}: position {direction.position.label}, layer {direction.layer} of "
            f"{self.chat.n_layers} (rule {chosen.rule}, step '{chosen.step}')"
        )
        if (chosen.score.refusal_score or 0.0) > 0:
            self.say(
                f"direction {lang} leaves the model refusing (refusal score {chosen.score.refusal_score:.1f} "
                "under ablation): what it does says little; --rule mediating may find a better one"
            )
        return direction

    def control(self, direction: Direction) -> Direction:
        """Return the direction from shuffled labels at the place, and with the norm, of `direction`."""
        file = self.path / "directions" / f"{direction.lang}.shuffled.safetensors"
        if file.is_file():
            return Direction.load(file, self.chat)
        directions = self.extract(direction.lang, shuffle_labels=self.settings.seed)
        found = direction_at(directions, direction.position, direction.layer)
        found = replace(found, norm=direction.norm, kind="shuffled_labels")
        found.save(file)
        return found

    def all_directions(self, on_finished: Callable[[], None] = lambda: None) -> dict[str, Direction]:
        """Return the directions of the settings' languages by source, then the controls of the first.

        A language whose prompts give no direction is left out with a line; raises `DirectionError` where
        none gives one. Calls `on_finished` after each direction.
        """
        found: dict[str, Direction] = {}
        failed: DirectionError | None = None
        for lang in self.settings.direction_langs:
            try:
                found[lang] = self.direction(lang)
                on_finished()
            except DirectionError as error:
                self.say(f"no direction from '{lang}', which is left out: {error}")
                failed = error
        if failed is not None and not found:
            raise failed
        if self.settings.controls and found:
            first = next(iter(found.values()))
            found["random"] = random_direction(first, self.settings.seed)
            try:
                found["shuffled"] = self.control(first)
            except DirectionError as error:
                self.say(f"no control from shuffled labels: {error}")
        return found

    def _train(self, lang: str) -> tuple[list[Row], list[Row]]:
        harmful, harmless = (
            self.data.prompts(lang, "train", label, self.settings.n_train)
            for label in ("harmful", "harmless")
        )
        return harmful, harmless

    def _validation(self, lang: str, label: str) -> list[str]:
        rows = self.data.prompts(lang, "validation", label, self.settings.n_validation)
        texts = [row.text for row in rows]
        if not self.settings.filter_prompts:
            return texts
        return prompts_with_tendency(self.chat, texts, self.tokens(lang), refuse=label == "harmful")

    def _home(self, lang: str) -> str:
        """The language whose validation prompts and refusal tokens choose the direction of `lang`."""
        if lang != POOLED:
            return lang
        return SOURCE_LANGUAGE if SOURCE_LANGUAGE in self.settings.langs else self.settings.langs[0]


def _groups(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.group for row in rows))
