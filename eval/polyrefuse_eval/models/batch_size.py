"""How many rows a batch has: as many as are of use, where memory allows."""

from __future__ import annotations

from collections.abc import Sequence

from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.kv_cache import bytes_per_token, largest
from polyrefuse_eval.models.template import EncodedPrompt

BATCH_SIZE = {"cpu": 64, "cuda": 256}
"""Rows at once: a step costs little more for many than for a few, as it reads all weights for any."""

BATCH_BYTES = 4 * 2**30
"""What a batch may fill on a CPU, where to ask for too much ends the process and raises nothing."""

CACHE_BYTES = 2**25
"""What keys and values may fill on a CPU in any case, and
`CACHE_SHARE` of the weights' bytes where that is more: little beside what the model takes anyway."""

CACHE_SHARE = 1 / 8


def default_batch_size(chat: ChatModel, prompts: Sequence[EncodedPrompt], max_new_tokens: int = 0) -> int:
    """Return how many of `prompts` to run at once: as `BATCH_SIZE` says, on a CPU less where keys, values
    and what the prompts' pass holds at a time would take more than `BATCH_BYTES`.

    It follows from the model's shape and the longest prompt, not from the machine's memory, so that
    batches are the same everywhere.
    """
    size = BATCH_SIZE.get(chat.device.type, BATCH_SIZE["cpu"])
    if chat.device.type != "cpu" or not prompts:
        return size
    longest = max(map(len, prompts))
    config = chat.model.config.get_text_config()
    cached = token_bytes(chat) * (longest + max_new_tokens) if max_new_tokens else 0
    hidden = largest(config, "intermediate_size") or 4 * chat.width
    # Two halves of a gated MLP and their product, beside a few copies of the stream.
    passing = (3 * hidden + 4 * chat.width) * chat.dtype.itemsize * longest
    return max(1, min(size, BATCH_BYTES // (cached + passing)))


def token_bytes(chat: ChatModel) -> int:
    """Return by how many bytes at most a token of one row makes the cache of `chat` grow."""
    return bytes_per_token(chat.model.config.get_text_config(), chat.n_layers, chat.width, chat.dtype)


def cache_columns(chat: ChatModel) -> int | None:
    """Return how many tokens' keys and values a batch may hold, padding among them; None for any number."""
    if chat.device.type != "cpu":
        return None
    weights = sum(weight.numel() * weight.itemsize for weight in chat.model.parameters())
    return max(1, int(max(CACHE_BYTES, CACHE_SHARE * weights)) // token_bytes(chat))
