"""Refusal tokens and directions of a model on a data set, found once and kept in a run's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from polyrefuse_data.core.files import write_bytes
from polyrefuse_data.core.languages import SOURCE_LANGUAGE
from polyrefuse_data.core.schema import LABELS, Row
from polyrefuse_eval.directions.fit import (
    Direction,
    DirectionSet,
    direction_at,
    fit_training_directions,
    random_direction,
)
from polyrefuse_eval.directions.harm_gate import HarmGate, fit_gate
from polyrefuse_eval.directions.kept import KeptDirections, row_inputs
from polyrefuse_eval.directions.over_refusal import SafePrompts, over_refusal_direction, without
from polyrefuse_eval.directions.places import control_file, direction_file, gate_file
from polyrefuse_eval.directions.refusal_tokens import (
    RefusalTokens,
    parse_refusal_tokens,
    stored_refusal_tokens,
)
from polyrefuse_eval.directions.scoring import CandidateScorer, choose_direction, prompts_with_tendency
from polyrefuse_eval.directions.selection import write_scores
from polyrefuse_eval.directions.span import Span, span_of
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.data import Prompts
from polyrefuse_eval.results.final_punctuation import prompt_reader
from polyrefuse_eval.results.folder import read_json, write_json
from polyrefuse_eval.results.settings import RunSettings
from polyrefuse_eval.results.sources import (
    POOLED,
    RANDOM,
    SHUFFLED,
    base_of,
    is_span,
    languages_of,
    members,
    span_rank,
)

N_TOKEN_PROMPTS = 32
"""Prompts of each label whose answers refusal tokens are taken from."""


@dataclass
class DirectionFinder:
    """Find the directions of `chat` on `data`, and keep them in the folder `path`.

    `looking_harmful` are harmless prompts by language that a direction of over-refusal is fitted on.
    """

    chat: ChatModel
    data: Prompts
    settings: RunSettings
    path: Path
    progress: bool = False
    say: Callable[[str], None] = lambda _line: None
    looking_harmful: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    _tokens: dict[str, RefusalTokens] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._kept = KeptDirections(self.chat, self.data.digest)

    def tokens(self, lang: str) -> RefusalTokens:
        """Return the refusal tokens of `lang`: those of the settings, of the folder, or found now."""
        file = self.path / "refusal_tokens" / f"{lang}.json"
        if lang not in self._tokens:
            if self.settings.refusal_tokens:
                tokens = parse_refusal_tokens(self.chat, self.settings.refusal_tokens, lang)
            elif file.is_file():
                tokens = stored_refusal_tokens(self.chat, read_json(file), lang)
            else:
                harmful, harmless = (
                    [row.text for row in rows[:N_TOKEN_PROMPTS]] for rows in self._train(lang)
                )
                tokens = self._kept.refusal_tokens(lang, harmful, harmless, progress=self.progress)
            write_json(file, tokens.to_json())
            self._tokens[lang] = tokens
        return self._tokens[lang]

    def extract(self, lang: str, *, shuffle_labels: int | None = None) -> DirectionSet:
        """Fit the directions of `lang` on its training prompts, of `pooled` on those of all languages."""
        langs = languages_of(lang, self.settings.langs)
        parts = [self._train(source) for source in langs]
        harmful = [row for rows, _ in parts for row in rows]
        harmless = [row for _, rows in parts for row in rows]
        kept = self._kept.directions(self._inputs(lang, shuffle_labels))
        if kept is not None:
            return kept
        tokens = None
        if self.settings.filter_prompts:
            tokens = [self.tokens(row.lang) for row in [*harmful, *harmless]]
        groups = {"harmful": _groups(harmful), "harmless": _groups(harmless)}
        # The control of the first direction comes from the same pass.
        with_control = self.settings.controls and lang == self.settings.fitted_sources[0]
        found = fit_training_directions(
            self.chat,
            [row.text for row in harmful],
            [row.text for row in harmless],
            lang=lang,
            refusal_tokens=tokens,
            shuffles=list(dict.fromkeys([shuffle_labels, *([self.settings.seed] if with_control else [])])),
            metadata={"data": self.data.digest, "groups": groups, "languages": list(langs)},
            progress=self.progress,
        )
        for seed, directions in found.items():
            if isinstance(directions, DirectionSet):
                self._kept.keep_directions(self._inputs(lang, seed), directions)
        asked = found[shuffle_labels]
        if isinstance(asked, DirectionError):
            raise asked
        return asked

    def direction(self, lang: str) -> Direction:
        """Return the selected direction of `lang`, from the folder if it is there.

        Raises `DirectionError` where the prompts of `lang` give none.
        """
        file = self.path / direction_file(lang)
        if file.is_file():
            return Direction.load(file, self.chat)
        if base_of(lang) is not None:
            return self._without_over_refusal(lang)
        directions = self.extract(lang)
        directions.save(file.with_name(f"{lang}.all.safetensors"))
        home = self._home(lang)
        tokens, inputs = self.tokens(home), self._selection_inputs(lang)
        scores_file = self.path / "scores" / f"{lang}.json"
        kept = self._kept.direction(inputs)
        if kept is not None:
            direction, scores = kept
            write_bytes(scores_file, scores)
        else:
            scorer = CandidateScorer(
                self.chat,
                directions,
                self._validation(home, "harmful"),
                self._validation(home, "harmless"),
                tokens,
                progress=self.progress,
                kl_tokens=self.settings.kl_tokens,
            )
            if self.settings.all_candidates:
                scorer.complete()
            direction, _ = choose_direction(scorer, self.settings.rule)
            write_scores(scores_file, scorer.all_scores(), scorer.dropped)
            self._kept.keep_direction(inputs, direction, scores_file.read_bytes())
        direction.save(file)
        self._describe(direction, found_before=kept is not None)
        return direction

    def _without_over_refusal(self, source: str) -> Direction:
        """Return the direction that `source` is made of, without its part along that of over-refusal."""
        base = self.direction(str(base_of(source)))
        langs = languages_of(source, self.settings.langs)
        looking_harmful = [row for lang in langs for row in self._read(self.looking_harmful.get(lang, ()))]
        plain = [row for lang in langs for row in self._train(lang)[1]]
        filtered = self.settings.filter_prompts
        pairs = list(dict.fromkeys(str(row.pair) for row in looking_harmful))
        along = over_refusal_direction(
            self.chat,
            SafePrompts(
                looking_harmful=[row.text for row in looking_harmful],
                plain=[row.text for row in plain],
                tokens=[self.tokens(row.lang) for row in [*looking_harmful, *plain]] if filtered else None,
            ),
            base,
        )
        counts = {
            name.replace("harmful", "looking_harmful"): n for name, n in along.metadata["counts"].items()
        }
        origin = {"data": self.settings.over_refusal_from, "pairs": pairs, "counts": counts}
        direction = without(base, along, source, **origin)
        direction.save(self.path / direction_file(source))
        told = direction.metadata["over_refusal"]
        self.say(
            f"direction {source}: {told['left']:.0%} of the norm left, cosine of refusal and over-refusal "
            f"{told['cosine']:.2f} ({counts['n_looking_harmful_kept']} of {len(looking_harmful)} harmless "
            "contrast prompts count)"
        )
        return direction

    def _describe(self, direction: Direction, *, found_before: bool) -> None:
        """Say where the direction is, how it was selected, and whether the model refuses without it."""
        selection = direction.metadata["selection"]
        share = direction.metadata.get("measured", 1.0)
        notes = f", {share:.0%} of all scores measured" if share < 1 else ""
        tokens = direction.metadata.get("kl_tokens", 1)
        notes += f", KL over {tokens} tokens" if tokens > 1 else ""
        notes += "; found before" if found_before else ""
        self.say(
            f"direction {direction.lang}: position {direction.position.label}, layer {direction.layer} of "
            f"{self.chat.n_layers} (rule {selection['rule']}, step '{selection['step']}'{notes})"
        )
        left = selection["score"]["refusal_score"] or 0.0
        if left > 0:
            self.say(
                f"direction {direction.lang} leaves the model refusing (refusal score {left:.1f} under "
                "ablation), so its effects say little; --rule mediating may find a better one"
            )

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

    def gate(self, lang: str) -> HarmGate:
        """Return what tells harmful prompts by the training prompts of `lang`, from the folder if there.

        It is fitted on prompts as the data have them, for so it reads those that are answered. Raises
        `DirectionError` where there are too few of them.
        """
        file = self.path / gate_file(lang)
        if file.is_file():
            return HarmGate.load(file, self.chat)
        texts: dict[str, list[str]] = {label: [] for label in LABELS}
        for source in languages_of(lang, self.settings.langs):
            for label, rows in zip(("harmful", "harmless"), self._published_train(source), strict=True):
                texts[label] += self._treated([row.text for row in rows], source, label)
        origin = {"data": self.data.digest}
        gate = fit_gate(self.chat, texts["harmful"], texts["harmless"], lang=lang, metadata=origin)
        gate.save(file)
        return gate

    def _inputs(self, lang: str, shuffle_labels: int | None = None) -> dict[str, Any]:
        """Return all that the directions of `lang` depend on besides the model."""
        langs = languages_of(lang, self.settings.langs)
        rows = [row for source in langs for of_label in self._train(source) for row in of_label]
        tokens = [self.tokens(source).to_json() for source in langs] if self.settings.filter_prompts else None
        return {"lang": lang, "train": row_inputs(rows), "tokens": tokens, "shuffled": shuffle_labels}

    def _selection_inputs(self, lang: str) -> dict[str, Any]:
        """Return all that the selected direction of `lang` depends on besides the model."""
        home, limit = self._home(lang), self.settings.n_validation
        rows = [
            row for label in LABELS for row in self._read(self.data.prompts(home, "validation", label, limit))
        ]
        return {
            **self._inputs(lang),
            "validation": row_inputs(rows),
            "home tokens": self.tokens(home).to_json(),
            "filter": self.settings.filter_prompts,
            "rule": self.settings.rule,
            "all candidates": self.settings.all_candidates,
            # Not where it is the default: what was kept before there was a choice serves on.
            **({"kl tokens": self.settings.kl_tokens} if self.settings.kl_tokens > 1 else {}),
        }

    def _train(self, lang: str) -> tuple[list[Row], list[Row]]:
        harmful, harmless = self._published_train(lang)
        return self._read(harmful), self._read(harmless)

    def _published_train(self, lang: str) -> tuple[list[Row], list[Row]]:
        """Return the training prompts of each label as the data have them."""
        harmful, harmless = (
            self.data.prompts(lang, "train", label, self.settings.n_train)
            for label in ("harmful", "harmless")
        )
        return harmful, harmless

    def _read(self, rows: Sequence[Row]) -> list[Row]:
        """Return `rows` as directions are found on them: with their final punctuation, or without."""
        read = prompt_reader(self.settings.final_punctuation)
        return [replace(row, text=read(row.text)) for row in rows]

    def _validation(self, lang: str, label: str) -> list[str]:
        rows = self._read(self.data.prompts(lang, "validation", label, self.settings.n_validation))
        return self._treated([row.text for row in rows], lang, label)

    def _treated(self, texts: list[str], lang: str, label: str) -> list[str]:
        """Return those of `texts` that the model treats as their label says, where the settings ask so."""
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


def stored_directions(
    path: Path,
    sources: Sequence[str],
    first: str,
    seed: int,
    langs: Sequence[str],
    chat: ChatModel | None = None,
) -> dict[str, Direction | Span]:
    """Return the directions of `sources` in the run of `langs` in `path`, checked against `chat` if given.

    Controls (`sources.CONTROLS`) are those of the direction of `first`; the random one is drawn with `seed`.
    A span of all languages is of those that gave a direction.
    """

    def stored(source: str) -> Direction | Span:
        if source == RANDOM:
            return random_direction(Direction.load(path / direction_file(first), chat), seed)
        if is_span(source):
            files = [path / direction_file(member) for member in members(source, langs)]
            parts = [Direction.load(file, chat) for file in files if file.is_file()]
            return span_of(parts, span_rank(source))
        file = control_file(first) if source == SHUFFLED else direction_file(source)
        return Direction.load(path / file, chat)

    return {source: stored(source) for source in sources}
