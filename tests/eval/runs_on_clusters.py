"""Commands that run on a cluster of two workers or here, and what they wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from polyrefuse_data.build.pipeline import BuildRequest, build
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.results.files import LOCK_FILE
from polyrefuse_eval.results.timings import TIMINGS_FILE

TOKENS = ("--refusal-tokens", "40,41", "--no-filter")


def call(*arguments: object) -> Result:
    """Run `polyrefuse eval ARGUMENTS` in this process."""
    return CliRunner().invoke(eval_group, [str(argument) for argument in arguments])


@contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """Let commands keep and find directions and answers in `folder` alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYREFUSE_CACHE", str(folder))
        yield


def contrast_pairs(folder: Path, size: int) -> Path:
    """Build `size` contrast pairs of the sample in English and German."""
    return build(
        BuildRequest("over-refusal-sample", langs=("en", "de"), size={"test": size}, out=folder)
    ).folder


def call_in_child(*arguments: object) -> None:
    """Run `polyrefuse eval ARGUMENTS` where a test may kill it."""
    result = call(*arguments)
    if result.exit_code:
        raise SystemExit(result.output + repr(result.exception))


def error(*arguments: object) -> str:
    """Return the one line with which a command fails; anything but a PolyRefuseError is a bug."""
    result = call(*arguments)
    if not isinstance(result.exception, PolyRefuseError):
        pytest.fail(f"{result.exception!r}: {result.output}")
    message = str(result.exception)
    assert "\n" not in message
    return message


def files(folder: Path) -> dict[str, bytes]:
    """Return the results of a run: all but how long it took."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (LOCK_FILE, TIMINGS_FILE)
    }


def assert_same(run: Path, other: Path) -> None:
    """Assert that two runs wrote the same files with the same bytes."""
    ours, theirs = files(run), files(other)
    assert ours.keys() == theirs.keys()
    differing = [name for name, content in ours.items() if theirs[name] != content]
    assert differing == [], (ours[differing[0]][:4000], theirs[differing[0]][:4000])


def command(model: object, data: Path, out: Path, *more: object) -> list[object]:
    """Return a run in two languages with both of their directions."""
    return [
        *("run", "--model", model, "--data", data, "--langs", "en,de", "--directions", "en,de"),
        *(*TOKENS, "--max-new-tokens", 4, "--crossed", 2, "--batch-size", 3, "--out", out, "-q", *more),
    ]


def dask(cluster: Any) -> tuple[object, ...]:
    """Return the options that choose `cluster`."""
    return ("--executor", "dask", "--scheduler", cluster.scheduler_address)
