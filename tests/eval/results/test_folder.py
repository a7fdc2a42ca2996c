"""What a run writes: valid records, the bad line named, one writer, nothing half read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from run_records import COMPLETION, SIGNATURE, VERDICT

from polyrefuse_data.checks.languages_file import registered
from polyrefuse_data.core.languages import Language
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.results.baseline_cache import BaselineAnswer, BaselineCache
from polyrefuse_eval.results.folder import RunFolder, safe_name
from polyrefuse_eval.results.records import (
    KINDS,
    RUN_FORMAT,
    Completion,
    Result,
    RunFile,
    published_schema,
)
from polyrefuse_eval.results.validation import json_schema, read_records, write_records

RESULT = Result(
    lang="de",
    label="harmful",
    condition="ablation:en@0.5",
    intervention="ablation",
    source="en",
    coefficient=0.5,
    judge="native-1",
    n=4,
    n_unjudged=1,
    n_incoherent=0,
    n_refused=1,
    refusal_rate=0.25,
    low=0.1,
    high=0.6,
)


@pytest.mark.parametrize("name", KINDS)
def test_the_published_schemas_are_those_of_the_records(name: str) -> None:
    found = json_schema(KINDS[name])
    assert published_schema(name) == found, "write them again with results.records.write_schemas"
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
        ({"n_refused": 904}, "refusal_rate counts 904 of 4"),
        ({"refusal_rate": 0.5}, "refusal_rate is 0.5, not 1 of 4"),
        ({"low": 0.3}, "the interval 0.3 to 0.6 does not hold refusal_rate 0.25"),
        ({"low": None}, "the interval of refusal_rate has one end"),
        ({"n_incoherent": 6}, "n_incoherent is 6 of 5 answers"),
        ({"n_harm_judged": 2}, "harmful_rate is None, not 0 of 2"),
        ({"n_harm_judged": 2, "harmful_rate": 0.3}, "harmful_rate is 0.3, not 1 of 2"),
        ({"source": "de"}, "its intervention, source and coefficient are not those of ablation:en@0.5"),
        ({"coefficient": 1.0}, "are not those of ablation:en@0.5"),
        ({"condition": "ablation:en@1.2.3"}, "condition: "),
        ({"condition": "ablation:klingon"}, "condition: "),
        ({"lang": "x\u001b]0;y"}, "lang: "),
        ({"judge": "a\nb"}, "judge: "),
        ({"judge": "a" * 201}, "judge: "),
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
    with pytest.raises(RunFolderError, match="n_unjudged"):
        write_records(file, [RESULT, replace(RESULT, n_unjudged=10**13)])
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_truncated_file_is_named_and_what_is_whole_is_kept(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "run", SIGNATURE)
    folder.append("de", [COMPLETION] * 3)
    file = folder.path / "completions" / "de" / "harmful.baseline.begun.jsonl"
    file.write_bytes(file.read_bytes()[:-5])
    torn = file.read_bytes()
    # A reader passes over the torn line and leaves it, for its writer may still be at it.
    assert folder.completions("de") == [COMPLETION] * 2
    assert file.read_bytes() == torn
    folder.mend()
    assert file.read_bytes().endswith(b"\n")
    assert folder.completions("de") == [COMPLETION] * 2
    results = folder.path / "results.jsonl"
    write_records(results, [RESULT, RESULT])
    results.write_bytes(results.read_bytes()[:-5])
    with pytest.raises(RunFolderError, match="line 2 is cut off; all before it is whole"):
        folder.results()


def answer_to(row: str, condition: str = "baseline") -> Completion:
    return replace(COMPLETION, key=f"{row}/{condition}", id=row, condition=condition)


def test_a_cell_has_the_same_bytes_whoever_wrote_it_and_in_whatever_order(tmp_path: Path) -> None:
    one, other = (RunFolder.open(tmp_path / name, SIGNATURE) for name in ("one", "other"))
    answers = [answer_to(row, condition) for condition in ("baseline", "ablation:en@0.5") for row in "cab"]
    for answer in answers:
        one.append("de", [answer])
    for condition in ("baseline", "ablation:en@0.5"):
        assert not one.completions_file("de", "harmful", condition).exists()
        one.finish_completions("de", "harmful", condition)
        one.finish_completions("de", "harmful", condition)
        of_cell = [answer for answer in answers if answer.condition == condition]
        other.write_condition("de", "harmful", condition, of_cell[::-1])
    found = [
        {str(file.relative_to(run.path)): file.read_bytes() for file in run.path.rglob("*.jsonl")}
        for run in (one, other)
    ]
    assert found[0] == found[1]
    assert sorted(found[0]) == [
        "completions/de/harmful.ablation-en@0.5.jsonl",
        "completions/de/harmful.baseline.jsonl",
    ]
    keys = [answer.key for answer in one.completions("de")]
    assert keys == [f"{row}/{condition}" for condition in ("ablation:en@0.5", "baseline") for row in "abc"]
    assert one.completions("de") == other.completions("de")
    assert one.languages() == other.languages() == ["de"]


def test_a_cell_at_work_is_read_and_what_a_kill_left_beside_a_done_one_is_not(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "run", SIGNATURE)
    folder.append("de", [answer_to("b"), answer_to("a")])
    assert [answer.id for answer in folder.completions("de")] == ["a", "b"]
    begun = folder.path / "completions" / "de" / "harmful.baseline.begun.jsonl"
    left = begun.read_bytes()
    folder.finish_completions("de", "harmful", "baseline")
    assert not begun.exists()
    begun.write_bytes(left)  # killed between the two steps
    assert [answer.id for answer in folder.completions("de")] == ["a", "b"]
    folder.finish_completions("de", "harmful", "baseline")
    assert not begun.exists()
    # A cell that lacks answers after all is at work again, and keeps what it has.
    folder.append("de", [answer_to("c")])
    assert not folder.completions_file("de", "harmful", "baseline").exists()
    assert [answer.id for answer in folder.completions("de")] == ["a", "b", "c"]
    folder.write_condition("de", "harmful", "baseline", [answer_to("d")])
    assert [answer.id for answer in folder.completions("de")] == ["d"]
    with pytest.raises(RunFolderError, match="de harmful baseline is none of de harmful ablation:en"):
        folder.write_condition("de", "harmful", "ablation:en", [answer_to("d")])
    assert not folder.completions_file("de", "harmful", "ablation:en").exists()
    folder.write_completions("de", [answer_to("e", "addition:en")])
    assert [answer.id for answer in folder.completions("de")] == ["e"]


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
    (path / "run.json").write_text('{"format": "polyrefuse-run-2", "signature": {}}')
    with pytest.raises(RunFolderError, match="polyrefuse-run-2; expected polyrefuse-run-3: make it again"):
        _ = RunFolder.existing(path).signature


def test_the_second_writer_is_told_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "run", SIGNATURE)
    code = """
        import sys
        from pathlib import Path
        from polyrefuse_eval.results.folder import RunFolder
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


def test_runs_at_the_same_time_lose_none_of_their_baselines(tmp_path: Path) -> None:
    def answer(number: int) -> BaselineAnswer:
        return BaselineAnswer(
            prompt_hash=f"{number:04d}", response=f"answer {number}", n_tokens=2, ended=True
        )

    cache = BaselineCache(SIGNATURE, 8, tmp_path)
    threads = [
        threading.Thread(target=lambda one=number: cache.add("de", [answer(one)])) for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.load("de") == {f"{number:04d}": answer(number) for number in range(12)}


def test_judges_have_folders_of_their_own() -> None:
    assert safe_name("wildguard-1@ab12") == "wildguard-1@ab12"
    assert safe_name("openai:org/model@https://x/y") == "openai-org-model@https-x-y"
    assert safe_name("../..") == "judge"


def test_answers_and_verdicts_are_their_owner_s_alone(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "run", SIGNATURE)
    folder.write_condition("de", "harmful", "baseline", [answer_to("a")])
    folder.append("de", [answer_to("b", "ablation:en")])
    (tmp_path / "run" / "completions").chmod(0o755)
    with folder.locked():
        pass
    inner = (tmp_path / "run" / "completions").rglob("*")
    modes = {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "run" / "completions", *inner)}
    assert modes == {"0o700", "0o600"}


@pytest.mark.parametrize("name", ["completions", "verdicts", "verdicts/native-6", "directions"])
def test_a_run_is_not_written_through_a_linked_folder(tmp_path: Path, name: str) -> None:
    folder = RunFolder.open(tmp_path / "run", SIGNATURE)
    (tmp_path / "home").mkdir()
    (folder.path / name).parent.mkdir(exist_ok=True)
    (folder.path / name).symlink_to(tmp_path / "home")
    with pytest.raises(RunFolderError, match=f"{name}' is a link to a folder"), folder.locked():
        pass
    assert list((tmp_path / "home").iterdir()) == []


def test_a_cell_at_work_that_is_a_link_is_neither_mended_nor_added_to(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "run", SIGNATURE)
    precious = tmp_path / "precious"
    precious.write_text("no end of a line")
    begun = folder.path / "completions" / "de" / "harmful.baseline.begun.jsonl"
    begun.parent.mkdir(parents=True)
    begun.symlink_to(precious)
    for write in (folder.mend, lambda: folder.append("de", [answer_to("a")])):
        with pytest.raises(RunFolderError, match="is a link to another file"):
            write()
    assert precious.read_text() == "no end of a line"


def test_a_run_among_the_system_s_files_is_refused() -> None:
    with pytest.raises(RunFolderError, match="--out /etc/run belongs to the system"):
        RunFolder.open(Path("/etc/run"), SIGNATURE)


def test_a_run_records_the_languages_of_its_user_s_own(tmp_path: Path) -> None:
    signature = {**SIGNATURE, "settings": {"langs": ["en", "sw"], "direction_langs": ["en"]}}
    with registered([Language(code="sw", name="Swahili", native_name="Kiswahili")]):
        run = RunFolder.open(tmp_path / "run", signature)
    (row,) = run.run_file().own_languages
    assert (row["code"], row["name"], row["native_name"]) == ("sw", "Swahili", "Kiswahili")
    run.set_judges(["another"])
    assert run.run_file().own_languages == (row,), "kept by a process that does not know the language"
    assert RunFolder.open(tmp_path / "other", SIGNATURE).run_file().own_languages == ()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": float("inf")}, "a number that is not finite"),
        ({"more": [{"a": float("nan")}]}, "a number that is not finite"),
        ({"temperature": "hot"}, "temperature of its model is 'hot'"),
        ({"temperature": "nan"}, "temperature of its model is 'nan'"),
        ({"temperature": 10**400}, "temperature of its model is 1000"),
    ],
)
def test_a_signature_with_numbers_that_are_none_is_no_run(
    changes: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    for temperature in ("0", "0.7", "1e-05"):
        RunFile(format=RUN_FORMAT, signature={"model": {"temperature": temperature}})
    signature = {"model": {"model": "m", **changes}}
    (tmp_path / "run.json").write_text(json.dumps({"format": RUN_FORMAT, "signature": signature}))
    with pytest.raises(RunFolderError, match=problem):
        RunFolder(tmp_path).run_file()
