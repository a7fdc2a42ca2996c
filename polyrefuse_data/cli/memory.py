"""`polyrefuse memory`: fill, export and look at a translation memory."""

from __future__ import annotations

from pathlib import Path

import click

from polyrefuse_data.cli.parts import file_argument, folder_argument, print_table
from polyrefuse_data.cli.translators import languages_option
from polyrefuse_data.core.display import counted
from polyrefuse_data.core.terminal import show


@click.group()
def memory() -> None:
    """Fill, export and inspect a translation memory."""


memory_option = click.option(
    "--memory", "memory_file", type=file_argument, help="Translation memory.  [default: in your data folder]"
)


def _memory_path(path: Path | None) -> Path:
    from polyrefuse_data.build.translations import default_memory

    return path or default_memory()


@memory.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@memory_option
@click.option("--english", type=folder_argument, help="English lists of a release.  [default: beside it]")
@click.option("--back", type=folder_argument, help="Back-translations of a release.  [default: beside it]")
@languages_option
def memory_import(source: Path, memory_file: Path | None, english: Path | None, back: Path | None) -> None:
    """Add translations from SOURCE: a folder in the published release's layout, or a JSON Lines file.

    A list of a release without English text in its rows is matched by position, and only if its lengths
    follow the English; one that is not parallel is refused with the reason.
    """
    from polyrefuse_data.checks.thresholds import load_thresholds
    from polyrefuse_data.prompts.published_release import read_release, release_folders
    from polyrefuse_data.translate.memory.from_release import import_release
    from polyrefuse_data.translate.memory.jsonl import import_jsonl
    from polyrefuse_data.translate.memory.store import TranslationMemory

    path = _memory_path(memory_file)
    if source.is_file():
        with TranslationMemory(path, create=True) as opened:
            added = import_jsonl(source, opened)
    else:
        folder, beside_english, beside_back = release_folders(source)
        release = read_release(folder, english or beside_english, back or beside_back)
        with TranslationMemory(path, create=True) as opened:
            done = import_release(release, opened, load_thresholds())
        added = done.added
        show(f"Release: {done.version}")
        for finding in release.findings:
            if finding.severity != "note":
                show(f"  {finding.severity}: {finding.message}", err=True)
        for refused in done.refused:
            show(f"  refused: {refused.file}: {refused.reason}", err=True)
    show(f"{path}: {added.new} new, {added.same} there already")
    if added.different:
        show(f"  {added.different} differ from existing entries, which were kept", err=True)


@memory.command("export")
@click.argument("target", type=file_argument)
@memory_option
def memory_export(target: Path, memory_file: Path | None) -> None:
    """Write all translations to TARGET as JSON Lines, sorted."""
    from polyrefuse_data.translate.memory.jsonl import export_jsonl
    from polyrefuse_data.translate.memory.store import TranslationMemory

    with TranslationMemory(_memory_path(memory_file)) as opened:
        count = export_jsonl(opened, target)
    show(f"{target}: {counted(count, 'translation')}")


@memory.command("choices")
@click.argument("target", type=file_argument)
@memory_option
def memory_choices(target: Path, memory_file: Path | None) -> None:
    """Write the candidates of every choice (`build --candidates`) to TARGET as JSON Lines, with reasons."""
    from polyrefuse_data.translate.memory.jsonl import export_choices
    from polyrefuse_data.translate.memory.store import TranslationMemory

    with TranslationMemory(_memory_path(memory_file)) as opened:
        count = export_choices(opened, target)
    show(f"{target}: {counted(count, 'candidate')}")


@memory.command("stats")
@memory_option
def memory_stats(memory_file: Path | None) -> None:
    """Show how many translations there are, by language, direction and backend."""
    from polyrefuse_data.translate.memory.store import TranslationMemory

    with TranslationMemory(_memory_path(memory_file)) as opened:
        print_table(["lang", "direction", "backend", "version", "translations"], opened.stats())
