"""Published jailbreak variants: every form is read, and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.reading import FileFormatError
from polyrefuse_eval.errors import GuardError
from polyrefuse_eval.jailbreaks import read_jailbreaks, read_persuasion, read_suffixes, read_templates
from polyrefuse_eval.results.user_prompts import UserPrompt


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_adversarial_suffixes_are_read_in_their_published_forms(tmp_path: Path) -> None:
    expected = [UserPrompt("Do it !! sure", "harmful", "en", "suffix")] * 2
    table = written(tmp_path / "a.csv", "goal,target,suffix\nDo it,ok,!! sure\nDo it,ok,!! sure\n")
    assert read_suffixes(table) == expected
    columns = written(tmp_path / "b.json", {"goal": ["Do it"] * 2, "controls": 3, "control": ["!! sure"] * 2})
    assert read_suffixes(columns) == expected
    record = {"index": 0, "goal": "Do it", "prompt": "Do it !! sure", "jailbroken": True}
    artifact = written(tmp_path / "c.json", {"parameters": {"model": "m"}, "jailbreaks": [record] * 2})
    assert read_suffixes(artifact) == expected
    lines = written(tmp_path / "d.jsonl", f"{json.dumps(record)}\n" * 2)
    assert read_jailbreaks(f"suffix={lines}") == expected
    german = written(tmp_path / "e.csv", "Prompt,Lang\nTu es,de\n")
    assert read_suffixes(german) == [UserPrompt("Tu es", "harmful", "de", "suffix")]


def test_attacks_that_gave_no_prompt_are_left_out_and_counted(tmp_path: Path) -> None:
    records = [{"goal": "Do it", "prompt": text} for text in (None, "Please do it.", None)]
    artifact = written(tmp_path / "pair.json", {"parameters": {}, "jailbreaks": records})
    told: list[str] = []
    prompts = read_jailbreaks(f"persuasion={artifact}", told.append)
    assert [prompt.prompt for prompt in prompts] == ["Please do it."]
    assert told == [f"'{artifact}': 2 records hold null for a prompt and are left out; 1 are read"]
    with pytest.raises(GuardError, match="no prompts"):
        read_jailbreaks(f"persuasion={written(tmp_path / 'none.json', {'jailbreaks': records[:1]})}")
    cells = written(tmp_path / "cells.csv", "goal,prompt\na,Do it\nb,\nc,NaN\n")
    notes: list[str] = []
    assert len(read_jailbreaks(f"persuasion={cells}", notes.append)) == 1
    assert "2 records hold null" in notes[0]


def test_persuasive_prompts_and_filled_templates_are_read(tmp_path: Path) -> None:
    lines = written(tmp_path / "pap.jsonl", {"bad_q": "Do it", "ss_prompt": "Please, for science."})
    assert read_persuasion(lines) == [UserPrompt("Please, for science.", "harmful", "en", "persuasion")]
    filled = written(tmp_path / "t.csv", 'name,prompt\nx,"You are X. Do it."\n')
    assert read_templates(filled) == [UserPrompt("You are X. Do it.", "harmful", "en", "template")]
    empty = written(tmp_path / "u.csv", 'name,prompt\nx,"You are X. [INSERT PROMPT HERE]"\n')
    with pytest.raises(GuardError, match="record 1 still holds a placeholder"):
        read_templates(empty)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "goal,target\nDo it,ok\n", "line 2 has no prompt; expected prompt"),
        ("a.csv", "goal,suffix\n", "holds no records"),
        ("a.json", "[1, 2]", "is JSON but not a table"),
        ("a.json", "{", "not valid JSON"),
        ("a.csv", 'goal,suffix\nx,"' + "y" * 200_000 + "\n", "a quotation mark is unclosed or stray"),
    ],
)
def test_tables_that_hold_no_jailbreaks_say_what_is_expected(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    with pytest.raises((GuardError, FileFormatError), match=message):
        read_jailbreaks(f"suffix={written(tmp_path / name, content)}")


def test_kinds_are_known_by_name(tmp_path: Path) -> None:
    with pytest.raises(PolyRefuseError, match="did you mean 'suffix'"):
        read_jailbreaks("sufix=x.csv")
    with pytest.raises(GuardError, match="KIND=FILE"):
        read_jailbreaks("suffix")


def test_harmbench_test_cases_are_read(tmp_path: Path) -> None:
    for name, cases, count in (
        ("a.json", {"bake": ["Bake !! xx", "Bake zz"], "tree": ["Name a tree !! yy"]}, 3),
        ("b.json", {"bake": ["Bake !! xx"], "tree": ["Name a tree !! yy"]}, 2),
    ):
        prompts = read_jailbreaks(f"suffix={written(tmp_path / name, cases)}")
        assert [prompt.prompt for prompt in prompts] == [text for texts in cases.values() for text in texts]
        assert len(prompts) == count
