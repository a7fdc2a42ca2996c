"""Run `polyrefuse eval harmfulness`, language by language; a killed run is resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polyrefuse_eval.directions.kept import KeptDirections
from polyrefuse_eval.directions.refusal_tokens import (
    RefusalTokens,
    parse_refusal_tokens,
    stored_refusal_tokens,
)
from polyrefuse_eval.errors import DirectionError, RunFolderError
from polyrefuse_eval.harmfulness.behaviour import (
    TOKEN_PROMPTS,
    EditedPrompt,
    RefusalDetector,
    by_answers,
    by_first_token,
)
from polyrefuse_eval.harmfulness.by_category import by_category
from polyrefuse_eval.harmfulness.by_kind import by_kind
from polyrefuse_eval.harmfulness.clusters import aurocs, cluster_scatter
from polyrefuse_eval.harmfulness.directions import (
    KINDS,
    HarmfulnessDirections,
    count_groups,
    fit_harmfulness,
)
from polyrefuse_eval.harmfulness.instructions import (
    DATA,
    Instruction,
    as_read,
    build_instructions,
    check_languages,
    prompts_digest,
    spread,
    user_instructions,
)
from polyrefuse_eval.harmfulness.reply_inversion import Inversion, invert
from polyrefuse_eval.harmfulness.settings import OWN, HarmfulnessSettings
from polyrefuse_eval.harmfulness.steering_sweep import sweep
from polyrefuse_eval.judging.native import judge as native
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.tensor_files import check_run_model
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.folder import RUN_FILE, RunFolder, read_json, write_json
from polyrefuse_eval.results.harmfulness_records import (
    HARMFULNESS_FORMAT,
    BehaviourCounts,
    BehaviourFile,
    CategoryCosines,
    HarmfulnessFile,
    InversionRecord,
    LanguageHarmfulness,
    SplitCounts,
    Steered,
)
from polyrefuse_eval.results.prompt_draw import limited
from polyrefuse_eval.results.user_prompts import UserPrompt
from polyrefuse_eval.results.validation import read_record, write_record
from polyrefuse_eval.versions import versions

RESULTS = "harmfulness.json"
OWN_FOLDER = "harmfulness"
"""Subfolder of everything but the results: a run of another kind may lie in the same folder."""


@dataclass
class HarmfulnessRun:
    """A run of `chat` on `data` and on `extra` prompts of a user.

    Results go into `out`, what they are made of into `folder` there; `on_finished` is called after each
    language.
    """

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
        """Start or resume the run in `out`, which may be the folder of `polyrefuse eval run`.

        Raises `RunFolderError` where it is another run's or another model's, and `DirectionError` for
        layers that the model does not have, and for extra prompts in languages that are not measured.
        """
        layers = [*(settings.layers or ()), *([] if settings.layer is None else [settings.layer])]
        beyond = [layer for layer in layers if not 0 <= layer < chat.n_layers]
        if beyond:
            raise DirectionError(
                f"layer {beyond[0]} is not in {chat.name}, which has layers 0 to {chat.n_layers - 1}"
            )
        check_languages(extra, settings.langs, DirectionError)
        signature = {
            "format": HARMFULNESS_FORMAT,
            "model": chat.signature(),
            "data": {"digest": data.digest, "recipe": data.recipe},
            "settings": settings.signature(),
            "extra": prompts_digest(extra),
            "judge": native.NAME,
            "versions": versions(),
        }
        if (out / RUN_FILE).is_file():
            check_run_model(RunFolder(out), chat)
        folder = RunFolder.open(out / OWN_FOLDER, signature)
        return cls(chat=chat, data=data, settings=settings, out=out, folder=folder, extra=extra, **more)

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
        self.say(self._opening_line())
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

    def _opening_line(self) -> str:
        """Return what there is to do for each language."""
        settings, edits = self.settings, 1 + len(KINDS) * len(self.layers)
        return (
            f"to do: {len(settings.langs)} languages, with up to {settings.n_train} training and "
            f"{settings.n_test or 'all'} test prompts of each label; {settings.n_steered} of these steered "
            f"and {settings.n_inverted} inverted in {edits} ways"
        )

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
        """Return the measures of `lang`, from the run folder where they are there already."""
        file = self.folder.path / "languages" / f"{lang}.json"
        if file.is_file():
            return read_record(LanguageHarmfulness, file)
        source = lang if self.settings.directions == OWN else self.settings.directions
        directions = self.directions(source)
        instructions = self.instructions(lang, "test")
        refused = self.behaviour(lang, "test", instructions)
        steered, inversion = self._steer_and_invert(lang, directions, instructions)
        # Where do instructions lie along both, by label, behaviour and category?
        layer = self.chat.n_layers // 2 if self.settings.layer is None else self.settings.layer
        bar = f"clusters {lang}" if self.progress else None
        scatter = cluster_scatter(self.chat, directions, instructions, refused, progress=bar)
        record = LanguageHarmfulness(
            directions=source,
            n=SplitCounts(
                train=_behaviours(directions.metadata["counts"]),
                test=_behaviours(count_groups(instructions, refused)),
            ),
            cosine=tuple(directions.cosines()),
            scatter=tuple(scatter),
            auroc=aurocs(scatter),
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
            by_kind=by_kind(scatter),
        )
        write_record(file, record)
        self.say(f"{lang}: done")
        return record

    def _steer_and_invert(
        self, lang: str, directions: HarmfulnessDirections, instructions: Sequence[Instruction]
    ) -> tuple[list[Steered], Inversion]:
        """Measure what both directions do to refusal, and to the answer whether a request is harmful."""
        tested = {
            label: [
                instruction
                for instruction in instructions
                if instruction.label == label and instruction.kind == DATA
            ]
            for label in ("harmful", "harmless")
        }

        def some(count: int, name: str) -> dict[str, list[Any]]:
            return {
                label: [getattr(instruction, name) for instruction in spread(of_label, count)]
                for label, of_label in tested.items()
            }

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
            progress=f"reply inversion {lang}" if self.progress else None,
            **common,
        )
        return steered, inversion

    def directions(self, lang: str) -> HarmfulnessDirections:
        """Return the directions of `lang`, fitted on its training prompts."""
        file = self.folder.path / "directions" / f"{lang}.safetensors"
        if file.is_file():
            return HarmfulnessDirections.load(file, self.chat)
        instructions = self.instructions(lang, "train")
        refused = self.behaviour(lang, "train", instructions)
        directions = fit_harmfulness(
            self.chat,
            instructions,
            refused,
            lang=lang,
            metadata={"data": self.data.digest, "behaviour": self.settings.behaviour},
            progress=self.progress,
        )
        directions.save(file)
        return directions

    def instructions(self, lang: str, split: str) -> list[Instruction]:
        """Return the instructions of one language and split; a user's own are test instructions."""
        settings = self.settings
        limit, seed = (settings.n_train, None) if split == "train" else (settings.n_test, settings.test_seed)
        rows = [
            row
            for label in ("harmful", "harmless")
            for row in limited(self.data.prompts(lang, split, label), limit, seed)
        ]
        extra = self.extra if split == "test" else ()
        instructions = [*build_instructions(rows), *user_instructions(extra, lang)]
        return as_read(instructions, self.settings.final_punctuation)

    def behaviour(self, lang: str, split: str, instructions: Sequence[Instruction]) -> list[bool | None]:
        """Return which of `instructions` the model refuses; the folder keeps no answers."""
        file = self.folder.path / "behaviour" / f"{lang}.{split}.json"
        if file.is_file():
            known = read_record(BehaviourFile, file).refused
            missing = [instruction.id for instruction in instructions if instruction.id not in known]
            if missing:
                raise RunFolderError(f"'{file}' lacks {missing[0]}; remove the file to measure it again")
            return [known[instruction.id] for instruction in instructions]
        prompts = [EditedPrompt(instruction.text, lang) for instruction in instructions]
        refused = self.refuses(lang, f"behaviour {lang} {split}")(prompts)
        by_id = {instruction.id: verdict for instruction, verdict in zip(instructions, refused, strict=True)}
        write_record(file, BehaviourFile(behaviour=self.settings.behaviour, refused=by_id), private=True)
        return refused

    def refuses(self, lang: str, progress: str) -> RefusalDetector:
        """Return the detector of refusals that the settings ask for."""
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
                self._tokens[lang] = stored_refusal_tokens(self.chat, read_json(file), lang)
            else:
                harmful, harmless = (
                    [row.text for row in self.data.prompts(lang, "train", label, TOKEN_PROMPTS)]
                    for label in ("harmful", "harmless")
                )
                kept = KeptDirections(self.chat)
                self._tokens[lang] = kept.refusal_tokens(lang, harmful, harmless, progress=self.progress)
            write_json(file, self._tokens[lang].to_json())
        return self._tokens[lang]


def _behaviours(counts: Mapping[str, Mapping[str, int]]) -> dict[str, BehaviourCounts]:
    return {label: BehaviourCounts(**of_label) for label, of_label in counts.items()}
