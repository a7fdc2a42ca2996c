"""The commands `polyrefuse eval cache …`."""

from __future__ import annotations

import click

from polyrefuse_data.core.terminal import show
from polyrefuse_eval.results.content_cache import (
    KINDS,
    LIMIT_ENVIRONMENT,
    cache_folder,
    cache_limit,
    cache_sizes,
    clear_cache,
    parse_size,
    prune_cache,
    shown_size,
)


@click.group("cache", invoke_without_command=True)
@click.pass_context
def cache_group(context: click.Context) -> None:
    """Show, prune or clear the cache of answers and directions that commands share.

    It keeps answers of unedited models, refusal tokens, directions and hidden states of training prompts,
    keyed by model, template, prompts and settings. Without a command, runs `show`.
    """
    if context.invoked_subcommand is None:
        context.invoke(show_command)


@cache_group.command("show")
def show_command() -> None:
    """Print the cache's folder, contents and size limit."""
    limit = cache_limit()
    sizes = cache_sizes()
    show(cache_folder())
    width = max(map(len, KINDS))
    for row in sizes:
        show(f"  {row.kind:{width}}  {row.files:6} files  {shown_size(row.size):>9}")
    total = sum(row.size for row in sizes)
    show(f"{shown_size(total)} of {shown_size(limit)} (set the limit with {LIMIT_ENVIRONMENT}=8GB)")


@cache_group.command("prune")
@click.option(
    "--limit",
    metavar="SIZE",
    help="Remove entries until at most this size is left, such as 500MB.  [default: the limit]",
)
def prune_command(limit: str | None) -> None:
    """Remove the least recently used entries until the rest is below the limit."""
    bound = cache_limit() if limit is None else parse_size(limit, "--limit")
    removed = prune_cache(bound)
    show(f"removed {shown_size(removed)}; {shown_size(sum(row.size for row in cache_sizes()))} left")


@cache_group.command("clear")
def clear_command() -> None:
    """Remove all entries; runs and working copies of remote runs stay."""
    show(f"removed {shown_size(clear_cache())}")
