"""Prompts of a stream are those of the whole input, whatever arrives together, and come as they arrive."""

from __future__ import annotations

import io
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.results.prompt_stream import stream_prompts
from polyrefuse_eval.results.user_prompts import UserPrompt, read_prompts

PROMPTS = ("Sing.", "雨はなぜ降りますか。", 'Say "a, b".', "¿Qué hora es?")
RECORDS = [
    {"prompt": prompt, "lang": "de"} if index % 2 else {"prompt": prompt}
    for index, prompt in enumerate(PROMPTS)
]
CONTENTS = {
    "text": "\n".join(PROMPTS).encode(),
    "text that ends in a line feed": ("\n".join(PROMPTS) + "\n").encode(),
    "Windows lines": ("\r\n".join(PROMPTS) + "\r\n").encode(),
    "JSON Lines": "".join(json.dumps(record) + "\n" for record in RECORDS).encode(),
    "JSON Lines with blank ones": ("\n" + "\n\n".join(map(json.dumps, RECORDS)) + "\n").encode(),
    "JSON over several lines": json.dumps({"prompts": RECORDS}, indent=1).encode(),
    "JSON on one line": json.dumps({"prompts": RECORDS}).encode() + b"\n",
    "UTF-16": "\n".join(PROMPTS).encode("utf-16"),
}


class Chunks(io.BytesIO):
    """A stream from which each read gets one of `chunks`."""

    def __init__(self, chunks: list[bytes]) -> None:
        super().__init__()
        self.chunks = list(chunks)

    def read1(self, _size: int | None = -1, /) -> bytes:
        return self.chunks.pop(0) if self.chunks else b""


def cut(content: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted({place % len(content) for place in places} - {0}), len(content)]
    return [content[first:last] for first, last in pairwise(bounds)]


@pytest.mark.parametrize("content", CONTENTS.values(), ids=list(CONTENTS))
@given(places=st.lists(st.integers(0, 500), max_size=8))
def test_a_stream_holds_the_prompts_of_the_whole_input_wherever_it_is_cut(
    content: bytes, places: list[int]
) -> None:
    parts = list(stream_prompts(Chunks(cut(content, places))))
    assert [prompt for part in parts for prompt in part] == read_prompts(None, content)


def test_prompts_come_as_soon_as_their_line_is_complete() -> None:
    stream = Chunks([b"Sing.\nWhy ", b"does rain fall?\n", b"Hum.\nNow.\n", b"Last"])
    parts = [[prompt.prompt for prompt in part] for part in stream_prompts(stream)]
    assert parts == [["Sing."], ["Why does rain fall?"], ["Hum.", "Now."], ["Last"]]


def test_prompts_before_a_fault_come_first_and_the_fault_names_its_line() -> None:
    for lines, message in (
        ([b"Sing.\nHum.\n", b"Now.\n \n"], "line 4: an empty prompt"),
        ([b"Sing.\n", b"\xff\n"], "line 2: byte 0xFF"),
        ([b'{"prompt": "Sing."}\n', b'{"prompt": "Hum."}\n{"prompt"\n'], "line 3: not valid JSON"),
        ([b'{"prompt": "Sing."}\n', b'{"prompt": "Hum."}\n{"prompt": ""}\n'], "line 3: an empty prompt"),
    ):
        parts = stream_prompts(Chunks(lines))
        assert next(parts)[0] == UserPrompt("Sing.")
        with pytest.raises(PolyRefuseError, match=message):
            list(parts)
    for nothing in ([], [b"\n", b"  \n"]):
        with pytest.raises(PolyRefuseError, match="no prompts in 'standard input'"):
            list(stream_prompts(Chunks(nothing)))
