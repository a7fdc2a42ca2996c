"""Prompts that users bring: every published form is read, and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.reading import FileFormatError
from polyrefuse_eval.errors import GuardError
from polyrefuse_eval.results.user_prompts import UserPrompt, read_extra, read_prompts


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
        ({"label": "bad"}, "line 2: label 'bad'; expected harmful or harmless"),
        ({"lang": "jp"}, "did you mean 'ja'"),
        ({"prompt": "  "}, "line 2: an empty prompt"),
        ({"kind": "all"}, "line 2: kind 'all'; expected a name of your own"),
        ({"kind": "data "}, "line 2: kind 'data'"),
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
    for content, message in (
        ("", "is empty"),
        ("{", "line 1: not valid JSON"),
        ("[1]", "is JSON but not a table"),
    ):
        with pytest.raises(FileFormatError, match=message):
            read_extra(written(tmp_path / "x.jsonl", content))
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_extra(tmp_path / "none.jsonl")


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
    with pytest.raises(FileFormatError, match=r"'standard input', line 2: byte 0xFF is not UTF-8"):
        read_prompts(None, b"One.\n\xff\n")
    with pytest.raises(GuardError, match="line 1: the prompt holds half a surrogate pair"):
        read_prompts(None, b'{"prompt": "\\ud800"}')


def test_published_prompts_need_no_columns_of_ours(tmp_path: Path) -> None:
    """JSON Lines in a file called .json, as the data of Zhao et al. 2025; CSV with other names for labels."""
    lines = '{"bad_q": "Do it", "category": "7"}\n{"bad_q": "Do more", "category": "7"}\n'
    notes: list[str] = []
    file = written(tmp_path / "seed.json", lines)
    assert read_extra(f"harmful={file}", notes.append) == [
        UserPrompt("Do it", "harmful", "en", "7"),
        UserPrompt("Do more", "harmful", "en", "7"),
    ]
    assert notes == [f"'{file}': 2 prompts from 'bad_q' (JSON Lines)"]
    with pytest.raises(GuardError, match=r"line 1: no label; expected 'label', or .* harmful=FILE"):
        read_extra(file)
    twins = written(
        tmp_path / "twins.csv", "prompt,type,label\nKill time,homonyms,safe\nKill,homonyms,unsafe\n"
    )
    assert [(prompt.label, prompt.kind) for prompt in read_extra(twins)] == [
        ("harmless", "homonyms"),
        ("harmful", "homonyms"),
    ]
    turns = written(tmp_path / "t.jsonl", '{"turns": ["Do it"], "prompt_style": "base"}')
    assert read_extra(f"harmful={turns}") == [UserPrompt("Do it", "harmful", "en", "base")]
