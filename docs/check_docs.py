"""Check that the documentation says what the code does: `python docs/check_docs.py [--write]`.

- Generated pages are up to date (docs/generated.py: commands, records, Python names, checks, columns,
  packages); `--write` writes them.
- Every `polyrefuse ...` line in a code block of README.md and docs/ names a command and options that exist.
- Every relative link leads to a file, and every test that SECURITY.md names is there.
- Every public name, command, option, column, check and schema is on a page of the reference.
- Every public function and class of the packages has a docstring.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
from generated import DOCS, PACKAGES, PAGES, ROOT, SCHEMAS, commands, expected_pages

from polyrefuse_data.checks.lists import LIST_CHECKS
from polyrefuse_data.checks.rows import CHECKS
from polyrefuse_data.cli.command import cli
from polyrefuse_data.core.schema import TEXT_FIELDS

SECURITY = ROOT / "SECURITY.md"


def code_lines(text: str) -> Iterator[str]:
    """Yield the lines of fenced code blocks, continued lines joined, parts of `a && b` one by one."""
    for block in re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL):
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
    """Return README, changelog and the pages of the site."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def wrong_pages() -> Iterator[str]:
    """Yield generated pages that are old, commands and options that do not exist, and links into nothing."""
    for path, text in expected_pages():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            yield f"{path.relative_to(ROOT)} is out of date; run python docs/check_docs.py --write"
    for page in pages():
        text = page.read_text(encoding="utf-8")
        name = page.relative_to(ROOT)
        if re.search(r"^(<<<<<<<|>>>>>>>) ", text, flags=re.MULTILINE):
            yield f"{name}: holds the marks of a merge conflict"
        if page not in PAGES:
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


def missing_names() -> Iterator[str]:
    """Yield every public name, command, option, column, check and schema that the reference lacks."""
    for page, names in documented().items():
        text = (DOCS / "reference" / page).read_text(encoding="utf-8")
        for name in names:
            if name not in text:
                yield f"docs/reference/{page} does not mention {name}"


def documented() -> dict[str, list[str]]:
    """Return what each page of the reference must mention."""
    faces = [import_module(root) for root in ("polyrefuse_data", "polyrefuse_eval")]
    options = [
        name
        for path, command in commands(cli, ("polyrefuse",))
        for name in (f"## {' '.join(path)}\n", *(option for part in command.params for option in part.opts))
        if name.startswith(("## ", "--"))
    ]
    checks = [f"`{name}`" for name in (*CHECKS, *LIST_CHECKS)]
    return {
        "python.md": [f"`{name}`" for face in faces for name in face.__all__],
        "api.md": [f".{face._HOME[name]}\n" for face in faces for name in face._HOME],
        "commands.md": options,
        "checks.md": checks,
        "columns.md": [f"`{name}`" for name in TEXT_FIELDS] + [f"`flt_{name}`" for name in CHECKS],
        "records.md": [f"## {file.name.removesuffix('.schema.json')}\n" for file in SCHEMAS.glob("*.json")],
    }


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


def problems() -> Iterator[str]:
    """Yield everything that is wrong."""
    yield from wrong_pages()
    yield from missing_names()
    for package in PACKAGES:
        for module in sorted(package.rglob("*.py")):
            yield from without_docstring(module)


def main() -> int:
    """Print what is wrong; return 1 if anything is."""
    if "--write" in sys.argv[1:]:
        for path, text in expected_pages():
            path.write_text(text, encoding="utf-8")
    lines = list(problems())
    for line in lines:
        sys.stderr.write(line + "\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
