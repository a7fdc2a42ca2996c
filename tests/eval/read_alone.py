"""What both organisms' networks must give where only some tokens are read."""

from __future__ import annotations

from typing import Any

import torch


@torch.no_grad()
def check_what_is_read_alone(network: Any, tokens: Any, changes: Any, unchanged: Any) -> None:
    """Assert that what `network` gives for chosen tokens [3, 9] is what it gives for all, under `changes`."""
    read = torch.zeros(3, 9, dtype=torch.bool)
    read[0, [2, 5]] = read[1, 4:] = read[2, 8] = True
    whole, kept = network(tokens, changes, keep=[3])
    chosen, kept_too = network(tokens, changes, keep=[3], read=read)
    torch.testing.assert_close(chosen, whole[read], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(kept_too[3], kept[3])
    plain = network(tokens, unchanged, read=read)[0]
    assert float((chosen - plain)[2:7].abs().max()) > 1e-3, "the ablation does something"
    assert float((chosen - plain)[7:].abs().max()) > 1e-3, "the addition does something"
