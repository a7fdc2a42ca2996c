"""The commands `polyrefuse eval guard …`: parse, call the Python API, format what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from polyrefuse_data.cli.help import SectionedGroup
from polyrefuse_data.core.languages import parse_languages
from polyrefuse_data.core.terminal import show, show_lines
from polyrefuse_eval.cli.guard_curve import curve_command
from polyrefuse_eval.cli.guard_options import data_option, guard_file
from polyrefuse_eval.cli.guard_score import score_command
from polyrefuse_eval.cli.options import (
    MODEL_OPTIONS,
    at_least_one,
    file_path,
    final_punctuation_option,
    folder_path,
    load_chat,
    need,
    parse_layers,
    take_options,
    test_option,
    train_option,
    with_options,
)
from polyrefuse_eval.runs.direction_options import ModelOptions


@click.group("guard", cls=SectionedGroup, sections={"Commands": ("fit", "test", "curve", "score")})
def guard_group() -> None:
    """Fit, test and use a Latent Guard: it detects harmful prompts in the model's hidden states.

    `fit` a guard for a model, `test` it per language, `score` prompts with it; `curve` shows how much
    calibration examples help in languages that it was not fitted in. A guard generates no answer:
    it needs one forward pass up to the instruction's last token.
    """


@guard_group.command("fit")
@with_options(*MODEL_OPTIONS)
@data_option
@click.option("--langs", default="en", show_default=True, help="Languages to fit in.")
@click.option(
    "--pooled", is_flag=True, help="Fit one guard for all these languages together, not one for each."
)
@click.option(
    "--threshold",
    default="zero",
    show_default=True,
    help="zero, balanced, false-alarm=RATE, or conformal=RATE (miss rate at most RATE).",
)
@click.option("--calibrate", help="Languages to calibrate thresholds in.  [default: those of --langs]")
@click.option(
    "--behaviour",
    type=click.Choice(["answers", "first-token", "label"]),
    default="answers",
    show_default=True,
    help="How to detect which training prompts are refused; `label` uses every prompt by its label.",
)
@train_option
@click.option("--validation", "n_validation", type=at_least_one, help="Validation prompts.  [default: all]")
@click.option("--layers", help="Layers to read: 5-20, or 3,7; L is the last one's output.  [default: all]")
@final_punctuation_option
@click.option("--out", type=file_path, required=True, help="File ending in .safetensors; not overwritten.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
def fit_command(
    data: Path, langs: str, calibrate: str | None, out: Path, quiet: bool, **options: Any
) -> None:
    """Fit a guard on the training prompts of a build, and calibrate it on the validation prompts."""
    from polyrefuse_eval.errors import GuardError
    from polyrefuse_eval.judging.native.judge import NativeJudge
    from polyrefuse_eval.results.data import open_data
    from polyrefuse_eval.results.files import check_new_file
    from polyrefuse_eval.statistics.thresholds import Rule, check_enough

    check_new_file(out, GuardError)
    rule = Rule.parse(options.pop("threshold"))
    layers = parse_layers(options.pop("layers"))
    if calibrate is not None and rule.name == "zero":
        raise GuardError(
            "--calibrate changes nothing with --threshold zero, which is 0 in every language; leave out "
            "--calibrate, or give --threshold balanced, false-alarm=RATE or conformal=RATE"
        )
    build = open_data(data)
    wanted = build.select(langs)
    calibrated = wanted if calibrate is None else build.select(calibrate)
    build.require_prompts(wanted, ("train",))
    if options["behaviour"] != "label":
        NativeJudge().check_languages(
            wanted, "leave it out of --langs, or use all prompts by their label with --behaviour label"
        )
    if rule.name != "zero":
        build.require_prompts(calibrated, ("validation",))
        for lang in calibrated:
            n_harmful = len(build.prompts(lang, "validation", "harmful", options["n_validation"]))
            check_enough(rule, n_harmful, lang)
    need()

    from polyrefuse_eval.harmfulness.guard_experiment import FitSettings, fit
    from polyrefuse_eval.harmfulness.latent_guard import check_layers

    names = ("pooled", "behaviour", "n_train", "n_validation", "final_punctuation")
    settings = FitSettings(
        langs=tuple(wanted),
        calibrate=tuple(calibrated),
        rule=rule,
        layers=layers,
        **{name: options.pop(name) for name in names},
    )
    chat = load_chat(options)
    check_layers(chat, layers)
    guard = fit(chat, build, settings, progress=not quiet, say=_say)
    guard.save(out)
    show(f"{out}: {', '.join(guard.contrasts)}; {len(guard.layers)} layers, {out.stat().st_size} bytes")
    for lang, threshold in guard.thresholds.items():
        show(f"{lang}: alpha {threshold.alpha:.6g} ({threshold.rule})")


@guard_group.command("test")
@with_options(*MODEL_OPTIONS)
@guard_file
@data_option
@click.option("--langs", help="Languages to test in.  [default: those of the build that the guard serves]")
@test_option
@click.option(
    "--extra", type=file_path, help="JSON Lines with prompt, label, lang and kind, to test as well."
)
@click.option(
    "--jailbreaks",
    multiple=True,
    metavar="KIND=FILE",
    help="Published jailbreaks: suffix, persuasion or template = CSV, JSON or JSON Lines.",
)
@click.option(
    "--prompt-set",
    "prompt_sets",
    multiple=True,
    metavar="NAME=FILE",
    help="Published prompt sets, in their published files: toxicchat, openai-moderation, xstest, "
    "sorry-bench, harmbench or polyguardprompts = CSV, JSON Lines (.gz too) or Parquet.",
)
@click.option(
    "--against",
    multiple=True,
    metavar="NAME[=PLACE]",
    help="Detectors to compare with, on the same prompts: llamaguard3 or polyguard (in bfloat16); "
    "refusal, which calls a prompt unsafe if the model's own answer refuses it.",
)
@click.option(
    "--transfer",
    metavar="MODEL",
    help="Apply the guard unchanged to this model, such as a fine-tune: same shape and template, "
    "other weights.",
)
@click.option("--threshold", help="Calibrate again on the validation prompts.  [default: the guard's own]")
@click.option(
    "--out",
    type=folder_path,
    required=True,
    help="New folder for guard.json and table.md, readable only by you.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def test_command(
    guard: Path, data: Path, langs: str | None, threshold: str | None, out: Path, quiet: bool, **options: Any
) -> None:
    """Test a guard: AUROC, accuracy, miss and false alarm rates per language, kind and category of prompt.

    The cost of the guard and of each published guard in --against is printed and written to
    timings.jsonl: milliseconds per prompt, one at a time, and growth of memory.
    """
    from polyrefuse_data.core.output_folder import write_together
    from polyrefuse_eval.errors import GuardError
    from polyrefuse_eval.jailbreaks import read_jailbreaks
    from polyrefuse_eval.results.data import open_data
    from polyrefuse_eval.results.files import check_new_file, json_line, json_text
    from polyrefuse_eval.results.prompt_draw import parse_test
    from polyrefuse_eval.results.prompt_sets import read_prompt_set
    from polyrefuse_eval.results.user_prompts import read_extra
    from polyrefuse_eval.statistics.thresholds import Rule

    check_new_file(out, GuardError)
    n_test, test_seed = parse_test(options.pop("test"))
    rule = None if threshold is None else Rule.parse(threshold)
    build = open_data(data)
    named = None if langs is None else parse_languages(langs)
    build.require(named or [])
    extra, jailbreaks = options.pop("extra"), options.pop("jailbreaks")
    user_prompts = [
        *(read_extra(extra) if extra else ()),
        *(prompt for text in jailbreaks for prompt in read_jailbreaks(text, _say)),
    ]
    sets = tuple(read_prompt_set(text, _say) for text in options.pop("prompt_sets"))
    need()

    from polyrefuse_eval.harmfulness.guard_files import guard_header
    from polyrefuse_eval.harmfulness.guard_trial import (
        REFUSAL,
        GuardTrial,
        languages_to_test,
        prompts_to_test,
    )
    from polyrefuse_eval.judging.local_model import JudgeOptions

    wanted = languages_to_test(guard_header(guard), build, named, calibrated=rule is not None)
    prompts = prompts_to_test(build, wanted, n_test, user_prompts, sets, _say, test_seed=test_seed)
    against, transfer = options.pop("against"), options.pop("transfer")
    trial = GuardTrial(
        guard=guard,
        data=build,
        langs=wanted,
        prompts=tuple(prompts),
        sets=sets,
        n_test=n_test,
        test_seed=test_seed,
        rule=rule,
        by_refusal=REFUSAL in against,
        published=tuple(name for name in against if name != REFUSAL),
        judge_options=JudgeOptions(options["device"]),
    )
    model = take_options(ModelOptions, options)
    result = trial.run(
        model.spec(),
        None if transfer is None else model.model_copy(update={"model": transfer}).spec(),
        progress=not quiet,
    )
    files = {
        "scores.jsonl": "".join(map(json_line, result.lines())),
        "timings.jsonl": "".join(json_line(cost.to_json()) for cost in result.costs),
        "table.md": result.table(),
        "guard.json": json_text(result.to_json()),
    }
    contents = {name: text.encode() for name, text in files.items()}
    write_together(out, contents, private=True, error=GuardError)  # scores.jsonl has one of each prompt
    show_lines(result.table())
    for cost in result.costs:
        _say(str(cost))


def _say(line: str) -> None:
    show(line, err=True)


guard_group.add_command(curve_command)
guard_group.add_command(score_command)
