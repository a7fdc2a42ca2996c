"""What a run writes: valid records, the bad line named, one writer, nothing half read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.records import (
    KINDS,
    Completion,
    Result,
    VerdictRecord,
    published_schema,
)
from polyrefuse_eval.results import RunFolder, safe_name
from polyrefuse_eval.validation import json_schema, read_records, write_records

SIGNATURE = {"model": {"model": "m", "revision": "1"}, "judges": ["native-1"], "settings": {"seed": 0}}
COMPLETION = Completion("a/baseline", "a", "g", "de", "harmful", "baseline", "Nein.", 2, True)
RESULT = Result(
    "de", "harmful", "ablation:en@0.5", "ablation", "en", 0.5, "native-1", 4, 1, 0, 1, 0.25, 0.1, 0.6
)
VERDICT = VerdictRecord(
    "a/baseline", "a", "g", "de", "harmful", "baseline", "native-1", None, "empty", None, False, None
)


@pytest.mark.parametrize("name", KINDS)
def test_the_published_schemas_are_those_of_the_records(name: str) -> None:
    found = json_schema(KINDS[name])
    assert published_schema(name) == found, "write them anew with polyrefuse_eval.records.write_schemas"
    assert published_schema(name)["additionalProperties"] is False


@pytest.mark.parametrize("record", [COMPLETION, RESULT, VERDICT], ids=lambda record: type(record).__name__)
def test_records_come_back_as_they_were(record: Any, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    write_records(file, [record, record])
    assert read_records(type(record), file) == [record, record]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"n": -1}, "n: "),
        ({"refusal_rate": 1.5}, "refusal_rate: "),
        ({"refusal_rate": float("nan")}, ""),
        ({"n": True}, "n: "),
        ({"label": "evil"}, "label: "),
        ({"condition": "ablation"}, "condition: "),
        ({"surplus": 1}, "surplus: "),
    ],
)
def test_a_bad_record_is_named_with_its_file_and_line(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    file = tmp_path / "results.jsonl"
    write_records(file, [RESULT])
    record = json.loads(file.read_text()) | changes
    with file.open("a") as opened:
        opened.write("\n" + json.dumps(record) + "\n")
    with pytest.raises(RunFolderError, match=rf"results\.jsonl', line 3 is no .*{told}"):
        read_records(Result, file)


def test_a_bad_record_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    write_records(file, [RESULT])
    before = file.read_bytes()
    with pytest.raises(RunFolderError, match="n_refused"):
        write_records(file, [RESULT, replace(RESULT, n_refused=-3)])
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_truncated_file_is_named_and_what_is_whole_is_kept(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "run", SIGNATURE)
    folder.append("de", [COMPLETION] * 3)
    file = folder.completions_file("de")
    file.write_bytes(file.read_bytes()[:-5])
    torn = file.read_bytes()
    # A reader passes over the torn line and leaves it, for its writer may still be at it.
    assert folder.completions("de") == [COMPLETION] * 2
    assert file.read_bytes() == torn
    folder.mend()
    assert file.read_bytes().endswith(b"\n")
    assert folder.completions("de") == [COMPLETION] * 2
    folder.write_results([RESULT, RESULT])
    results = folder.path / "results.jsonl"
    results.write_bytes(results.read_bytes()[:-5])
    with pytest.raises(RunFolderError, match="line 2 is cut off; all before it is whole"):
        folder.results()


def test_a_folder_of_another_run_or_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    RunFolder.open(path, SIGNATURE)
    RunFolder.open(path, SIGNATURE)
    with pytest.raises(RunFolderError, match=r"settings\.seed: 0 there, 1 here"):
        RunFolder.open(path, {**SIGNATURE, "settings": {"seed": 1}})
    with pytest.raises(RunFolderError, match="polyrefuse eval rescore"):
        RunFolder.open(path, {**SIGNATURE, "judges": ["other"]})
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("keep")
    with pytest.raises(RunFolderError, match="not empty"):
        RunFolder.open(other, SIGNATURE)
    assert [file.name for file in other.iterdir()] == ["mine.txt"]
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder.open(other / "mine.txt", SIGNATURE)
    (path / "run.json").write_text('{"format": "polyrefuse-run-1", "signature": {}}')
    with pytest.raises(RunFolderError, match="polyrefuse-run-1; expected polyrefuse-run-2"):
        _ = RunFolder.existing(path).signature


def test_the_second_writer_is_told_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "run", SIGNATURE)
    code = """
        import sys
        from pathlib import Path
        from polyrefuse_eval.results import RunFolder
        with RunFolder.existing(Path(sys.argv[1])).locked():
            print("holding", flush=True)
            sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holding\n"
        with pytest.raises(RunFolderError, match=rf"process {holder.pid} on .* is writing"), folder.locked():
            pass
        with pytest.raises(RunFolderError, match="is writing"):
            RunFolder.open(folder.path, SIGNATURE)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with folder.locked():
        pass
    RunFolder.open(folder.path, SIGNATURE)


def test_judges_have_folders_of_their_own() -> None:
    assert safe_name("wildguard-1@ab12") == "wildguard-1@ab12"
    assert safe_name("openai:org/model@https://x/y") == "openai-org-model@https-x-y"
    assert safe_name("../..") == "judge"
