"""Help that helps: the ways to begin, options in sections, what is installed, shell completion."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from polyrefuse_data.cli import doctor
from polyrefuse_data.cli.command import cli
from polyrefuse_data.cli.help import OTHER, SECTIONS, SectionedCommand


def commands(group: click.Group) -> dict[str, click.Command]:
    context = click.Context(group)
    members = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in members.items() if command is not None}


def test_alone_it_shows_three_ways_to_begin_and_no_command_is_cut_off() -> None:
    shown = CliRunner().invoke(cli, [])
    text = shown.output
    for begin in (
        "polyrefuse build --recipe sample",
        "polyrefuse eval run --model organism",
        "polyrefuse eval judge",
    ):
        assert begin in text
    assert text.count("...") == 1, "only the usage line ends in dots"
    assert f"{OTHER}:" not in text, "every command stands in a section"


def test_options_are_shown_in_sections_and_each_once() -> None:
    text = CliRunner().invoke(cli, ["build", "--help"]).output
    titles = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Data", "What to measure", "Translation", "Services", "Where to run", "Output"]
    for option in commands(cli)["build"].params:
        first = re.findall(rf"^  {option.opts[0]}[ ,/\n]", text, flags=re.MULTILINE)
        assert len(first) == 1, option.opts


def test_no_command_that_groups_its_options_shows_any_as_other() -> None:
    def walk(command: click.Command) -> Iterator[click.Command]:
        if isinstance(command, click.Group):
            for inner in commands(command).values():
                yield from walk(inner)
        else:
            yield command

    grouped = [command for command in walk(cli) if isinstance(command, SectionedCommand)]
    assert len(grouped) > 10
    for command in grouped:
        shown = CliRunner().invoke(command, ["--help"]).output
        assert f"\n{OTHER}:" not in shown, (command.name, shown.partition(f"{OTHER}:")[2])


def test_no_section_names_an_option_twice() -> None:
    names = " ".join(SECTIONS.values()).split()
    assert len(names) == len(set(names))


def test_doctor_says_what_is_missing_for_what_and_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(doctor, "devices", lambda: iter([("device", "cpu")]))
    real = metadata.version

    def version(name: str) -> str:
        if name == "deepl":
            raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "dask-jobqueue" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    shown = CliRunner().invoke(cli, ["doctor"])
    assert shown.exit_code == 0
    lines = {line.split("  ")[0]: line for line in shown.output.splitlines()}
    assert "ready" in lines["build, check, translate by HTTP, publish"]
    assert "missing deepl (not installed): pip install 'polyrefuse[deepl]'" in lines["translate with DeepL"]
    assert "dask-jobqueue 0.1 (needs >=0.9)" in lines["--executor dask --slurm"]
    assert "hf_secret" not in shown.output
    assert lines["$HF_TOKEN"].split()[-1] == "set"


def test_doctor_knows_every_extra_of_the_package() -> None:
    extras = set(metadata.metadata("polyrefuse").get_all("Provides-Extra") or [])
    assert set(doctor.PURPOSES) - {""} == extras - {"test", "docs", "notebook"}
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "install.md").read_text(encoding="utf-8")
    assert [extra for extra in extras if f"`{extra}`" not in page] == []


def test_shells_complete_commands_and_options() -> None:
    complete = BashComplete(cli, {}, "polyrefuse", "_POLYREFUSE_COMPLETE")
    assert [item.value for item in complete.get_completions([], "ev")] == ["eval"]
    assert [item.value for item in complete.get_completions(["eval"], "lead")] == ["leaderboard"]
    assert "--recipe" in [item.value for item in complete.get_completions(["build"], "--rec")]
    script = subprocess.run(
        [sys.executable, "-m", "polyrefuse_data.cli"],
        env={**os.environ, "_POLYREFUSE_COMPLETE": "bash_source"},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert "complete -o nosort" in script
