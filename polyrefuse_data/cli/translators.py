"""`polyrefuse translators`, and the translation options of `build`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from polyrefuse_data.cli.parts import file_argument
from polyrefuse_data.core.terminal import show, show_lines


def _load_languages(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """Register a user's languages before any other option is read."""
    if value is not None:
        from polyrefuse_data.checks.languages_file import load_languages, register

        register(load_languages(value))
    return value


languages_option = click.option(
    "--languages-file",
    type=file_argument,
    is_eager=True,
    expose_value=False,
    callback=_load_languages,
    help="YAML file with languages of your own: code, name, scripts.",
)
"""Register a user's languages."""


def _joined(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> str | None:
    return "\n".join(value) if value else None


_OPTIONS = (
    languages_option,
    click.option(
        "--translator-url", metavar="[NAME=]URL", multiple=True, callback=_joined,
        help="Another address for an HTTP backend; with several in the chain, NAME=URL for each.",
    ),
    click.option(
        "--candidates", type=click.IntRange(1), default=1, show_default=True,
        help="Translate each prompt with this many translators of the chain; use the best, keep all.",
    ),
    click.option("--back-translate", is_flag=True, help="Also translate back, for the round-trip check."),
    click.option(
        "--connections", type=click.IntRange(1, 256), help="Concurrent requests.  [default: the backend's]"
    ),
    click.option(
        "--requests-per-second", type=click.FloatRange(0, min_open=True), help="Maximum requests per second."
    ),
    click.option(
        "--characters-per-second",
        type=click.FloatRange(0, min_open=True),
        help="Maximum characters per second.",
    ),
    click.option(
        "--timeout", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True,
        help="Seconds to wait for an answer.",
    ),
    click.option("--log", type=file_argument, help="Write a log to this file."),
    click.option("--dry-run", is_flag=True, help="Print requests, minutes and money; send nothing."),
)  # fmt: skip


def translation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of live translation to a command: fields of `BuildRequest`, and `dry_run`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def print_plan(request: Any) -> None:
    """Print the requests of a build, the dry run."""
    from polyrefuse_data.build.pipeline import plan_build
    from polyrefuse_data.translate.plan import plan_lines

    for line in plan_lines(plan_build(request)):
        show(line)


@click.command()
@languages_option
def translators() -> None:
    """Show the translation backends: languages, limits, what each needs, and whether answers carry proof."""
    from polyrefuse_data.core.languages import LANGUAGES, SOURCE_LANGUAGE
    from polyrefuse_data.translate.backends.base import Limits, address_bytes, covered, utf8_bytes
    from polyrefuse_data.translate.backends.registry import BACKENDS
    from polyrefuse_data.translate.plan import prices, unverified_line

    def limit(limits: Limits) -> str:
        in_bytes = "bytes" if limits.size is utf8_bytes else "characters"
        unit = "bytes in the address" if limits.size is address_bytes else in_bytes
        rates = [f"{limits.maximum} {unit} a request"]
        if limits.requests_per_second:
            rates.append(f"{limits.requests_per_second:.3g} requests/s")
        if limits.characters_per_second:
            rates.append(f"{limits.characters_per_second:.0f} characters/s")
        return ", ".join([*rates, f"{limits.connections} at a time"])

    wanted = [code for code in LANGUAGES if code != SOURCE_LANGUAGE]
    for row in BACKENDS.values():
        there = covered(row)
        lacking = [code for code in wanted if code not in there]
        price = prices()[row.name]
        show(f"{row.name}: {row.title}")
        show(
            f"  languages  {len(there)} of {len(LANGUAGES)}"
            + (f", not {' '.join(lacking)}" if lacking else ", all")
        )
        show(f"  limits     {limit(row.limits)}")
        show(f"  needs      {row.needs}")
        show(f"  proof      {row.proof}")
        show(f"  price      {price.money} ({price.standing}; {price.source}); {price.remark}")
    warning = unverified_line(BACKENDS)
    if warning:
        show_lines(f"\n{warning}")
    show_lines(
        "\nChains: --translator google,hf:MODEL@REVISION uses the second for what the first could "
        "not translate;"
    )
    show("replay and replay:BACKEND are links that use what the memory holds.")
