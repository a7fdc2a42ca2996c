"""What the two packages offer at their root: the names of the guide, and no torch until one is used."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny import chat_model

import polyrefuse_data
import polyrefuse_eval

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
EXAMPLES = [
    example
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for example in re.findall(
        r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
]
FACES = [polyrefuse_data, polyrefuse_eval]


def named(face: ModuleType) -> set[str]:
    return set(face.__all__)


@pytest.mark.parametrize("face", FACES)
def test_every_name_is_there_has_a_docstring_and_is_in_the_guide(face: ModuleType) -> None:
    assert named(face) <= set(dir(face))
    for name in face.__all__:
        value = getattr(face, name)
        assert f"`{name}`" in GUIDE, f"{name} is not in the guide"
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name} has no docstring"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        face.nothing  # noqa: B018


@pytest.mark.parametrize("face", FACES)
def test_type_checkers_see_what_is_imported(face: ModuleType) -> None:
    tree = ast.parse(Path(face.__file__ or "").read_text(encoding="utf-8"))
    seen = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(face.__name__):
            for alias in node.names:
                seen[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    assert seen.keys() == named(face)
    lazy = {name: f"{face.__name__}.{home}" for name, home in face._HOME.items()}
    assert lazy.items() <= seen.items()
    assert seen.keys() - lazy.keys() <= set(vars(face))


def test_the_guide_imports_from_the_faces_alone() -> None:
    assert len(EXAMPLES) >= 4
    for example in EXAMPLES:
        for node in ast.walk(ast.parse(example)):
            modules = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else []
            )
            for module in modules:
                if module.startswith("polyrefuse"):
                    assert module in ("polyrefuse_eval", "polyrefuse_data"), example
                    assert {alias.name for alias in node.names} <= named(sys.modules[module])  # type: ignore[attr-defined]


def test_the_example_of_the_guide_runs(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = (text for text in EXAMPLES if "choose_direction" in text)
    (tmp_path / "builds").mkdir()
    (tmp_path / "builds" / "sample").symlink_to(data_folder)
    monkeypatch.chdir(tmp_path)
    names: list[str] = []

    def load(name: str) -> Any:
        names.append(name)
        return chat_model()

    monkeypatch.setattr(polyrefuse_eval.ChatModel, "load", load)
    exec(compile(example, "docs/reference/python.md", "exec"), {})  # noqa: S102
    assert names == ["organism"]
    assert capsys.readouterr().out.startswith("plain ")


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, polyrefuse_data, polyrefuse_eval\n"
        "dir(polyrefuse_data), dir(polyrefuse_eval)\n"
        "polyrefuse_eval.judges_by_name, polyrefuse_eval.select, polyrefuse_eval.RunFolder\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
