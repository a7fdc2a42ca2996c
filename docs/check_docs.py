"""Check that the documentation says what the code does: `python docs/check_docs.py [--write]`.

- docs/reference/commands.md is what `polyrefuse ... --help` prints, docs/explanation/architecture.md shows
  the packages of the import contracts in setup.cfg; `--write` writes both anew.
- Every `polyrefuse ...` line in a code block of README.md and docs/ names a command and options that exist.
- Every relative link leads to a file, and every test that SECURITY.md names is there.
- Every public function and class of the packages has a docstring.
"""

from __future__ import annotations

import ast
import configparser
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from polyrefuse_data.cli.command import cli

ROOT = Path(__file__).parents[1]
COMMANDS = ROOT / "docs" / "reference" / "commands.md"
SECURITY = ROOT / "SECURITY.md"
ARCHITECTURE = ROOT / "docs" / "explanation" / "architecture.md"
GENERATED = re.compile(r"(<!-- written by docs/check_docs.py -->\n).*?(<!-- end -->)", flags=re.DOTALL)
"""The part of docs/explanation/architecture.md that is generated."""
PACKAGES = [
    folder
    for folder in (ROOT / "polyrefuse_data", ROOT / "eval" / "polyrefuse_eval", ROOT / "eval" / "polyrefuse")
    if folder.is_dir()
]
WIDTH = 100


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
    """Return the page of commands."""
    parts = ["# Commands\n\nWhat `--help` prints; written by `python docs/check_docs.py --write`.\n"]
    for path, command in commands(cli, ("polyrefuse",)):
        context = click.Context(
            command, info_name=" ".join(path), terminal_width=WIDTH, max_content_width=WIDTH
        )
        parts.append(f"## {' '.join(path)}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def layers() -> dict[str, list[list[str]]]:
    """Return the layers of each root package, highest first, from the import contracts in setup.cfg."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / "setup.cfg", encoding="utf-8")
    found: dict[str, list[list[str]]] = {}
    for name in contracts.sections():
        if name.startswith("importlinter:contract:") and contracts[name]["type"] == "layers":
            rows = [line.split(" | ") for line in contracts[name]["layers"].split("\n") if line]
            found[rows[0][0].partition(".")[0]] = rows
    return found


def summary(module: str) -> str:
    """Return the first sentence of the docstring of a package or module, without its full stop."""
    (root,) = (package for package in PACKAGES if package.name == module.partition(".")[0])
    place = root.joinpath(*module.split(".")[1:])
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].rstrip(".")


def package_picture() -> str:
    """Return the packages as a Mermaid picture and a table; an arrow points to what may be imported."""
    picture = ["```mermaid", "flowchart TB"]
    tables = []
    for root, rows in layers().items():
        prefix = root.rpartition("_")[2]
        short = [[module.partition(".")[2] for module in row] for row in rows]
        picture.append(f"  subgraph {root}")
        picture += [f'    {prefix}{depth}["{" · ".join(row)}"]' for depth, row in enumerate(short)]
        picture += ["    " + " --> ".join(f"{prefix}{depth}" for depth in range(len(rows))), "  end"]
        tables += ["", f"| `{root}` | |", "| --- | --- |"]
        tables += [f"| `{module.partition('.')[2]}` | {summary(module)} |" for row in rows for module in row]
    picture += ["  polyrefuse_eval --> polyrefuse_data", "```"]
    return "\n".join([*picture, *tables]) + "\n"


def architecture_page() -> str:
    """Return docs/explanation/architecture.md with its generated part as it should be."""
    return GENERATED.sub(
        lambda part: part[1] + package_picture() + part[2], ARCHITECTURE.read_text(encoding="utf-8")
    )


def code_lines(text: str) -> Iterator[str]:
    """Yield the lines of fenced code blocks, continued lines joined, parts of `a && b` one by one."""
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield from (part.strip() for part in line.split("&&"))


def wrong_command(line: str) -> str | None:
    """Return what is wrong with a `polyrefuse ...` line, or None."""
    words = shlex.split(line, comments=True)
    for stop in ("|", ">", ";"):
        words = words[: words.index(stop)] if stop in words else words
    command: click.Command = cli
    path = ["polyrefuse"]
    words = words[1:]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        inner = command.get_command(click.Context(command), words[0])
        if inner is None:
            if command.invoke_without_command:
                break
            return f"no command {' '.join([*path, words[0]])}"
        command = inner
        path.append(words.pop(0))
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"-h", "--help", "--version"}
    for word in words:
        if word.startswith("--") and word.partition("=")[0] not in known:
            return f"{' '.join(path)} has no option {word}"
    return None


def pages() -> list[Path]:
    """Return README, changelog and docs, without the generated page."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def problems() -> Iterator[str]:
    """Yield everything that is wrong."""
    if COMMANDS.read_text(encoding="utf-8") != command_page():
        yield f"{COMMANDS.name} is not what --help prints; run python docs/check_docs.py --write"
    if ARCHITECTURE.read_text(encoding="utf-8") != architecture_page():
        yield f"{ARCHITECTURE.name} is not what setup.cfg says; run python docs/check_docs.py --write"
    for page in pages():
        text = page.read_text(encoding="utf-8")
        name = page.relative_to(ROOT)
        if page != COMMANDS:
            for line in code_lines(text):
                wrong = wrong_command(line) if line.startswith("polyrefuse ") else None
                if wrong:
                    yield f"{name}: `{line}`: {wrong}"
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if not re.match(r"[a-z]+:", link) and not (page.parent / link).exists():
                yield f"{name}: link to {link}, which is not there"
    for path, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", SECURITY.read_text(encoding="utf-8")):
        if f"def {test}(" not in (ROOT / path).read_text(encoding="utf-8"):
            yield f"SECURITY.md: {path} has no test {test}"
    for package in PACKAGES:
        for module in sorted(package.rglob("*.py")):
            yield from without_docstring(module)


def without_docstring(module: Path) -> Iterator[str]:
    """Yield the public functions and classes of a module, and the module, that have no docstring."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    name = module.relative_to(ROOT)
    if ast.get_docstring(tree) is None:
        yield f"{name}: no docstring"
    for node in tree.body:
        public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if public and ast.get_docstring(node) is None:  # type: ignore[arg-type]
            yield f"{name}: {node.name} has no docstring"  # type: ignore[attr-defined]


def main() -> int:
    """Print what is wrong; return 1 if anything is."""
    if "--write" in sys.argv[1:]:
        COMMANDS.write_text(command_page(), encoding="utf-8")
        ARCHITECTURE.write_text(architecture_page(), encoding="utf-8")
    found = list(problems())
    for problem in found:
        sys.stderr.write(problem + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
