"""What the tasks of a run compute: a model's identity, a direction, completions, verdicts.

Each computation pickles, and holds all that it needs besides its model. The bytes of its result follow from
it alone, whichever executor runs it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from polyrefuse_data.cluster.tasks import ModelSlot
from polyrefuse_data.core.files import write_bytes
from polyrefuse_data.core.paths import inside
from polyrefuse_data.core.schema import SPLITS, Row
from polyrefuse_eval.directions.finder import DirectionFinder
from polyrefuse_eval.directions.fit import Direction
from polyrefuse_eval.directions.harm_gate import HarmGate
from polyrefuse_eval.directions.obstacles import write_obstacle
from polyrefuse_eval.directions.places import control_file, direction_file, gate_file
from polyrefuse_eval.errors import ChatModelError, DirectionError
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.generate import Request, generate
from polyrefuse_eval.models.intervene import BASELINE, Edits
from polyrefuse_eval.models.interventions import EditDirection, edit_with
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.folder import differences
from polyrefuse_eval.results.interventions import INTERVENTIONS
from polyrefuse_eval.results.records import Completion
from polyrefuse_eval.results.settings import Condition, RunSettings
from polyrefuse_eval.runs.measured_prompts import Identity, MeasuredPrompts
from polyrefuse_eval.versions import versions


@dataclass(frozen=True, kw_only=True)
class ModelLoader:
    """Load a chat model into a slot, once for all tasks in a row.

    `threads` of torch change the bytes of results on a CPU. `identity` is that of the run, where it is known.
    """

    load: Callable[[], ChatModel]
    key: str
    threads: int
    identity: Identity | None = None

    def chat(self, slot: ModelSlot) -> ChatModel:
        """Return the model; raises `ChatModelError` where it is not the run's."""
        return self.identified(slot)[0]

    def identified(self, slot: ModelSlot) -> tuple[ChatModel, Identity]:
        """Return the model and its identity; raises `ChatModelError` where it is not the run's."""
        # OpenMP counts threads for each calling thread, so this is set where it computes.
        torch.set_num_threads(self.threads)
        chat: ChatModel
        chat, identity = slot.get(self.key, self._load)
        if self.identity is not None and identity != self.identity:
            differing = differences(asdict(self.identity), asdict(identity))
            raise ChatModelError(
                f"the loaded model is not that of the run ({'; '.join(differing)}); choose another --out"
            )
        return chat, identity

    def _load(self) -> tuple[ChatModel, Identity]:
        chat = self.load()
        return chat, Identity(chat.signature(), versions())


@dataclass(frozen=True)
class IdentifyModel:
    """Load a model, and return its identity."""

    loader: ModelLoader

    def __call__(self, slot: ModelSlot) -> Identity:
        return self.loader.identified(slot)[1]


LONG_PROMPT = 1000
"""Bytes above which a prompt might be longer than a model's context; a token is at least a byte."""


def long_prompts(data: DataFolder, langs: Sequence[str]) -> dict[str, list[str]]:
    """Return by language the prompts that might be longer than a model's context."""
    prompts: dict[str, list[str]] = {}
    for lang in langs:
        rows = [row for split in SPLITS if data.has(lang, split) for row in data.rows(lang, split)]
        texts = [row.text for row in rows if len(row.text.encode("utf-8", "surrogatepass")) > LONG_PROMPT]
        if texts:
            prompts[lang] = texts
    return prompts


@dataclass(frozen=True, eq=False)
class CheckPrompts:
    """Check that long `prompts`, by language, fit the model's context; raises `ChatModelError` otherwise."""

    loader: ModelLoader
    prompts: Mapping[str, Sequence[str]]

    def __call__(self, slot: ModelSlot) -> None:
        chat = self.loader.chat(slot)
        errors: list[str] = []
        for lang, texts in self.prompts.items():
            for text in texts:
                try:
                    chat.encode([text])
                except ChatModelError as error:
                    errors.append(f"{lang}: {error}")
        if errors:
            more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
            raise ChatModelError("; ".join(errors[:3]) + more)


@dataclass(frozen=True)
class SentPrompts:
    """The rows that a `DirectionFinder` reads of a `DataFolder`, on their way to a worker."""

    digest: str
    rows: Mapping[tuple[str, str, str], Sequence[Row]]
    """(language, split, label) to rows."""

    def prompts(self, lang: str, split: str, label: str, limit: int | None = None) -> list[Row]:
        """Return the first `limit` rows with `label`."""
        return list(self.rows[lang, split, label])[:limit]


@dataclass(frozen=True, kw_only=True)
class DirectionFiles:
    """The files of a direction, by their place in the run folder in the order to write them.

    `messages` are for the user; `error` says why a language gives no direction.
    """

    files: Mapping[str, bytes]
    messages: Sequence[str]
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class FindDirection:
    """Find the refusal tokens and the direction of a language, or its control from shuffled labels.

    `files` are those that are in the run folder already; `looking_harmful` by language the harmless prompts
    that a direction of over-refusal is fitted on.
    """

    loader: ModelLoader
    lang: str
    prompts: SentPrompts
    settings: RunSettings
    files: Mapping[str, bytes]
    control: bool = False
    looking_harmful: Mapping[str, Sequence[Row]] = field(default_factory=dict)

    def __call__(self, slot: ModelSlot) -> DirectionFiles:
        messages: list[str] = []
        error = None
        with tempfile.TemporaryDirectory(prefix="polyrefuse-") as temporary:
            folder = Path(temporary)
            write_files(folder, self.files)
            finder = DirectionFinder(
                self.loader.chat(slot),
                self.prompts,
                self.settings,
                folder,
                progress=slot.progress,
                say=messages.append,
                looking_harmful=self.looking_harmful,
            )
            try:
                if self.control:
                    finder.control(Direction.load(folder / direction_file(self.lang), finder.chat))
                else:
                    finder.direction(self.lang)
                    if self.settings.has_gates:
                        finder.gate(self.lang)
            except DirectionError as fault:
                error = str(fault)
                write_obstacle(folder, self.lang, error, control=self.control)
            # The direction comes last: where it exists, all other files of its language do.
            last = {direction_file(self.lang), control_file(self.lang)}
            names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
            contents = read_files(folder, sorted(names, key=lambda name: (name in last, name)))
        new = {name: content for name, content in contents.items() if self.files.get(name) != content}
        return DirectionFiles(files=new, messages=tuple(messages), error=error)


@dataclass(frozen=True, eq=False, kw_only=True)
class AnswerPrompts(MeasuredPrompts):
    """Answer the prompts of a measurement, batch by batch; with a `gate`, edited only where it opens.

    Batches follow from `rows`; those whose keys are all in `done` are left out, of others only the missing
    completions come back.
    """

    loader: ModelLoader
    edits: Edits
    max_new_tokens: int
    batch_size: int | None = None
    gate: HarmGate | None = None

    def __call__(self, slot: ModelSlot) -> Iterator[list[Completion]]:
        """Yield the completions of each batch."""
        rows = {self.key(row): row for row in self.rows}
        chat = self.loader.chat(slot)
        texts = [row.text for row in rows.values()]
        edited = [True] * len(rows) if self.gate is None else self.gate.takes_for_harmful(chat, texts)
        for answers in generate(
            chat,
            [
                Request(key, text, self.edits if is_edited else BASELINE)
                for key, text, is_edited in zip(rows, texts, edited, strict=True)
            ],
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
            done=self.done,
            progress=str(self.measurement) if slot.progress else None,
            thoughts=True,
        ):
            yield [
                self.completion(
                    rows[answer.key], answer.text, len(answer.ids), answer.ended, answer.reasoning
                )
                for answer in answers
                if answer.key not in self.done
            ]


def edits_of(condition: Condition, directions: Mapping[str, EditDirection]) -> Edits:
    """Return the edits that `condition` makes with the direction of its source."""
    if condition.source is None:
        return BASELINE
    direction = directions[condition.source]
    strength = 1.0 if condition.coefficient is None else condition.coefficient
    return (edit_with(INTERVENTIONS[condition.intervention], direction, strength),)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` into `folder` in their order, each whole or not at all."""
    for name, content in files.items():
        write_bytes(inside(folder, name), content)


def read_files(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return those of the files `names` that are in `folder`."""
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def take_directions(run: Path, out: Path, langs: Sequence[str]) -> dict[str, str]:
    """Copy the directions of `langs` from another run of the same model into `out`.

    Returns the languages that gave it none, and why.
    """
    missing = {}
    for lang in langs:
        found = read_files(run, [gate_file(lang), direction_file(lang)])
        found = found if direction_file(lang) in found else {}
        if not found and not (out / direction_file(lang)).is_file():
            missing[lang] = f"'{run.name}' found no direction from '{lang}'"
        elif not (out / direction_file(lang)).is_file():
            write_files(out, found)
    return missing
