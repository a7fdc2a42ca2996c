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
    """Return the cache that a forward pass has filled; None where the model returns none."""
    return next((output[name] for name in NAMES if name in output), None)


def cached_tokens(arguments: Mapping[str, Any]) -> int | None:
    """Return how many tokens are behind the pass that a decoder is called for with `arguments`; None where
    the cache does not count them, as those of recurrent states alone."""
    cache = next((given for name in NAMES if (given := arguments.get(name)) is not None), None)
    try:
        return 0 if cache is None else int(cache.get_seq_length())
    except ValueError:
        return None


def bytes_per_token(config: Any, n_layers: int, width: int, dtype: torch.dtype) -> int:
    """Return by how many bytes at most a token of one row makes a model's cache grow.

    config: the (text) configuration, which may name fewer heads or another width of them.
    n_layers, width: of the model; where `config` names no heads, keys and values are as wide as the stream.
    """
    heads = largest(config, "num_attention_heads") or 1
    head_width = largest(config, "head_dim") or width // heads
    kept = (largest(config, "num_key_value_heads") or heads) * head_width
    return int(2 * n_layers * kept * dtype.itemsize)


def largest(config: Any, name: str) -> int:
    """Return the size `name` of a configuration, the largest where its layers differ; 0 where it has none."""
    try:
        value = getattr(config, name, None)
    except RuntimeError:  # transformers 5 answers so where the value differs from layer to layer.
        value = [getattr(layer, name, None) or 0 for layer in config.per_layer_config]
    return max(value) if isinstance(value, list | tuple) else int(value or 0)
