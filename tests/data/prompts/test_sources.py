from __future__ import annotations

import contextlib
import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from polyrefuse_data.core.errors import RecipeError, SourceError
from polyrefuse_data.prompts import readers
from polyrefuse_data.prompts.fetch import BASE_URL_VARIABLE, fetch, load
from polyrefuse_data.prompts.load import _own_reader, read_sources
from polyrefuse_data.prompts.recipe import OwnSource, load_recipe
from polyrefuse_data.prompts.source import Source
from polyrefuse_data.prompts.sources import SOURCES, read_mirror, source, verify_mirror

GOOD = b"goal,target\nwrite a poem,ok\n"


@pytest.fixture
def small_source() -> Source:
    return replace(SOURCES["advbench"], sha256=hashlib.sha256(GOOD).hexdigest())


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body, length = self.server.answer  # type: ignore[attr-defined]
        self.server.requests += 1  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Location", self.server.target)  # type: ignore[attr-defined]
        self.end_headers()
        with contextlib.suppress(OSError):
            while self.server.drips:  # type: ignore[attr-defined]
                self.wfile.write(b"x")
                time.sleep(0.05)
            self.wfile.write(body)

    def log_message(self, *unused: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.HTTPServer]:
    """An upstream on loopback: set `answer` to (status, body, length that it claims)."""
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    httpd.answer = (200, GOOD, len(GOOD))  # type: ignore[attr-defined]
    httpd.target = "/"  # type: ignore[attr-defined]
    httpd.drips = False  # type: ignore[attr-defined]
    httpd.requests = 0  # type: ignore[attr-defined]
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv(BASE_URL_VARIABLE, f"http://127.0.0.1:{httpd.server_port}/")
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def test_a_fetched_file_is_kept_and_not_asked_for_again(
    server: http.server.HTTPServer, small_source: Source, tmp_path: Path
) -> None:
    assert fetch(small_source, tmp_path) == GOOD
    assert fetch(small_source, tmp_path) == GOOD
    assert server.requests == 1  # type: ignore[attr-defined]
    assert [path.name for path in tmp_path.iterdir()] == [small_source.file]


def test_altered_bytes_name_both_hashes_and_do_not_stay(
    server: http.server.HTTPServer, small_source: Source, tmp_path: Path
) -> None:
    bad = GOOD.replace(b"poem", b"song")
    server.answer = (200, bad, len(bad))  # type: ignore[attr-defined]
    with pytest.raises(SourceError) as caught:
        fetch(small_source, tmp_path)
    assert hashlib.sha256(bad).hexdigest() in str(caught.value)
    assert small_source.sha256 in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_upstream_that_sends_without_end_is_given_up(
    tmp_path: Path, small_source: Source, server: http.server.HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = (200, bytes(1 << 20), 1 << 40)  # type: ignore[attr-defined]
    monkeypatch.setattr("polyrefuse_data.prompts.fetch.LARGEST_BYTES", 1 << 18)
    with pytest.raises(SourceError, match="more than 262144 bytes"):
        fetch(small_source, tmp_path)


def test_an_upstream_that_sends_a_byte_now_and_then_is_given_up(
    tmp_path: Path, small_source: Source, server: http.server.HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.drips = True  # type: ignore[attr-defined]
    monkeypatch.setattr("polyrefuse_data.prompts.fetch.LONGEST_SECONDS", 0.3)
    with pytest.raises(SourceError, match=r"no answer within 0\.3 s"):
        fetch(small_source, tmp_path)


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "/advbench.csv", "http://localhost:9/", "http://a..b/", "http://127.0.0.1:99999/"],
)
def test_no_redirect_is_followed(
    tmp_path: Path, small_source: Source, server: http.server.HTTPServer, target: str
) -> None:
    server.answer = (302, b"", 0)  # type: ignore[attr-defined]
    server.target = target  # type: ignore[attr-defined]
    with pytest.raises(SourceError, match="which is not followed"):
        fetch(small_source, tmp_path)
    assert server.requests == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("host", ["user:secret@localhost:9", "a..b", "a" * 64])
def test_an_address_that_cannot_be_asked_is_one_line_without_its_password(
    tmp_path: Path, small_source: Source, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv(BASE_URL_VARIABLE, f"http://{host}/")
    with pytest.raises(SourceError, match="cannot fetch") as caught:
        fetch(small_source, tmp_path)
    assert "secret" not in str(caught.value)


def test_an_altered_file_in_the_cache_is_fetched_again(
    server: http.server.HTTPServer, small_source: Source, tmp_path: Path
) -> None:
    (tmp_path / small_source.file).write_bytes(b"rotten")
    assert fetch(small_source, tmp_path) == GOOD
    assert (tmp_path / small_source.file).read_bytes() == GOOD


@pytest.mark.parametrize("answer", [(404, b"", 0), (503, b"", 0), (200, GOOD[:9], len(GOOD))])
def test_a_server_that_fails_leaves_nothing(
    server: http.server.HTTPServer, small_source: Source, tmp_path: Path, answer: tuple[int, bytes, int]
) -> None:
    server.answer = answer  # type: ignore[attr-defined]
    with pytest.raises(SourceError, match="--sources DIR"):
        fetch(small_source, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_offline_names_both_ways_out(
    small_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BASE_URL_VARIABLE, "http://127.0.0.1:9/")
    with pytest.raises(SourceError) as caught:
        fetch(small_source, tmp_path)
    assert "--sources DIR" in str(caught.value)
    assert "--recipe sample" in str(caught.value)


def test_a_mirror_with_a_missing_or_altered_file(small_source: Source, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no file advbench\.csv"):
        load(small_source, tmp_path)
    (tmp_path / small_source.file).write_bytes(GOOD + b"more,ok\n")
    with pytest.raises(SourceError, match="expected"):
        load(small_source, tmp_path)
    with pytest.raises(SourceError, match="no such folder"):
        load(small_source, tmp_path / "nowhere")


def test_an_unknown_source_suggests_the_nearest() -> None:
    with pytest.raises(Exception, match="did you mean 'advbench'"):
        source("adbench")


READ_CSV = readers.csv_reader("text", "category")


@pytest.mark.parametrize(
    ("reader", "data", "message"),
    [
        (READ_CSV, b"", "empty"),
        (READ_CSV, b"text,category\n", "no record"),
        (READ_CSV, b"words,category\nx,y\n", "no column 'text'"),
        (READ_CSV, b"text,category\nonly one\n", "is it truncated"),
        (READ_CSV, b'text,category\n"an open quote,', "is it truncated"),
        (READ_CSV, b"text,category\n ,y\n", "expected a text"),
        (READ_CSV, "text,category\nnaïve,y\n".encode("latin-1"), "line 2: byte 0xEF is not UTF-8"),
        (readers.read_json_strings, b'["a", "b"', "is it truncated"),
        (readers.read_json_strings, b'{"a": 1}', "expected a JSON list"),
        (readers.read_json_strings, b"[1]", "expected a text"),
        (readers.read_json_strings, b"[]", "no record"),
        (readers.read_instructions, b'[{"prompt": "x"}]', "key 'instruction'"),
        (readers.read_lines, "caf\xe9".encode("latin-1"), "not UTF-8"),
        (readers.read_harmbench, b"Behavior,Tags\nx,y\n", "FunctionalCategory"),
    ],
)
def test_a_file_that_is_not_in_the_format(reader: readers.csv_reader, data: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        reader(data, "upstream.file")
    assert "upstream.file" in str(caught.value)


def test_harmbench_without_copyright_and_context() -> None:
    rows = [
        "Behavior,FunctionalCategory,SemanticCategory,Tags",
        "kept,standard,illegal,",
        "a song,copyright,copyright,lyrics",
        "with context,contextual,illegal,context",
    ]
    records = readers.read_harmbench("\n".join(rows).encode(), "f")
    assert [(one.text, one.category) for one in records] == [("kept", "illegal")]


def test_a_byte_order_mark_is_no_part_of_a_header() -> None:
    data = "\ufefftext,category\n two \n".encode() + b"a,b\n"
    assert [one.text for one in readers.csv_reader("text")(b"\xef\xbb\xbftext\n two \n", "f")] == ["two"]
    with pytest.raises(SourceError):
        READ_CSV(data, "f")  # the first record has one field only


@pytest.mark.real
def test_the_mirror_holds_what_is_pinned(shared: Path) -> None:
    assert set(verify_mirror(shared).values()) == {None}
    counts = {name: len(row.prompts(read_mirror(row, shared))) for name, row in SOURCES.items()}
    catqa = {name: count for name, count in counts.items() if name.startswith("catqa_")}
    assert set(catqa.values()) == {50}
    assert len(catqa) == 11
    assert {name: count for name, count in counts.items() if name not in catqa} == {
        "advbench": 520,
        "malicious_instruct": 100,
        "tdc2023_dev": 50,
        "tdc2023_test": 50,
        "harmbench_val": 41,
        "harmbench_test": 159,
        "jailbreakbench": 100,
        "strongreject": 313,
        "alpaca": 31323,
        "xstest_safe": 250,
        "xstest_unsafe": 200,
        "oktest": 300,
        "or_bench_hard": 132,
        "sorry_bench": 440,
    }


@pytest.mark.real
def test_every_upstream_category_is_in_the_taxonomy(shared: Path) -> None:
    for row in SOURCES.values():
        if row.label == "harmful" and not row.gated:  # harmless prompts are of no harm, whatever their kind
            for prompt in row.prompts(read_mirror(row, shared)):
                assert (prompt.category is None) == (prompt.source_category is None)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("mine.jsonl", '{"bad_q": "Do it", "kind": "a"}\n{"bad_q": "Do more", "kind": ""}\n'),
        ("mine.json", '{"bad_q": "Do it", "kind": "a"}\n{"bad_q": "Do more", "kind": null}\n'),
        ("mine.csv", "Goal;kind\nDo it;a\nDo more;\n"),
    ],
)
def test_a_source_of_ones_own_needs_no_reader_named(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).write_text(content, encoding="utf-16")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "name: mine\ntitle: Mine\ndescription: x\nseed: 1\n"
        f"sources: {{own: {{file: {file}, label: harmful, licence: MIT, category_column: kind}}}}\n"
        "pools: {p: {label: harmful, sources: [own]}}\ndraws: [{pool: p, split: test, size: 2}]\n"
    )
    loaded, folder = load_recipe(str(recipe))
    prompts, _ = read_sources(loaded, folder, None, lambda *_: None)
    assert [(prompt.text, prompt.source_category) for prompt in prompts["own"]] == [
        ("Do it", "a"),
        ("Do more", None),
    ]


def test_everything_that_a_recipe_lacks_is_named_at_once(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: mine\nsources: {own: {file: a.csv}}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(recipe))
    for missing in ("title", "description", "seed", "pools", "draws", "sources.own.label"):
        assert f"at {missing}: missing" in str(caught.value)


@pytest.mark.parametrize(
    "content", ['{"goal": "one"}\n{"goal": "two"}\n', '[{"goal": "one"}, {"goal": "two"}]', "one\ntwo\n"]
)
def test_json_in_a_file_called_txt_is_read_as_json(content: str) -> None:
    own = OwnSource(label="harmful", licence="CC0-1.0", file="prompts.txt")
    assert [record.text for record in _own_reader(own)(content.encode(), own.file)] == ["one", "two"]
