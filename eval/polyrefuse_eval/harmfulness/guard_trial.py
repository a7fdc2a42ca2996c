"""Put a Latent Guard on trial: on a build, a user's prompts and published sets, beside other detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from polyrefuse_eval.errors import GuardError
from polyrefuse_eval.harmfulness.behaviour import EditedPrompt, by_answers
from polyrefuse_eval.harmfulness.detector_costs import DetectorCost, detector_cost, memory_growth
from polyrefuse_eval.harmfulness.guard_experiment import calibrate
from polyrefuse_eval.harmfulness.guard_files import check_before_loading, contrast_key
from polyrefuse_eval.harmfulness.instructions import DATA, check_languages
from polyrefuse_eval.harmfulness.latent_guard import LatentGuard
from polyrefuse_eval.judging.base import Judge, opened
from polyrefuse_eval.judging.local_model import JudgeOptions
from polyrefuse_eval.judging.native.judge import NativeJudge
from polyrefuse_eval.judging.published.prompt_guards import judge_prompts, prompt_judge
from polyrefuse_eval.models.spec import ModelSpec
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.prompt_draw import limit_signature, limited
from polyrefuse_eval.results.prompt_sets import PromptSetFile, PublishedPrompt
from polyrefuse_eval.results.tensor_headers import GuardHeader
from polyrefuse_eval.results.user_prompts import Say, UserPrompt, silent
from polyrefuse_eval.statistics.detection import Scored, detection_table, detections
from polyrefuse_eval.statistics.paired_detection import DetectionChange, change_table, detection_changes
from polyrefuse_eval.statistics.thresholds import Rule

LATENT_GUARD = "latent guard"
REFUSAL = "refusal"
"""The detector that calls a prompt unsafe if the model refuses it: what a Latent Guard is compared with."""

AFTER_TRANSFER = " after transfer"
"""What follows a detector's name where its model's weights are those of the transfer."""

FORMAT = "polyrefuse-guard-test-1"


@dataclass(frozen=True, kw_only=True)
class GuardTrial:
    """A guard file, the prompts to test it on, and the `published` guards that get the same prompts.

    `n_test` and `test_seed` say how `prompts_to_test` chose those of `data`. `rule` calibrates anew on the
    validation prompts of `data`; None keeps the guard's thresholds. With `by_refusal` the model's own
    refusals are one more detector: a prompt is unsafe if its answer refuses.
    """

    guard: Path
    data: DataFolder
    langs: tuple[str, ...]
    prompts: tuple[UserPrompt, ...]
    sets: tuple[PromptSetFile, ...] = ()
    n_test: int | None = None
    test_seed: int | None = None
    rule: Rule | None = None
    by_refusal: bool = False
    published: tuple[str, ...] = ()
    judge_options: JudgeOptions = field(default_factory=JudgeOptions)

    def check(self, model: ModelSpec, transfer: ModelSpec | None = None) -> None:
        """Raise one line for what would fail later, before a model is loaded: see `run`."""
        check_before_loading(self.guard, model)
        if transfer is not None:
            check_before_loading(self.guard, transfer)
        if self.by_refusal:
            NativeJudge().check_languages(
                self.langs, f"leave them out of --langs, or leave out --against {REFUSAL}"
            )
        for name in self.published:
            prompt_judge(name, self.judge_options).check()

    def run(
        self, model: ModelSpec, transfer: ModelSpec | None = None, *, progress: bool = False
    ) -> TrialResult:
        """Return what all detectors say of the prompts; each model is loaded and forgotten in turn.

        The guard is of `model`, where thresholds are calibrated, and is taken as it is to `transfer`: a model
        of the same shape and template whose weights changed. Raises `GuardError` for a guard of another
        model, and what loading and scoring raise.
        """
        self.check(model, transfer)
        guard = LatentGuard.load(self.guard, model())
        if self.rule is not None:
            guard = calibrate(guard, self.data, self.rule, self.langs, progress=progress)
        scored, cost = self._own_detectors(guard, "", progress)
        signature = {
            "guard": dict(guard.metadata),
            "data": self.data.digest,
            **limit_signature(self.n_test, self.test_seed),
            "thresholds": _thresholds(guard),
            "prompt_sets": {known.name: known.to_json() for known in self.sets},
        }
        if transfer is not None:
            guard = guard.transferred(transfer())
            signature["transfer"] = guard.chat.signature()
            scored |= self._own_detectors(guard, AFTER_TRANSFER, progress)[0]
        del guard
        published, published_costs = compare(self.published, self.prompts, self.judge_options)
        return TrialResult(signature=signature, scored=scored | published, costs=[cost, *published_costs])

    def _own_detectors(
        self, guard: LatentGuard, suffix: str, progress: bool
    ) -> tuple[dict[str, list[Scored]], DetectorCost]:
        """Return the verdicts of the guard and, if asked for, of its model's refusals; the guard's cost."""
        name, device = LATENT_GUARD + suffix, guard.chat.device
        with memory_growth(device) as memory:
            scored = {name: score_prompts(guard, self.prompts, progress="guard" if progress else None)}
        cost = detector_cost(
            name, device, memory, self.prompts, lambda prompt: score_prompts(guard, [prompt])
        )
        if self.by_refusal:
            refuses = by_answers(guard.chat, progress="answers" if progress else None)
            verdicts = refuses([EditedPrompt(prompt.prompt, prompt.lang or "") for prompt in self.prompts])
            scored[REFUSAL + suffix] = as_scored(self.prompts, [None] * len(self.prompts), verdicts)
        return scored, cost


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """The verdicts of each detector on the same prompts, and what they depend on.

    `costs` of the guard and of published guards are in no signature: no verdict depends on them.
    """

    signature: Mapping[str, Any]
    scored: Mapping[str, Sequence[Scored]]
    costs: Sequence[DetectorCost] = ()

    def changes(self) -> dict[str, list[DetectionChange]]:
        """Return, for each detector that was transferred, its rates before and after."""
        return {
            name: detection_changes(rows, self.scored[name + AFTER_TRANSFER])
            for name, rows in self.scored.items()
            if name + AFTER_TRANSFER in self.scored
        }

    def to_json(self) -> dict[str, Any]:
        """Return the content of `guard.json`."""
        changes = {name: [row.to_json() for row in rows] for name, rows in self.changes().items()}
        return {
            "format": FORMAT,
            "signature": dict(self.signature),
            "detections": {
                name: [row.to_json() for row in detections(rows, DATA)] for name, rows in self.scored.items()
            },
            **({"transfer": changes} if changes else {}),
        }

    def table(self) -> str:
        """Return the content of `table.md`: a table for each detector, and how sets are labelled."""
        parts = [
            f"## {name}\n\n{detection_table(detections(rows, DATA))}" for name, rows in self.scored.items()
        ]
        for name, rows in self.changes().items():
            model = self.signature["transfer"]
            parts.append(
                f"## {name}: transfer to {model['model']}@{model['revision']}\n\n{change_table(rows)}"
            )
        sets = self.signature["prompt_sets"]
        if sets:
            lines = [f"- {name}: {known['labels']}; {known['source']}" for name, known in sets.items()]
            parts.append("## Labels of published sets\n\n" + "\n".join(lines) + "\n")
        return "\n".join(parts)

    def lines(self) -> list[dict[str, Any]]:
        """Return the records of `scores.jsonl`: the verdict of each detector on each prompt, no text."""
        return [{"guard": name, **vars(row)} for name, rows in self.scored.items() for row in rows]


def languages_to_test(
    header: GuardHeader, data: DataFolder, langs: Sequence[str] | None, *, calibrated: bool
) -> tuple[str, ...]:
    """Return the languages to test in: `langs`, or those of the build that the guard serves.

    Raises `GuardError` where the guard serves none of the build's languages or not all of `langs`, and
    `DatasetFolderError`, naming all gaps, where the build lacks test prompts (or, for a guard to be
    `calibrated`, validation prompts) of a label.
    """
    served = [lang for lang in data.languages if contrast_key(header.languages, lang) is not None]
    if langs is None and not served:
        raise GuardError(
            f"the guard was fitted in {', '.join(header.languages)}, each for itself, and '{data.path}' "
            f"holds {', '.join(data.languages) or 'no language'}; give a build in one of its languages"
        )
    chosen = tuple(served if langs is None else langs)
    foreign = [lang for lang in chosen if contrast_key(header.languages, lang) is None]
    if foreign:
        raise GuardError(
            f"the guard was fitted in {', '.join(header.languages)}, each for itself, and --langs names "
            f"{', '.join(foreign)}; name its own languages, or fit it with --pooled"
        )
    data.require_prompts(chosen, ("test", *(["validation"] if calibrated else [])))
    return chosen


def prompts_to_test(
    data: DataFolder,
    langs: Sequence[str],
    n_test: int | None,
    extra: Sequence[UserPrompt],
    sets: Sequence[PromptSetFile] = (),
    say: Say = silent,
    *,
    test_seed: int | None = None,
) -> list[UserPrompt]:
    """Return the test prompts of each of `langs`: the build's, those of `extra`, those of published `sets`.

    `n_test` limits those of the build, see `results.prompt_draw.limited`. Prompts of a set in other languages
    are left out, and `say` gets one line with their number. Raises `GuardError` where `extra` holds prompts
    in other languages, or a set none in any of `langs`.
    """
    check_languages(extra, langs, GuardError)
    for known in sets:
        foreign = [prompt for prompt in known.prompts if prompt.lang not in langs]
        if len(foreign) == len(known.prompts):
            raise GuardError(
                f"{known.name} holds prompts in {_languages(foreign)}, and none in {', '.join(langs)}; "
                "name its languages with --langs"
            )
        if foreign:
            say(f"{known.name}: left out {len(foreign)} prompts in {_languages(foreign)}, not among --langs")
    added = [*extra, *(prompt for known in sets for prompt in known.prompts)]
    prompts: list[UserPrompt] = []
    for lang in langs:
        for label in ("harmful", "harmless"):
            rows = limited(data.prompts(lang, "test", label), n_test, test_seed)
            prompts += [UserPrompt(row.text, label, lang, DATA) for row in rows]
        prompts += [prompt for prompt in added if prompt.lang == lang]
    return prompts


def score_prompts(
    guard: LatentGuard, prompts: Sequence[UserPrompt], *, progress: str | None = None
) -> list[Scored]:
    """Return the guard's scores and verdicts on labelled `prompts`."""
    verdicts = guard.verdicts(
        [prompt.prompt for prompt in prompts], [prompt.lang for prompt in prompts], progress=progress
    )
    return as_scored(
        prompts, [verdict.score for verdict in verdicts], [verdict.unsafe for verdict in verdicts]
    )


def compare(
    names: Sequence[str], prompts: Sequence[UserPrompt], options: JudgeOptions
) -> tuple[dict[str, list[Scored]], list[DetectorCost]]:
    """Return the verdicts of published guards on the same `prompts`, and their costs.

    A verdict is None where a guard is undecided. Each is loaded and unloaded in turn, in bfloat16
    unless `options` say otherwise.
    """
    options = replace(options, dtype="bfloat16") if options.dtype == "auto" else options
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    scored: dict[str, list[Scored]] = {}
    costs = []
    for name in names:
        with memory_growth(device) as memory, opened(prompt_judge(name, options)) as judge:

            def verdicts(asked: Sequence[UserPrompt], judge: Judge = judge) -> list[bool | None]:
                return judge_prompts(judge, [(prompt.prompt, prompt.lang or "") for prompt in asked])

            scored[judge.name] = as_scored(prompts, [None] * len(prompts), verdicts(prompts))
            timed = detector_cost(judge.name, device, memory, prompts, lambda prompt: verdicts([prompt]))
        costs.append(replace(timed, memory_bytes=memory.growth))
    return scored, costs


def as_scored(
    prompts: Sequence[UserPrompt], scores: Sequence[float | None], verdicts: Sequence[bool | None]
) -> list[Scored]:
    """Return `prompts` with a detector's `scores` and `verdicts`, without their texts."""
    return [
        Scored(
            id=f"{prompt.kind}-{index:05d}",
            lang=prompt.lang or "",
            label=prompt.label or "",
            kind=prompt.kind,
            score=score,
            unsafe=unsafe,
            categories=prompt.categories if isinstance(prompt, PublishedPrompt) else (),
        )
        for index, (prompt, score, unsafe) in enumerate(zip(prompts, scores, verdicts, strict=True))
    ]


def _languages(prompts: Sequence[UserPrompt]) -> str:
    return ", ".join(sorted({prompt.lang or "" for prompt in prompts}))


def _thresholds(guard: LatentGuard) -> dict[str, Any]:
    return {lang: vars(threshold) for lang, threshold in guard.thresholds.items()} or {
        "default": vars(guard.default)
    }
