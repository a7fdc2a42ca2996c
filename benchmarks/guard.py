"""What does a Latent Guard cost beside a bare forward pass to the same layer?

    python benchmarks/guard.py [--shape 32k|7b] [--device cpu|cuda] [--layer N] [--prompts N]

All sides run on the same random model and prompts in this one run, in turn, round after round; what
is printed is the median of the rounds' ratios. Prompts have the lengths of the papers' validation
prompts; shapes and prompts are those of `directions.py`.

- guard: `guard.scores(texts)`, from text to scores: tokenizing, the pass, the scores.
- bare: the decoder alone to the same layer, nothing read, on prompts that are tokenized and laid out
  already, in the batches that we use; the whole prompts.
- same tokens: the same on prompts that end where the guard stops reading, at t_inst.
- padded: the same in left-padded batches of prompts of similar length, as one would write it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from directions import SHAPES, make_chat, prompts


def seconds(device: str, work: Callable[[], Any]) -> float:
    import torch

    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="32k")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--layer", type=int, help="last layer read  [default: the output of the last]")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)

    from polyrefuse_eval.harmfulness.latent_guard import LabelledPrompts, fit_guard, until_t_inst
    from polyrefuse_eval.models.batching import can_pack, forward_without_head, plan_batches
    from polyrefuse_eval.models.partial_forward import bypassed

    chat = make_chat(arguments.shape, arguments.device)
    packs = can_pack(chat)
    last = chat.n_layers if arguments.layer is None else arguments.layer
    training = LabelledPrompts(harmful=prompts("harmful", 16, 0), harmless=prompts("harmless", 16, 0))
    guard = fit_guard(chat, {"en": training}, layers=range(last + 1))
    half = arguments.prompts // 2
    texts = prompts("harmful", half, 1) + prompts("harmless", arguments.prompts - half, 1)
    encoded = chat.encode(texts)
    ours = plan_batches(chat, encoded)
    cut = plan_batches(chat, until_t_inst(encoded))
    chat.packs = False
    padded = plan_batches(chat, encoded)
    chat.packs = packs

    def bare(batches: Any) -> None:
        with ExitStack() as stack:
            stack.enter_context(bypassed(chat, range(last, chat.n_layers)))
            for batch in batches:
                forward_without_head(chat, batch)

    sides: dict[str, Callable[[], Any]] = {
        "guard": lambda: guard.scores(texts),
        "bare": lambda: bare(ours),
        "same tokens": lambda: bare(cut),
        "padded": lambda: bare(padded),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(arguments.rounds + 1):
        for name, work in sides.items():
            taken = seconds(arguments.device, work)
            if number:
                times[name].append(taken)
    result: dict[str, Any] = {
        "shape": arguments.shape,
        "device": arguments.device,
        "layers": f"0-{last} of {chat.n_layers}",
        "prompts": len(texts),
        "prompts_per_second": {
            name: len(texts) / statistics.median(values) for name, values in times.items()
        },
        "guard_to_bare": _ratio(times["guard"], times["bare"]),
        "guard_to_same_tokens": _ratio(times["guard"], times["same tokens"]),
        "guard_to_padded": _ratio(times["guard"], times["padded"]),
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result), encoding="utf-8")


def _ratio(one: list[float], other: list[float]) -> float:
    """Return the median over rounds of the time of `one` in units of the time of `other`."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


if __name__ == "__main__":
    main()
