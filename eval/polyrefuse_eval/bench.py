"""The one loop over a model: refusal tokens, directions, selection, answers, verdicts, rates.

Everything is written as it goes, and a killed run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from polyrefuse_data.languages import SOURCE_LANGUAGE
from polyrefuse_data.schema import Row
from polyrefuse_eval.baselines import BaselineAnswer, BaselineCache, prompt_hash
from polyrefuse_eval.chat import ChatModel
from polyrefuse_eval.data import DataFolder
from polyrefuse_eval.direction import (
    Direction,
    DirectionSet,
    direction_at,
    fit_directions,
    random_direction,
    versions,
)
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.generate import MAX_NEW_TOKENS, Request, generate
from polyrefuse_eval.intervene import BASELINE, Ablation, Addition, Edits
from polyrefuse_eval.judges import native
from polyrefuse_eval.refusal import RefusalTokens
from polyrefuse_eval.refusal_tokens import find_refusal_tokens, given_tokens
from polyrefuse_eval.results import Completion, Result, RunFolder, VerdictRecord, read_json, write_json
from polyrefuse_eval.score import CandidateScorer, choose_direction
from polyrefuse_eval.select import write_scores
from polyrefuse_eval.stats import rate

N_TOKEN_PROMPTS = 32
"""Prompts of each label whose answers show how refusals begin."""


POOLED = "pooled"
"""The direction language that stands for the training prompts of all languages of the run."""


@dataclass(frozen=True)
class BenchSettings:
    """What is measured. All of it but `batch_size` belongs to the run's signature."""

    langs: tuple[str, ...]
    direction_langs: tuple[str, ...] = ("en",)
    rule: str = "robust"
    max_new_tokens: int = MAX_NEW_TOKENS
    n_train: int = 128
    n_validation: int = 32
    n_test: int | None = None
    filter_prompts: bool = True
    controls: bool = True
    coefficient: float = 1.0
    seed: int = 0
    refusal_tokens: str | None = None
    all_candidates: bool = False
    batch_size: int | None = None

    def signature(self) -> dict[str, Any]:
        settings = asdict(self)
        del settings["batch_size"]
        return settings


@dataclass
class Bench:
    """One run of `chat` on `data` into `folder`: `run`, or its steps one by one."""

    chat: ChatModel
    data: DataFolder
    settings: BenchSettings
    folder: RunFolder
    cache: BaselineCache
    progress: bool = False
    say: Callable[[str], None] = lambda _line: None
    _tokens: dict[str, RefusalTokens] = field(default_factory=dict)

    @classmethod
    def open(
        cls, chat: ChatModel, data: DataFolder, settings: BenchSettings, out: Path, **more: Any
    ) -> Bench:
        """Start or go on with the run in `out`; raises `RunFolderError` where it is another run's."""
        folder = RunFolder.open(out, run_signature(chat, data, settings))
        cache = BaselineCache(chat.signature(), settings.max_new_tokens)
        return cls(chat, data, settings, folder, cache, **more)

    def run(self) -> list[Result]:
        """Go the whole way; return the rates of all languages and conditions."""
        directions = {lang: self.direction(lang) for lang in self.settings.direction_langs}
        conditions = self.conditions(directions)
        results: list[Result] = []
        for lang in self.settings.langs:
            self.answer(lang, conditions)
            results += self.judge(lang)
            self.folder.write_results(results)
        return results

    def tokens(self, lang: str) -> RefusalTokens:
        """Return the refusal tokens of `lang`: given, found before, or found now."""
        file = self.folder.path / "refusal_tokens" / f"{lang}.json"
        if lang not in self._tokens:
            if self.settings.refusal_tokens:
                found = given_tokens(self.chat, self.settings.refusal_tokens, lang)
            elif file.is_file():
                found = RefusalTokens.from_json(read_json(file))
            else:
                harmful, harmless = (
                    [row.text for row in rows[:N_TOKEN_PROMPTS]] for rows in self._train(lang)
                )
                found = find_refusal_tokens(
                    self.chat,
                    harmful,
                    harmless,
                    lang,
                    native.refuses,
                    progress=self.progress,
                )
            write_json(file, found.to_json())
            self._tokens[lang] = found
        return self._tokens[lang]

    def _train(self, lang: str) -> tuple[list[Row], list[Row]]:
        harmful, harmless = (
            self.data.prompts(lang, "train", label, self.settings.n_train)
            for label in ("harmful", "harmless")
        )
        return harmful, harmless

    def _validation(self, lang: str, label: str) -> list[str]:
        return [row.text for row in self.data.prompts(lang, "validation", label, self.settings.n_validation)]

    def _home(self, lang: str) -> str:
        """The language whose validation prompts and refusal tokens choose the direction of `lang`."""
        if lang != POOLED:
            return lang
        return SOURCE_LANGUAGE if SOURCE_LANGUAGE in self.settings.langs else self.settings.langs[0]

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
        """Return the chosen direction of `lang`, from the run folder where it is there already."""
        file = self.folder.path / "directions" / f"{lang}.safetensors"
        if file.is_file():
            return Direction.load(file, self.chat)
        directions = self.extract(lang)
        directions.save(file.with_name(f"{lang}.all.safetensors"))
        scorer = CandidateScorer(
            self.chat,
            directions,
            self._validation(self._home(lang), "harmful"),
            self._validation(self._home(lang), "harmless"),
            self.tokens(self._home(lang)),
            progress=self.progress,
        )
        if self.settings.all_candidates:
            scorer.complete()
        direction, chosen = choose_direction(scorer, self.settings.rule)
        (self.folder.path / "scores").mkdir(exist_ok=True)
        write_scores(self.folder.path / "scores" / f"{lang}.json", scorer.all_scores())
        direction.save(file)
        self.say(
            f"direction {lang}: position {direction.position.label}, layer {direction.layer} of "
            f"{self.chat.n_layers} (rule {chosen.rule}, step '{chosen.step}')"
        )
        return direction

    def control(self, direction: Direction) -> Direction:
        """Return the direction from shuffled labels at the place, and with the norm, of `direction`."""
        file = self.folder.path / "directions" / f"{direction.lang}.shuffled.safetensors"
        if file.is_file():
            return Direction.load(file, self.chat)
        directions = self.extract(direction.lang, shuffle_labels=self.settings.seed)
        found = direction_at(directions, direction.position, direction.layer)
        found = replace(found, norm=direction.norm, kind="shuffled_labels")
        found.save(file)
        return found

    def conditions(self, directions: Mapping[str, Direction]) -> dict[str, tuple[str, Edits]]:
        """Return the conditions: name to the label of its prompts and its edits."""
        found: dict[str, tuple[str, Edits]] = {}

        def both(name: str, direction: Direction) -> None:
            addition = Addition(direction.vector, direction.layer, self.settings.coefficient)
            found[f"ablation:{name}"] = ("harmful", (Ablation(direction.unit),))
            found[f"addition:{name}"] = ("harmless", (addition,))

        for lang, direction in directions.items():
            both(lang, direction)
        if self.settings.controls and directions:
            first = next(iter(directions.values()))
            both("random", random_direction(first, self.settings.seed))
            try:
                both("shuffled", self.control(first))
            except DirectionError as error:
                self.say(f"no control from shuffled labels: {error}")
        return found

    def answer(self, lang: str, conditions: Mapping[str, tuple[str, Edits]]) -> None:
        """Generate what is missing of the answers in `lang`, every condition in shared batches."""
        rows = {
            label: self.data.prompts(lang, "test", label, self.settings.n_test)
            for label in ("harmful", "harmless")
        }
        jobs = {job.key: job for job in _jobs(rows, conditions)}
        have = {completion.key for completion in self.folder.completions(lang)}
        if set(jobs) <= have:
            return
        known = self.cache.load(lang)
        cached = [
            _cached(job, known[prompt_hash(job.row.text)])
            for job in jobs.values()
            if job.condition == "baseline" and prompt_hash(job.row.text) in known
        ]
        self.folder.append(lang, [completion for completion in cached if completion.key not in have])
        from_cache = {completion.key for completion in cached}
        requests = [
            Request(job.key, job.row.text, job.edits) for job in jobs.values() if job.key not in from_cache
        ]
        for answers in generate(
            self.chat,
            requests,
            max_new_tokens=self.settings.max_new_tokens,
            batch_size=self.settings.batch_size,
            done=have,
            progress=f"answers {lang}" if self.progress else None,
        ):
            new = [
                _completion(jobs[answer.key], answer.text, len(answer.ids), answer.ended)
                for answer in answers
                if answer.key not in have
            ]
            self.folder.append(lang, new)
        self._remember(lang, jobs)

    def _remember(self, lang: str, jobs: Mapping[str, _Job]) -> None:
        # Only when the language is complete: a run that goes on must find the cache as it left it.
        self.cache.add(
            lang,
            [
                BaselineAnswer(prompt_hash(jobs[done.key].row.text), done.response, done.n_tokens, done.ended)
                for done in self.folder.completions(lang)
                if done.condition == "baseline" and done.key in jobs
            ],
        )

    def judge(self, lang: str) -> list[Result]:
        """Judge the completions in `lang`, write the verdicts, return the rates."""
        verdicts = []
        for done in self.folder.completions(lang):
            verdict = native.judge(done.response, lang)
            verdicts.append(
                VerdictRecord(
                    done.key, lang, done.label, done.condition, native.NAME, verdict.refused, verdict.reason
                )
            )
        self.folder.write_verdicts(lang, verdicts)
        return summarize(verdicts)


def run_signature(chat: ChatModel, data: DataFolder, settings: BenchSettings) -> dict[str, Any]:
    """Return everything that the numbers of a run depend on."""
    return {
        "model": chat.signature(),
        "data": {"digest": data.digest, "recipe": data.recipe},
        "settings": settings.signature(),
        "judge": native.NAME,
        "versions": versions(),
    }


def summarize(verdicts: Sequence[VerdictRecord]) -> list[Result]:
    """Return one result for each language, label, condition and judge, in order of appearance."""
    groups: dict[tuple[str, str, str, str], list[bool | None]] = {}
    for verdict in verdicts:
        key = (verdict.lang, verdict.label, verdict.condition, verdict.judge)
        groups.setdefault(key, []).append(verdict.refused)
    results = []
    for (lang, label, condition, judge), refused in sorted(groups.items()):
        found = rate(refused)
        results.append(
            Result(
                lang,
                label,
                condition,
                judge,
                found.n,
                found.n_unjudged,
                found.hits,
                found.rate,
                found.low,
                found.high,
            )
        )
    return results


def _groups(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.group for row in rows))


@dataclass(frozen=True, eq=False)
class _Job:
    row: Row
    condition: str
    edits: Edits

    @property
    def key(self) -> str:
        return f"{self.row.id}/{self.condition}"


def _jobs(rows: Mapping[str, Sequence[Row]], conditions: Mapping[str, tuple[str, Edits]]) -> Iterator[_Job]:
    for label, of_label in rows.items():
        for row in of_label:
            yield _Job(row, "baseline", BASELINE)
            for condition, (wanted, edits) in conditions.items():
                if wanted == label:
                    yield _Job(row, condition, edits)


def _completion(job: _Job, text: str, n_tokens: int, ended: bool) -> Completion:
    row = job.row
    return Completion(job.key, row.id, row.group, row.lang, row.label, job.condition, text, n_tokens, ended)


def _cached(job: _Job, answer: BaselineAnswer) -> Completion:
    return _completion(job, answer.response, answer.n_tokens, answer.ended)
