"""Completions and verdicts in the layout of the repository that published PolyRefuse, read as run folders.

EXPERIMENT/ORGANISATION/MODEL/LANG/TIME/NUMBER/completions/harmful_{baseline,harm_ablation}_{completions,
evaluations}.json: the evaluations hold WildGuard's and the substring judge's verdicts on each completion.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from polyrefuse_data.core.contents import read_file
from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.core.paths import real_path
from polyrefuse_data.core.schema import group_id, row_id
from polyrefuse_data.core.version import __version__
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.results.folder import RunFolder, write_text
from polyrefuse_eval.results.interventions import ABLATION
from polyrefuse_eval.results.records import Completion, Result, VerdictRecord

WILDGUARD = "published-wildguard"
SUBSTRING = "published-substring"
STORED_JUDGES = (WILDGUARD, SUBSTRING)
"""Names of the judges whose verdicts the evaluations hold."""

CONDITIONS = ("baseline", "harm_ablation")
FILE = re.compile(rf"harmful_({'|'.join(CONDITIONS)})_(completions|evaluations)\.json")
HEADER = (
    "model",
    "lang",
    "time",
    "experiment",
    "str_compliance",
    "wildguard_harmful",
    "wildguard_compliance",
)
"""Columns of the published tables, in their order."""

Flag = Annotated[int, Field(ge=0, le=1)]
LOOSE = ConfigDict(extra="ignore", strict=True)


@with_config(LOOSE)
@dataclass(frozen=True)
class WildGuardVerdict:
    """WildGuard's answers on one completion; None where it could not be read."""

    refusal: Flag | None
    response_harmful: Flag | None


@with_config(LOOSE)
@dataclass(frozen=True)
class PublishedAnswer:
    """One entry of a completions or evaluations file; English prompts have no `instruction_en`."""

    instruction: str
    response: str
    instruction_en: str | None = None
    is_jailbreak_substring_matching: Flag | None = None
    wildguard: WildGuardVerdict | None = None


@with_config(LOOSE)
@dataclass(frozen=True)
class Evaluations:
    """What an evaluations file holds besides its rates, which follow from the verdicts."""

    completions: list[PublishedAnswer]


_ANSWERS = TypeAdapter(list[PublishedAnswer])
_EVALUATIONS = TypeAdapter(Evaluations)


@dataclass(frozen=True)
class PublishedCell:
    """The answers of one model in one language under one condition."""

    model: str
    lang: str
    time: str
    experiment: str
    condition: str
    answers: tuple[PublishedAnswer, ...]

    @property
    def evaluated(self) -> bool:
        """Whether there is a stored verdict on every answer."""
        return all(
            answer.wildguard is not None and answer.is_jailbreak_substring_matching is not None
            for answer in self.answers
        )

    def prompts(self) -> dict[str, str]:
        """Return the prompts by the id of their row."""
        return {
            row_id("harmful", "test", index): answer.instruction for index, answer in enumerate(self.answers)
        }


def find_cells(folder: Path, say: Callable[[str], None]) -> list[PublishedCell]:
    """Return the cells under `folder`: from evaluations, else from completions.

    A file that cannot be read is named to `say` and left out. Raises `RunFolderError` where none is found.
    """
    files: dict[tuple[str, ...], dict[str, Path]] = {}
    for path in sorted(real_path(folder).rglob("harmful_*.json")):
        named = FILE.fullmatch(path.name)
        if named is None or len(path.parts) < 8 or path.parts[-2] != "completions":
            continue
        experiment, organisation, model, lang, time = path.parts[-8:-3]
        if lang in LANGUAGES:
            key = (f"{organisation}/{model}", lang, time, experiment, named[1])
            files.setdefault(key, {})[named[2]] = path
    cells: dict[tuple[str, ...], PublishedCell] = {}
    for (model, lang, time, experiment, condition), paths in sorted(files.items()):
        for kind in ("evaluations", "completions"):
            try:
                answers = _read(paths[kind], kind) if kind in paths else None
            except RunFolderError as error:
                say(f"left out: {error}")
                continue
            if answers:
                # Sorted by time: of several runs of one cell the last one stays.
                cells[model, lang, experiment, condition] = PublishedCell(
                    model, lang, time, experiment, condition, answers
                )
                break
    if not cells:
        raise RunFolderError(
            f"'{folder}' holds neither run.json nor EXPERIMENT/ORGANISATION/MODEL/LANG/TIME/1/completions/"
            "harmful_*.json; give a run, or output/EXPERIMENT of the published repository"
        )
    return list(cells.values())


def source_of(experiment: str) -> str:
    """Return the language of the direction of an experiment such as `ja_vector_sweep`."""
    source = experiment.partition("_")[0]
    if source not in LANGUAGES:
        raise RunFolderError(
            f"experiment '{experiment}' does not begin with its direction's language; give it with --source"
        )
    return source


def write_runs(
    cells: Sequence[PublishedCell], out: Path, source: str | None
) -> list[tuple[RunFolder, list[PublishedCell]]]:
    """Write a run folder for each model (and experiment) in `cells` under `out`; return both.

    Completions and stored verdicts go in; tables are made by who calls. The same cells give the same bytes.
    """
    by_run: dict[tuple[str, str], list[PublishedCell]] = {}
    for cell in cells:
        by_run.setdefault((cell.model, cell.experiment), []).append(cell)
    one_experiment = len({experiment for _, experiment in by_run}) == 1
    runs = []
    for (model, experiment), of_run in by_run.items():
        name = model.replace("/", "--") + ("" if one_experiment else f"--{experiment}")
        folder = _write_run(of_run, out / name, model, experiment, source or source_of(experiment))
        runs.append((folder, of_run))
    return runs


def published_table(runs: Sequence[tuple[RunFolder, list[PublishedCell]]], condition: str) -> str:
    """Return the published table of `condition` as CSV, from the results of `runs`.

    Columns as published, then `<judge>_compliance` of every further judge. Compliance is 1 - refusal rate.
    """
    rows: list[dict[str, object]] = []
    further: list[str] = []
    for folder, cells in runs:
        judges = [judge for judge in folder.signature["judges"] if judge not in STORED_JUDGES]
        further += [judge for judge in judges if judge not in further]
        results = {
            (result.lang, result.judge): result
            for result in folder.results()
            if (result.intervention == "baseline") == (condition == "baseline")
        }
        for cell in cells:
            if cell.condition != condition:
                continue
            wildguard = results.get((cell.lang, WILDGUARD))
            rows.append(
                {
                    "model": cell.model,
                    "lang": cell.lang,
                    "time": cell.time,
                    "experiment": cell.experiment,
                    "str_compliance": _compliance(results.get((cell.lang, SUBSTRING))),
                    "wildguard_harmful": None if wildguard is None else wildguard.harmful_rate,
                    "wildguard_compliance": _compliance(wildguard),
                    **{
                        f"{judge}_compliance": _compliance(results.get((cell.lang, judge)))
                        for judge in judges
                    },
                }
            )
    buffer = io.StringIO()
    header = [*HEADER, *(f"{judge}_compliance" for judge in further)]
    writer = csv.DictWriter(buffer, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def write_published_tables(runs: Sequence[tuple[RunFolder, list[PublishedCell]]], out: Path) -> list[Path]:
    """Write `baseline.csv` and `harm_ablation.csv` to `out`; return the files."""
    files = [out / f"{condition}.csv" for condition in CONDITIONS]
    for file, condition in zip(files, CONDITIONS, strict=True):
        write_text(file, published_table(runs, condition))
    return files


def _read(path: Path, kind: str) -> tuple[PublishedAnswer, ...]:
    try:
        text = read_file(path)
        if kind == "evaluations":
            return tuple(_EVALUATIONS.validate_json(text).completions)
        return tuple(_ANSWERS.validate_json(text))
    except OSError as error:
        raise RunFolderError(f"'{path}' cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RunFolderError(f"'{path}'{place and f', {place}'}: {first['msg']}") from None


def _write_run(
    cells: Sequence[PublishedCell], path: Path, model: str, experiment: str, source: str
) -> RunFolder:
    records = {cell: list(_records(cell, source)) for cell in cells}
    groups = sorted({completion.group for of_cell in records.values() for completion, _ in of_cell})
    langs = [lang for lang in LANGUAGES if any(cell.lang == lang for cell in cells)]
    stored = list(STORED_JUDGES) if any(cell.evaluated for cell in cells) else []
    signature = {
        "model": {"model": model, "revision": "published", "template_hash": "published"},
        "data": {
            "digest": hashlib.sha256("\n".join(groups).encode("utf-8")).hexdigest(),
            "recipe": "published",
        },
        "settings": {"direction_langs": [source], "experiment": experiment},
        "judges": stored,
        "versions": {"polyrefuse": __version__},
    }
    folder = RunFolder.open(path, signature)
    with folder.locked():
        folder.mark_incomplete()
        for lang in langs:
            of_lang = [pair for cell in cells if cell.lang == lang for pair in records[cell]]
            folder.write_completions(lang, [completion for completion, _ in of_lang])
            for judge in stored:
                verdicts = [
                    verdict
                    for _, stored_verdicts in of_lang
                    for verdict in stored_verdicts
                    if verdict.judge == judge
                ]
                folder.write_verdicts(judge, lang, verdicts)
    return folder


def _records(cell: PublishedCell, source: str) -> Iterator[tuple[Completion, list[VerdictRecord]]]:
    condition = "baseline" if cell.condition == "baseline" else ABLATION.condition(source)
    for index, answer in enumerate(cell.answers):
        row = row_id("harmful", "test", index)
        key = f"{row}/{condition}"
        group = group_id(answer.instruction_en or answer.instruction, "harmful")
        completion = Completion(
            key=key,
            id=row,
            group=group,
            lang=cell.lang,
            label="harmful",
            condition=condition,
            response=answer.response,
            n_tokens=None,
            ended=None,
        )

        verdicts = []
        if cell.evaluated:
            wildguard = answer.wildguard or WildGuardVerdict(None, None)
            verdicts = [
                _verdict(completion, WILDGUARD, _flag(wildguard.refusal), _flag(wildguard.response_harmful)),
                _verdict(completion, SUBSTRING, not answer.is_jailbreak_substring_matching, None),
            ]
        yield completion, verdicts


def _verdict(completion: Completion, judge: str, refused: bool | None, harmful: bool | None) -> VerdictRecord:
    """Return the stored verdict of `judge` on `completion`."""
    return VerdictRecord(
        key=completion.key,
        id=completion.id,
        group=completion.group,
        lang=completion.lang,
        label=completion.label,
        condition=completion.condition,
        judge=judge,
        refused=refused,
        reason="as published",
        response_lang=None,
        coherent=None,
        harmful=harmful,
        response_sha256=completion.response_sha256,
    )


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _compliance(result: Result | None) -> float | None:
    return None if result is None or result.refusal_rate is None else 1 - result.refusal_rate
