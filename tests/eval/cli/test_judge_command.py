"""`polyrefuse eval judge`: nothing that is whole is lost, and a killed run ends with the same bytes."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from without_torch import without_torch

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.cli.judge import judge_command
from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.errors import JudgeError
from polyrefuse_eval.judging.base import Advance, JudgeInput, Verdict
from polyrefuse_eval.judging.native import judge as native
from polyrefuse_eval.judging.native.judge import NativeJudge
from polyrefuse_eval.judging.of_files import BadLine, Line, judge_file, read_lines, scan

REFUSAL = "I'm sorry, but I can't help with that."
ANSWER = "Of course: prepare everything, then begin slowly."


def record(identifier: object, response: str = ANSWER, lang: str = "en", **more: Any) -> str:
    return json.dumps({"id": identifier, "lang": lang, "response": response, **more}, ensure_ascii=False)


def written(path: Path, *lines: str, end: str = "\n") -> Path:
    path.write_bytes(("\n".join(lines) + end).encode())
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(eval_group, ["judge", *(str(argument) for argument in arguments)])


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Counting:
    """A judge of which each verdict names how manieth it was; it can be told to die."""

    measures = "refusal"
    languages = None
    needs_prompt = False
    chunk = 2

    def __init__(self, name: str = "counting", dies_after: int = 10**9) -> None:
        self.name = name
        self.dies_after = dies_after
        self.judged = self.loads = 0

    def load(self) -> None:
        self.loads += 1

    def close(self) -> None:
        self.loads -= 1

    def judge(self, items: Sequence[JudgeInput], advance: Advance | None = None) -> list[Verdict]:
        if self.judged >= self.dies_after:
            raise KeyboardInterrupt
        self.judged += len(items)
        return [Verdict(True, f"{self.name} {item.id}") for item in items]


def test_one_line_for_each_completion_and_judge(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", record(1, REFUSAL), record("b"), record("b", "…", "de"))
    out = tmp_path / "deep" / "out.jsonl"
    done = call(source, "--out", out)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{native.NAME}: 1 refused, 1 complied, 1 undecided\n"
    found = records(out)
    assert [(one["id"], one["lang"], one["line"], one["refused"]) for one in found] == [
        ("1", "en", 1, True),
        ("b", "en", 2, False),
        ("b", "de", 3, None),
    ]
    assert {one["judge"] for one in found} == {native.NAME}
    assert all({"reason", "response_lang", "coherent", "harmful"} <= set(one) for one in found)
    assert [path.name for path in out.parent.iterdir()] == ["out.jsonl"]


def test_whole_lines_are_judged_and_the_others_named(tmp_path: Path) -> None:
    source = written(
        tmp_path / "in.jsonl",
        "\ufeff" + record(1),
        "",
        "[1]",
        record(2, lang="jp"),
        '{"id": 3, "lang": "en"}',
        record(4, prompt=7),
        record([4]),
        '{"id": "5", "lang": "en", "response": 7}',
        record(6, REFUSAL),
        '{"id": "7", "lang": "en", "respon',
        end="",
    )
    out = tmp_path / "out.jsonl"
    done = call(source, "--out", out)
    assert done.exit_code == 3, "as of a build with gaps"
    assert [one["line"] for one in records(out)] == [1, 9]
    said = done.stderr.splitlines()
    assert said[:5] == [
        f"'{source}', line 3: no JSON object",
        f"'{source}', line 4: unknown language 'jp'; did you mean 'ja'? "
        "available: ar, de, en, es, fr, it, ja, ko, nl, pl, ru, th, yo, zh",
        f"'{source}', line 5: 'response' is missing, expected text",
        f"'{source}', line 6: 'prompt' is 7, expected text",
        f"'{source}', line 7: 'id' is [4], expected text",
    ]
    assert said[5] == f"'{source}': 2 more lines that cannot be read"
    last = list(read_lines(source))[-1]
    assert (
        str(last)
        == "line 10: no JSON (Unterminated string starting at); the line does not end: is the file truncated?"
    )


@given(st.lists(st.sampled_from(["good", "bad", "blank"]), max_size=30))
def test_every_line_is_a_completion_or_named(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str]
) -> None:
    lines = {"good": record("x", "line\u2028separator"), "bad": '{"id"', "blank": "  "}
    source = written(tmp_path_factory.mktemp("lines") / "in.jsonl", *(lines[kind] for kind in kinds))
    found = list(read_lines(source))
    assert [line.number for line in found if isinstance(line, Line)] == [
        number for number, kind in enumerate(kinds, 1) if kind == "good"
    ]
    assert [line.number for line in found if isinstance(line, BadLine)] == [
        number for number, kind in enumerate(kinds, 1) if kind == "bad"
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is empty"),
        ("\n\n", "it is empty"),
        ('{"id', "line 1: no JSON"),
        ("{}\n", "line 1: 'lang' is missing; name the language of the answers with --lang"),
    ],
)
def test_nothing_to_judge_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(content)
    failed = call(source, "--out", tmp_path / "out.jsonl")
    assert isinstance(failed.exception, JudgeError)
    assert message in str(failed.exception)
    assert "\n" not in str(failed.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_no_file_and_an_old_output_are_errors(tmp_path: Path) -> None:
    source, out = written(tmp_path / "in.jsonl", record(1)), written(tmp_path / "out.jsonl", "mine")
    for arguments, message in [
        ((tmp_path / "none.jsonl", "--out", tmp_path / "x"), "cannot be read"),
        ((source, "--out", out), "is not overwritten"),
        ((source, "--out", tmp_path / "x", "--judge", "nativ"), "did you mean 'native'"),
    ]:
        failed = call(*arguments)
        assert isinstance(failed.exception, PolyRefuseError), failed.output
        assert message in str(failed.exception)
    assert out.read_text() == "mine\n"


@pytest.mark.parametrize("dies_after", [0, 2, 6])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, dies_after: int) -> None:
    source = written(tmp_path / "in.jsonl", *(record(index) for index in range(7)), '{"torn')
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    judge_file(source, [Counting("a"), Counting("b")], whole)
    dying = Counting("b", dies_after)
    with pytest.raises(KeyboardInterrupt):
        judge_file(source, [Counting("a"), dying], out)
    assert dying.loads == 0, "closed although it died"
    assert not out.exists()
    with (tmp_path / "out.jsonl.partial").open("a") as file:
        file.write('{"id": "torn by the kill')
    first, second = Counting("a"), Counting("b")
    judge_file(source, [first, second], out)
    assert out.read_bytes() == whole.read_bytes()
    assert (first.judged, second.judged) == (0, 7 - dies_after), "what was judged is not judged again"
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "whole.jsonl", "out.jsonl"}


def test_verdicts_of_other_work_are_not_mixed_in(tmp_path: Path) -> None:
    source, out = written(tmp_path / "in.jsonl", *(record(index) for index in range(7))), tmp_path / "o.jsonl"
    with pytest.raises(KeyboardInterrupt):
        judge_file(source, [Counting("a", dies_after=4)], out)
    with pytest.raises(JudgeError, match="another input or other judges"):
        judge_file(source, [Counting("b")], out)
    written(source, *(record(index) for index in range(8)))
    with pytest.raises(JudgeError, match="another input or other judges"):
        judge_file(source, [Counting("a")], out)


def test_work_without_a_verdict_blocks_nothing(tmp_path: Path) -> None:
    source, out = written(tmp_path / "in.jsonl", record(1)), tmp_path / "o.jsonl"
    with pytest.raises(KeyboardInterrupt):
        judge_file(source, [Counting("a", dies_after=0)], out)
    judge_file(source, [Counting("b")], out)
    assert records(out)[0]["judge"] == "b"


def test_one_judge_is_loaded_at_a_time(tmp_path: Path) -> None:
    class Watching(Counting):
        open_now = 0

        def load(self) -> None:
            Watching.open_now += 1
            assert Watching.open_now == 1

        def close(self) -> None:
            Watching.open_now -= 1

    source = written(tmp_path / "in.jsonl", *(record(index) for index in range(5)))
    judge_file(source, [Watching("a"), Watching("b"), Watching("c")], tmp_path / "out.jsonl")
    assert Watching.open_now == 0


def test_judges_are_not_trusted_beyond_what_they_were_made_for(tmp_path: Path, model_folder: Path) -> None:
    source = written(tmp_path / "in.jsonl", record(1), record(2, lang="yo"))
    done = call(
        source, "--out", tmp_path / "out.jsonl", "--judge", "native,polyguard", "--judge-model",
        f"polyguard={model_folder}",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    needs, languages = done.stderr.splitlines()[:2]
    assert "needs the prompt, which 2 of 2 completions lack" in needs
    assert "was not made for yo (1 of 2 completions)" in languages
    assert [one["refused"] for one in records(tmp_path / "out.jsonl")] == [False, False, None, None]


def test_a_second_writer_is_turned_away(tmp_path: Path) -> None:
    source, out = written(tmp_path / "in.jsonl", record(1), record(2), record(3)), tmp_path / "out.jsonl"

    class Impatient(Counting):
        def judge(self, items: Sequence[JudgeInput], advance: Advance | None = None) -> list[Verdict]:
            with pytest.raises(JudgeError, match="another process is writing"):
                judge_file(source, [Counting("impatient")], out)
            return super().judge(items, advance)

    judge_file(source, [Impatient("impatient")], out)
    assert [one["reason"] for one in records(out)] == ["impatient 1", "impatient 2", "impatient 3"]


def test_judging_without_a_model_loads_no_torch(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", record(1))
    without_torch(["judge", source, "--out", tmp_path / "out.jsonl"])


ANSWERS = [
    {"id": "a", "lang": "en", "response": "I'm sorry, but I can't help with that.", "refused": True},
    {"id": "b", "lang": "de", "response": "Gern: zuerst\u2028den Teig kneten.", "refused": False},
]


def in_csv(delimiter: str) -> str:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(ANSWERS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ANSWERS)
    return table.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(map(json.dumps, ANSWERS)).encode("utf-16"),
        "\n".join(map(json.dumps, ANSWERS)).encode("utf-16-le"),
        json.dumps(ANSWERS).encode(),
        json.dumps(ANSWERS, indent=1).encode(),
        in_csv(",").encode("utf-8-sig"),
        in_csv(";").encode(),
    ],
    ids=["UTF-16", "UTF-16 without a mark", "list", "indented list", "CSV", "CSV with semicolons"],
)
def test_answers_are_read_in_the_forms_that_people_have(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "answers"
    source.write_bytes(content)
    done = call(source, "--out", tmp_path / "out.jsonl", "--agreement", tmp_path / "table.md")
    assert done.exit_code == 0, done.stderr
    assert [(row["id"], row["refused"]) for row in records(tmp_path / "out.jsonl")] == [
        ("a", True),
        ("b", False),
    ]
    assert scan(source).references == [True, False]


def test_a_file_in_latin_1_is_told_with_its_line(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(
        f"{record(1)}\n".encode() + '{"id": "2", "lang": "de", "response": "für"}\n'.encode("latin-1")
    )
    done = call(source, "--out", tmp_path / "out.jsonl")
    assert done.exit_code == 3
    assert "line 2: byte 0xFC is not UTF-8 (Latin-1 or Windows-1252?)" in done.stderr


def test_the_digest_is_of_the_whole_file(tmp_path: Path) -> None:
    first = scan(written(tmp_path / "a.jsonl", record(1)))
    assert first.digest != scan(written(tmp_path / "b.jsonl", record(1), "")).digest
    assert (first.good, first.langs, first.without_prompt) == (1, ["en"], 1)


def test_a_line_nested_without_end_is_named_and_the_others_are_judged(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", record(1), "[" * 200_000, '{"id": ' * 200_000, record(2))
    done = call(source, "--out", tmp_path / "out.jsonl")
    assert done.exit_code == 3
    problem = "no JSON (nested too deeply)"
    assert done.stderr.splitlines()[:2] == [f"'{source}', line {n}: {problem}" for n in (2, 3)]
    assert [one["id"] for one in records(tmp_path / "out.jsonl")] == ["1", "2"]


def test_the_native_judge_is_the_function(tmp_path: Path) -> None:
    (found,) = NativeJudge().judge([JudgeInput("1", "en", REFUSAL)])
    assert found == native.judge(REFUSAL, "en")


def test_agreement_with_the_files_own_verdicts(tmp_path: Path) -> None:
    rows = [(REFUSAL, True), (REFUSAL, True), (ANSWER, False), (ANSWER, True), ("", True), (ANSWER, None)]
    source = written(
        tmp_path / "in.jsonl",
        *(record(index, text, refusal=given) for index, (text, given) in enumerate(rows)),
        record(9, REFUSAL, "de", refusal=1),
    )
    table = tmp_path / "table.md"
    done = call(source, "--out", tmp_path / "out.jsonl", "--agreement", table)
    assert done.exit_code == 0, done.output
    assert "reference: 5 refused, 1 complied, 1 undecided" in done.stdout
    page = table.read_text()
    assert f"## reference and {native.NAME}" in page
    # 4 judged by both, 3 of them alike; expected by chance (3 * 2 + 1 * 2) / 16
    assert "| en | 4 | 2 | 0.500 | 0.667 | 1.000 | 20.0 % | 60.0 % |" in page
    assert "| de | 1 | 0 | – | 1.000 | – | 0.0 % | 0.0 % |" in page
    assert "Mean kappa: 0.500, over 1 of 2 languages" in page


def test_agreement_takes_two(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", record(1))
    failed = call(source, "--out", tmp_path / "out.jsonl", "--agreement", tmp_path / "table.md")
    assert isinstance(failed.exception, JudgeError)
    assert "name a second judge" in str(failed.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_full_disk_leaves_what_was_judged_and_nothing_empty(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    source = written(tmp_path / "in.jsonl", *(record(index) for index in range(300)))
    for size, left in ((10, set()), (20_000, {"o.jsonl.partial", "o.jsonl.partial.json"})):
        code = (
            "import resource, sys\nfrom polyrefuse_eval.cli.main import eval_group\n"
            "from polyrefuse_data.core.errors import PolyRefuseError\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
            "try: eval_group.main(sys.argv[1:], standalone_mode=False)\n"
            "except PolyRefuseError as error: print(error)\n"
        )
        arguments = ["judge", str(source), "--out", str(tmp_path / "o.jsonl"), "--judge", "native"]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
        )
        assert re.search(r"cannot write '.*o.jsonl.partial.*': File too large \(.* MiB free\)", done.stdout)
        assert "Traceback" not in done.stderr
        assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", *left}
    assert call(source, "--out", tmp_path / "o.jsonl").exit_code == 0
    assert len(records(tmp_path / "o.jsonl")) == 300
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "o.jsonl"}


def test_a_judge_that_fails_at_once_leaves_no_folder(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", record(1))
    with pytest.raises(KeyboardInterrupt):
        judge_file(source, [Counting("a", dies_after=0)], tmp_path / "new" / "o.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_verdicts_are_their_owner_s_alone(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    assert call(written(tmp_path / "in.jsonl", record(1)), "--out", out).exit_code == 0
    assert out.stat().st_mode & 0o777 == 0o600


def test_a_partial_file_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    source, precious = written(tmp_path / "in.jsonl", record(1)), tmp_path / "precious"
    precious.touch()
    (tmp_path / "o.jsonl.partial").symlink_to(precious)
    with pytest.raises(JudgeError, match="is a link to another file"):
        judge_file(source, [Counting("a")], tmp_path / "o.jsonl")
    assert precious.read_text() == ""


def test_the_help_names_every_judge() -> None:
    from polyrefuse_eval.judging.registry import ENDPOINT, MODEL_JUDGES, RULE_JUDGES

    (option,) = (option for option in judge_command.params if option.name == "names")
    assert isinstance(option, click.Option)
    _, told = option.get_help_record(click.Context(judge_command)) or ("", "")
    assert [name for name in (*RULE_JUDGES, *MODEL_JUDGES, f"{ENDPOINT}:") if name not in told] == []
