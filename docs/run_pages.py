"""Run the code blocks of a page in order, in an empty folder, as a reader would who copies them.

A block `sh` is run line by line: `polyrefuse ...` in this process, other commands through the shell. A
comment `# exit status 3` states what is expected instead of 0. A block `python` is run in this process. A
block with `title="FILE"` is written to that file. A block `text` states what the block before it prints: its
lines must appear in this order, whatever their numbers; a line `…` stands for any others.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from polyrefuse_data.checks.languages_file import registered

BLOCK = re.compile(r"^( *)```([a-z]+)([^\n]*)\n(.*?)^\1```", flags=re.MULTILINE | re.DOTALL)
STATUS = re.compile(r"#\s*exit status (\d+)\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its title (a file name) and its text."""

    language: str
    title: str | None
    text: str


class PageError(AssertionError):
    """A block that does not do what its page says."""


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page in order."""
    for indent, language, rest, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        title = re.search(r'title="([^"]+)"', rest)
        lines = [line.removeprefix(indent) for line in text.splitlines()]
        yield Block(language, title[1] if title else None, "\n".join(lines) + "\n")


def command_lines(block: Block) -> list[str]:
    """Return the commands of a block `sh`, continued lines joined, parts of `a && b` one by one."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [part.strip() for line in lines for part in line.split("&&") if part.strip()]


def run_page(
    page: Path, change: Callable[[str], str | None], change_code: Callable[[str], str] = str
) -> list[str]:
    """Run the blocks of `page` in the current folder; return the commands that were run.

    `change` returns what to run in place of a command, or None to leave it out; `change_code` does so for
    Python. Raises `PageError` naming the command and what it printed.
    """
    printed: str | None = None
    namespace: dict[str, object] = {"__name__": "__main__"}
    ran = []
    for block in blocks(page):
        if block.title is not None:
            file = Path(block.title)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
        elif block.language == "sh":
            printed = None
            for line in command_lines(block):
                command = change(line)
                if command is not None:
                    printed = (printed or "") + run_command(command)
                    ran.append(line)
        elif block.language == "python":
            printed = run_python(change_code(block.text), page, namespace)
        elif block.language == "text" and printed is not None:
            check_output(block.text, printed, page)
    return ran


def run_command(line: str) -> str:
    """Run one command; return what it prints. Raises `PageError` for another exit status than expected."""
    status = STATUS.search(line)
    expected = int(status[1]) if status else 0
    words = shlex.split(line, comments=True)
    if words[0] == "polyrefuse":
        names = [sorted(glob(word)) if "*" in word and "://" not in word else [word] for word in words[1:]]  # noqa: PTH207
        with registered(()):  # as in a process of its own: no language of a command is known to the next
            got, printed = run_polyrefuse([name for expanded in names for name in expanded])
    else:
        process = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)  # noqa: S602
        got, printed = process.returncode, process.stdout + process.stderr
    if got != expected:
        raise PageError(f"`{line}` ended with {got}, not {expected}:\n{printed[-2000:]}")
    return printed


def run_polyrefuse(arguments: list[str]) -> tuple[int, str]:
    """Run the command in this process; return exit status and what it prints.

    Languages that it brings along are forgotten afterwards, as they are when a process ends.
    """
    from polyrefuse_data.cli.command import main
    from polyrefuse_data.core.languages import LANGUAGES

    out, status, languages = io.StringIO(), 0, dict(LANGUAGES)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
    LANGUAGES.clear()
    LANGUAGES.update(languages)
    return status, out.getvalue()


def run_python(code: str, page: Path, namespace: dict[str, object]) -> str:
    """Run a block in `namespace`; return what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, str(page), "exec"), namespace)  # noqa: S102
    return out.getvalue()


def check_output(stated: str, printed: str, page: Path) -> None:
    """Raise `PageError` unless the lines of `stated` appear in `printed` in order, whatever their numbers."""
    lines = iter([masked(line) for line in printed.splitlines()])
    for line in stated.splitlines():
        if line.strip() and line.strip() != "…" and not any(masked(line) in other for other in lines):
            raise PageError(f"{page}: expected the line {line!r} in:\n{printed[-3000:]}")


def masked(line: str) -> str:
    """Return `line` with every number as # and runs of white space as one space."""
    return re.sub(r"\s+", " ", re.sub(r"-?\d+(\.\d+)?(e-?\d+)?", "#", line)).strip()
