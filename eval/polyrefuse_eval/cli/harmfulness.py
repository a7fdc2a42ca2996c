"""The command `polyrefuse eval harmfulness`: parse, call the Python API, format what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polyrefuse_data.cli.help import SectionedCommand
from polyrefuse_data.core.terminal import show, show_lines
from polyrefuse_eval.cli.options import (
    MODEL_OPTIONS,
    at_least_one,
    file_path,
    final_punctuation_option,
    folder_path,
    load_chat,
    need,
    parse_layers,
    place_path,
    test_option,
    train_option,
    with_options,
)

if TYPE_CHECKING:
    from polyrefuse_eval.results.data import DataFolder
    from polyrefuse_eval.storage.places import Place


@click.command("harmfulness", cls=SectionedCommand)
@with_options(*MODEL_OPTIONS)
@click.option("--data", type=folder_path, default=Path("builds/sample"), show_default=True, help="A build.")
@click.option("--langs", default="all", show_default=True, help="Languages to measure in.")
@click.option(
    "--directions",
    default="own",
    show_default=True,
    help="Directions to use: each language's own, or one language's for all.",
)
@click.option(
    "--behaviour",
    type=click.Choice(["answers", "first-token"]),
    default="answers",
    show_default=True,
    help="Detect refusals by judged answers, or by the sign of the refusal score.",
)
@click.option("--refusal-tokens", help="For first-token: words or ids.  [default: found]")
@train_option
@test_option
@click.option(
    "--steered",
    "n_steered",
    type=at_least_one,
    default=16,
    show_default=True,
    help="Test prompts of each label to steer, spread evenly.",
)
@click.option(
    "--inverted",
    "n_inverted",
    type=at_least_one,
    default=32,
    show_default=True,
    help="Test prompts of each label for reply inversion, spread evenly.",
)
@click.option("--layers", help="Layers to steer, one at a time: 5-20, or 3,7.  [default: all]")
@click.option(
    "--layer", type=int, help="Layer at which categories are compared by cosine.  [default: the middle]"
)
@click.option("--coefficient", default=1.0, show_default=True, help="Strength of steering.")
@click.option(
    "--scope",
    type=click.Choice(["instruction", "prompt", "all"]),
    default="instruction",
    show_default=True,
    help="Tokens that steering edits; `all` includes those of the answer.",
)
@click.option(
    "--max-new-tokens",
    type=at_least_one,
    default=32,
    show_default=True,
    help="Longest answer to judge, in tokens.",
)
@final_punctuation_option
@click.option(
    "--extra", type=file_path, help="JSON Lines with prompt, label, lang and kind, to test as well."
)
@click.option("--plots/--no-plots", default=True, help="Draw figures, too.")
@click.option(
    "--out",
    type=place_path,
    required=True,
    help="Folder or address of the run: new, to resume, or one of `eval run`.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
def harmfulness_command(
    data: Path,
    langs: str,
    directions: str,
    layers: str | None,
    extra: Path | None,
    plots: bool,
    out: Place,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure harmfulness and refusal apart: directions, clusters, steering, reply inversion per language.

    Run the same command again to resume an interrupted run. Answers are judged and then discarded, except
    those of the unedited model, which are shared with `eval run` through the cache if they have as many
    tokens (`polyrefuse eval cache`).
    """
    from polyrefuse_eval.errors import DirectionError
    from polyrefuse_eval.harmfulness.instructions import check_languages
    from polyrefuse_eval.harmfulness.report import harmfulness_tables
    from polyrefuse_eval.judging.native.judge import NativeJudge
    from polyrefuse_eval.results.data import open_data
    from polyrefuse_eval.results.folder import RunFolder, write_text
    from polyrefuse_eval.results.prompt_draw import parse_test
    from polyrefuse_eval.results.sources import ALL
    from polyrefuse_eval.results.user_prompts import read_extra
    from polyrefuse_eval.storage.places import working_folder

    n_test, test_seed = parse_test(options.pop("test"))
    build = open_data(data)
    wanted = build.select(langs)
    source = directions if directions == "own" else _one_language(build, directions)
    splits = ("test", "train") if source == "own" else ("test",)
    if langs.strip() == ALL:
        gaps = build.gaps(wanted, splits)
        for lang, split, label in gaps:
            _say(f"{lang} is left out: '{data}' holds no {label} prompts in it, split {split}")
        wanted = [lang for lang in wanted if lang not in {lang for lang, _, _ in gaps}]
    build.require_prompts(wanted, splits)
    if source != "own":
        build.require_prompts([source], ("train",))
    if options["behaviour"] == "answers" or options["refusal_tokens"] is None:
        NativeJudge().check_languages(
            [*wanted, *([] if source == "own" else [source])],
            "leave it out of --langs, or give --behaviour first-token and --refusal-tokens",
        )
    user_prompts = read_extra(extra) if extra else []
    check_languages(user_prompts, wanted, DirectionError)
    steered_layers = parse_layers(layers)
    need(*("torch", "transformers", "safetensors", *(["matplotlib"] if plots else [])))

    from polyrefuse_eval.harmfulness.experiment import OWN_FOLDER, HarmfulnessRun
    from polyrefuse_eval.harmfulness.settings import HarmfulnessSettings

    names = (
        "behaviour", "refusal_tokens", "n_train", "n_steered", "n_inverted", "layer",
        "coefficient", "scope", "max_new_tokens", "final_punctuation",
    )  # fmt: skip
    settings = HarmfulnessSettings(
        tuple(wanted),
        source,
        layers=steered_layers,
        n_test=n_test,
        test_seed=None if n_test is None else test_seed,
        **{name: options.pop(name) for name in names},
    )
    with working_folder(out, _say) as folder:
        RunFolder.check_place(folder.path / OWN_FOLDER)
        chat = load_chat(options)
        run = HarmfulnessRun.open(
            chat,
            build,
            settings,
            folder.path,
            user_prompts,
            progress=not quiet,
            say=_say,
            on_finished=folder.push,
        )
        record = run.run()
        if plots:
            from polyrefuse_eval.harmfulness.plots import plot_harmfulness

            plot_harmfulness(record, folder.path / OWN_FOLDER / "plots")
        tables = harmfulness_tables(record)
        write_text(folder.path / "harmfulness.md", tables)
    show_lines(tables)


def _one_language(build: DataFolder, text: str) -> str:
    """Return the one language that `text` names; raises `RunFolderError` for several."""
    from polyrefuse_eval.errors import RunFolderError

    codes = build.select(text)
    if len(codes) != 1:
        raise RunFolderError(f"--directions is '{text}'; expected own, or one language of the data")
    return codes[0]


def _say(line: str) -> None:
    show(line, err=True)
