"""The command: what it prints, how it exits, and that nothing a user does ends in a traceback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from translator_server import Server

from polyrefuse_data.cli.command import cli, main

SMALL = ("--recipe", "sample", "--langs", "en,yo", "--size", "8/8/8")


POLYREFUSE = (sys.executable, "-m", "polyrefuse_data.cli")


def run(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*POLYREFUSE, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=120,
    )


def exit_status(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    output = capsys.readouterr()
    return int(caught.value.code or 0), output.out, output.err


def test_the_main_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = exit_status(capsys, "build", *SMALL, "--out", str(tmp_path / "b"))
    assert (status, err) == (0, "")
    assert "Built:" in out
    assert "Checks: 0 errors" in out
    assert f'load_dataset("{tmp_path / "b"}", "yo", split="test")' in out
    status, out, _ = exit_status(capsys, "build", *SMALL, "--out", str(tmp_path / "b"))
    assert "Unchanged:" in out
    status, out, _ = exit_status(
        capsys, "build", *SMALL, "--quiet", "--seed", "2", "--out", str(tmp_path / "b")
    )
    assert out == ""
    status, out, _ = exit_status(capsys, "audit", str(tmp_path / "b"), "--format", "json")
    assert status == 0
    assert json.loads(out)["rows"] == 96
    assert json.loads(out)["not_judged_by_langdetect"] == ["yo"]


def test_counts_are_in_the_singular_and_languages_are_those_of_the_build(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "b")
    sizes = ("--recipe", "sample", "--langs", "de", "--size", "1/0/0")
    _, out, _ = exit_status(capsys, "build", *sizes, "--out", folder)
    assert f"Built: {folder} (sample, 1 language, 2 rows)" in out
    assert 'split="train")' in out, "the split that has rows"
    assert f"Unchanged{out.removeprefix('Built')}" == exit_status(capsys, "build", *sizes, "--out", folder)[1]
    _, out, _ = exit_status(capsys, "audit", folder)
    assert "2 rows in 1 language" in out
    assert "langdetect" not in out, "it knows German"


def test_the_default_folder_is_named_after_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_status(capsys, "build", *SMALL)[0] == 0
    assert (tmp_path / "builds" / "sample" / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("build", "--recipe", "smaple"), "did you mean 'sample'"),
        (("build", "--recipe", "sample", "--langs", "jp"), "did you mean 'ja'"),
        (("build", "--recipe", "sample", "--langs", ""), "no language"),
        (("build", "--recipe", "sample", "--size", "many"), "expected 128/32/572"),
        (("build", "--recipe", "sample", "--size", "9000/1/1"), "holds 960"),
        (("build", "--recipe", "none.yaml"), "cannot read the recipe"),
        (("build", "--recipe", "paper", "--sources", "nowhere"), "no such folder"),
        (("build", "--recipe", "sample", "--thresholds", "none.yaml"), "cannot read the thresholds"),
        (("biuld",), "did you mean 'build'"),
        (("build", "--recipie", "sample"), "--recipe"),
        (("audit", "nowhere"), "no such folder"),
        (("audit", ".", "--check", "ecko"), "did you mean 'echo'"),
        (("memory", "stats", "--memory", "absent.sqlite"), "no translation memory"),
        (("memory", "import", "absent.jsonl", "--memory", "m.sqlite"), "no such folder"),
        (("memory", "export", "x.jsonl", "--memory", "absent.sqlite"), "no translation memory"),
        (("calibrate", "."), "no file named"),
        (("sources", "verify", "nowhere"), "no file advbench.csv"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line_and_status_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = exit_status(capsys, *arguments)
    assert status == 2
    assert message in out + err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == [], "nothing half written"


def test_an_output_folder_that_is_not_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    status, _, err = exit_status(capsys, "build", *SMALL, "--out", str(tmp_path))
    assert status == 2
    assert "was not made by polyrefuse" in err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_gaps_exit_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("how to open a door\n")
    (tmp_path / "own.yaml").write_text(
        "name: own\ntitle: t\ndescription: d\nseed: 1\n"
        "sources: {mine: {file: mine.txt, reader: lines, label: harmful, licence: MIT}}\n"
        "pools: {bad: {label: harmful, sources: [mine]}}\n"
        "draws: [{pool: bad, split: test, size: 1}]\n"
    )
    memory = tmp_path / "m.sqlite"
    lines = tmp_path / "m.jsonl"
    lines.write_text('{"english": "x", "lang": "de", "text": "y", "backend": "m", "version": "1"}\n')
    assert exit_status(capsys, "memory", "import", str(lines), "--memory", str(memory))[0] == 0
    build = ("build", "--recipe", str(tmp_path / "own.yaml"), "--langs", "en,de", "--memory", str(memory))
    out = str(tmp_path / "out")
    status, _, err = exit_status(capsys, *build, "--out", out)
    assert status == 3
    assert "de test harmful: 1 (harmful-test-0000)" in err
    status, printed, err = exit_status(capsys, *build, "--out", out, "--allow-gaps", "--quiet")
    assert (status, printed) == (0, "")
    assert "1 prompt without a translation" in err
    assert f"{out} was built with 1 error: polyrefuse audit {out}" in err
    assert exit_status(capsys, "audit", out)[0] == 1, "a gap is a finding of severity error"


def test_a_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the write fails with an error, half way."""
    resource = pytest.importorskip("resource")
    out = tmp_path / "b"
    assert run("build", *SMALL, "--out", str(out)).returncode == 0
    before = (out / "manifest.json").read_bytes()

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))

    full = subprocess.run(
        [sys.executable, "-m", "polyrefuse_data.cli", "build", *SMALL, "--seed", "3", "--out", str(out)],
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )
    assert full.returncode == 2, full.stderr
    assert len(full.stderr.strip().splitlines()) == 1
    assert "completed work is kept" in full.stderr
    assert (out / "manifest.json").read_bytes() == before
    assert run("audit", str(out)).returncode == 0
    assert run("build", *SMALL, "--seed", "3", "--out", str(out)).returncode == 0


def test_ctrl_c(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "polyrefuse_data.cli",
            "build",
            "--recipe",
            "sample",
            "--out",
            str(tmp_path / "b"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored where tests run in the background
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "b" / ".staging").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().splitlines() == [
        "Interrupted; completed work is kept. Run the same command again to resume."
    ]
    assert not (tmp_path / "b" / "manifest.json").exists()


def test_the_builder_runs_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None\n"
        "from polyrefuse_data.cli.command import main\n"
        f"main(['build', *{SMALL!r}, '--out', {str(tmp_path / 'b')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_is_cheap() -> None:
    code = (
        "import sys; from polyrefuse_data.cli.command import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('datasets', 'pyarrow', 'numpy', 'torch', 'lingua') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def every_command(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        return [path]
    context = click.Context(command)
    found = [path] if path else []
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        found += every_command(inner, (*path, name))
    return found


def test_every_command_explains_itself() -> None:
    commands = every_command(cli)
    assert ("build",) in commands
    assert ("memory", "import") in commands
    for path in commands:
        result = CliRunner().invoke(cli, [*path, "--help"])
        assert result.exit_code == 0
        assert len(result.output.splitlines()) > 4


def test_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert "CC-BY-NC-4.0" in exit_status(capsys, "sources")[1]
    assert "Yorùbá" in exit_status(capsys, "languages")[1]
    assert "harmful: train 128, validation 32, test 572" in exit_status(capsys, "recipes")[1]
    assert "round_trip" in exit_status(capsys, "checks")[1]


def test_a_plugin_whose_extra_is_missing_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib.metadata import EntryPoint, EntryPoints

    import polyrefuse_data.cli.command as module

    entry = EntryPoint("eval", "no_such_module:group", module.PLUGINS)
    monkeypatch.setattr(module.metadata, "entry_points", lambda **_: EntryPoints([entry]))
    status, _, err = exit_status(capsys, "eval", "run")
    assert status == 2
    assert "pip install 'polyrefuse[eval]'" in err


def test_a_mirror_that_is_incomplete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = exit_status(capsys, "sources", "verify", str(tmp_path))
    assert status == 2
    assert out.count("WRONG") == 9


def test_a_pipe_that_closes(small_build: Path) -> None:
    if shutil.which("head") is None:
        pytest.skip("no head on this system")
    script = f"{sys.executable} -m polyrefuse_data.cli sources | head -n 1"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_a_language_of_ones_own_is_known_to_every_command_that_reads_rows(tmp_path: Path) -> None:
    mine, out = tmp_path / "mine.yaml", tmp_path / "out"
    mine.write_text("- {code: sw, name: Swahili, native_name: Kiswahili}\n", encoding="utf-8")
    known = ("--languages-file", str(mine))
    memory, copy = ("--memory", str(tmp_path / "m.sqlite")), ("--memory", str(tmp_path / "copy.sqlite"))
    with Server() as server:
        built = run(
            "build", "--recipe", "sample", "--langs", "en,sw", "--size", "8/8/8", "--out", str(out),
            "--translator", "google", "--translator-url", f"{server.url}/m", *memory, *known,
        )  # fmt: skip
    assert built.returncode == 0, built.stderr
    audited = run("audit", str(out), *known)
    assert audited.returncode == 0, audited.stderr
    assert "sw" in audited.stdout
    assert "Kiswahili" in run("languages", *known).stdout
    exported = tmp_path / "m.jsonl"
    assert run("memory", "export", str(exported), *memory).returncode == 0
    imported = run("memory", "import", str(exported), *copy, *known)
    assert imported.returncode == 0, imported.stderr
    assert "48 new" in imported.stdout
    assert run("audit", str(out)).returncode == 0, "the build itself says what its languages are"
    unknown = run("memory", "import", str(exported), *copy)
    assert unknown.returncode == 2
    assert "sw" in unknown.stderr
    assert "--languages-file" in unknown.stderr
    assert len(unknown.stderr.strip().splitlines()) == 1


def test_a_file_that_cannot_be_written_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device", "builds/x.parquet")

    monkeypatch.setattr(cli, "main", full)
    status, out, err = exit_status(capsys, "languages")
    assert (status, out, err) == (2, "", "Error: 'builds/x.parquet': No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("command", [["languages"], ["--help"]])
def test_output_that_goes_to_a_full_disk_is_one_line(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # what is buffered is written again at the end
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*POLYREFUSE, *command], stdout=full, stderr=subprocess.PIPE, text=True)
        failed = subprocess.run([*POLYREFUSE, "audit", "absent"], stderr=full)
    assert done.returncode == failed.returncode == 2
    assert done.stderr.startswith("Error: the output cannot be written: ")
    assert len(done.stderr.splitlines()) == 1


def test_output_that_is_closed_is_no_traceback() -> None:
    done = subprocess.run(
        ["sh", "-c", f"{' '.join(POLYREFUSE)} languages >&-"], stderr=subprocess.PIPE, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_operating_system_s_error_without_a_file_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_options: object) -> None:
        raise OSError("?")

    monkeypatch.setattr(cli, "main", broken)
    with pytest.raises(OSError, match=r"^.$"):
        main(["languages"])
