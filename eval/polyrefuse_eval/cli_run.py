"""The command `polyrefuse eval run`, and what the commands for its single steps share with it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polyrefuse_data.languages import parse_languages
from polyrefuse_eval.cli_options import MODEL_OPTIONS, folder_path, load_chat, need, place_path, with_options

if TYPE_CHECKING:
    from polyrefuse_eval.bench import Bench
    from polyrefuse_eval.data import DataFolder
    from polyrefuse_eval.settings import BenchSettings
    from polyrefuse_eval.storage.places import Place

RUN_OPTIONS = (
    click.option(
        "--data", type=folder_path, default=Path("builds/sample"), show_default=True, help="A build."
    ),
    click.option(
        "--rule", default="robust", show_default=True, help="robust, mediating, arditi2024 or wang2025."
    ),
    click.option(
        "--train", "n_train", default=128, show_default=True, help="Training prompts of each label."
    ),
    click.option("--validation", "n_validation", default=32, show_default=True, help="Validation prompts."),
    click.option(
        "--no-filter", is_flag=True, help="Use training prompts that the model does not refuse, too."
    ),
    click.option("--refusal-tokens", help="First tokens of refusals: words or ids.  [default: found]"),
    click.option("--all-candidates", is_flag=True, help="Score also candidates that the rule rules out."),
    click.option("--seed", default=0, show_default=True, help="Seed of the controls."),
)
JUDGE_OPTIONS = (
    click.option(
        "--judge-model",
        "judge_models",
        multiple=True,
        metavar="NAME=PLACE",
        help="Where a judge's model lies: a folder, or REPOSITORY@COMMIT.  [default: as published, pinned]",
    ),
    click.option(
        "--judge-batch-size", type=click.IntRange(1), help="Answers that a judge's model reads together."
    ),
)
IDENTITY_OPTIONS = ("dtype", "quantization", "attention", "system", "thinking", "structure")
"""Options of the model that change its numbers; where it runs does not."""


def settings_of(langs: str, directions: str, options: dict[str, Any]) -> tuple[DataFolder, BenchSettings]:
    """Return data and settings that options ask for, taking these from `options`; loads nothing big."""
    from polyrefuse_eval.data import open_data
    from polyrefuse_eval.select import rule_steps
    from polyrefuse_eval.settings import POOLED, BenchSettings

    wanted = parse_languages(langs)
    sources = [POOLED] if directions == POOLED else parse_languages(directions)
    data = open_data(options.pop("data"), [*wanted, *(name for name in sources if name != POOLED)])
    rule_steps(options["rule"])
    names = {field for field in BenchSettings.__dataclass_fields__ if field in options}
    settings = BenchSettings(
        langs=tuple(wanted),
        direction_langs=tuple(sources),
        filter_prompts=not options.pop("no_filter"),
        **{name: options.pop(name) for name in names},
    )
    return data, settings


def open_bench(out: Path, langs: str, options: dict[str, Any]) -> Bench:
    """Open the run folder of a single step; bad input is told before the model is loaded."""
    quiet = options.pop("quiet")
    data, settings = settings_of(langs, langs, options)
    need()

    from polyrefuse_eval.bench import Bench

    chat = load_chat(options, quiet=quiet)
    return Bench.open(chat, data, settings, out, progress=not quiet, say=_say)


@click.command("run")
@with_options(*MODEL_OPTIONS, *RUN_OPTIONS)
@click.option("--langs", default="all", show_default=True, help="Languages to measure in.")
@click.option(
    "--directions", default="en", show_default=True, help="Languages to take directions from, or 'pooled'."
)
@click.option(
    "--judges", default="native", show_default=True, help="Judges of the answers, separated by commas."
)
@click.option(
    "--out",
    type=place_path,
    required=True,
    help="Folder of the run, or its address (s3://, gs://, …); the same one resumes it.",
)
@click.option("--max-new-tokens", default=512, show_default=True, help="Longest answer.")
@click.option("--test", "n_test", type=int, help="Test prompts of each label and language.  [default: all]")
@click.option("--coefficient", default=1.0, show_default=True, help="Strength of activation addition.")
@click.option(
    "--strengths",
    default="0.25,0.5,0.75",
    show_default=True,
    help="Further strengths of ablating each language's own direction (else the first), or 'none'.",
)
@click.option(
    "--crossed",
    default="128",
    show_default=True,
    help="Prompts for ablation on harmless and addition on harmful prompts: a number, 0, or 'all'.",
)
@click.option("--batch-size", type=int, help="Answers made together.  [default: 64 on a CPU, 256 on a GPU]")
@click.option("--controls/--no-controls", default=True, help="Random and shuffled-label directions, too.")
@click.option("--tensor-parallel", is_flag=True, help="Spread the model over processes, under torchrun.")
@with_options(*JUDGE_OPTIONS)
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
def run_command(
    out: Place,
    langs: str,
    directions: str,
    judges: str,
    judge_models: Sequence[str],
    judge_batch_size: int | None,
    strengths: str,
    crossed: str,
    tensor_parallel: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Go the whole way for one model: directions, selection, answers, verdicts, rates per language.

    Every direction is ablated and added in every language: from several languages, a transfer matrix.
    Killed, the same command goes on where it was; done, it does nothing.
    """
    from polyrefuse_eval.judges.local_model import JudgeOptions
    from polyrefuse_eval.judges.registry import judges_by_name
    from polyrefuse_eval.settings import parse_crossed, parse_strengths

    options |= {"strengths": parse_strengths(strengths), "crossed": parse_crossed(crossed)}
    data, settings = settings_of(langs, directions, options)
    found = judges_by_name(
        judges, models=judge_models, options=JudgeOptions(options["device"], batch_size=judge_batch_size)
    )

    for judge in found:
        foreign = [
            lang for lang in settings.langs if judge.languages is not None and lang not in judge.languages
        ]
        if foreign:
            _say(f"{judge.name} was not made for {', '.join(foreign)}; read its verdicts there with care")

    from polyrefuse_eval.parallel import folder_of_this_process, rank, require_processes, world_size
    from polyrefuse_eval.run_request import check_request, finished, request_of
    from polyrefuse_eval.storage.places import working_folder

    identity = {name: options[name] for name in IDENTITY_OPTIONS}
    if tensor_parallel:
        need()
        require_processes()
        identity["tensor_parallel"] = world_size()
        options["tensor_parallel"] = True
        quiet = quiet or rank() > 0
    request = request_of(options["model"], identity, data, settings, [judge.name for judge in found])
    with (
        working_folder(out, _say) as local,
        folder_of_this_process(local) if tensor_parallel else nullcontext(local) as folder,
    ):
        check_request(folder, request)
        if not finished(folder, request):
            need()

            from polyrefuse_eval.bench import run

            run(
                lambda: load_chat(options, quiet=quiet),
                data,
                settings,
                found,
                folder,
                request=request,
                progress=not quiet,
                say=_say if rank() == 0 else lambda _line: None,
            )
        if rank() == 0:
            click.echo((folder / "table.md").read_text(encoding="utf-8"), nl=False)


def _say(line: str) -> None:
    click.echo(line, err=True)
