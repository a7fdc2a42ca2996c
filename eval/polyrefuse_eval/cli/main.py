"""The commands `polyrefuse eval …`: parse, call the Python API, format what comes back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polyrefuse_data.cli.help import SectionedGroup
from polyrefuse_data.cli.translators import languages_option
from polyrefuse_data.core.terminal import show, show_lines
from polyrefuse_eval.cli.cache import cache_group
from polyrefuse_eval.cli.check import check_command
from polyrefuse_eval.cli.compare import compare_command
from polyrefuse_eval.cli.cost import cost_command
from polyrefuse_eval.cli.export import export_command
from polyrefuse_eval.cli.guard import guard_group
from polyrefuse_eval.cli.harmfulness import harmfulness_command
from polyrefuse_eval.cli.judge import judge_command
from polyrefuse_eval.cli.leaderboard import leaderboard_command
from polyrefuse_eval.cli.options import (
    DIRECTION_OPTIONS,
    MODEL_OPTIONS,
    at_least_one,
    check_ending,
    file_path,
    folder_path,
    load_chat,
    need,
    with_options,
)
from polyrefuse_eval.cli.rescore import rescore_command
from polyrefuse_eval.cli.run import direction_finder, run_command
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.results.interventions import INTERVENTIONS, intervention_of_action

ACTIONS = [row.action for row in INTERVENTIONS.values()]

if TYPE_CHECKING:
    from polyrefuse_eval.models.generate import Answer


SECTIONS = {
    "Measure": ("run", "harmfulness", "guard", "cost", "check"),
    "Judge": ("judge", "rescore"),
    "Show": ("leaderboard", "compare", "export", "plot", "activations"),
    "Single steps": ("extract", "select", "generate", "steered", "lm-eval-path", "cache"),
}


@click.group(
    "eval",
    cls=SectionedGroup,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@languages_option
def eval_group() -> None:
    """Measure how robustly a chat model refuses: directions, interventions, refusal rates.

    Start with `polyrefuse eval run --model organism --data builds/sample --out runs/organism`, which
    needs no download. No command writes modified weights or uploads answers.
    """


@eval_group.command("extract")
@with_options(*MODEL_OPTIONS, *DIRECTION_OPTIONS)
@click.option("--langs", default="en", show_default=True, help="Languages to extract directions in.")
@click.option("--out", type=folder_path, required=True, help="Folder for LANG.all.safetensors.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
def extract_command(out: Path, langs: str, **options: Any) -> None:
    """Compute difference-in-means directions at every layer and position, for each language."""
    finder = direction_finder(out, langs, options, selecting=False)
    for lang in finder.settings.langs:
        directions = finder.extract(lang)
        directions.save(out / "directions" / f"{lang}.all.safetensors")
        counts = directions.metadata["counts"]
        show(
            f"{lang}: {counts['n_harmful_kept']} of {counts['n_harmful']} harmful and "
            f"{counts['n_harmless_kept']} of {counts['n_harmless']} harmless prompts, "
            f"{len(directions.positions)} positions, {len(directions.layers)} layers"
        )


@eval_group.command("select")
@with_options(*MODEL_OPTIONS, *DIRECTION_OPTIONS)
@click.option(
    "--scores", type=file_path, help="Choose from this file of candidate scores, without loading a model."
)
@click.option(
    "--layers", type=int, help="With --scores: how many layers the model has.  [default: as scored]"
)
@click.option("--langs", default="en", show_default=True, help="Languages to choose directions in.")
@click.option("--out", type=folder_path, help="Without --scores: folder for LANG.safetensors.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
def select_command(
    scores: Path | None, layers: int | None, langs: str, out: Path | None, **options: Any
) -> None:
    """Choose a direction; print its position and layer."""
    if scores is not None and out is not None:
        raise click.UsageError("--scores FILE prints a choice and writes nothing; leave out --out")
    if scores is None and layers is not None:
        raise click.UsageError("--layers is for --scores FILE; a model's number of layers is known")
    if scores is not None:
        from polyrefuse_eval.directions.selection import read_scores, select

        candidates = read_scores(scores)
        chosen = select(candidates, options["rule"], layers)
        incomplete = sum(candidate.refusal_score is None for candidate in candidates)
        if incomplete:
            show(
                f"{incomplete} of {len(candidates)} candidates have no complete scores and were left out; "
                "--all-candidates measures all",
                err=True,
            )
        if chosen.relaxed:
            show(
                f"rule '{chosen.rule}' accepts no candidate; fell back to '{chosen.step}'",
                err=True,
            )
        show(f"{chosen.score.position} {chosen.score.layer}")
        return
    if out is None:
        raise click.UsageError("give --scores FILE, or --out FOLDER to score candidates of a model")
    finder = direction_finder(out, langs, options, selecting=True)
    for lang in finder.settings.langs:
        direction = finder.direction(lang)
        show(f"{direction.position.label} {direction.layer}")


@eval_group.command("generate")
@with_options(*MODEL_OPTIONS)
@click.option("--data", type=folder_path, default=Path("builds/sample"), show_default=True, help="A build.")
@click.option("--langs", default="en", show_default=True, help="Languages of the prompts.")
@click.option("--split", default="test", show_default=True, help="train, validation or test.")
@click.option(
    "--label",
    type=click.Choice(["harmful", "harmless"]),
    default="harmful",
    show_default=True,
    help="Which prompts to answer.",
)
@click.option("--limit", type=at_least_one, help="Prompts of each language.  [default: all]")
@click.option("--direction", type=file_path, help="A direction from `select`.")
@click.option(
    "--action",
    type=click.Choice(["none", *ACTIONS]),
    default="none",
    show_default=True,
    help="The edit.",
)
@click.option("--coefficient", default=1.0, show_default=True, help="Strength of the intervention.")
@click.option("--max-new-tokens", type=at_least_one, default=512, show_default=True, help="Longest answer.")
@click.option(
    "--batch-size",
    type=at_least_one,
    help="Batch size of generation.  [default: up to 64 on a CPU, 256 on a GPU]",
)
@click.option(
    "--temperature", type=click.FloatRange(0.0), default=0.0, show_default=True, help="0 is greedy."
)
@click.option("--seed", default=0, show_default=True, help="Seed of sampling.")
@click.option("--out", type=file_path, required=True, help="JSON Lines to write; it must not exist.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def generate_command(
    data: Path,
    langs: str,
    split: str,
    label: str,
    limit: int | None,
    direction: Path | None,
    action: str,
    coefficient: float,
    out: Path,
    quiet: bool,
    temperature: float,
    seed: int,
    **options: Any,
) -> None:
    """Write answers to the prompts of a build, with a direction ablated or added."""
    from polyrefuse_eval.results.data import open_data
    from polyrefuse_eval.results.files import check_new_file

    check_new_file(out)
    if action != "none" and direction is None:
        raise click.UsageError(f"--action {action} needs --direction FILE")
    if action == "none" and direction is not None:
        raise click.UsageError(f"--direction changes nothing without --action {'|'.join(ACTIONS)}")
    folder = open_data(data)
    wanted = folder.select(langs)
    rows = [row for lang in wanted for row in folder.prompts(lang, split, label, limit)]
    generation = {name: options.pop(name) for name in ("max_new_tokens", "batch_size")}
    need()

    from polyrefuse_eval.directions.fit import Direction
    from polyrefuse_eval.models.generate import Request, Sampling, generate
    from polyrefuse_eval.models.interventions import edit_with
    from polyrefuse_eval.results.folder import write_jsonl

    if direction is not None:
        Direction.load(direction)  # a bad file is known before the model is loaded
    chat = load_chat(options)
    edits = (
        ()
        if direction is None or action == "none"
        else (edit_with(intervention_of_action(action), Direction.load(direction, chat), coefficient),)
    )
    requests = [Request(f"{row.lang}/{row.id}", row.text, edits) for row in rows]
    by_key: dict[str, Answer] = {}
    for answers in generate(
        chat,
        requests,
        sampling=Sampling(temperature, seed),
        thoughts=True,
        progress=None if quiet else "answers",
        **generation,
    ):
        by_key.update((answer.key, answer) for answer in answers)
    records = []
    for row in rows:
        answer = by_key[f"{row.lang}/{row.id}"]
        records.append(
            {
                "id": row.id,
                "lang": row.lang,
                "label": row.label,
                "response": answer.text,
                "ended": answer.ended,
                **({} if answer.reasoning is None else {"reasoning": answer.reasoning}),
            }
        )
    write_jsonl(out, records, private=True)  # answers, maybe to harmful requests
    show(f"{len(records)} answers in {out}")


@eval_group.command("plot")
@click.argument("run", type=folder_path)
def plot_command(run: Path) -> None:
    """Draw a run: transfer matrix, candidate scores by layer and position, cosines between languages.

    Writes PNG and SVG files to RUN/plots and prints the names of the PNG files.
    """
    need("torch", "safetensors", "matplotlib")

    from polyrefuse_data.core.paths import refuse_linked_folders
    from polyrefuse_eval.directions.plots import draw_run
    from polyrefuse_eval.report.transfer_figure import draw_transfer

    refuse_linked_folders(run, error=RunFolderError)
    drawn = [*draw_run(run), *draw_transfer(run)]
    if not drawn:
        raise RunFolderError(f"'{run}' has no scores, directions or results to draw; give a run folder")
    for path in drawn:
        show(path)


@eval_group.command("activations")
@with_options(*MODEL_OPTIONS)
@click.option("--data", type=folder_path, default=Path("builds/sample"), show_default=True, help="A build.")
@click.option("--langs", default="all", show_default=True, help="Languages to draw.")
@click.option("--limit", type=at_least_one, default=64, show_default=True, help="Training prompts per label.")
@click.option("--position", default="-1", show_default=True, help="A post-instruction token, or t_inst.")
@click.option("--out", type=file_path, required=True, help="PNG, SVG or PDF; silhouette scores go beside it.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def activations_command(
    data: Path, langs: str, limit: int, position: str, out: Path, quiet: bool, **options: Any
) -> None:
    """Draw the principal components of harmful and harmless activations, and silhouettes by layer."""
    from polyrefuse_eval.results.data import open_data
    from polyrefuse_eval.results.files import check_writable

    check_ending(out, (".png", ".svg", ".pdf"))
    check_writable(out)
    if position != "t_inst" and not re.fullmatch(r"-[1-9]\d*", position):
        raise click.UsageError(f"--position is '{position}'; expected t_inst, -1, -2, …")
    folder = open_data(data)
    wanted = folder.select(langs)
    folder.require_prompts(wanted, ("train",))
    need("torch", "transformers", "matplotlib")

    from polyrefuse_eval.directions.plots import draw_activations

    scores = draw_activations(load_chat(options), folder, wanted, limit, position, out, progress=not quiet)
    show_lines(json.dumps({lang: max(values) for lang, values in scores.items()}, indent=1))


@eval_group.command("steered")
@with_options(*MODEL_OPTIONS)
@click.option("--direction", type=file_path, required=True, help="A direction from `select`.")
@click.option("--action", type=click.Choice(ACTIONS), default="ablate", show_default=True, help="The edit.")
@click.option("--coefficient", default=1.0, show_default=True, help="Strength of addition.")
@click.option("--out", type=file_path, required=True, help="File ending in .pt.")
def steered_command(direction: Path, action: str, coefficient: float, out: Path, **options: Any) -> None:
    """Export an intervention for `lm_eval --model steered`."""
    from polyrefuse_eval.results.files import check_writable

    check_ending(out, (".pt", ".pth"))
    check_writable(out)
    need()

    from polyrefuse_eval.directions.fit import Direction
    from polyrefuse_eval.integrations.lm_eval_steering import export_steered
    from polyrefuse_eval.models.interventions import edit_with

    Direction.load(direction)  # a bad file is known before the model is loaded
    chat = load_chat(options)
    edit = edit_with(intervention_of_action(action), Direction.load(direction, chat), coefficient)
    show(export_steered(chat, edit, out))


@eval_group.command("lm-eval-path")
def lm_eval_path_command() -> None:
    """Print the folder of our tasks for lm-evaluation-harness, for its --include_path."""
    from polyrefuse_eval.integrations import lm_eval_tasks

    show(Path(lm_eval_tasks.__file__).parent)


eval_group.add_command(run_command)
eval_group.add_command(judge_command)
eval_group.add_command(rescore_command)
eval_group.add_command(compare_command)
eval_group.add_command(check_command)
eval_group.add_command(cost_command)
eval_group.add_command(leaderboard_command)
eval_group.add_command(export_command)
eval_group.add_command(guard_group)
eval_group.add_command(harmfulness_command)
eval_group.add_command(cache_group)
