"""The whole way of `polyrefuse eval harmfulness`, language by language, resumable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from polyrefuse_data.core.schema import Row
from polyrefuse_eval.directions.refusal_tokens import RefusalTokens, find_refusal_tokens, parse_refusal_tokens
from polyrefuse_eval.errors import DirectionError, RunFolderError
from polyrefuse_eval.harmfulness.behaviour import (
    ANSWER_TOKENS,
    TOKEN_PROMPTS,
    Ask,
    Refuses,
    by_answers,
    by_first_token,
)
from polyrefuse_eval.harmfulness.by_category import by_category
from polyrefuse_eval.harmfulness.directions import (
    KINDS,
    HarmfulnessDirections,
    Subject,
    behaviour_name,
    cluster_deltas,
    count_groups,
    fit_harmfulness,
)
from polyrefuse_eval.harmfulness.reply_inversion import invert
from polyrefuse_eval.harmfulness.steering_sweep import sweep
from polyrefuse_eval.judging.native import judge as native
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.tensor_files import other_model
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.folder import RUN_FILE, RunFolder, read_json, write_json
from polyrefuse_eval.results.harmfulness_records import (
    HARMFULNESS_FORMAT,
    BehaviourCounts,
    CategoryCosines,
    HarmfulnessFile,
    InversionRecord,
    LanguageHarmfulness,
    Point,
    ScoreName,
    SplitCounts,
)
from polyrefuse_eval.results.user_prompts import UserPrompt
from polyrefuse_eval.results.validation import read_record, write_record
from polyrefuse_eval.statistics.thresholds import auroc
from polyrefuse_eval.versions import versions

RESULTS = "harmfulness.json"
OWN_FOLDER = "harmfulness"
"""Where in the run folder everything but the results lies: a run of another kind may be there too."""

OWN = "own"
"""Directions of each language for itself."""


@dataclass(frozen=True)
class HarmfulnessSettings:
    """What is measured; all of it belongs to the signature. `layers` are those steered and inverted
    (None: all), `layer` that of the category cosines (None: the middle one)."""

    langs: tuple[str, ...]
    directions: str = OWN
    behaviour: str = "answers"
    n_train: int = 100
    n_test: int | None = None
    n_steered: int = 16
    n_inverted: int = 32
    layers: tuple[int, ...] | None = None
    layer: int | None = None
    coefficient: float = 1.0
    scope: str = "instruction"
    refusal_tokens: str | None = None
    max_new_tokens: int = ANSWER_TOKENS


@dataclass
class HarmfulnessRun:
    """One run of `chat` on `data`, and on `extra` prompts of a user: results into `out`, and what they
    are made of into `folder` there."""

    chat: ChatModel
    data: DataFolder
    settings: HarmfulnessSettings
    out: Path
    folder: RunFolder
    extra: Sequence[UserPrompt] = ()
    progress: bool = False
    say: Callable[[str], None] = lambda _line: None
    on_finished: Callable[[], None] = lambda: None
    _tokens: dict[str, RefusalTokens] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        chat: ChatModel,
        data: DataFolder,
        settings: HarmfulnessSettings,
        out: Path,
        extra: Sequence[UserPrompt] = (),
        **more: Any,
    ) -> HarmfulnessRun:
        """Start or go on with the run in `out`, which may be the folder of `polyrefuse eval run`.

        Raises `RunFolderError` where it is another run's or another model's, and `DirectionError` for
        layers that the model has not, and for extra prompts in languages that are not measured.
        """
        asked = [*(settings.layers or ()), *([] if settings.layer is None else [settings.layer])]
        beyond = [layer for layer in asked if not 0 <= layer < chat.n_layers]
        if beyond:
            raise DirectionError(
                f"layer {beyond[0]} is not in {chat.name}, which has layers 0 to {chat.n_layers - 1}"
            )
        foreign = sorted({str(one.lang) for one in extra} - set(settings.langs))
        if foreign:
            raise DirectionError(
                f"extra prompts in {', '.join(foreign)}, which is not among --langs "
                f"{','.join(settings.langs)}; add it"
            )
        signature = {
            "format": HARMFULNESS_FORMAT,
            "model": chat.signature(),
            "data": {"digest": data.digest, "recipe": data.recipe},
            "settings": asdict(settings),
            "extra": extra_digest(extra),
            "judge": native.NAME,
            "versions": versions(),
        }
        _same_model(out, chat)
        folder = RunFolder.open(out / OWN_FOLDER, signature)
        return cls(chat, data, settings, out, folder, extra, **more)

    @property
    def layers(self) -> Sequence[int]:
        """The layers that are steered and inverted."""
        return self.settings.layers or tuple(range(self.chat.n_layers))

    def run(self) -> HarmfulnessFile:
        """Measure every language; return what is written to `harmfulness.json`.

        A language whose prompts are too few is named with the reason; raises `DirectionError` where
        every language is.
        """
        languages: dict[str, LanguageHarmfulness] = {}
        lacking: dict[str, str] = {}
        for lang in self.settings.langs:
            try:
                languages[lang] = self.measure(lang)
            except DirectionError as error:
                if lang == self.settings.directions or len(self.settings.langs) == 1:
                    raise
                lacking[lang] = str(error)
                self.say(f"{lang} is left out: {error}")
            self._write(languages, lacking)
            self.on_finished()
        if not languages:
            raise DirectionError(f"no language is left: {next(iter(lacking.values()))}")
        return self._write(languages, lacking)

    def _write(
        self, languages: Mapping[str, LanguageHarmfulness], lacking: Mapping[str, str]
    ) -> HarmfulnessFile:
        record = HarmfulnessFile(
            format=HARMFULNESS_FORMAT,
            signature=self.folder.signature,
            n_layers=self.chat.n_layers,
            languages=dict(languages),
            lacking=dict(lacking),
        )
        write_record(self.out / RESULTS, record)
        return record

    def measure(self, lang: str) -> LanguageHarmfulness:
        """Return all that is measured in `lang`, from the run folder where it is there already."""
        file = self.folder.path / "languages" / f"{lang}.json"
        if file.is_file():
            return read_record(LanguageHarmfulness, file)
        source = lang if self.settings.directions == OWN else self.settings.directions
        directions = self.directions(source)
        subjects = self.subjects(lang, "test")
        refused = self.behaviour(lang, "test", subjects)
        tested = {
            label: [one for one in subjects if one.label == label and one.kind == "data"]
            for label in ("harmful", "harmless")
        }

        def some(count: int, name: str) -> dict[str, list[Any]]:
            return {label: [getattr(one, name) for one in spread(of, count)] for label, of in tested.items()}

        vectors = {kind: directions.vectors(kind) for kind in KINDS}
        common: dict[str, Any] = {"lang": lang, "coefficient": self.settings.coefficient}
        steered = sweep(
            self.chat,
            self.refuses(lang, f"steering {lang}"),
            vectors,
            some(self.settings.n_steered, "text"),
            self.layers,
            scope=self.settings.scope,
            categories=some(self.settings.n_steered, "category"),
            **common,
        )
        inversion = invert(
            self.chat,
            vectors,
            some(self.settings.n_inverted, "text"),
            self.layers,
            categories=some(self.settings.n_inverted, "category"),
            **common,
        )
        layer = self.chat.n_layers // 2 if self.settings.layer is None else self.settings.layer
        scatter = self._scatter(directions, subjects, refused, lang)
        record = LanguageHarmfulness(
            directions=source,
            n=SplitCounts(
                train=_behaviours(directions.metadata["counts"]),
                test=_behaviours(count_groups(subjects, refused)),
            ),
            cosine=tuple(directions.cosines()),
            scatter=tuple(scatter),
            auroc=_aurocs(scatter),
            categories=CategoryCosines(
                layer=layer,
                n=dict(directions.metadata["categories"]),
                names=tuple(directions.categories),
                cosine=tuple(tuple(row) for row in directions.category_cosines(layer)),
            ),
            scope=self.settings.scope,
            steering=tuple(step for step in steered if step.category is None),
            inversion=InversionRecord(
                right=dict(inversion.right),
                flips=tuple(flips for flips in inversion.flips if flips.category is None),
            ),
            by_category=by_category(scatter, steered, inversion),
        )
        write_record(file, record)
        self.say(f"{lang}: done")
        return record

    def directions(self, lang: str) -> HarmfulnessDirections:
        """Return the directions of `lang`, fitted on its training prompts."""
        file = self.folder.path / "directions" / f"{lang}.safetensors"
        if file.is_file():
            return HarmfulnessDirections.load(file, self.chat)
        subjects = self.subjects(lang, "train")
        refused = self.behaviour(lang, "train", subjects)
        found = fit_harmfulness(
            self.chat,
            subjects,
            refused,
            lang=lang,
            metadata={"data": self.data.digest, "behaviour": self.settings.behaviour},
            progress=self.progress,
        )
        found.save(file)
        return found

    def subjects(self, lang: str, split: str) -> list[Subject]:
        """Return the prompts of one language and split; those of a user are test prompts."""
        limit = self.settings.n_train if split == "train" else self.settings.n_test
        rows = [
            row for label in ("harmful", "harmless") for row in self.data.prompts(lang, split, label, limit)
        ]
        extra = self.extra if split == "test" else ()
        return [*map(subject_of, rows), *extra_subjects(extra, lang)]

    def behaviour(self, lang: str, split: str, subjects: Sequence[Subject]) -> list[bool | None]:
        """Return which of `subjects` the model refuses; the answers themselves are not kept."""
        file = self.folder.path / "behaviour" / f"{lang}.{split}.json"
        if file.is_file():
            known: dict[str, bool | None] = read_json(file)["refused"]
            return [known[subject.id] for subject in subjects]
        asks = [Ask(subject.text, lang) for subject in subjects]
        refused = self.refuses(lang, f"behaviour {lang} {split}")(asks)
        record = {subject.id: verdict for subject, verdict in zip(subjects, refused, strict=True)}
        write_json(file, {"behaviour": self.settings.behaviour, "refused": record})
        return refused

    def refuses(self, lang: str, progress: str) -> Refuses:
        """Return how refusals are read, as the settings say."""
        bar = progress if self.progress else None
        if self.settings.behaviour == "answers":
            return by_answers(self.chat, max_new_tokens=self.settings.max_new_tokens, progress=bar)
        return by_first_token(self.chat, {lang: self.tokens(lang)}, progress=bar)

    def tokens(self, lang: str) -> RefusalTokens:
        """Return the refusal tokens of `lang`: given, or found from answers to training prompts."""
        if lang not in self._tokens:
            file = self.folder.path / "refusal_tokens" / f"{lang}.json"
            if self.settings.refusal_tokens:
                self._tokens[lang] = parse_refusal_tokens(self.chat, self.settings.refusal_tokens, lang)
            elif file.is_file():
                self._tokens[lang] = RefusalTokens.from_json(read_json(file))
            else:
                harmful, harmless = (
                    [row.text for row in self.data.prompts(lang, "train", label, TOKEN_PROMPTS)]
                    for label in ("harmful", "harmless")
                )
                self._tokens[lang] = find_refusal_tokens(
                    self.chat, harmful, harmless, lang, native.refuses, progress=self.progress
                )
            write_json(file, self._tokens[lang].to_json())
        return self._tokens[lang]

    def _scatter(
        self,
        directions: HarmfulnessDirections,
        subjects: Sequence[Subject],
        refused: Sequence[bool | None],
        lang: str,
    ) -> list[Point]:
        bar = f"clusters {lang}" if self.progress else None
        deltas = cluster_deltas(self.chat, directions, [one.text for one in subjects], progress=bar)
        return [
            Point(
                id=subject.id,
                label=subject.label,
                kind=subject.kind,
                category=subject.category,
                behaviour=behaviour_name(verdict),
                harmful=round(harmful, 6),
                refuse=round(refuse, 6),
            )
            for subject, verdict, (harmful, refuse) in zip(subjects, refused, deltas, strict=True)
        ]


def _same_model(out: Path, chat: ChatModel) -> None:
    if not (out / RUN_FILE).is_file():
        return
    there = RunFolder.existing(out).signature.get("model", {})
    differing = other_model(there if isinstance(there, dict) else {}, chat)
    if differing:
        raise RunFolderError(f"'{out}' is a run of another model ({differing}); choose another --out")


def _behaviours(counts: Mapping[str, Mapping[str, int]]) -> dict[str, BehaviourCounts]:
    return {label: BehaviourCounts(**of_label) for label, of_label in counts.items()}


def _aurocs(scatter: Sequence[Point]) -> dict[ScoreName, float | None]:
    """Return how well each cluster score tells harmful from harmless, and refused from accepted."""

    def area(score: str, name: str, positive: str, negative: str) -> float | None:
        scores = [
            [getattr(point, score) for point in scatter if getattr(point, name) == value]
            for value in (positive, negative)
        ]
        return auroc(*scores)

    return {
        "harmful by label": area("harmful", "label", "harmful", "harmless"),
        "harmful by behaviour": area("harmful", "behaviour", "refused", "accepted"),
        "refuse by label": area("refuse", "label", "harmful", "harmless"),
        "refuse by behaviour": area("refuse", "behaviour", "refused", "accepted"),
    }


def subject_of(row: Row) -> Subject:
    """Return the subject that `row` of a build is."""
    return Subject(row.id, row.lang, row.text, row.label, category=row.category)


def spread(subjects: Sequence[Subject], count: int) -> list[Subject]:
    """Return `count` of `subjects` at even distances, so that parts of a split that stand together, such
    as categories, all come; all of them where there are no more."""
    n = min(count, len(subjects))
    return [subjects[index * len(subjects) // n] for index in range(n)]


def extra_subjects(extra: Sequence[UserPrompt], lang: str) -> list[Subject]:
    """Return the prompts of a user in `lang`, as test subjects."""
    return [
        Subject(f"{one.kind}-{index:04d}", lang, one.prompt, one.label or "harmful", one.kind)
        for index, one in enumerate(extra)
        if one.lang == lang
    ]


def extra_digest(extra: Sequence[UserPrompt]) -> str:
    """Return a hash of the prompts of a user; nothing of none."""
    import hashlib
    import json

    if not extra:
        return ""
    text = json.dumps([asdict(one) for one in extra], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
