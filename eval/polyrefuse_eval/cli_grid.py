"""Grids in files for `polyrefuse eval run`: each model's options are read as that command reads its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.grid_file import as_arguments, read_grid
from polyrefuse_eval.plans import RunPlan

OWN_OF_A_MODEL = ("batch-size", "refusal-tokens")
"""Settings that a model may have for itself: what they are depends on it."""

MakePlan = Callable[[dict[str, Any], Path], RunPlan]


def grid_plans(
    command: click.Command,
    file: Path,
    of_model: Sequence[str],
    not_in_a_file: Sequence[str],
    make: MakePlan,
) -> list[RunPlan]:
    """Return the plan of each model in the grid `file`, into a folder of its name.

    `of_model` are names of parameters of `command` that belong to a model; those in `not_in_a_file` stand
    on the command line only. `make` makes a plan of the options that `command` got.
    """
    options = {
        option.opts[0].removeprefix("--"): option
        for option in command.params
        if isinstance(option, click.Option) and option.name not in not_in_a_file
    }
    models = [name for name, option in options.items() if option.name in of_model]
    settings = [name for name in options if name != "model"]
    switches = {
        name: (option.opts[0], next(iter(option.secondary_opts), None))
        for name, option in options.items()
        if option.is_flag
    }
    several = [name for name, option in options.items() if option.multiple]
    plans = []
    for model in read_grid(file, [*models, *OWN_OF_A_MODEL], settings):
        arguments = [*as_arguments(model, switches, several), "--out", model.name]
        try:
            context = command.make_context("run", arguments)
        except click.UsageError as error:
            raise RunFolderError(
                f"the model '{model.name}' of the grid '{file}': {error.format_message()}"
            ) from None
        given = {name: value for name, value in context.params.items() if name not in not_in_a_file}
        plans.append(make(given, Path(model.name)))
    return plans


def refuse_given(context: click.Context, allowed: Sequence[str]) -> None:
    """Raise `RunFolderError` where options other than `allowed` stand beside a grid file."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in allowed
        and context.get_parameter_source(str(parameter.name)) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise RunFolderError(f"a grid file says what is measured: write {', '.join(given)} into it")
