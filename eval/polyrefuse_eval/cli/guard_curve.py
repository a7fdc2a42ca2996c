"""The command `polyrefuse eval guard curve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from polyrefuse_data.cli.help import SectionedCommand
from polyrefuse_data.core.languages import parse_languages
from polyrefuse_data.core.terminal import show_lines
from polyrefuse_eval.cli.guard_options import data_option, guard_file
from polyrefuse_eval.cli.options import (
    MODEL_OPTIONS,
    at_least_one,
    folder_path,
    need,
    take_options,
    test_option,
    with_options,
)
from polyrefuse_eval.runs.direction_options import ModelOptions


@click.command("curve", cls=SectionedCommand)
@with_options(*MODEL_OPTIONS)
@guard_file
@data_option
@click.option("--langs", help="Languages to test in.  [default: those of the build that the guard serves]")
@click.option(
    "--examples",
    default="1,4,16",
    show_default=True,
    help="Numbers of calibration examples per label to try, besides all validation prompts.",
)
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    default=("balanced", "conformal=0.05"),
    show_default=True,
    help="Rule that sets a threshold from the examples; repeat for several.",
)
@click.option(
    "--draws",
    type=at_least_one,
    default=200,
    show_default=True,
    help="Random draws for each number of examples.",
)
@test_option
@click.option("--out", type=folder_path, required=True, help="New folder for curve.json, .png and table.md.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def curve_command(
    guard: Path, data: Path, langs: str | None, examples: str, out: Path, quiet: bool, **options: Any
) -> None:
    """Measure misses and false alarms against calibration examples, in each language.

    The guard is tested with its own threshold, then with thresholds set from a few examples of the language.
    """
    from polyrefuse_data.core.output_folder import write_together
    from polyrefuse_eval.errors import GuardError
    from polyrefuse_eval.results.data import open_data
    from polyrefuse_eval.results.files import check_new_file, json_text
    from polyrefuse_eval.results.prompt_draw import parse_test
    from polyrefuse_eval.statistics.thresholds import Rule

    check_new_file(out, GuardError)
    n_test, test_seed = parse_test(options.pop("test"))
    rules = tuple(Rule.parse(text) for text in options.pop("thresholds"))
    build = open_data(data)
    named = None if langs is None else parse_languages(langs)
    build.require(named or [])
    need("torch", "transformers", "safetensors", "matplotlib")

    from polyrefuse_eval.harmfulness.guard_curve import (
        CurveSettings,
        curve_figure,
        measure_curve,
        parse_examples,
    )
    from polyrefuse_eval.harmfulness.guard_files import check_before_loading, guard_header
    from polyrefuse_eval.harmfulness.guard_trial import languages_to_test
    from polyrefuse_eval.harmfulness.latent_guard import LatentGuard

    settings = CurveSettings(
        langs=languages_to_test(guard_header(guard), build, named, calibrated=True),
        examples=parse_examples(examples),
        rules=rules,
        draws=options.pop("draws"),
        n_test=n_test,
        test_seed=test_seed,
    )
    model = take_options(ModelOptions, options).spec()
    check_before_loading(guard, model)
    curve = measure_curve(LatentGuard.load(guard, model()), build, settings, progress=not quiet)
    files = curve_figure(curve, "curve.png")
    files["table.md"] = curve.table().encode()
    files["curve.json"] = json_text(curve.to_json()).encode()
    write_together(out, files, error=GuardError)
    show_lines(curve.table())
