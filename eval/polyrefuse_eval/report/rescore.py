"""Judge stored completions again, and recompute every table from the stored verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.judging.base import Judge
from polyrefuse_eval.judging.of_runs import PromptsOf, judge_completions
from polyrefuse_eval.judging.registry import check_languages
from polyrefuse_eval.report.published_release import (
    PublishedCell,
    find_cells,
    write_published_tables,
    write_runs,
)
from polyrefuse_eval.report.tables import write_tables
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.folder import RUN_FILE, RunFolder
from polyrefuse_eval.results.subset_files import inner_runs
from polyrefuse_eval.results.verification import answer_problems, refuse, unverified_notes, verify_run


@dataclass(frozen=True)
class Rescored:
    """The runs whose tables were recomputed, and further files that were written."""

    runs: tuple[RunFolder, ...]
    files: tuple[Path, ...] = ()


def rescore(
    folder: Path,
    judges: Sequence[Judge] = (),
    *,
    out: Path | None = None,
    data: DataFolder | None = None,
    source: str | None = None,
    progress: bool = False,
    say: Callable[[str], None] = lambda _line: None,
    note: Callable[[str], None] = lambda _line: None,
    on_finished: Callable[[], None] = lambda: None,
) -> Rescored:
    """Rescore the run in `folder`, every run in its folders, or completions in the published layout.

    Runs are rescored in place: `judges` read what they have not read, verdicts of earlier judges stay, and
    all tables are recomputed. Published completions become runs in `out`, one a model, with the stored
    verdicts, and the published tables as CSV beside them. `data` gives judges the prompts of a run.
    `on_finished` is called after each finished file of verdicts.

    `say` is given a line for each file that cannot be read, `note` one for each judge whose verdicts cannot
    be verified. Raises `RunFolderError` where there is nothing to read, a judge needs prompts that are not at
    hand, or the files of a run do not hold together, and `JudgeError` where the native judge has no phrases
    for a language: before anything is judged or written.
    """
    if not folder.is_dir():
        raise RunFolderError(f"no folder '{folder}'; give a run, a folder of runs, or published completions")
    runs = _runs(folder)
    if runs:
        if out is not None:
            raise RunFolderError(f"'{folder}' is rescored in place; leave out --out")
        for run in runs:
            check_languages(judges, run.languages())
            _check_prompts(run, judges, data)
        for run in runs:
            rescore_run(run, judges, _prompts_of(data), progress=progress, note=note, on_finished=on_finished)
        return Rescored(tuple(runs))
    cells = find_cells(folder, say)
    if out is None:
        raise RunFolderError(f"'{folder}' holds published completions; say where the runs go with --out")
    check_languages(judges, {cell.lang for cell in cells})
    made = write_runs(cells, out, source)
    for run, of_run in made:
        rescore_run(run, judges, _prompts_in(of_run), progress=progress, note=note, on_finished=on_finished)
    files = write_published_tables(made, out)
    return Rescored(tuple(run for run, _ in made), tuple(files))


def rescore_run(
    folder: RunFolder,
    judges: Sequence[Judge],
    prompts: PromptsOf,
    *,
    progress: bool = False,
    note: Callable[[str], None] = lambda _line: None,
    on_finished: Callable[[], None] = lambda: None,
) -> None:
    """Let `judges` read what they have not read of a run, and recompute its tables.

    Verdicts of `judges` that carry no hash of their answer are replaced; `note` is given a line for other
    judges that have such verdicts. Raises `RunFolderError` where the files of the run do not hold together.
    """
    with folder.locked():
        folder.mend()
        if folder.complete:
            verify_run(folder, answers=True)
        else:
            refuse(folder, answer_problems(folder))
        langs = folder.languages()
        judge_completions(
            folder, judges, langs, prompts, progress=progress, reread_unverified=True, on_finished=on_finished
        )
        for line in unverified_notes(folder):
            note(line)
        known = folder.judges()
        added = [judge.name for judge in judges if judge.name not in known]
        write_tables(folder, langs, [*known, *added])


def _runs(folder: Path) -> list[RunFolder]:
    """Return the run in `folder`, or those in its folders; each before the runs inside it."""
    whole = [folder] if (folder / RUN_FILE).is_file() else []
    runs = [RunFolder(path) for path in whole or sorted(file.parent for file in folder.glob(f"*/{RUN_FILE}"))]
    return [part for run in runs for part in (run, *inner_runs(run))]


def _check_prompts(run: RunFolder, judges: Sequence[Judge], data: DataFolder | None) -> None:
    digest = run.signature.get("data", {}).get("digest")
    if data is not None and data.digest != digest:
        raise RunFolderError(
            f"'{data.path}' is not the data of '{run.path}': digest {data.digest} there, {digest} in the run"
        )
    needy = [judge.name for judge in judges if judge.needs_prompt]
    if needy and data is None:
        raise RunFolderError(
            f"{', '.join(needy)} needs the prompts, which a run does not hold; give the build with --data"
        )


def _prompts_in(cells: Sequence[PublishedCell]) -> PromptsOf:
    texts = {cell.lang: cell.prompts() for cell in cells}
    return lambda lang: texts[lang]


def _prompts_of(data: DataFolder | None) -> PromptsOf:
    if data is None:
        return lambda _lang: {}
    return lambda lang: {row.id: row.text for row in data.rows(lang, "test")}
