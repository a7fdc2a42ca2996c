"""Memory that a pass frees stays with the process, so that the next one need not fault it in again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from polyrefuse_eval.malloc import SET_BY_USER

TAKE_AND_FREE = """
import ctypes, resource, sys
from polyrefuse_eval.malloc import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else None
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

def take_and_free():
    blocks = [library.malloc(20 << 20) for _ in range(5)]
    for block in blocks:
        ctypes.memset(block, 1, 20 << 20)
    for block in blocks:
        library.free(block)

for _ in range(3):
    take_and_free()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    take_and_free()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(mode: str, **environment: str) -> tuple[str, int]:
    clean = {name: value for name, value in os.environ.items() if name not in SET_BY_USER}
    done = subprocess.run(
        [sys.executable, "-c", TAKE_AND_FREE, mode],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults = done.stdout.split()
    return kept, int(faults)


def test_freed_memory_is_kept_or_the_function_says_that_it_is_not() -> None:
    kept, faults = _faults("keep")
    if kept == "False":
        pytest.skip("the C library here is not glibc")
    pages = 5 * 5 * (20 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert faults < pages / 100
    # Otherwise there would be nothing to keep here, and the test would show nothing.
    assert _faults("as it is")[1] > pages / 2


@pytest.mark.parametrize("name", SET_BY_USER)
def test_what_the_user_has_set_by_the_environment_stays(name: str) -> None:
    value = "glibc.malloc.arena_max=2" if name == "GLIBC_TUNABLES" else str(128 * 1024)
    assert _faults("keep", **{name: value})[0] == "False"


def test_another_system_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from polyrefuse_eval import malloc as heap

    monkeypatch.setattr(heap.sys, "platform", "darwin")
    assert not heap.keep_freed_memory()


def test_a_model_on_a_cpu_keeps_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from tiny import chat_model

    told: list[bool] = []
    monkeypatch.setattr("polyrefuse_eval.models.chat.keep_freed_memory", lambda: told.append(True))
    chat_model()
    assert told == [True]
