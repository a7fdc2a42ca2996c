"""What others wrote reaches a terminal through one module, which lets nothing in it act."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

import pytest

import polyrefuse_data
from polyrefuse_data.core.display import visible_json_line
from polyrefuse_data.core.progress import Progress
from polyrefuse_data.core.terminal import show, show_lines

HOSTILE = "a\x1b]52;c;eA==\x07b\x9b31mc\u202ed\ne\rf"
SHOWN = r"a\x1b]52;c;eA==\x07b\x9b31mc\u202ed\ne\rf"
PRINTING = {"echo", "secho", "print"}
OWN_WAY = {"core/terminal.py", "core/progress.py"}
"""Modules that print, and make visible what they print."""


def test_a_line_stays_one_and_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    show(HOSTILE)
    show(Path("a\x1bb"), err=True)
    assert tuple(capsys.readouterr()) == (f"{SHOWN}\n", "a\\x1bb\n")


def test_lines_end_once(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("one\n\x1b[2Jtwo", "one\n\x1b[2Jtwo\n"):
        show_lines(text)
        assert capsys.readouterr().out == "one\n\\x1b[2Jtwo\n"


def test_json_on_a_line_has_its_own_escapes() -> None:
    value = {"b": HOSTILE, "a": "\U000e0041é\ue000"}
    line = visible_json_line(value)
    assert json.loads(line) == value
    assert "é" in line
    assert line.isprintable()


def test_progress_shows_what_a_service_says_as_it_is() -> None:
    stream = io.StringIO()
    with Progress(2, "texts", HOSTILE, stream=stream) as progress:
        progress.advance(1, HOSTILE)
        progress.write(HOSTILE)
        progress.write_state()
    assert stream.getvalue().replace("\n", "").isprintable()
    assert SHOWN in stream.getvalue()


def test_nothing_else_prints() -> None:
    data = Path(polyrefuse_data.__file__).parent
    found = []
    for package in (data, data.parent / "eval" / "polyrefuse_eval"):
        for path in package.rglob("*.py"):
            name = path.relative_to(package).as_posix()
            if name in OWN_WAY or name.startswith("organisms/"):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    function = node.func
                    called = getattr(function, "attr", getattr(function, "id", ""))
                    if called in PRINTING:
                        found.append(f"{name}:{node.lineno} calls {called}")
    assert found == []
