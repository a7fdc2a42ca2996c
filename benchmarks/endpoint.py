"""Answers a second and memory of a run of a model behind an endpoint, beside a plain loop in the same run.

    python benchmarks/endpoint.py speed [ANSWERS] [CONNECTIONS]
    python benchmarks/endpoint.py memory [ANSWERS]

The service is `tests/eval/chat_server.py` in a process of its own; with `speed` each answer takes 50 ms.
`speed` compares the executor with one request after another by the same openai package; `memory` writes
answers of 2,000 characters to a run folder as they come, and states the most memory that this process held.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polyrefuse_data.cluster.tasks import Task
from polyrefuse_data.core.schema import ROW_CHECKS, Row, group_id, row_id
from polyrefuse_eval.endpoint.spec import EndpointSpec, Pace
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.settings import BASELINE_CONDITION, Measurement
from polyrefuse_eval.runs.endpoint_executor import EndpointExecutor
from polyrefuse_eval.runs.endpoint_tasks import AskPrompts

SERVER = Path(__file__).parents[1] / "tests" / "eval" / "chat_server.py"
SECONDS = 0.05


@contextmanager
def service(**behaviour: object) -> Iterator[str]:
    """Serve in a process of its own; yield the address."""
    command = [sys.executable, str(SERVER), json.dumps(behaviour)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield str(process.stdout.readline()).strip() if process.stdout else ""
        finally:
            process.terminate()


def task(url: str, count: int, connections: int) -> Task:
    """Return the task of asking `count` prompts."""
    rows = tuple(
        Row(
            row_id("harmful", "test", index), group_id(f"Question {index}?", "harmful"), "en",
            f"Question {index}?", f"Question {index}?", "harmful", "test", None, None, "benchmark", "CC0-1.0",
            "original", None, dict.fromkeys(ROW_CHECKS), dict.fromkeys(ROW_CHECKS, False),
        )
        for index in range(count)
    )  # fmt: skip
    spec = EndpointSpec(
        name="tiny-chat", url=url, key_variable=None, max_tokens=512, pace=Pace(connections=connections)
    )
    measurement = Measurement("en", "harmful", BASELINE_CONDITION)
    return Task(
        name="benchmark",
        model="service",
        compute=AskPrompts(endpoint=spec, measurement=measurement, rows=rows),
    )


def asked(work: Task, folder: RunFolder) -> float:
    """Return the seconds of a task whose answers go to a run folder as they come."""
    begun = time.perf_counter()
    with EndpointExecutor() as executor:
        for outcome in executor.run(deque([work])):
            if outcome.error is not None:
                raise SystemExit(outcome.error)
            for completions in outcome.result:
                folder.append("en", completions)
    return time.perf_counter() - begun


def loop(url: str, count: int) -> float:
    """Return the seconds of one request after another."""
    import openai

    with openai.OpenAI(base_url=url, api_key="none") as client:
        begun = time.perf_counter()
        for index in range(count):
            client.chat.completions.create(
                model="tiny-chat", messages=[{"role": "user", "content": f"Question {index}?"}], temperature=0
            )
        return time.perf_counter() - begun


def speed(count: int = 2000, connections: int = 16) -> None:
    """Print answers a second of the executor and of a loop, their ratio, and what an answer costs here.

    A busy machine shows a smaller ratio: with `c` seconds of processor time an answer, it is at most
    (50 ms + c) / c.
    """
    with service(seconds=SECONDS) as url, tempfile.TemporaryDirectory() as folder:
        asked(task(url, 50, connections), RunFolder(Path(folder) / "warm"))
        begun = time.process_time()
        several = count / asked(task(url, count, connections), RunFolder(Path(folder) / "run"))
        cost = (time.process_time() - begun) / count
        plain = 100 / loop(url, 100)
    ratio = f"{several / plain:.1f} times"
    print(f"{connections} connections: {several:.0f} answers/s; loop: {plain:.1f}; {ratio}")
    print(f"{1000 * cost:.2f} ms of processor time an answer: at most {(SECONDS + cost) / cost:.1f} times")


def memory(count: int = 10_000) -> None:
    """Print the most memory that this process held, before and after `count` answers."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with service(length=2000) as url, tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        seconds = asked(task(url, count, 16), run)
        lines = (run.path / "completions" / "en" / "harmful.baseline.begun.jsonl").read_bytes().count(b"\n")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{lines} answers in {seconds:.0f} s: at most {after:.0f} MB, {before:.0f} MB before the first")


if __name__ == "__main__":
    os.environ.setdefault("NO_PROXY", "127.0.0.1")
    {"speed": speed, "memory": memory}[sys.argv[1]](*map(int, sys.argv[2:]))
