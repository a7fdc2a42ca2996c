"""Pages of the documentation that follow from the code: each function returns a page or a part of one."""

from __future__ import annotations

import ast
import configparser
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from polyrefuse_data.checks.lists import LIST_CHECKS
from polyrefuse_data.checks.rows import CHECKS
from polyrefuse_data.checks.thresholds import DEFAULT, Bounds, load_thresholds
from polyrefuse_data.cli.command import cli
from polyrefuse_data.core.languages import LANGUAGES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SCHEMAS = ROOT / "eval" / "polyrefuse_eval" / "results" / "schemas"
PACKAGES = [
    ROOT / "polyrefuse_data",
    ROOT / "eval" / "polyrefuse_eval",
    ROOT / "eval" / "polyrefuse",
]
WIDTH = 100
NOTE = "written by docs/check_docs.py"


def commands(
    command: click.Command, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with its path, groups before what is in them."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from commands(inner, (*path, name))


def command_page() -> str:
    """Return the page of all commands with what `--help` prints."""
    parts = ["# Commands\n\nWhat `--help` prints; written by `python docs/check_docs.py --write`.\n"]
    for path, command in commands(cli, ("polyrefuse",)):
        context = click.Context(
            command, info_name=" ".join(path), terminal_width=WIDTH, max_content_width=WIDTH
        )
        parts.append(f"## {' '.join(path)}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def layers() -> dict[str, list[list[str]]]:
    """Return the layers of each root package, highest first, from the import contracts in setup.cfg."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / "setup.cfg", encoding="utf-8")
    stacks: dict[str, list[list[str]]] = {}
    for name in contracts.sections():
        if name.startswith("importlinter:contract:") and contracts[name]["type"] == "layers":
            rows = [line.split(" | ") for line in contracts[name]["layers"].split("\n") if line]
            stacks[rows[0][0].partition(".")[0]] = rows
    return stacks


def summary(module: str) -> str:
    """Return the first sentence of the docstring of a package or module, without its full stop."""
    (root,) = (package for package in PACKAGES if package.name == module.partition(".")[0])
    place = root.joinpath(*module.split(".")[1:])
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].rstrip(".")


def package_tables() -> str:
    """Return the packages of the import contracts, a table for each root, highest layer first."""
    tables = []
    for root, rows in layers().items():
        tables += [f"| layer | `{root}` | |", "| --- | --- | --- |"]
        for depth, row in enumerate(rows, start=1):
            tables += [f"| {depth} | `{module.partition('.')[2]}` | {summary(module)} |" for module in row]
        tables.append("")
    return "\n".join(tables)


def check_tables() -> str:
    """Return all checks with their default thresholds and their origin, and the bounds by language."""
    thresholds = load_thresholds()
    rows = ["| check | severity | score | flagged | threshold from |", "| --- | --- | --- | --- | --- |"]
    described = [(check.name, check.severity, check.measures) for check in CHECKS.values()]
    described += [(name, "by list", what) for name, what in LIST_CHECKS.items()]
    for name, severity, measures in described:
        bounds = [
            f"{'' if part == name else part.removeprefix(name + '_') + ' '}{_bounds(by_language[DEFAULT])}"
            for part, by_language in thresholds.checks.items()
            if (part == name or part.startswith(f"{name}_")) and DEFAULT in by_language
        ]
        origin = (
            "calibrated by language; default for others"
            if len(thresholds.checks.get(name, {})) > 1
            else "definition"
        )
        rows.append(f"| `{name}` | {severity} | {measures} | {'; '.join(bounds) or 'always'} | {origin} |")
    languages = {name: by_language for name, by_language in thresholds.checks.items() if len(by_language) > 1}
    rows += ["", f"Provenance: {thresholds.provenance}.", ""]
    rows += ["| language | " + " | ".join(f"`{name}`" for name in languages) + " |"]
    rows += ["| --- |" + " --- |" * len(languages)]
    for lang in [*LANGUAGES, DEFAULT]:
        cells = [_bounds(by_language.get(lang, by_language[DEFAULT])) for by_language in languages.values()]
        rows.append(f"| {lang} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _bounds(bounds: Bounds) -> str:
    parts = [f"below {bounds.low:g}"] if bounds.low is not None else []
    parts += [f"above {bounds.high:g}"] if bounds.high is not None else []
    return " or ".join(parts) or "never"


def column_table() -> str:
    """Return the columns of the checks."""
    rows = ["| columns | type | |", "| --- | --- | --- |"]
    for name, check in CHECKS.items():
        rows.append(
            f"| `score_{name}`, `flt_{name}` | float or null, bool | {check.measures}; "
            f"flagged rows {check.flagged} |"
        )
    return "\n".join(rows) + "\n"


def record_page() -> str:
    """Return the page of the records of a run, from their JSON Schemas."""
    parts = [
        "# Records\n",
        "The JSON records of a run, from their schemas in `polyrefuse_eval/results/schemas/`; "
        "written by `python docs/check_docs.py --write`. Unknown fields are errors.\n",
    ]
    for file in sorted(SCHEMAS.glob("*.schema.json")):
        schema = json.loads(file.read_text(encoding="utf-8"))
        parts.append(f"## {file.name.removesuffix('.schema.json')}\n")
        parts += _record(schema)
        for name, definition in sorted(schema.get("$defs", {}).items()):
            parts.append(f"### {file.name.removesuffix('.schema.json')}: {name}\n")
            parts += _record(definition)
    return "\n".join(parts)


def _record(schema: Mapping[str, Any]) -> Iterator[str]:
    description = _escaped(schema.get("description", ""))
    if description:
        yield description + "\n"
    if "properties" in schema:
        yield "| field | type |\n| --- | --- |"
        for name, field in schema["properties"].items():
            yield f"| `{name}` | {_type(field)} |"
        yield ""


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;")


def _type(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2]
    if "anyOf" in field:
        return " or ".join(_type(part) for part in field["anyOf"])
    if "enum" in field:
        return " or ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}" if field.get("items") else "list"
    if field.get("type") == "object":
        values = field.get("additionalProperties")
        return f"object of {_type(values)}" if isinstance(values, dict) and values else "object"
    bounds = [str(field[key]) for key in ("minimum", "maximum") if abs(field.get(key, 10**9)) < 10**9]
    return str(field.get("type", "any")) + (f" ({' to '.join(bounds)})" if len(bounds) == 2 else "")


def api_page() -> str:
    """Return the page of all public names; mkdocstrings fills it in from the docstrings."""
    parts = ["# Python names\n", "Every name that the packages offer, with its docstring.\n"]
    for root in ("polyrefuse_data", "polyrefuse_eval"):
        face = import_module(root)
        parts += [f"## {root}\n", f"{(inspect.getdoc(face) or '').partition(chr(10))[0]}\n"]
        for name in sorted(face.__all__, key=str.lower):
            if name != "__version__":
                home = face._HOME.get(name, "core.errors.PolyRefuseError")
                parts.append(f"::: {root}.{home}\n")
    return "\n".join(parts)


PAGES: dict[Path, Callable[[], str]] = {
    DOCS / "reference" / "commands.md": command_page,
    DOCS / "reference" / "records.md": record_page,
    DOCS / "reference" / "api.md": api_page,
}
"""Pages that are written whole."""

PARTS: dict[Path, Callable[[], str]] = {
    DOCS / "explanation" / "architecture.md": package_tables,
    DOCS / "reference" / "checks.md": check_tables,
    DOCS / "reference" / "columns.md": column_table,
}
"""Pages that have a part, between two comments, that is written."""


def expected_pages() -> Iterator[tuple[Path, str]]:
    """Yield each page that follows from the code, with the text that it should have."""
    for path, page in PAGES.items():
        yield path, page()
    for path, part in PARTS.items():
        yield (
            path,
            re.sub(
                rf"(<!-- [^>]*{re.escape(NOTE)} -->\n).*?(<!-- end -->)",
                lambda match, part=part: f"{match[1]}\n{part()}\n{match[2]}",
                path.read_text(encoding="utf-8"),
                flags=re.DOTALL,
            ),
        )
