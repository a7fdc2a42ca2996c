"""What the leaderboard reads of run folders: numbers and signatures, never an answer or a verdict."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from polyrefuse_data.checks.languages_file import RECORDED, register_recorded
from polyrefuse_data.core.errors import PolyRefuseError, unknown_name
from polyrefuse_data.core.paths import real_path
from polyrefuse_eval.directions.selection import CandidateScore, read_scores
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.leaderboard.subsets import OverRefusal, subset_rows
from polyrefuse_eval.report.check import check_run
from polyrefuse_eval.results.agreement_records import AgreementRecord
from polyrefuse_eval.results.cost_files import COSTS_FILE, read_costs
from polyrefuse_eval.results.cost_records import ConditionCost
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.folder import (
    RESULTS_FILE,
    RUN_FILE,
    Comparison,
    Result,
    RunFolder,
    Summary,
)
from polyrefuse_eval.results.harmfulness_records import HARMFULNESS_FORMAT, HarmfulnessFile
from polyrefuse_eval.results.subset_files import (
    OVER_REFUSAL,
    over_refusal_run,
    read_contrasts,
    read_subsets,
)
from polyrefuse_eval.results.subset_records import SubsetResult
from polyrefuse_eval.results.tensor_headers import read_direction_header
from polyrefuse_eval.results.timings import TIMINGS_FILE, read_timings
from polyrefuse_eval.results.validation import json_value, read_formatted
from polyrefuse_eval.results.verification import refuse, verify_run

HARMFULNESS_FILE = "harmfulness.json"
DATA_FORMAT = "polyrefuse-run-data-1"
OVER_REFUSAL_FILES = ("run.json", "results.jsonl", "summary.json", "subsets.jsonl", "contrasts.jsonl")
SHOWN = (
    "run.json",
    "results.jsonl",
    "comparisons.jsonl",
    "summary.json",
    "agreement.json",
    "subsets.jsonl",
    COSTS_FILE,
    TIMINGS_FILE,
    *(f"{OVER_REFUSAL}/{name}" for name in OVER_REFUSAL_FILES),
    HARMFULNESS_FILE,
    "scores/*.json",
    "directions/*.safetensors",
)
"""What is read of a run."""


@dataclass(frozen=True)
class Run:
    """One run: its folder's name, the name of its JSON file in the site, and what was measured.

    `chosen`: language to (position, layer) of the direction that was chosen there.
    """

    name: str
    file: str
    signature: Mapping[str, Any]
    results: tuple[Result, ...]
    comparisons: tuple[Comparison, ...] = ()
    summary: Summary | None = None
    scores: Mapping[str, tuple[CandidateScore, ...]] | None = None
    chosen: Mapping[str, tuple[int | str, int]] | None = None
    agreement: tuple[AgreementRecord, ...] = ()
    harmfulness: HarmfulnessFile | None = None
    subsets: tuple[SubsetResult, ...] = ()
    over_refusal: OverRefusal | None = None
    costs: tuple[ConditionCost, ...] = ()
    origin: str = ""
    """Who made the run, where somebody else did."""
    unchecked: tuple[str, ...] = ()
    """What could not be checked of a run that somebody else made, each in one line."""
    request: Mapping[str, Any] | None = None
    """What a command asked for; None where none made the run, or its maker kept it."""
    measured: str = ""
    """UTC date of the last measurement, empty where the run does not state it."""

    @property
    def model(self) -> str:
        """The model's name without its revision."""
        return str(self._of_model("model", "name") or "unknown model")

    @property
    def revision(self) -> str:
        return str(self._of_model("revision") or "")

    @property
    def short_revision(self) -> str:
        """The revision as it is printed: 12 digits of a hash, anything else whole."""
        return re.sub(r"^([0-9a-f]{12})[0-9a-f]+$", r"\1", self.revision)

    @property
    def template_hash(self) -> str:
        return str(self._of_model("template_hash") or "")

    @property
    def data_digest(self) -> str:
        data = self.signature.get("data")
        return str(data.get("digest") or "") if isinstance(data, Mapping) else ""

    @property
    def endpoint(self) -> str:
        """Where the service is that answered, empty for a model that was loaded."""
        return str(self._of_model("endpoint") or "")

    @property
    def is_organism(self) -> bool:
        """Whether the model is a test organism, on which nothing measured is a finding."""
        return self.model == "organism" or self.model.startswith("organism-")

    def of_harmfulness(self) -> Run:
        """Return this run with the signature of its harmfulness, which is measured by itself."""
        measured = None if self.harmfulness is None else self.harmfulness.signature
        return replace(self, signature=measured or self.signature)

    @property
    def judges(self) -> list[str]:
        """The judges that results are there of, in their order."""
        return list(dict.fromkeys(result.judge for result in self.results))

    def json(self) -> dict[str, Any]:
        """Everything that the page shows of this run, as it lies beside the page."""
        return {
            "format": DATA_FORMAT,
            "run": self.name,
            **({"origin": self.origin, "not_checked": list(self.unchecked)} if self.origin else {}),
            "signature": self.signature,
            "results": [asdict(result) for result in self.results],
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "summary": None if self.summary is None else asdict(self.summary),
            "scores": {
                lang: [asdict(score) for score in scores] for lang, scores in (self.scores or {}).items()
            },
            "chosen": {
                lang: {"position": position, "layer": layer}
                for lang, (position, layer) in (self.chosen or {}).items()
            },
            "agreement": [asdict(record) for record in self.agreement],
            "by_source": {judge: subset_rows(self.subsets, judge, "source") for judge in self.judges},
            "over_refusal": None
            if self.over_refusal is None
            else {
                judge: {"sides": self.over_refusal.sides(judge), "types": self.over_refusal.types(judge)}
                for judge in self.judges
            },
            "costs": [asdict(cost) for cost in self.costs],
            "harmfulness": None if self.harmfulness is None else json_value(self.harmfulness),
        }

    def _of_model(self, *names: str) -> Any:
        model = self.signature.get("model")
        if not isinstance(model, Mapping):
            return model if "model" in names else None
        return next((model[name] for name in names if model.get(name)), None)


@dataclass(frozen=True)
class LeftOut:
    """A folder that is not on the leaderboard, and why; only its name, no path of this machine.

    `has_results`: it is a run with results, which could not be shown.
    """

    name: str
    reason: str
    is_folder: bool = True
    has_results: bool = False


def is_shown(name: str) -> bool:
    """Return whether a file of a run, by its name in the folder, is read for the leaderboard."""
    sets = name.endswith(".safetensors") and "." in name.rpartition("/")[2].removesuffix(".safetensors")
    return not sets and any(fnmatchcase(name, pattern) for pattern in SHOWN)


def read_runs(
    paths: Iterable[Path],
    origins: Mapping[str, str] | None = None,
    builds: Sequence[DataFolder] = (),
) -> tuple[list[Run], list[LeftOut]]:
    """Return the runs in `paths`, and what is left out: folders that are no run or have no results.

    `origins` names who made a run, by the name of its folder: such a run is checked first, see
    `report.check`, against that of `builds` which it names, and left out where a number in it does not
    follow. Raises `RunFolderError` where two of them have the same name, or where none is a run.
    """
    folders = {real_path(path): path for path in paths}
    names = [resolved.name for resolved in folders]
    unknown = sorted(set(origins or {}) - set(names))
    if unknown:
        raise unknown_name("run in --origin", unknown[0], names)
    by_name: dict[str, Path] = {}
    runs: list[Run] = []
    left_out: list[LeftOut] = []
    for resolved, path in folders.items():
        # A name that is no valid text in the file system could not be written to the page.
        name = resolved.name.encode("utf-8", "replace").decode("utf-8") or "run"
        try:
            origin = (origins or {}).get(name, "")
            unchecked = _checked(path, builds) if origin else ()
            read = _read(path, name, _file_name(name, [run.file for run in runs]))
            run = replace(read, origin=origin, unchecked=unchecked)
        except PolyRefuseError as error:
            reason = str(error).replace(str(path), name)
            for build in builds:
                reason = reason.replace(str(build.path), build.path.name)
            has_results = any((path / file).is_file() for file in (RESULTS_FILE, HARMFULNESS_FILE))
            left_out.append(LeftOut(name, reason, path.is_dir(), has_results))
            continue
        if name in by_name:
            raise RunFolderError(
                f"two runs are named '{name}': '{by_name[name]}' and '{path}'; rename one of the folders"
            )
        by_name[name] = path
        runs.append(run)
    if not runs:
        reasons = "; ".join(folder.reason for folder in left_out[:3]) + ("; …" if len(left_out) > 3 else "")
        raise RunFolderError(f"no run with results in the folders given: {reasons}")
    return runs, left_out


def _checked(path: Path, builds: Sequence[DataFolder]) -> tuple[str, ...]:
    """Check the run in `path`; return what could not be checked. Raises `RunFolderError` for problems."""
    folder = RunFolder.existing(path)
    data = folder.signature.get("data")
    digest = data.get("digest") if isinstance(data, Mapping) else None
    checked = check_run(folder, next((build for build in builds if build.digest == digest), None))
    refuse(folder, checked.problems)
    return checked.unchecked


def _file_name(name: str, taken: Iterable[str]) -> str:
    """Return a name for a run's JSON file that is safe in every file system and address."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "run"
    used = {file.casefold() for file in taken}
    candidates = (f"data/{stem}{'' if number == 1 else f'-{number}'}.json" for number in range(1, 10**6))
    return next(file for file in candidates if file.casefold() not in used)


def _read(path: Path, name: str, file: str) -> Run:
    if not path.is_dir():
        raise RunFolderError(f"'{path}' is not a folder of a run")
    harmfulness = read_harmfulness(path / HARMFULNESS_FILE)
    if harmfulness and not (path / RESULTS_FILE).is_file():
        return Run(name=name, file=file, signature=harmfulness.signature, results=(), harmfulness=harmfulness)
    folder = RunFolder.existing(path)
    results = tuple(folder.results())
    if not results:
        raise RunFolderError(f"'{path}' has no results yet; run the same command again to resume")
    verify_run(folder)
    run_file = folder.run_file()
    register_recorded({RECORDED: list(run_file.own_languages)}, path / RUN_FILE)
    return Run(
        name=name,
        file=file,
        signature=run_file.signature,
        results=results,
        comparisons=tuple(folder.comparisons()),
        summary=folder.summary(),
        scores={file.stem: tuple(read_scores(file)) for file in sorted((path / "scores").glob("*.json"))},
        chosen=dict(_chosen(path / "directions")),
        agreement=folder.agreement(),
        harmfulness=harmfulness,
        subsets=tuple(read_subsets(folder)),
        over_refusal=_over_refusal(folder),
        costs=tuple(read_costs(folder)),
        request=run_file.request,
        measured=_measured(path),
    )


def _measured(path: Path) -> str:
    """Return the last date of the run's timings; none where they are damaged: no number depends on them."""
    try:
        return max((timing.date for timing in read_timings(path)), default="")
    except RunFolderError:
        return ""


def _over_refusal(folder: RunFolder) -> OverRefusal | None:
    """Return the run's rates on prompts that look harmful, None where it has none that are finished."""
    inner = over_refusal_run(folder)
    if inner is None or not (inner.path / RESULTS_FILE).is_file():
        return None
    verify_run(inner)
    return OverRefusal(tuple(inner.results()), tuple(read_subsets(inner)), tuple(read_contrasts(inner)))


def read_harmfulness(file: Path) -> HarmfulnessFile | None:
    """Return what `harmfulness.json` holds, None where there is none; raises `RunFolderError`."""
    return read_formatted(HarmfulnessFile, file, HARMFULNESS_FORMAT) if file.is_file() else None


def _chosen(folder: Path) -> Iterable[tuple[str, tuple[int | str, int]]]:
    """Yield language and place of each chosen direction, from the files' headers alone."""
    for file in sorted(folder.glob("*.safetensors")):
        if "." not in file.stem:
            header = read_direction_header(file, RunFolderError)
            yield file.stem, (header.position, header.layer)
