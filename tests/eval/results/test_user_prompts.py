"""Prompts that users bring: every published form is read, and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.errors import GuardError
from polyrefuse_eval.results.user_prompts import (
    UserPrompt,
    read_extra,
    read_jailbreaks,
    read_persuasion,
    read_prompts,
    read_suffixes,
    read_templates,
)


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


LINE = {"prompt": "Sing", "label": "harmless", "lang": "yo", "kind": "refused harmless"}


def test_extra_prompts_keep_their_kind(tmp_path: Path) -> None:
    file = written(tmp_path / "x.jsonl", f"{json.dumps(LINE)}\n\n{json.dumps({**LINE, 'more': 1})}\n")
    assert read_extra(file) == [UserPrompt("Sing", "harmless", "yo", "refused harmless")] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": None}, "line 2: no text in kind"),
        ({"label": "bad"}, "line 2: label 'bad'; expected harmful or harmless"),
        ({"lang": "jp"}, "did you mean 'ja'"),
        ({"prompt": "  "}, "line 2: an empty prompt"),
        ({"kind": "all"}, "line 2: kind 'all'; expected a name of your own"),
        ({"kind": "data "}, "line 2: kind 'data'"),
        ({"kind": " "}, "line 2: kind ''"),
        ({"kind": "a\nb"}, r"line 2: kind 'a\\nb'"),
    ],
)
def test_extra_prompts_that_are_wrong_name_their_line(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    file = written(tmp_path / "x.jsonl", f"{json.dumps(LINE)}\n{json.dumps({**LINE, **change})}\n")
    with pytest.raises(PolyRefuseError, match=message):
        read_extra(file)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for content, message in (("", "no prompts"), ("{", "line 1 is no JSON"), ("[1]", "no JSON object")):
        with pytest.raises(GuardError, match=message):
            read_extra(written(tmp_path / "x.jsonl", content))
    with pytest.raises(GuardError, match="cannot be read"):
        read_extra(tmp_path / "none.jsonl")
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(GuardError, match="UTF-8"):
        read_extra(tmp_path / "b.jsonl")


def test_prompts_to_score_come_from_text_json_lines_or_input(tmp_path: Path) -> None:
    text = written(tmp_path / "x.txt", "One.\nTwo {x}.\n")
    assert [one.prompt for one in read_prompts(text)] == ["One.", "Two {x}."]
    lines = '{"prompt": "One\\nline", "lang": "de"}\n{"prompt": "Two"}\n'
    expected = [UserPrompt("One\nline", None, "de"), UserPrompt("Two", None, None)]
    assert read_prompts(written(tmp_path / "x.jsonl", lines)) == expected
    assert read_prompts(None, lines.encode()) == expected
    assert [one.prompt for one in read_prompts(None, b"One.\nTwo.")] == ["One.", "Two."]
    with pytest.raises(GuardError, match="line 2: an empty prompt"):
        read_prompts(None, b"One.\n\nTwo.")
    with pytest.raises(GuardError, match="no prompts in 'standard input'"):
        read_prompts(None)


def test_a_line_ends_where_the_line_ends(tmp_path: Path) -> None:
    text = "One\u2028and\x0cmore.\r\nTwo\x85.\n"
    (tmp_path / "x.txt").write_bytes(text.encode())
    for found in (read_prompts(tmp_path / "x.txt"), read_prompts(None, b"\xef\xbb\xbf" + text.encode())):
        assert [one.prompt for one in found] == ["One\u2028and\x0cmore.", "Two\x85."]


def test_what_is_no_text_names_its_line() -> None:
    with pytest.raises(GuardError, match=r"'standard input', line 2 is no UTF-8 text"):
        read_prompts(None, b"One.\n\xff\n")
    with pytest.raises(GuardError, match="line 1: the prompt holds half a surrogate pair"):
        read_prompts(None, b'{"prompt": "\\ud800"}')


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
    found = read_jailbreaks(f"persuasion={artifact}", told.append)
    assert [one.prompt for one in found] == ["Please do it."]
    assert told == [f"'{artifact}': 2 records hold null for a prompt and are left out; 1 are read"]
    with pytest.raises(GuardError, match="no prompts"):
        read_jailbreaks(f"persuasion={written(tmp_path / 'none.json', {'jailbreaks': records[:1]})}")
    with pytest.raises(GuardError, match="record 1 has no prompt"):
        read_jailbreaks(f"persuasion={written(tmp_path / 'e.json', [{'prompt': ''}])}")


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
        ("a.csv", "goal,target\nDo it,ok\n", "record 1 has no prompt; expected prompt"),
        ("a.csv", "goal,suffix\n", "no prompts"),
        ("a.json", "{}", "neither a list of records nor columns"),
        ("a.json", "{", "no JSON"),
        ("a.csv", 'goal,suffix\nx,"' + "y" * 200_000 + '"\n', "no CSV that can be read"),
    ],
)
def test_tables_that_hold_no_jailbreaks_say_what_is_expected(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    with pytest.raises(GuardError, match=message):
        read_jailbreaks(f"suffix={written(tmp_path / name, content)}")


def test_kinds_are_known_by_name(tmp_path: Path) -> None:
    with pytest.raises(PolyRefuseError, match="did you mean 'suffix'"):
        read_jailbreaks("sufix=x.csv")
    with pytest.raises(GuardError, match="KIND=FILE"):
        read_jailbreaks("suffix")
