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
from polyrefuse_data import BuildRequest
from polyrefuse_data.core.errors import UnknownNameError
from polyrefuse_eval import (
    Ablation,
    CandidateScorer,
    Direction,
    DirectionSet,
    LatentGuard,
    Request,
    RunFolder,
    direction_at,
    fit_directions,
    generate,
    judges_by_name,
    open_data,
)
from polyrefuse_eval.errors import DirectionError, GuardError, InterventionError

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
                    if isinstance(node, ast.ImportFrom):
                        assert {alias.name for alias in node.names} <= named(sys.modules[module])


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


def test_python_takes_what_people_give_it(data_folder: Path, tmp_path: Path) -> None:
    """Paths as text, words for refusal tokens, one edit for a tuple, a prompt for a request."""
    chat = chat_model()
    data = open_data(str(data_folder))
    harmful, harmless = (
        [row.text for row in data.prompts("en", "train", label, limit=8)] for label in ("harmful", "harmless")
    )
    directions = fit_directions(chat, harmful, harmless)
    directions.save(str(tmp_path / "set.safetensors"))
    directions = DirectionSet.load(str(tmp_path / "set.safetensors"))
    scorer = CandidateScorer(chat, directions, harmful, harmless, ["I'm sorry, but", 40])
    assert len(scorer.tokens.ids) == len({*chat.tokenizer("I'm sorry")["input_ids"][:1], 40})
    with pytest.raises(DirectionError, match="harmful prompts in 'en' are left"):
        fit_directions(chat, harmful, harmless, refusal_tokens=["I'm sorry"])
    with pytest.raises(DirectionError, match="2 refusal tokens for 16 prompts"):
        fit_directions(chat, harmful, harmless, refusal_tokens=[scorer.tokens] * 2)
    direction = direction_at(directions, -1, 1)
    direction.save(str(tmp_path / "one.safetensors"))
    loaded = Direction.load(str(tmp_path / "one.safetensors"), chat)
    given = [
        Ablation(loaded),
        Ablation(loaded.unit.numpy()),
        (Ablation(loaded.unit),),
        [Ablation(loaded.unit)],
    ]
    requests = [Request(str(index), harmful[0], edits) for index, edits in enumerate(given)]
    answers = [answer.ids for batch in generate(chat, requests, max_new_tokens=4) for answer in batch]
    assert len(set(answers)) == 1
    ((plain,),) = generate(chat, harmful[0], max_new_tokens=4)
    ((same,),) = generate(chat, [Request("0", harmful[0])], max_new_tokens=4)
    assert plain == same
    (native,) = judges_by_name(["native"])
    assert native.name.startswith("native")
    with pytest.raises(GuardError, match="no file"):
        LatentGuard.load(str(tmp_path / "absent"), chat)
    with pytest.raises(InterventionError, match="expected edits"):
        Request("a", harmful[0], "ablate")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="did you mean 'dtype'"):
        polyrefuse_eval.ChatModel.load("organism", dtpye="float32")
    for value in (chat, directions, direction, scorer, RunFolder(str(tmp_path))):
        assert len(repr(value)) < 160, "one line, no module and no tensor"


def test_a_build_is_asked_for_with_text_alone(tmp_path: Path) -> None:
    folder = str(tmp_path / "b")
    result = polyrefuse_data.build_dataset(BuildRequest("sample", langs="en,de", size="2/1/1", out=folder))  # type: ignore[arg-type]
    assert list(result.manifest["languages"]) == ["de", "en"]
    assert len(repr(result)) < 160
    assert polyrefuse_data.load("de", "test", folder).num_rows == 2
    assert [part.rows for part in polyrefuse_data.audit_dataset(folder).lists if part.split == "train"] == [
        2
    ] * 4
    with pytest.raises(UnknownNameError, match="unknown language 'jp'"):
        BuildRequest("sample", langs="jp")  # type: ignore[arg-type]
