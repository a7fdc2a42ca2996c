"""What every process of `test_parallel.py` runs: the same measurements, whole or in parallel."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from tiny import PROMPTS

from polyrefuse_eval.directions.fit import fit_directions
from polyrefuse_eval.models.batching import forward, plan_batches
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.generate import Request, generate
from polyrefuse_eval.models.intervene import Ablation, Addition, applied
from polyrefuse_eval.processes import folder_of_this_process, rank


def measured(chat: ChatModel) -> dict[str, Any]:
    """Return directions, logits under edits, and answers of `chat`."""
    vectors = torch.randn(2, chat.width, generator=torch.Generator().manual_seed(1))
    edits = {"ablation": Ablation(vectors[0]), "addition": Addition(vectors[1], 1)}
    (batch,) = plan_batches(chat, chat.encode(PROMPTS))
    found: dict[str, Any] = {"directions": fit_directions(chat, PROMPTS[:4], PROMPTS[:-5:-1]).vectors}
    requests = [Request("plain", PROMPTS[0])]
    for name, edit in edits.items():
        with applied(chat, edit):
            found[name] = forward(chat, batch)
        requests.append(Request(name, PROMPTS[0], (edit,)))
    answers = [one for part in generate(chat, requests, max_new_tokens=6) for one in part]
    found["answers"] = {answer.key: list(answer.ids) for answer in answers}
    return found


def main(model: str, out: str) -> None:
    torch.set_num_threads(1)
    chat = ChatModel.load(model, tensor_parallel=True, dtype="float32")
    layer = chat.layers[0]
    assert layer.mlp.down_proj.weight.to_local().shape != layer.mlp.down_proj.weight.shape, "not in parts"
    with folder_of_this_process(Path(out)) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["before"]
        torch.save(measured(chat), folder / f"{rank()}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
