"""`polyrefuse sources`, `languages`, `recipes` and `checks`: what there is to choose from."""

from __future__ import annotations

from pathlib import Path

import click

from polyrefuse_data.cli.parts import EXIT_ERROR, folder_argument, print_table
from polyrefuse_data.cli.translators import languages_option
from polyrefuse_data.core.terminal import show


@click.group(invoke_without_command=True)
@click.pass_context
def sources(ctx: click.Context) -> None:
    """Show the upstream files: names, licences, pinned addresses, checksums."""
    if ctx.invoked_subcommand is not None:
        return
    from polyrefuse_data.prompts.sources import SOURCES

    print_table(
        ["source", "label", "licence", "file", "sha256"],
        [[row.name, row.label, row.licence, row.file, row.sha256] for row in SOURCES.values()],
    )
    show()
    show("Addresses, pinned:")
    for url in dict.fromkeys(row.url for row in SOURCES.values()):
        show(f"  {url}")


@sources.command("verify")
@click.argument("folder", type=folder_argument)
@click.option(
    "--recipe", default="paper", show_default=True, help="Check the sources that this recipe draws on."
)
def sources_verify(folder: Path, recipe: str) -> int:
    """Check a local mirror FOLDER against the pinned checksums of the sources of a recipe."""
    from polyrefuse_data.prompts.recipe import load_recipe
    from polyrefuse_data.prompts.sources import SOURCES, verify_mirror

    pools = load_recipe(recipe)[0].pools.values()
    used = dict.fromkeys(name for pool in pools for name in pool.sources)
    problems = verify_mirror(folder, [name for name in used if name in SOURCES])
    for name, problem in problems.items():
        show(f"ok     {name}" if problem is None else f"WRONG  {problem}")
    return EXIT_ERROR if any(problems.values()) else 0


@sources.command("fetch")
def sources_fetch() -> None:
    """Fetch the upstream files from their pinned addresses into the cache, verified; no gated ones."""
    from polyrefuse_data.prompts.fetch import cache_folder, fetch
    from polyrefuse_data.prompts.sources import SOURCES

    for row in SOURCES.values():
        if row.gated:
            show(f"gated  {row.name}: get your own copy of {row.file}")
            continue
        fetch(row)
        show(f"ok     {row.name}")
    show(f"In {cache_folder()}, which is also a mirror for --sources.")


@click.command()
@languages_option
def languages() -> None:
    """Show the languages, their scripts and which detectors judge them."""
    from polyrefuse_data.core.languages import LANGUAGES

    print_table(
        ["code", "language", "native name", "scripts", "judged by langdetect"],
        [
            [
                row.code,
                row.name,
                row.native_name,
                "+".join(row.scripts),
                "yes" if row.code_for("langdetect") else "no",
            ]
            for row in LANGUAGES.values()
        ],
    )


@click.command()
def recipes() -> None:
    """Show the recipes that come with the package, with their sizes."""
    from polyrefuse_data.prompts.recipe import builtin_recipes

    for recipe in builtin_recipes().values():
        show(f"{recipe.name}: {recipe.title}")
        for label, splits in recipe.sizes().items():
            show(f"  {label}: " + ", ".join(f"{split} {number}" for split, number in splits.items()))
        show(f"  {recipe.description}")
        show()


@click.command()
def checks() -> None:
    """Show the checks: what each measures and how bad a finding is."""
    from polyrefuse_data.checks.lists import LIST_CHECKS
    from polyrefuse_data.checks.rows import CHECKS

    rows = [[check.name, check.severity, check.measures] for check in CHECKS.values()]
    print_table(
        ["check", "severity", "measures"],
        rows + [[name, "by list", what] for name, what in LIST_CHECKS.items()],
    )
