"""The options by which `polyrefuse audit` and `build` name models that score translations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from polyrefuse_data.cli.parts import file_argument

if TYPE_CHECKING:
    from polyrefuse_data.quality.measure import ModelRequest

_OPTIONS = (
    click.option(
        "--similarity",
        metavar="MODEL[@REVISION]",
        help="Compare translations or back-translations with the English by this sentence-embedding model "
        "(or folder).",
    ),
    click.option(
        "--similarity-of",
        type=click.Choice(["auto", "source", "english"]),
        default="auto",
        show_default=True,
        help="What --similarity compares: 'source' the translation with its source, for multilingual models; "
        "'english' the back-translation with the English. 'auto' knows the common multilingual models.",
    ),
    click.option(
        "--quality",
        multiple=True,
        metavar="KIND:MODEL@REVISION",
        help="Estimate quality without a reference by this model: comet:... or metricx:...; if repeated, "
        "each language uses the first that knows it.",
    ),
    click.option(
        "--intent",
        metavar="JUDGE",
        help="Judge whether back-translations ask for harm as the English does: 'llamaguard3', 'polyguard', "
        "NAME=FOLDER of one, or classifier:MODEL@REVISION.",
    ),
    click.option(
        "--model-langs",
        default="",
        metavar="CODES",
        help="Languages that the models know, or 'all', for models outside the table of models.",
    ),
    click.option(
        "--scores",
        type=file_argument,
        help="File of the models' scores; rows in it are not scored again. Given alone, it is the only "
        "source of scores.",
    ),
)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of scoring models to a command; `take_models` reads all but `scores`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_models(options: dict[str, Any]) -> ModelRequest:
    """Take the values of the models' options out of `options` and return what they ask for."""
    from polyrefuse_data.core.languages import parse_languages
    from polyrefuse_data.quality.measure import ModelRequest

    langs = options.pop("model_langs")
    return ModelRequest(
        quality=options.pop("quality"),
        similarity=options.pop("similarity"),
        similarity_of=options.pop("similarity_of"),
        intent=options.pop("intent"),
        langs=frozenset(parse_languages(langs) if langs else ()),
    )
