"""The command `polyrefuse eval judge`: parse, call the Python API, say what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from polyrefuse_data.cli.help import SectionedCommand
from polyrefuse_data.core.terminal import show

if TYPE_CHECKING:
    from polyrefuse_eval.judging.base import Judge
    from polyrefuse_eval.judging.of_files import Scan

EXIT_GAPS = 3
"""As of a build with gaps: everything that can be judged is, and some lines could not be read."""

SHOWN = 5
"""So many bad lines are named; of the others their number."""

file_path = click.Path(path_type=Path, dir_okay=False)


def _check(context: click.Context, _option: click.Parameter, path: Path | None) -> None:
    """Check a file of phrases, say what it holds, and end."""
    if path is None or context.resilient_parsing:
        return
    from polyrefuse_eval.errors import JudgeError
    from polyrefuse_eval.judging.native.check import check_phrases

    checked = check_phrases(path)
    if checked.problems:
        _say([f"'{path}': {problem}" for problem in checked.problems[SHOWN:]])
        raise JudgeError("; ".join(f"'{path}': {problem}" for problem in checked.problems[:SHOWN]))
    kinds = ", ".join(f"{kind} {count}" for kind, count in checked.patterns.items())
    show(f"'{path}' is good: language {checked.lang}; patterns: {kinds}; {checked.n_examples} examples")
    context.exit()


class JudgesOption(click.Option):
    """The option that names judges; its help lists those of the registry, imported only to show it."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the option and its help, with the judges that there are."""
        from polyrefuse_eval.judging.registry import KNOWN

        self.help = (
            f"Judges, separated by commas: {', '.join(KNOWN)}; native+JUDGE lets JUDGE read the answers on "
            "which native is undecided."
        )
        return super().get_help_record(ctx)


@click.command("judge", cls=SectionedCommand)
@click.argument("file", type=file_path)
@click.option(
    "--judge",
    "names",
    default="native",
    cls=JudgesOption,
    show_default=True,
)
@click.option(
    "--phrases",
    type=file_path,
    multiple=True,
    help="Patterns of another language for the native judge, in a file named after its code: sw.yaml.",
)
@click.option(
    "--check-phrases",
    type=file_path,
    is_eager=True,
    expose_value=False,
    callback=_check,
    help="Check a file for --phrases, and do nothing else.",
)
@click.option(
    "--judge-model",
    "models",
    multiple=True,
    metavar="NAME=PLACE",
    help="Where to find a judge's model: a folder, or REPOSITORY@COMMIT.  [default: as published, pinned]",
)
@click.option("--lang", metavar="CODE", help="Language of the answers whose record names none.")
@click.option(
    "--judge-request",
    metavar="JSON",
    help="JSON object with fields to add to each request to a judge openai:MODEL; null removes a field.",
)
@click.option("--out", type=file_path, required=True, help="JSON Lines to write; it must not exist.")
@click.option("--agreement", type=file_path, help="Also write a Markdown table of how far judges agree.")
@click.option(
    "--reference",
    help="Field of FILE with a verdict to compare with: true, false or null.  [default: refused or refusal]",
)
@click.option(
    "--device", help="Where judges' models run: cpu, cuda, cuda:1.  [default: a GPU if there is one]"
)
@click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")
@click.option("--batch-size", type=click.IntRange(1), help="Completions a model reads together.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars and no counts.")
@click.pass_context
def judge_command(
    context: click.Context,
    file: Path,
    names: str,
    phrases: Sequence[Path],
    models: Sequence[str],
    lang: str | None,
    out: Path,
    agreement: Path | None,
    reference: str | None,
    device: str | None,
    dtype: str,
    batch_size: int | None,
    judge_request: str | None,
    quiet: bool,
) -> None:
    """Judge completions of any model: is each a refusal, and why?

    FILE is JSON Lines, a JSON list or CSV with `response`, `lang` and, where they are known, `id` and
    `prompt`. Chat transcripts, output files of OpenAI's batches, samples of lm-evaluation-harness, and
    completions in the files of refusal_direction, JailbreakBench, HarmBench and AlpacaEval are read too.
    Lines that cannot be read are named on standard error, all others are judged, and the exit status is 3.
    If interrupted, run the same command again to resume.
    """
    from polyrefuse_data.core.errors import unknown_name
    from polyrefuse_eval.endpoint.spec import read_fields
    from polyrefuse_eval.errors import JudgeError
    from polyrefuse_eval.judging.local_model import JudgeOptions
    from polyrefuse_eval.judging.of_files import Reading, cascades, columns, judge_file, langs_of, scan
    from polyrefuse_eval.judging.registry import check_languages, judges_by_name
    from polyrefuse_eval.results.files import check_writable

    check_writable(out)
    if agreement is not None:
        check_writable(agreement)
    options = JudgeOptions(device, dtype, batch_size, read_fields(judge_request, "--judge-request"))
    judges = judges_by_name(names, models=models, options=options, phrases=phrases)
    langs = langs_of(judges)
    if lang is not None and lang not in langs:
        raise unknown_name("language", lang, langs)
    found = scan(file, Reading(reference, lang, langs))
    check_languages(judges, set(found.langs))
    if agreement is not None and len(judges) + found.has_references < 2:
        raise JudgeError(
            "--agreement takes two: name a second judge, or give the input a field `refused` with verdicts"
        )
    _say(_warnings(found, judges, file))
    judge_file(file, judges, out, progress=not quiet, found=found)
    verdicts = columns(found, out, judges)
    if agreement is not None:
        from polyrefuse_eval.judging.agreement_page import agreement_page
        from polyrefuse_eval.results.folder import write_text

        write_text(agreement, agreement_page(found.langs, verdicts))
    if not quiet:
        for column in verdicts:
            counts = {value: column.complied.count(value) for value in (False, True, None)}
            harm = column.measures == "harm"
            show(
                f"{column.name}: {counts[False]} {'harmless' if harm else 'refused'}, "
                f"{counts[True]} {'harmful' if harm else 'complied'}, {counts[None]} undecided"
            )
        for name, statistics in cascades(out, judges):
            show(f"{name}: {statistics}")
    if found.bad:
        context.exit(EXIT_GAPS)


def _warnings(found: Scan, judges: Sequence[Judge], file: Path) -> list[str]:
    lines = [f"'{file}', {bad}" for bad in found.bad[:SHOWN]]
    if len(found.bad) > SHOWN:
        lines.append(f"'{file}': {len(found.bad) - SHOWN} more lines that cannot be read")
    for judge in judges:
        if judge.needs_prompt and found.without_prompt:
            lines.append(
                f"{judge.name} needs the prompt, which {found.without_prompt} of {found.good} completions "
                "lack; their verdict is undecided"
            )
        if judge.languages is None:
            continue
        foreign = sorted(set(found.langs) - judge.languages)
        if foreign:
            lines.append(
                f"{judge.name} was not made for {', '.join(foreign)} "
                f"({sum(map(found.langs.count, foreign))} of {found.good} completions); "
                "read its verdicts there with care"
            )
    return lines


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        show(line, err=True)
