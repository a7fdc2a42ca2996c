"""Progress where there is a terminal, and where there is none."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from polyrefuse_data.core import progress as module
from polyrefuse_data.core.progress import Progress, StepProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the step sees, in seconds: its last element."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[-1])
    return now


def test_without_a_terminal_there_is_a_line_every_thirty_seconds(moments: list[float]) -> None:
    stream = io.StringIO()
    with Progress(100, "prompts", "generating", stream=stream) as progress:
        for second in range(100):
            moments.append(float(second))
            progress.advance(note=f"{second} failed" if second == 40 else "")
        moments.append(100.0)
    assert stream.getvalue().splitlines() == [
        "generating: 31/100 prompts, 1.0/s, 1:07 left",
        "generating: 61/100 prompts, 1.0/s, 0:38 left, 40 failed",
        "generating: 91/100 prompts, 1.0/s, 0:09 left, 40 failed",
        "generating: 100 prompts in 1:40",
    ]


def test_a_step_that_does_not_advance_writes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch of a large model takes minutes; the thread that writes ends with the last step."""
    monkeypatch.setattr(module, "LINE_SECONDS", 0.1)
    before = set(threading.enumerate())
    stream = io.StringIO()
    with Progress(64, "answers", "refusal tokens", stream=stream):
        wait_until(lambda: stream.getvalue().count("\n") >= 2)
    assert stream.getvalue().startswith("refusal tokens: 0/64 answers, 0:0")
    assert " so far\n" in stream.getvalue()
    wait_until(lambda: set(threading.enumerate()) <= before)
    quiet = io.StringIO()
    with Progress(64, "answers", "quiet", quiet=True, stream=quiet):
        assert set(threading.enumerate()) <= before


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when `condition` holds; fail where it does not within a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_short_step_and_a_quiet_one_write_nothing(moments: list[float]) -> None:
    stream, lines = io.StringIO(), list[str]()
    with Progress(10, "prompts", "short", stream=stream) as progress:
        progress.advance(10)
    with Progress(None, "rows", "quiet", quiet=True, stream=stream, log=lines.append) as progress:
        moments.append(60.0)
        progress.advance(3)
    assert stream.getvalue() == ""
    assert lines == ["quiet: 3 rows, 20.0 s each", "quiet: 3 rows in 1:00"]


def test_a_step_that_fails_does_not_say_that_it_ended(moments: list[float]) -> None:
    stream = io.StringIO()
    progress = Progress(10, "prompts", "failing", stream=stream)
    moments.append(31.0)
    progress.advance(0)
    progress.__exit__(KeyError, KeyError(), None)
    assert stream.getvalue() == "failing: 0/10 prompts, 0:31 so far\n"


def test_many_short_steps_write_as_seldom_as_a_long_one(moments: list[float]) -> None:
    stream = io.StringIO()
    for number in range(10):
        with Progress(2, "prompts", f"step {number}", stream=stream) as progress:
            for _ in range(2):
                moments.append(moments[-1] + 6)
                progress.advance()
    assert stream.getvalue().splitlines() == [
        "step 2: 1/2 prompts, 6.0 s each, 0:06 left",
        "step 2: 2 prompts in 0:12",
        "step 4: 2/2 prompts, 6.0 s each, 0:00 left",
        "step 4: 2 prompts in 0:12",
        "step 7: 1/2 prompts, 6.0 s each, 0:06 left",
        "step 7: 2 prompts in 0:12",
        "step 9: 2/2 prompts, 6.0 s each, 0:00 left",
        "step 9: 2 prompts in 0:12",
    ]


def test_a_step_within_another_writes_in_its_line(moments: list[float]) -> None:
    stream = io.StringIO()
    with Progress(4, "answers", "grid", stream=stream) as outer:
        for number in range(2):
            with Progress(2, "answers", f"batch {number}", stream=stream) as inner:
                moments.append(moments[-1] + 20)
                inner.advance(1, f"token {number}")
            outer.advance(2)
    assert stream.getvalue().splitlines()[0] == (
        "grid: 2/4 answers, 20.0 s each, 0:40 left; batch 1: 1/2 answers, 20.0 s each, 0:20 left, token 1"
    )


def test_a_step_without_a_description_is_silent_and_hides_no_other(moments: list[float]) -> None:
    stream = io.StringIO()
    with Progress(1, "answers", "loud", stream=stream) as loud:
        with Progress(1, "answers", None, stream=stream) as silent:
            moments.append(31.0)
            silent.advance()
        loud.advance()
    assert stream.getvalue().splitlines()[0] == "loud: 1/1 answers, 31.0 s each, 0:00 left"


def test_calls_with_the_name_of_a_step_are_steps(
    moments: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with StepProgress() as show:
        show("sources", 0, 2)
        moments.append(40.0)
        show("sources", 1, 2)
        show("checks", 0, 100)
        moments.append(80.0)
        show("checks", 50, 100)
        moments.append(90.0)
        show("checks", 75, 100)
    with StepProgress(quiet=True) as show:
        moments.append(200.0)
        show("checks", 50, 100)
    assert stream.getvalue().splitlines() == [
        "sources: 1/2 done, 40.0 s each, 0:40 left",
        "sources: 1 done in 0:40",
        "checks: 50/100 done, 1.2/s, 0:40 left",
        "checks: 75 done in 0:50",
    ]


def test_a_terminal_has_a_bar_and_lines_above_it() -> None:
    stream = Terminal()
    with Progress(4, "prompts", "judging", stream=stream) as progress:
        threads = [threading.Thread(target=progress.advance) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        progress.write("a line")
    shown = stream.getvalue()
    assert "judging: 100%" in shown
    assert "4/4" in shown
    assert "a line\n" in shown


def test_nothing_that_others_wrote_acts_in_a_bar_and_its_state_is_logged(moments: list[float]) -> None:
    stream, log = Terminal(), list[str]()
    with Progress(4, "prompts", "of\x1b[2J", stream=stream, log=log.append) as progress:
        moments.append(31.0)
        progress.advance(note="say\x1b]52;c;eA==\x07")
        progress.write("line\x1b[31m")
    assert "\x1b[2J" not in stream.getvalue()
    assert "\x1b]52" not in stream.getvalue()
    assert "\x1b[31m" not in stream.getvalue()
    assert len(log) == 2, "the state that the bar shows, and the line"
    assert log[0].startswith("of")
    assert "1/4 prompts" in log[0]


def test_the_rate_can_be_measured_from_a_later_moment(moments: list[float]) -> None:
    with Progress(10, "prompts", "step", stream=io.StringIO()) as progress:
        moments.append(100.0)
        progress.restart()
        moments.append(110.0)
        progress.advance(5)
        assert progress.state() == "step: 5/10 prompts, 2.0 s each, 0:10 left"


KILLED = """
import io, os, signal, sys
from polyrefuse_data.core.progress import Progress
class Terminal(io.StringIO):
    isatty = lambda self: True
def bar():
    return Progress(1, "rows", "step", stream=Terminal())
from tqdm import tqdm
bar().close()
child = os.fork()
if not child:
    tqdm.get_lock().acquire()
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
bar().close()
print("done")
"""


def test_a_child_that_is_killed_with_the_lock_does_not_stop_its_parent() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=60)
    assert done.stdout == "done\n"
