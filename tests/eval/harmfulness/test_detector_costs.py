"""What a detector costs: each prompt alone, a warm-up that does not count, and memory that was in use."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch

from polyrefuse_eval.harmfulness.detector_costs import detector_cost, memory_growth
from polyrefuse_eval.results.user_prompts import UserPrompt

CPU = torch.device("cpu")
PROMPTS = [UserPrompt(f"Prompt {index}", "harmless", "en", "data") for index in range(100)]


def test_each_timed_prompt_is_judged_alone_and_the_first_one_warms_up() -> None:
    asked = []

    def judge(prompt: UserPrompt) -> None:
        slow = not asked or prompt.prompt == "Prompt 90"
        asked.append(prompt.prompt)
        time.sleep(0.2 if slow else 0.002)

    with memory_growth(CPU) as memory:
        pass
    cost = detector_cost("slow once", CPU, memory, PROMPTS, judge, timed=10)
    assert asked == ["Prompt 0", *(f"Prompt {index}" for index in range(0, 100, 10))]
    assert cost.n_prompts == 10
    assert 2 <= cost.median_ms < 100, "neither the warm-up nor the slowest prompt counts"
    assert cost.percentile95_ms > cost.median_ms + 50, "one in ten is slow"


def test_memory_that_is_given_back_before_the_end_counts() -> None:
    size = 64 * 2**20
    with memory_growth(CPU) as memory:
        held = torch.ones(size, dtype=torch.uint8)
        del held
    if memory.growth is None:
        pytest.skip("this system does not tell the peak of a process's memory")
    assert 0.9 * size <= memory.growth < 3 * size
    with memory_growth(CPU) as memory:
        pass
    assert memory.growth is not None
    assert memory.growth < size / 4, "the peak of an earlier block is not counted again"


def test_what_is_not_known_is_said_and_is_no_zero() -> None:
    with memory_growth(CPU) as memory:
        pass
    cost = detector_cost("guard", CPU, memory, PROMPTS[:2], lambda prompt: prompt, timed=8)
    assert cost.n_prompts == 2
    assert "batch size 1, 2 prompts" in str(cost)
    assert str(replace(cost, memory_bytes=None)).endswith("growth of memory of the process: not known")
    assert str(replace(cost, memory_bytes=2_500_000)).endswith("of the process: 2 MB")
