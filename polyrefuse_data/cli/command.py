"""The command `polyrefuse`: parses, calls the Python API, formats what comes back, and nothing else."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from polyrefuse_data.cli.build_summary import print_build
from polyrefuse_data.cli.cluster import executor_options, take_cluster_options
from polyrefuse_data.cli.doctor import doctor
from polyrefuse_data.cli.help import SectionedGroup
from polyrefuse_data.cli.lists import checks, languages, recipes, sources
from polyrefuse_data.cli.memory import memory
from polyrefuse_data.cli.model_options import model_options, take_models
from polyrefuse_data.cli.parts import EXIT_ERROR, file_argument, folder_argument
from polyrefuse_data.cli.translators import languages_option, print_plan, translation_options
from polyrefuse_data.core.display import visible_json
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.files import FULL
from polyrefuse_data.core.progress import StepProgress
from polyrefuse_data.core.terminal import show, show_lines
from polyrefuse_data.core.version import __version__

PLUGINS = "polyrefuse.commands"
"""Entry-point group through which other packages add commands; each is loaded when it is called."""

EXIT_GAPS, EXIT_INTERRUPTED = 3, 130


class _Commands(SectionedGroup):
    """The commands here, and those of other packages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *metadata.entry_points(group=PLUGINS).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        for entry in metadata.entry_points(group=PLUGINS, name=cmd_name):
            try:
                command = entry.load()
            except ImportError as error:
                extra = f"[{entry.extras[0]}]" if entry.extras else f"[{cmd_name}]"
                raise PolyRefuseError(
                    f"'{cmd_name}' needs {error.name or error}, which is not installed: "
                    f"pip install 'polyrefuse{extra}'"
                ) from None
            return command if isinstance(command, click.Command) else None
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from polyrefuse_data.core.errors import unknown_name

        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            raise unknown_name("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


SECTIONS = {
    "Data set": ("build", "audit", "review", "memory", "publish", "diff", "calibrate"),
    "Models": ("eval",),
    "Look up": ("doctor", "recipes", "sources", "languages", "translators", "checks"),
}


@click.group(
    cls=_Commands,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="polyrefuse")
def cli() -> None:
    """Measure how robustly chat models refuse harmful requests, in every language.

    \b
    Build a data set, offline, in seconds:
      polyrefuse build --recipe sample --langs all
    Measure a model; this one is tiny and is trained here:
      polyrefuse eval run --model organism --data builds/sample --out runs/organism
    Judge answers that you have:
      polyrefuse eval judge ANSWERS.jsonl --out VERDICTS.jsonl
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0, 1 for findings of an audit, 2 for an error, 3 for gaps, 130 for Ctrl-C."""
    _keep_progress_to_this_process()
    _print_any_name()
    try:
        status = cli.main(args=arguments, prog_name="polyrefuse", standalone_mode=False)
        if sys.stdout is not None:  # it may be closed
            sys.stdout.flush()
    except PolyRefuseError as error:
        _say(f"Error: {error}")
        sys.exit(EXIT_ERROR)
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        sys.exit(EXIT_ERROR)
    except (click.Abort, KeyboardInterrupt):
        show("Interrupted; completed work is kept. Run the same command again to resume.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except MemoryError:
        show("Error: there is not enough memory; completed work is kept", err=True)
        sys.exit(EXIT_ERROR)
    except OSError as error:
        # A full disk or a folder that may not be written; without a file's name it is a bug.
        if error.filename is not None:
            _say(f"Error: '{error.filename}': {error.strerror}")
        elif error.errno in FULL:  # where standard output goes: files are written with their names
            _say(f"Error: the output cannot be written: {error.strerror}; free some space and run again")
        else:
            raise
        sys.exit(EXIT_ERROR)
    finally:
        _forget_what_cannot_be_written()
    sys.exit(status if isinstance(status, int) else 0)


def _say(line: str) -> None:
    """Write a line to standard error; a full disk there changes no exit status."""
    with suppress(OSError):
        show(line, err=True)


def _forget_what_cannot_be_written() -> None:
    """Let what the standard streams cannot take go nowhere: Python would try again, and exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or no file
            if stream is None:
                continue
            try:
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _print_any_name() -> None:
    """Print what the terminal's encoding lacks, and names of files that are no text, as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _keep_progress_to_this_process() -> None:
    """Give tqdm a lock of threads.

    Its own is shared between processes: a child that is killed while it draws would leave all others
    waiting for the lock for ever.
    """
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())


@cli.command()
@click.option(
    "--recipe", default="paper", show_default=True, help="A recipe's name or a YAML file of your own."
)
@click.option(
    "--langs", default="all", show_default=True, help="'all', or codes separated by commas: de,yo,zh."
)
@click.option("--out", type=folder_argument, help="Folder of the build.  [default: builds/RECIPE]")
@click.option(
    "--sources", type=folder_argument, help="Local mirror of the upstream files.  [default: download them]"
)
@click.option("--memory", type=file_argument, help="Translation memory.  [default: in your data folder]")
@click.option(
    "--translator",
    default="replay",
    show_default=True,
    help="Where translations come from: 'replay' (the memory), 'replay:BACKEND', a backend (see `polyrefuse "
    "translators`), or several separated by commas: each translates what those before it could not.",
)
@translation_options
@executor_options
@click.option("--seed", type=int, help="Seed of the draws, in place of the recipe's.")
@click.option("--size", help="Other sizes: 128/32/572 (train/validation/test) or test=100.")
@click.option("--allow-gaps", is_flag=True, help="Package a build with gaps; its card names them.")
@click.option(
    "--replace", is_flag=True, help="Replace a build of another recipe, or one with more languages, in --out."
)
@click.option("--all-votes", is_flag=True, help="Ask every language detector about every row (slower).")
@model_options
@click.option("--thresholds", type=file_argument, help="Thresholds of your own, from `polyrefuse calibrate`.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
def build(
    recipe: str,
    langs: str,
    size: str | None,
    quiet: bool,
    dry_run: bool,
    **options: Any,
) -> int:
    """Build a data set: prompts, splits, translations, checks, package.

    Exit status 3 if prompts have no translation: they are named, and nothing is packaged without
    --allow-gaps.

    \b
    Examples:
      polyrefuse build --recipe sample --langs all
      polyrefuse build --recipe paper --sources DIR --memory FILE --out builds/paper
      polyrefuse build --recipe paper --translator google --back-translate --dry-run
      polyrefuse build --recipe paper --translator google,deepl --candidates 2 --memory FILE
    """
    from polyrefuse_data.build.pipeline import BuildRequest
    from polyrefuse_data.build.pipeline import build as run
    from polyrefuse_data.core.languages import parse_languages
    from polyrefuse_data.prompts.recipe import parse_size

    request = BuildRequest(
        cluster=take_cluster_options(options),
        models=take_models(options),
        recipe=recipe,
        langs=parse_languages(langs),
        size=parse_size(size) if size else None,
        quiet=quiet,
        **options,
    )
    if dry_run:
        print_plan(request)
        return 0
    with StepProgress(quiet) as show_step:
        result = run(request, show_step)
    print_build(result, quiet)
    return 0 if result.complete else EXIT_GAPS


@cli.command()
@click.argument("folder", type=folder_argument)
@click.option("--english", type=folder_argument, help="English lists of a release.  [default: beside it]")
@click.option("--back", type=folder_argument, help="Back-translations of a release.  [default: beside it]")
@click.option("--memory", type=file_argument, help="Translation memory with a build's back-translations.")
@model_options
@click.option("--check", "only", multiple=True, help="Report this check only; may be repeated.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--html", type=file_argument, help="Also write a self-contained HTML page.")
@click.option("--show-texts", is_flag=True, help="Show prompts in the HTML page, not only their ids.")
@click.option("--all-votes", is_flag=True, help="Ask every language detector about every row (slower).")
@click.option("--thresholds", type=file_argument, help="Thresholds of your own, from `polyrefuse calibrate`.")
@languages_option
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def audit(
    folder: Path,
    form: str,
    html: Path | None,
    show_texts: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Check a folder: a build, or a release in the layout of Multilingual-Refusal.

    Exit status 1 if there is a finding of severity error.

    \b
    Examples:
      polyrefuse audit builds/paper
      polyrefuse audit builds/paper --quality comet:Unbabel/wmt22-cometkiwi-da@REV --scores scores.jsonl
    """
    from polyrefuse_data.audit.audit import audit as run
    from polyrefuse_data.audit.report import render_html, report_lines
    from polyrefuse_data.core.paths import check_output

    models = take_models(options)
    if html is not None:
        check_output(html, option="--html")
    with StepProgress(quiet) as show_step:
        report = run(
            folder, progress=lambda done, total: show_step("checks", done, total), models=models, **options
        )
    if html is not None:
        render_html(report, html, show_texts)
    if form == "json":
        show_lines(visible_json(report.to_dict()))
    else:
        for line in report_lines(report):
            show(line)
    return 1 if report.has_errors else 0


@cli.command()
@click.argument("folder", type=folder_argument)
@click.option("--english", type=folder_argument, help="English lists of a release.  [default: beside it]")
@click.option("--back", type=folder_argument, help="Back-translations of a release.  [default: beside it]")
@click.option("--scores", type=file_argument, help="Also set thresholds for the models in this scores file.")
@click.option("--out", type=file_argument, help="File to write.  [default: standard output]")
@languages_option
def calibrate(
    folder: Path, english: Path | None, back: Path | None, scores: Path | None, out: Path | None
) -> None:
    """Recompute the thresholds that depend on a language from a trusted FOLDER."""
    from polyrefuse_data.audit.calibrate import calibrate as run
    from polyrefuse_data.audit.calibrate import thresholds_yaml
    from polyrefuse_data.checks.thresholds import load_thresholds
    from polyrefuse_data.core.files import write_text
    from polyrefuse_data.core.paths import check_output

    if out is not None:
        check_output(out)
    text = thresholds_yaml(run(folder, english, back, load_thresholds(), scores))
    if out is None:
        show_lines(text)
        return
    write_text(out, text)
    show(f"Wrote {out}; use it with --thresholds {out}")


for command in (sources, languages, recipes, checks, memory, doctor):
    cli.add_command(command)
