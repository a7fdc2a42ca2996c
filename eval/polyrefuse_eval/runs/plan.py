"""What a run is asked for: enough to tell, without its model, whether anything is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyrefuse_eval import organisms
from polyrefuse_eval.judging.base import Judge
from polyrefuse_eval.model_source import folder_revision, split_revision
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.folder import RUN_FILE, RunFolder
from polyrefuse_eval.results.settings import RunSettings
from polyrefuse_eval.versions import versions

if TYPE_CHECKING:
    from polyrefuse_eval.judging.registry import JudgeSpec
    from polyrefuse_eval.models.chat import ChatModel


ANSWERED_FILE = "answered.json"
"""Written when all completions are there: from then on the run does not need its model."""

Request = Mapping[str, Any]


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
        "data": {"digest": data.digest, "recipe": data.recipe},
        "settings": {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in settings.signature().items()
        },
        "judges": list(judges),
        "versions": versions(),
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
    """Return a name that reveals nothing of this machine: the last part of a folder's path."""
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
    folder = RunFolder(out)
    return same_answers(folder.request, request) and set(request["judges"]) <= set(folder.signature["judges"])


def same_answers(request: Request | None, other: Request | None) -> bool:
    """Return whether two requests are known, and ask for the same completions, whatever their judges."""
    if request is None or other is None:
        return False
    return _without_judges(request) == _without_judges(other)


def finished(out: Path, request: Request | None) -> bool:
    """Return whether `out` is a complete run made for `request`."""
    return answered(out, request) and RunFolder(out).complete


def _without_judges(request: Request) -> dict[str, Any]:
    return {key: value for key, value in request.items() if key != "judges"}


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
    judge_specs: Mapping[str, JudgeSpec] = field(default_factory=dict)
    """What makes those of the judges that are models, by the name of the judge."""
    on_finished: Callable[[], None] = lambda: None
    """Called in this process after each file of the run that is finished; sends it to an address."""

    @property
    def name(self) -> str:
        """Name of the run in messages."""
        return self.out.name

    @property
    def judge_names(self) -> list[str]:
        """Names of the judges, as a signature holds them."""
        return [judge.name for judge in self.judges]

    def check(self, *, only_read: bool = False) -> None:
        """Raise `RunFolderError`, before a model is loaded, where `out` is a run of other settings or, unless
        it is `only_read`, another process is writing to it."""
        if self.request is None or not (self.out / RUN_FILE).is_file():
            return
        folder = RunFolder(self.out)
        known = {name: self.request[name] for name in ("data", "settings", "judges")}
        with nullcontext() if only_read else folder.locked():
            folder.check({**folder.signature, **known})
