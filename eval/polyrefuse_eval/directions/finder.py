"""Refusal tokens and directions of a model on a data set, found once and kept in a run's folder."""

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
)
from polyrefuse_eval.directions.refusal_tokens import RefusalTokens, find_refusal_tokens, parse_refusal_tokens
from polyrefuse_eval.directions.scoring import CandidateScorer, choose_direction, prompts_with_tendency
from polyrefuse_eval.directions.selection import write_scores
from polyrefuse_eval.judging.native import judge as native
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.data import Prompts
from polyrefuse_eval.results.folder import read_json, write_json
from polyrefuse_eval.results.settings import POOLED, RunSettings

N_TOKEN_PROMPTS = 32
"""Prompts of each label whose answers refusal tokens are taken from."""


@dataclass
class DirectionFinder:
    """Find the directions of `chat` on `data`, and keep them in the folder `path`."""

    chat: ChatModel
    data: Prompts
    settings: RunSettings
    path: Path
    progress: bool = False
    say: Callable[[str], None] = lambda _line: None
    _tokens: dict[str, RefusalTokens] = field(default_factory=dict)

    def tokens(self, lang: str) -> RefusalTokens:
        """Return the refusal tokens of `lang`: those of the settings, of the folder, or found now."""
        file = self.path / "refusal_tokens" / f"{lang}.json"
        if lang not in self._tokens:
            if self.settings.refusal_tokens:
                tokens = parse_refusal_tokens(self.chat, self.settings.refusal_tokens, lang)
            elif file.is_file():
                tokens = RefusalTokens.from_json(read_json(file))
            else:
                harmful, harmless = (
                    [row.text for row in rows[:N_TOKEN_PROMPTS]] for rows in self._train(lang)
                )
                tokens = find_refusal_tokens(
                    self.chat, harmful, harmless, lang, native.refuses, progress=self.progress
                )
            write_json(file, tokens.to_json())
            self._tokens[lang] = tokens
        return self._tokens[lang]

    def extract(self, lang: str, *, shuffle_labels: int | None = None) -> DirectionSet:
        """Fit the directions of `lang` on its training prompts, of `pooled` on those of all languages."""
        langs = self.settings.langs if lang == POOLED else (lang,)
        parts = [self._train(source) for source in langs]
        harmful = [row for rows, _ in parts for row in rows]
        harmless = [row for _, rows in parts for row in rows]
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
            metadata={"data": self.data.digest, "groups": groups, "languages": list(langs)},
            progress=self.progress,
        )

    def direction(self, lang: str) -> Direction:
        """Return the selected direction of `lang`, from the folder if it is there.

        Raises `DirectionError` where the prompts of `lang` give none.
        """
        file = self.path / direction_file(lang)
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
        self.say(
            f"direction {lang}: {len(scorer.candidates)} candidates, {len(scorer.harmful)} harmful and "
            f"{len(scorer.harmless)} harmless prompts to select one by"
        )
        if self.settings.all_candidates:
            scorer.complete()
        direction, chosen = choose_direction(scorer, self.settings.rule)
        (self.path / "scores").mkdir(exist_ok=True)
        write_scores(self.path / "scores" / f"{lang}.json", scorer.all_scores(), scorer.dropped)
        direction.save(file)
        self.say(
            f"direction {lang}: position {direction.position.label}, layer {direction.layer} of "
            f"{self.chat.n_layers} (rule {chosen.rule}, step '{chosen.step}'{scorer.economy})"
        )
        if (chosen.score.refusal_score or 0.0) > 0:
            self.say(
                f"direction {lang} leaves the model refusing (refusal score {chosen.score.refusal_score:.1f} "
                "under ablation), so its effects say little; --rule mediating may find a better one"
            )
        return direction

    def control(self, direction: Direction) -> Direction:
        """Return the control of `direction`, fitted with shuffled labels: same layer, position and norm."""
        file = self.path / control_file(direction.lang)
        if file.is_file():
            return Direction.load(file, self.chat)
        directions = self.extract(direction.lang, shuffle_labels=self.settings.seed)
        control = replace(
            direction_at(directions, direction.position, direction.layer),
            norm=direction.norm,
            kind="shuffled_labels",
        )
        control.save(file)
        return control

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
        """Return the language whose validation prompts and refusal tokens select the direction of `lang`."""
        if lang != POOLED:
            return lang
        return SOURCE_LANGUAGE if SOURCE_LANGUAGE in self.settings.langs else self.settings.langs[0]


def _groups(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.group for row in rows))


def direction_file(lang: str) -> str:
    """Return the place of the direction of `lang` in a run folder."""
    return f"directions/{lang}.safetensors"


def control_file(lang: str) -> str:
    """Return the place of the control of `lang` from shuffled labels in a run folder."""
    return f"directions/{lang}.shuffled.safetensors"
