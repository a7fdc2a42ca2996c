"""The cache of keys and values between decoding steps, under either name that transformers gives it.

It was `past_key_values` up to transformers 5.23; since 5.24 it is `cache`, and the old name, where it is
still taken, is passed on under the new one.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

NAMES = ("cache", "past_key_values")


def cache_argument(model: nn.Module, cache: Any) -> dict[str, Any]:
    """Return `cache` as the argument that the forward of `model` takes."""
    known = inspect.signature(type(model).forward).parameters
    return {NAMES[0] if NAMES[0] in known else NAMES[1]: cache}


def cache_of(output: Any) -> Any:
    """Return the cache that a forward pass has filled."""
    return output[NAMES[0] if NAMES[0] in output else NAMES[1]]


def cached_tokens(arguments: Mapping[str, Any]) -> int:
    """Return how many tokens are behind the pass that a decoder is called for with `arguments`."""
    cache = next((found for name in NAMES if (found := arguments.get(name)) is not None), None)
    return 0 if cache is None else int(cache.get_seq_length())


def bytes_per_token(config: Any, n_layers: int, width: int, dtype: torch.dtype) -> int:
    """Return by how many bytes a token of one row makes a model's cache grow.

    config: the (text) configuration, which may name fewer heads or another width of them.
    n_layers, width: of the model; where `config` names no heads, keys and values are as wide as the stream.
    """
    heads = getattr(config, "num_attention_heads", None) or 1
    head_width = getattr(config, "head_dim", None) or width // heads
    kept = (getattr(config, "num_key_value_heads", None) or heads) * head_width
    return int(2 * n_layers * kept * dtype.itemsize)
