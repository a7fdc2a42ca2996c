"""Runs of a tiny model, small enough to be repeated, in this process or in one that is killed."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.judging.native.judge import NativeJudge
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.results.folder import Result
from polyrefuse_eval.results.settings import RunSettings
from polyrefuse_eval.runs import grid
from polyrefuse_eval.runs.plan import RunPlan

SETTINGS = RunSettings(
    langs=("en", "de"),
    max_new_tokens=6,
    filter_prompts=False,
    refusal_tokens="40,41",
    strengths=(0.5,),
    crossed=2,
    batch_size=3,
)


def run(chat: ChatModel, data: Path, out: Path, judges: Sequence[Any] = (), **changes: Any) -> list[Result]:
    settings = replace(SETTINGS, **changes)
    return grid.run(
        RunPlan(
            load=lambda: chat,
            data=open_data(data, ["en", "de"]),
            settings=settings,
            judges=list(judges) or [NativeJudge()],
            out=out,
        )
    )


def kill_itself(patch: pytest.MonkeyPatch, kind: type, name: str, at: int) -> None:
    """Let this process die when call number `at` of a method has done its work."""
    honest, count = getattr(kind, name), itertools.count(1)

    def dying(self: Any, *arguments: Any) -> Any:
        number = next(count)  # of this call: uploads are several at a time
        honest(self, *arguments)
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    patch.setattr(kind, name, dying)


def command_that_dies(
    command: Sequence[str], constants: Mapping[str, object], kind: type, name: str, at: int
) -> None:
    """Run `polyrefuse eval COMMAND` with `constants` set, up to call number `at` of `kind.name`."""
    with pytest.MonkeyPatch.context() as patch:
        for constant, value in constants.items():
            patch.setattr(constant, value)
        kill_itself(patch, kind, name, at)
        CliRunner().invoke(eval_group, list(command))
