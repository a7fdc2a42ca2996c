"""Files that other people wrote: read whatever their encoding and form, or refused by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyrefuse_data.core.reading import (
    FileFormatError,
    Table,
    decode,
    is_missing,
    parse_table,
    read_table,
    text_lines,
)
from polyrefuse_data.core.surrogates import without_surrogates

PROMPTS = ["How do I paint?", "Wie male ich\u2028weiter?\x85 Ja.", "กี่ \U0001f600"]


def prompts_of(table: Table) -> list[str | None]:
    column = table.column()
    return [record.text((column,)) for record in table.records]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    "content",
    [
        "\n".join(json.dumps({"prompt": prompt}, ensure_ascii=False) for prompt in PROMPTS),
        json.dumps([{"Goal": prompt} for prompt in PROMPTS], ensure_ascii=False, indent=1),
        json.dumps(PROMPTS, ensure_ascii=False),
        json.dumps({"about": "me", "jailbreaks": [{"prompt": prompt} for prompt in PROMPTS]}),
        json.dumps({"prompt": PROMPTS, "n": [1, 2, 3]}),
        json.dumps({"prompt": {str(number): prompt for number, prompt in enumerate(PROMPTS)}}),
        json.dumps({"a": PROMPTS[:2], "b": PROMPTS[2:]}),
        "behavior;n\n" + "\n".join(f"{prompt};1" for prompt in PROMPTS),
        "user_input\tn\n" + "\n".join(f"{prompt}\t1" for prompt in PROMPTS),
    ],
)
def test_every_form_in_every_encoding_gives_the_same_prompts(
    tmp_path: Path, encoding: str, content: str
) -> None:
    path = tmp_path / "misnamed.xyz"
    path.write_bytes(content.encode(encoding))
    assert prompts_of(read_table(path)) == PROMPTS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9\n", r"line 1: byte 0xE9 is not UTF-8 \(is the file Latin-1"),
        (b"prompt\nok\ncaf\xe9\n", "line 3: byte 0xE9"),
        (b"prompt\nA\0B C\n", "line 2: a NUL character"),
        ("\ufeffp".encode("utf-16-le") + b"\xd8", "not valid UTF-16; is it truncated"),
        (b"  \n", "is empty"),
        (b"prompt\n", "holds no records"),
        (b"prompt,prompt\na,b\n", "two columns have the same name"),
        (b"prompt,n\na\n", "line 2: 1 cells, expected 2"),
        (b'prompt,n\n"How,1\nWhat,2\n', "line 2: a quotation mark is unclosed or stray"),
        (b'prompt,n\n"How" do,1\nWhat,2\n', "line 2: a quotation mark is unclosed or stray"),
        (b'{"prompt": "a"}\n{"prompt": \n', "line 2: not valid JSON"),
        (b'{"prompt": "a"}\n[1]\n', "line 2: expected a JSON object, found a list"),
        (b"[1, 2]", "is JSON but not a table"),
        (b'{"n": ' + b"1" * 5000 + b"}", "a number with too many digits"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"prompt": ["a", "b"], "n": [1]}', "is JSON but not a table"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_the_place(content: bytes, message: str) -> None:
    with pytest.raises(FileFormatError, match=message) as caught:
        parse_table(decode(content, "x"), "x")
    assert "\n" not in str(caught.value)


def test_half_an_emoji_is_read_as_the_replacement_character_and_noted() -> None:
    table = parse_table('{"prompt": "A \\ud83d"}\n{"prompt": "B \\ud83d\\ude00"}\n', "x")
    assert prompts_of(table) == ["A \ufffd", "B \U0001f600"]
    assert table.notes == ["'x': 1 record with half a surrogate pair, read as U+FFFD"]


def test_a_cell_over_many_lines_is_noted_where_it_is_rare() -> None:
    rows = ["prompt,n", *[f"How {number}?,1" for number in range(30)], '"Two\nlines",1', "Last,1"]
    table = parse_table("\n".join(rows), "x")
    assert len(table.records) == 32
    assert "1 record over several lines (the first from line 32)" in table.notes[0]
    many = parse_table("prompt\n" + '"Two\nlines"\n' * 30, "x")
    assert not many.notes


def test_the_columns_are_named_where_none_is_known() -> None:
    with pytest.raises(FileFormatError, match="has the columns a, b; expected one of prompt, bad_q"):
        parse_table("a,b\n1,2\n", "x").column()


def test_nothing_is_missing_in_three_ways() -> None:
    assert all(is_missing(value) for value in (None, "", "  ", "NaN", float("nan")))
    assert not any(is_missing(value) for value in (0, "0", "null", [], False))


@given(st.lists(st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"])), min_size=1))
def test_text_is_cut_at_line_feeds_alone(lines: list[str]) -> None:
    assert [line for _, line in text_lines("\n".join([*lines, ""]))] == lines


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_without_surrogates_can_be_encoded_and_keeps_what_is_whole(value: object) -> None:
    clean = without_surrogates(value)
    json.dumps(clean, ensure_ascii=False).encode()
    assert without_surrogates(clean) is clean
