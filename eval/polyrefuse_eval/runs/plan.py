"""What a run is asked for: enough to tell, without its model, whether anything is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyrefuse_data.core.version import __version__
from polyrefuse_eval import organisms
from polyrefuse_eval.endpoint.spec import is_endpoint
from polyrefuse_eval.judging.base import Judge
from polyrefuse_eval.judging.registry import check_languages
from polyrefuse_eval.model_source import folder_revision, split_revision
from polyrefuse_eval.results.contrast_pairs import FittedPairs
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.folder import ANSWERED_FILE, RUN_FILE, RunFolder, Signature, plain
from polyrefuse_eval.results.growth import (
    DEFAULTS,
    check_growth,
    holds_prompts_of,
    joined,
    only_judges_differ,
)
from polyrefuse_eval.results.prompt_draw import is_limited
from polyrefuse_eval.results.records import RunFile
from polyrefuse_eval.results.settings import RunSettings
from polyrefuse_eval.runs.direction_source import DirectionSource
from polyrefuse_eval.served_names import PREFIX, public_name
from polyrefuse_eval.versions import versions

if TYPE_CHECKING:
    from polyrefuse_eval.endpoint.completions import BaselineServer
    from polyrefuse_eval.judging.registry import JudgeSpec
    from polyrefuse_eval.models.chat import ChatModel

Request = Mapping[str, Any]

SHOWN_SETTINGS = {"direction_langs": "directions", "n_test": "test"}
"""Settings whose option has another name."""


def request_of(
    model: str,
    identity: Mapping[str, Any],
    data: DataFolder,
    settings: RunSettings,
    judges: Sequence[str],
) -> dict[str, Any]:
    """Return the request for a run of `model` with the options `identity`, as plain JSON."""
    return {
        "model": {"name": _public_name(model), "local_revision": local_revision(model), **identity},
        "data": {
            "digest": data.digest,
            "recipe": data.recipe,
            "prompts": {lang: data.prompts_digest(lang) for lang in settings.data_langs},
        },
        "settings": plain(settings.signature()),
        "judges": list(judges),
        "versions": {"polyrefuse": __version__} if is_endpoint(model) else versions(),
    }


def signature_of(
    model: Mapping[str, str],
    data: DataFolder,
    settings: RunSettings,
    judges: Sequence[str],
    libraries: Mapping[str, str],
) -> dict[str, Any]:
    """Return everything that the numbers of a run depend on; `libraries` are their versions."""
    return {
        "model": dict(model),
        "data": {"digest": data.digest, "recipe": data.recipe},
        "settings": settings.signature(),
        "judges": list(judges),
        "versions": dict(libraries),
    }


def _public_name(model: str) -> str:
    """Return a name that reveals nothing of a machine: the last part of a folder's path."""
    if is_endpoint(model):
        return PREFIX + public_name(model.removeprefix(PREFIX))
    folder = Path(split_revision(model)[0]).expanduser()
    return folder.resolve().name if folder.is_dir() else model


def local_revision(model: str) -> str | None:
    """Return a hash of a model on this machine, None for one on the Hub."""
    name, _ = split_revision(model)
    if name in organisms.ORGANISMS:
        return organisms.organism_revision(name)
    folder = Path(name).expanduser()
    return folder_revision(folder) if folder.is_dir() else None


def answered(out: Path, request: Request | None) -> bool:
    """Return whether `out` is a run made for `request`, whatever its judges, with all completions."""
    if request is None or not (out / ANSWERED_FILE).is_file() or not (out / RUN_FILE).is_file():
        return False
    return same_answers(RunFolder(out).request, request)


def same_answers(request: Request | None, other: Request | None) -> bool:
    """Return whether two requests are known, and ask for the same completions, whatever their judges."""
    if request is None or other is None:
        return False
    return only_judges_differ(request, other)


def finished(out: Path, request: Request | None) -> bool:
    """Return whether `out` is a complete run made for `request`, read by all of its judges."""
    if request is None or not answered(out, request):
        return False
    folder = RunFolder(out)
    return folder.complete and set(request["judges"]) <= set(folder.judges())


def growth_lines(asked: RunPlan, grown: RunPlan) -> list[str]:
    """Return a line on what the run in `asked.out` gets besides what is there, and one on what it keeps.

    `grown` is what `asked.grown()` returned; nothing for a new run, and for one that is as it was asked for.
    """
    if not (asked.out / RUN_FILE).is_file():
        return []
    folder = RunFolder(asked.out)
    signature = folder.signature
    wanted, whole = plain(asked.settings.signature()), plain(grown.settings.signature())
    added = _changes(signature["settings"], whole)
    judges = [name for name in asked.judge_names if name not in signature.get("judges", ())]
    added += [f"judges {', '.join(judges)}"] if judges else []
    kept = _changes(wanted, whole)
    absent = [name for name in signature.get("judges", ()) if name not in asked.judge_names]
    lines = []
    if asked.settings.test_seed != grown.settings.test_seed and is_limited(grown.data, grown.settings):
        lines.append(
            f"'{asked.name}' was begun with the first test prompts of each label and continues with them; "
            "to draw from all sources, choose another --out"
        )
    if added:
        lines.append(f"'{asked.name}' grows: {'; '.join(added)}; existing results stay")
    if kept:
        lines.append(f"'{asked.name}' keeps what this command does not name: {'; '.join(kept)}")
    if added and absent:
        lines.append(
            f"{', '.join(absent)}, who read this run before, will not read the new answers; to have them "
            "read, add these judges to --judges"
        )
    return lines


def _changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return in words what the settings `here` have more than those `there`."""
    changes = []
    for name, value in here.items():
        old = there.get(name, DEFAULTS.get(name))
        if value == old:
            continue
        if isinstance(value, list):
            new = [str(part) for part in value if part not in (old or [])]
            changes += [f"{SHOWN_SETTINGS.get(name, name)} {', '.join(new)}"] if new else []
        else:
            shown = "all" if value is None else str(value).lower()
            changes.append(f"{SHOWN_SETTINGS.get(name, name)} {shown}")
    return changes


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run of the model that `load` gives, on `data`, into `out`, judged by `judges`.

    `request` says without the model whether anything is missing; None where that is not known. Workers of a
    cluster can compute with a `ModelSpec` alone.
    """

    load: Callable[[], ChatModel]
    data: DataFolder
    settings: RunSettings
    judges: Sequence[Judge]
    out: Path
    request: Request | None = None
    direction_source: DirectionSource | None = None
    """Where directions come from; None for the training and validation prompts of `data`."""
    judge_specs: Mapping[str, JudgeSpec] = field(default_factory=dict)
    """What makes those of the judges that are models, by the name of the judge."""
    on_finished: Callable[[], None] = lambda: None
    """Called in this process after each file of the run that is finished; sends it to an address."""
    inner: Mapping[str, RunPlan] = field(default_factory=dict)
    """Runs of other prompts with the directions of this run, by the name of their folder in `out`."""
    directions_from: Path | None = None
    """The folder of the run that gives the directions; None where this run finds its own."""
    fitted_pairs: FittedPairs | None = None
    """The contrast pairs that directions of over-refusal are fitted on; None where there are none."""
    baseline_server: BaselineServer | None = None
    """The server that makes the baselines of a loaded model; None where the model does."""

    @property
    def name(self) -> str:
        """Name of the run in messages."""
        inside = self.directions_from is not None and self.out.parent == self.directions_from
        return f"{self.out.parent.name}/{self.out.name}" if inside else self.out.name

    def with_inner(self) -> list[RunPlan]:
        """Return this plan, and those of the runs inside it."""
        inner = [
            replace(plan, out=self.out / name, directions_from=self.out, on_finished=self.on_finished)
            for name, plan in self.inner.items()
        ]
        return [replace(self, inner={}), *inner]

    @property
    def direction_data(self) -> DataFolder:
        """The data whose training and validation prompts directions are found on."""
        source = self.direction_source
        return self.data if source is None or source.data is None else source.data

    @property
    def judge_names(self) -> list[str]:
        """Names of the judges, as a signature holds them."""
        return [judge.name for judge in self.judges]

    def grown(self, *, only_read: bool = False) -> RunPlan:
        """Return the plan of the run in `out` once it holds what this plan asks for besides.

        Loads no model. Raises `RunFolderError` where `out` is a run of other settings or, unless it is
        `only_read`, cannot be written or another process is writing to it; `JudgeError` where a judge cannot
        read the languages of the run.
        """
        if not only_read:
            RunFolder.check_place(self.out)
        if not (self.out / RUN_FILE).is_file():
            return self
        folder = RunFolder(self.out)
        with nullcontext() if only_read else folder.locked():
            run = folder.run_file()
        return self._drawn_as(run.signature)._joined(run)

    def _drawn_as(self, signature: Signature) -> RunPlan:
        """Return the plan with the draw of test prompts with which a run of `signature` was begun.

        A run goes on with the prompts that it has, unless the plan asks for the first ones of a drawn run.
        """
        begun = signature["settings"].get("test_seed")
        settings = replace(self.settings, test_seed=begun)
        if begun is not None and self.settings.test_seed is None and is_limited(self.data, settings):
            return self
        request = self.request
        if request is not None:
            request = {**request, "settings": plain(settings.signature())}
        return replace(self, settings=settings, request=request)

    def _joined(self, run: RunFile) -> RunPlan:
        """Return the plan of what the `run` in `out` and this plan ask for together."""
        asked = {
            "data": {"digest": self.data.digest, "recipe": self.data.recipe},
            "settings": plain(self.settings.signature()),
            "judges": self.judge_names,
        }
        here = {**run.signature, **asked}
        measured = (run.request or {}).get("data", {}).get("prompts", {})
        digests = {lang: self.data.prompts_digest(lang) for lang in measured if lang in self.data.languages}
        same_prompts = holds_prompts_of(run.request, {"data": {"prompts": digests}})
        check_growth(self.out, run.signature, here, same_prompts=same_prompts)
        if run.request is not None and self.request is not None:
            check_growth(self.out, run.request, self.request, same_prompts=same_prompts)
        whole = joined(run.signature, here)["settings"]
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in whole.items()
        }
        settings = replace(self.settings, **fields)
        self.data.require(settings.data_langs)
        check_languages(self.judges, settings.langs)
        request = self.request
        if request is not None:
            request = joined(run.request or request, {**request, "settings": whole})
            prompts = {lang: self.data.prompts_digest(lang) for lang in settings.data_langs}
            request["data"] = {**request["data"], "prompts": prompts}
        return replace(self, settings=settings, request=request)
