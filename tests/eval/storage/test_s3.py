"""The whole way to an S3 that answers 30 % of requests with 503: the bytes of a local run, killed or not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from children import started
from click.testing import CliRunner, Result
from s3_server import KEYS, FlakyS3, s3_server
from tiny_runs import command_that_dies

import polyrefuse_eval.runs.tasks as tasks_module
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.report.brief import brief_table
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.results.files import LOCK_FILE
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.timings import TIMINGS_FILE
from polyrefuse_eval.storage import lease, objects
from polyrefuse_eval.storage.address import Address
from polyrefuse_eval.storage.mirror import WorkingCopy

OUT = "s3://bucket/runs/one"
OPTIONS = (
    *("--langs", "en,de", "--refusal-tokens", "40,41", "--no-filter", "--max-new-tokens", "4"),
    *("--strengths", "none", "--crossed", "2", "--batch-size", "3", "--no-controls", "-q"),
)
QUICK = {
    "polyrefuse_eval.storage.objects.FIRST_WAIT": 0.01,
    "polyrefuse_eval.storage.objects.LONGEST_WAIT": 0.05,
    "polyrefuse_eval.storage.lease.SETTLE": 0.01,
}
"""Waits for a store that is never far."""

Run = Callable[[object], Result]


def run_command(model: Path, data: Path, out: object) -> list[str]:
    return ["run", "--model", str(model), "--data", str(data), *OPTIONS, "--out", str(out)]


@pytest.fixture(scope="module")
def run(model_folder: Path, data_folder: Path) -> Run:
    return lambda out: CliRunner().invoke(eval_group, run_command(model_folder, data_folder, out))


@pytest.fixture(scope="module")
def local(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run in a folder here."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYREFUSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = run(folder)
    assert made.exit_code == 0, made.output
    return folder


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyS3]:
    for constant, value in QUICK.items():
        monkeypatch.setattr(constant, value)
    with s3_server(seed=8) as (server, endpoint):
        for name, value in {**KEYS, "AWS_ENDPOINT_URL_S3": endpoint}.items():
            monkeypatch.setenv(name, value)
        yield server


def files(folder: Path) -> dict[str, bytes]:
    """The results of a run: all but how long it took."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (LOCK_FILE, TIMINGS_FILE)
    }


def bucket() -> Any:
    import s3fs

    return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)


def there(server: FlakyS3, path: str = "bucket/runs/one") -> dict[str, bytes]:
    """The results in the bucket, read without faults."""
    server.wait_until_idle()
    busy, server.busy = server.busy, 0.0
    store = bucket()
    names = [name for name in store.find(path) if not name.endswith(f"/{TIMINGS_FILE}")]
    found = {name.removeprefix(path + "/"): store.cat_file(name) for name in names}
    server.busy = busy
    return found


def put(folder: Path, path: str) -> None:
    store = bucket()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            store.pipe_file(f"{path}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def line(result: Result) -> str:
    assert isinstance(result.exception, PolyRefuseError), result.output or result.exception
    assert "\n" not in str(result.exception)
    return str(result.exception)


def said(result: Result) -> str:
    """What a command that must go well printed."""
    assert result.exit_code == 0, f"{result.exception!r} {result.output}"
    return result.stdout


def no_model(*_arguments: object, **_keywords: object) -> None:
    raise AssertionError("no model is needed")


def test_a_run_to_a_busy_store_has_the_bytes_of_a_local_one(
    run: Run, local: Path, s3: FlakyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.busy = 0.3
    table = said(run(OUT))
    folder = RunFolder(local)
    assert table == brief_table(folder.results(), folder.summary(), ["en"])
    assert s3.refused > 20
    assert there(s3) == files(local)
    # Done, it does nothing, and fetches nothing that it has.
    s3.seen.clear()
    with monkeypatch.context() as patch:
        patch.setattr("polyrefuse_eval.models.chat.ChatModel.load", no_model)
        assert said(run(OUT)) == table
        assert {path for method, path in s3.seen if method == "PUT"} == {"/bucket/runs/one/driver.json"}
        assert {path for method, path in s3.seen if method == "GET"} <= {
            "/bucket",
            "/bucket/",
            "/bucket/runs/one/driver.json",
        }
        # On another machine, too.
        patch.setenv("POLYREFUSE_CACHE", os.environ["POLYREFUSE_CACHE"] + "-elsewhere")
        assert said(run(OUT)) == table
    assert there(s3) == files(local)


def run_and_be_killed(command: list[str], kind: type, name: str, at: int, **constants: object) -> None:
    """Run in a process of its own that dies after call number `at` of the method `kind.name`."""
    child = started(command_that_dies, command, {**QUICK, **constants}, kind, name, at)
    child.join()
    assert child.exitcode == -signal.SIGKILL, "it ended by itself"


def send_nothing(_copy: WorkingCopy) -> int:
    """Take the place of `WorkingCopy.push` while the store is out of reach."""
    return 0


class Answered:
    """Which cells answers are made in, while it is patched in."""

    def __init__(self, data: Path) -> None:
        build = open_data(data)
        self.langs = {row.text: lang for lang in build.languages for row in build.rows(lang, "test")}
        self.cells: set[str] = set()
        self.honest = tasks_module.generate

    def __call__(self, chat: Any, requests: Any, **more: Any) -> Any:
        for request in requests:
            row, _, condition = request.key.partition("/")
            label = row.partition("-")[0]
            self.cells.add(f"{self.langs[request.prompt]}/{label}.{condition.replace(':', '-')}.jsonl")
        return self.honest(chat, requests, **more)


def cells(found: dict[str, bytes]) -> set[str]:
    return {
        name.removeprefix("completions/")
        for name in found
        if name.startswith("completions/") and name.endswith(".jsonl")
    }


KILLS = [
    pytest.param(RunFolder, "append", 8, id="in-a-cell", marks=pytest.mark.slow),
    pytest.param(RunFolder, "finish_completions", 5, id="between-a-cell-and-its-upload"),
    pytest.param(WorkingCopy, "_put", 9, id="after-an-upload", marks=pytest.mark.slow),
    pytest.param(RunFolder, "finish_verdicts", 3, id="among-the-verdicts", marks=pytest.mark.slow),
    pytest.param(RunFolder, "write_tables", 1, id="before-the-summary-is-sent", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("kind", "name", "at"), KILLS)
def test_killed_it_goes_on_from_an_empty_cache_and_does_only_what_is_missing(
    kind: type, name: str, at: int, run: Run, local: Path, model_folder: Path, data_folder: Path, s3: FlakyS3,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    s3.busy = 0.3
    run_and_be_killed(run_command(model_folder, data_folder, OUT), kind, name, at)
    left, whole = there(s3), files(local)
    driver = left.pop("driver.json")
    assert b'"renewed"' in driver
    assert "summary.json" not in left
    for found in left:
        # Verdicts and all else are whole too, whatever was under way.
        assert left[found] == whole[found], found
    monkeypatch.setenv("POLYREFUSE_CACHE", str(tmp_path / "another machine"))
    with monkeypatch.context() as patch:
        patch.setattr("polyrefuse_eval.models.chat.ChatModel.load", no_model)
        told = line(run(OUT))
        assert "is writing to 's3://bucket/runs/one' since" in told
        assert "after 90 s without a sign" in told
    monkeypatch.setattr(lease, "DEAD_AFTER", -1.0)  # as if the time had passed
    made = Answered(data_folder)
    monkeypatch.setattr(tasks_module, "generate", made)
    said(run(OUT))
    assert made.cells == cells(whole) - cells(left)
    assert there(s3) == whole


def test_killed_it_goes_on_at_once_here_with_what_was_not_sent_yet(
    run: Run, local: Path, model_folder: Path, data_folder: Path, s3: FlakyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = {"polyrefuse_eval.storage.mirror.WorkingCopy.push": send_nothing}
    run_and_be_killed(
        run_command(model_folder, data_folder, OUT), RunFolder, "finish_completions", 5, **offline
    )
    assert set(there(s3)) == {"driver.json"}
    made = Answered(data_folder)
    monkeypatch.setattr(tasks_module, "generate", made)
    said(run(OUT))
    assert len(made.cells) == len(cells(files(local))) - 5
    assert there(s3) == files(local)


def test_what_cannot_be_sent_is_kept_and_the_same_command_sends_it(
    run: Run, local: Path, s3: FlakyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = RunFolder.finish_completions

    def fall_silent(self: RunFolder, *cell: str) -> None:
        honest(self, *cell)
        s3.busy = 1.0

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish_completions", fall_silent)
        failed = run(OUT)
    told = line(failed)
    assert "'s3://bucket/runs/one' cannot be" in told
    assert "status 503; " in told
    assert "files are still to be sent: run the same command again to send them" in told
    assert failed.output.count("the run continues and will retry") == 1
    s3.busy = 0.0
    monkeypatch.setattr("polyrefuse_eval.models.chat.ChatModel.load", no_model)
    said(run(OUT))
    assert there(s3) == files(local)


def test_a_run_whose_lease_is_taken_stops_after_the_condition_at_work(
    run: Run, local: Path, s3: FlakyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, honest, finished = lease.Lease(objects.ObjectStore(Address(OUT))), RunFolder.finish_completions, []

    def taken_meanwhile(self: RunFolder, *cell: str) -> None:
        honest(self, *cell)
        finished.append(cell)
        if len(finished) == 3:
            other._store.write(lease.DRIVER_FILE, other._content())

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish_completions", taken_meanwhile)
        told = line(run(OUT))
    assert "is writing to 's3://bucket/runs/one'" in told
    assert "this process has stopped and sends nothing more" in told
    assert len(finished) == 3
    assert len(cells(there(s3))) == 2, "the third stays here"
    other.renew()
    other.release()
    said(run(OUT))
    assert there(s3) == files(local)


def test_before_a_model_is_loaded_one_line_says_what_is_wrong(
    run: Run, s3: FlakyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyrefuse_eval.models.chat.ChatModel.load", no_model)
    assert "'s3://no-such-bucket/x' cannot be read: not there; the bucket" in line(
        run("s3://no-such-bucket/x")
    )
    s3.forbidden = frozenset({"PUT"})
    told = line(run(OUT))
    assert "'s3://bucket/runs/one' cannot be written: no permission; the credentials" in told
    s3.forbidden = frozenset({"GET", "PUT"})
    assert "cannot be read: no permission" in line(run(OUT))
    s3.forbidden = frozenset()
    bucket().pipe_file("bucket/notes/mine.txt", b"keep")
    assert "'s3://bucket/notes' is not empty and holds no run.json" in line(run("s3://bucket/notes"))
    assert "is a file; expected the folder of a run" in line(run("s3://bucket/notes/mine.txt"))
    for name in ("../../climbed.json", "completions/../../x.jsonl", "a//b.json"):
        bucket().pipe_file(f"bucket/bad/{name}", b"{}")
        assert "not a name of a file in the folder of a run" in line(run("s3://bucket/bad")), name
        bucket().rm_file(f"bucket/bad/{name}")
    assert there(s3, "bucket/notes") == {"mine.txt": b"keep"}
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        assert "cannot be read: it does not answer" in line(run(OUT))
        patch.delenv("AWS_ENDPOINT_URL_S3")
        for name in KEYS:
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "/nowhere")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        assert "cannot be read: no credentials are set" in line(run(OUT))
    assert not list(Path(os.environ["POLYREFUSE_CACHE"]).rglob("climbed.json"))
    assert not list(Path(os.environ["POLYREFUSE_CACHE"]).rglob("*.jsonl"))


def test_the_other_commands_read_runs_from_there(local: Path, s3: FlakyS3, tmp_path: Path) -> None:
    import shutil

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(eval_group, [str(argument) for argument in arguments])

    runs = [tmp_path / "runs" / name for name in ("one", "two")]
    for folder in runs:
        shutil.copytree(local, folder, ignore=shutil.ignore_patterns(LOCK_FILE))
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "notes" / "readme.txt").write_text("no run")
    put(tmp_path / "runs", "bucket/runs")
    s3.busy, s3.refused = 0.3, 0
    s3.seen.clear()
    here = call("leaderboard", *sorted((tmp_path / "runs").iterdir()), "--out", tmp_path / "here")
    far = call("leaderboard", "s3://bucket/runs/*", "--out", tmp_path / "far")
    assert far.exit_code == here.exit_code == 0, far.output
    assert s3.refused > 0
    assert far.stderr == here.stderr
    assert far.stderr.startswith("left out: 'notes' holds no run.json")
    fetched = {path for method, path in s3.seen if method == "GET"}
    assert "/bucket/runs/one/results.jsonl" in fetched
    assert not [path for path in fetched if "completions" in path or "verdicts" in path]
    assert files(tmp_path / "far") == files(tmp_path / "here")
    compared = [call("compare", *pair) for pair in (runs, ("s3://bucket/runs/one", runs[1]))]
    assert compared[0].exit_code == 0
    assert compared[0].stdout == compared[1].stdout
    before = there(s3, "bucket/runs/one")
    s3.busy = 0.0
    bucket().rm_file("bucket/runs/two/results.jsonl")
    bucket().rm_file("bucket/runs/two/summary.json")
    bucket().rm_file("bucket/runs/notes/readme.txt")
    s3.busy = 0.3
    rescored = call("rescore", "s3://bucket/runs", "-q")
    assert rescored.exit_code == 0, rescored.output
    assert rescored.stdout == "s3://bucket/runs/one\ns3://bucket/runs/two\n"
    assert there(s3, "bucket/runs/two") == there(s3, "bucket/runs/one") == before
    assert "nothing is at 's3://bucket/none/*'" in line(
        call("leaderboard", "s3://bucket/none/*", "--out", tmp_path / "none")
    )
