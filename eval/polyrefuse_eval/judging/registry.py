"""All judges by name: `native`, the published models, and any OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from polyrefuse_data.core.errors import unknown_name
from polyrefuse_eval.errors import JudgeError
from polyrefuse_eval.judging.base import Judge
from polyrefuse_eval.judging.cascade import Cascade
from polyrefuse_eval.judging.local_model import JudgeOptions, ModelSource
from polyrefuse_eval.judging.native.judge import NativeJudge
from polyrefuse_eval.judging.published.harmbench import HARMBENCH
from polyrefuse_eval.judging.published.llama_guard import LLAMA_GUARD, LLAMA_GUARD_4
from polyrefuse_eval.judging.published.polyguard import POLYGUARD
from polyrefuse_eval.judging.published.qwen3_guard import QWEN3_GUARD
from polyrefuse_eval.judging.published.row import ModelJudge, ModelJudgeRow
from polyrefuse_eval.judging.published.strongreject import STRONGREJECT
from polyrefuse_eval.judging.published.wildguard import WILDGUARD

ENDPOINT = "openai"
MODEL_JUDGES: Mapping[str, ModelJudgeRow] = {
    row.name: row
    for row in (
        WILDGUARD,
        POLYGUARD,
        QWEN3_GUARD,
        LLAMA_GUARD,
        LLAMA_GUARD_4,
        STRONGREJECT,
        HARMBENCH,
    )
}
NATIVE = "native"
RULE_JUDGES: Mapping[str, Callable[[], Judge]] = {NATIVE: NativeJudge}
"""Judges without a model: a row is a name and what makes the judge (see `judging.rule`)."""

KNOWN = (*RULE_JUDGES, *MODEL_JUDGES, f"{ENDPOINT}:MODEL[@URL]", f"{NATIVE}+JUDGE")
"""What `--judge` takes."""


@dataclass(frozen=True)
class JudgeSpec:
    """A judge by its name, where its model lies, and how it runs: what it takes to make it elsewhere."""

    name: str
    model: str | None = None
    options: JudgeOptions | None = None
    phrases: tuple[Path, ...] = ()

    def __call__(self) -> Judge:
        """Make the judge; it is not loaded."""
        return judge_by_name(self.name, model=self.model, options=self.options, phrases=self.phrases)

    @property
    def is_model(self) -> bool:
        """Whether the judge is a model that is loaded."""
        return _second(self.name) in MODEL_JUDGES


def judges_by_name(
    names: str | Sequence[str],
    *,
    models: Sequence[str] = (),
    options: JudgeOptions | None = None,
    phrases: Sequence[str | Path] = (),
) -> list[Judge]:
    """Return the judges in `names`, a list or separated by commas; none is loaded yet. See `judge_specs`."""
    names = names if isinstance(names, str) else ",".join(names)
    paths = [Path(path) for path in ([phrases] if isinstance(phrases, (str, Path)) else phrases)]
    return [spec() for spec in judge_specs(names, models=models, options=options, phrases=paths)]


def judge_specs(
    names: str,
    *,
    models: Sequence[str] = (),
    options: JudgeOptions | None = None,
    phrases: Sequence[Path] = (),
) -> list[JudgeSpec]:
    """Return what makes the judges in `names`, separated by commas; `native+JUDGE` is a cascade of both.

    `models` are `NAME=PATH` or `NAME=REPOSITORY@REVISION`: where a published judge's model lies instead.
    `phrases` are the native judge's files of other languages.
    Raises `UnknownNameError` that lists the known ones, and `JudgeError` for a judge named twice or a
    model for a judge that is not asked for.
    """
    places = dict(_place(text) for text in models)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise JudgeError(f"no judge is named; available: {', '.join(KNOWN)}")
    twice = sorted({name for name in wanted if wanted.count(name) > 1})
    if twice:
        raise JudgeError(f"judge '{twice[0]}' is named twice")
    unused = sorted(set(places) - set(map(_second, wanted)))
    if unused:
        raise JudgeError(f"--judge-model names '{unused[0]}', which is not among the judges: {names}")
    if phrases and not any(name == NATIVE or name.startswith(f"{NATIVE}+") for name in wanted):
        raise JudgeError(f"--phrases is for the judge '{NATIVE}', which is not among the judges: {names}")
    return [JudgeSpec(name, places.get(_second(name)), options, tuple(phrases)) for name in wanted]


def judge_by_name(
    name: str,
    *,
    model: str | None = None,
    options: JudgeOptions | None = None,
    phrases: Sequence[Path] = (),
) -> Judge:
    """Return the judge called `name`, not loaded; see `judges_by_name`."""
    if name.startswith(f"{NATIVE}+"):
        return Cascade(NativeJudge(phrases), judge_by_name(_second(name), model=model, options=options))
    if name == NATIVE:
        return NativeJudge(phrases)
    if name in RULE_JUDGES:
        return RULE_JUDGES[name]()
    if name.partition(":")[0] == ENDPOINT:
        from polyrefuse_eval.judging.endpoint import EndpointJudge

        return EndpointJudge.parse(name, fields=(options or JudgeOptions()).request)
    row = MODEL_JUDGES.get(name)
    if row is None:
        raise unknown_name("judge", name, KNOWN)
    source = None if model is None else ModelSource.parse(model, row.source)
    return ModelJudge(row, source, options)


def check_languages(judges: Sequence[Judge], langs: Collection[str]) -> None:
    """Raise `JudgeError` in one line for languages that the native judge cannot read at all."""
    for judge in judges:
        native = judge.first if isinstance(judge, Cascade) else judge
        if isinstance(native, NativeJudge):
            native.check_languages(langs)


def _second(name: str) -> str:
    """Return the name of the judge that reads what the native judge leaves, or `name` where it is no
    cascade."""
    return name.removeprefix(f"{NATIVE}+")


def _place(text: str) -> tuple[str, str]:
    name, sign, place = text.partition("=")
    if not sign or not place:
        raise JudgeError(f"--judge-model '{text}' is not NAME=FOLDER or NAME=REPOSITORY@REVISION")
    if name not in MODEL_JUDGES:
        raise unknown_name("judge with a model", name, MODEL_JUDGES)
    return name, place
