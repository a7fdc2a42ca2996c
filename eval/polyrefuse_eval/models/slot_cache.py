"""The keys and values of a batch whose rows come and go: a row has a slot, and all rows end in one column.

A prompt that joins is written into its slot so that its last token stands in the column that the batch has
reached: left of it is padding, which the mask hides, as in any left-padded batch. Columns are added in place,
and those that only rows which have ended had used are given up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

SPARE = 8
"""One spare column for so many in use: a store is copied rarely, and little of it is empty."""

LEAST_SPARE = 16
"""Spare columns of a new store, at least."""


class SlotLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values [slots, heads, columns, head width] of one layer, views of stores with spare columns.

    Takes the place of a `DynamicLayer` that holds the keys and values of a batch's prompts.
    """

    window: int | None = None
    """Columns that a token sees, itself among them; None for all."""

    def __init__(self, filled: DynamicLayer) -> None:
        self.__dict__.update(filled.__dict__)
        self.length: int = filled.get_seq_length()
        self._stores = _states(filled)
        self._begin, self._end = 0, self._stores[0].shape[-2]

    def get_seq_length(self) -> int:
        """Return how many columns the batch has, whether this layer still holds all of them or not."""
        return self.length

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_keywords: Any
    ) -> tuple[Tensor, Tensor]:
        """Append columns in place; return all keys and values that their tokens may see."""
        count = key_states.shape[-2]
        self._reserve(count)
        for store, states in zip(self._stores, (key_states, value_states), strict=True):
            store[:, :, self._end : self._end + count] = states
        self._end += count
        self._set_length(self.length + count)
        keys, values = (store[:, :, self._begin : self._end] for store in self._stores)
        self._show()
        return keys, values

    def place(self, slots: Sequence[int], filled: DynamicLayer) -> None:
        """Write the keys and values of joining rows, which end in the last column, into `slots`.

        A slot behind the last is a new one. Where the rows are longer than the batch, it becomes as long.
        """
        joining = _states(filled)
        width, held = joining[0].shape[-2], self._end - self._begin
        n_slots = max(len(self._stores[0]), max(slots) + 1)
        self._set_length(max(self.length, filled.get_seq_length()))
        if width > held or n_slots > len(self._stores[0]):
            self._resize(n_slots, max(width, held))
        rows, first = list(slots), self._end - width
        for store, states in zip(self._stores, joining, strict=True):
            store[rows, :, self._begin : first] = 0
            store[rows, :, first : self._end] = states
        self._show()

    def trim(self, columns: int) -> None:
        """Give up the first `columns` of the batch."""
        self._set_length(self.length - columns)
        self._show()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows `beam_idx`, in this order."""
        self._resize(len(beam_idx), self._end - self._begin, beam_idx)
        self._show()

    def _set_length(self, length: int) -> None:
        self.length = length

    def _show(self) -> None:
        """Let `keys` and `values` be what the next token may see."""
        held = self.length if self.window is None else min(self.length, self.window - 1)
        self._begin = max(self._begin, self._end - held)
        self.keys, self.values = (store[:, :, self._begin : self._end] for store in self._stores)

    def _reserve(self, columns: int) -> None:
        """Make room for `columns` behind the last one."""
        if self._end + columns > self._stores[0].shape[-2]:
            self._resize(len(self._stores[0]), self._end - self._begin)

    def _resize(self, slots: int, columns: int, rows: Tensor | None = None) -> None:
        """Copy what is held (of `rows` alone, where given) into new stores, where it ends in column `columns`
        and spare ones follow."""
        held = self._end - self._begin
        capacity = columns + max(LEAST_SPARE, columns // SPARE)
        for index, store in enumerate(self._stores):
            kept = store[:, :, self._begin : self._end]
            if rows is not None:
                kept = kept.index_select(0, rows.to(store.device))
            grown = store.new_zeros(slots, store.shape[1], capacity, store.shape[3])
            grown[: len(kept), :, columns - held : columns] = kept
            self._stores[index] = grown
        self._begin, self._end = 0, columns


class SlidingSlotLayer(SlotLayer, DynamicSlidingWindowLayer):  # type: ignore[no-untyped-call]
    """Keys and values of a layer whose tokens see the last `sliding_window` columns alone."""

    def __init__(self, filled: DynamicSlidingWindowLayer) -> None:
        SlotLayer.__init__(self, filled)
        self.window = self.sliding_window

    def _set_length(self, length: int) -> None:
        self.length = self.cumulative_length = length


def _states(layer: DynamicLayer) -> list[Tensor]:
    """Return the keys and the values that `layer` holds; raises `ValueError` where it holds none."""
    if layer.keys is None or layer.values is None:
        raise ValueError("the layer of a cache holds no keys and values")
    return [layer.keys, layer.values]


def can_hold_slots(cache: Any) -> bool:
    """Return whether each layer of `cache` holds keys and values alone, so that rows can join."""
    layers = getattr(cache, "layers", None) or []
    return bool(layers) and all(type(layer) in _SLOT_LAYERS for layer in layers)


def hold_slots(cache: Any) -> None:
    """Let rows join and leave `cache`, which is the one of the batch's first prompts."""
    # One layer after another, so that only one stands twice in memory.
    for index, layer in enumerate(cache.layers):
        if layer.is_initialized:
            cache.layers[index] = _SLOT_LAYERS[type(layer)](layer)


def place(cache: Any, slots: Sequence[int], joining: Any) -> None:
    """Write the rows of the cache `joining` into `slots` of `cache`, and empty `joining`."""
    for layer, filled in zip(cache.layers, joining.layers, strict=True):
        if layer.is_initialized:
            layer.place(slots, filled)
            filled.keys = filled.values = None


def trim(cache: Any, columns: int) -> None:
    """Give up the first `columns` of `cache`."""
    for layer in cache.layers:
        if layer.is_initialized:
            layer.trim(columns)


_SLOT_LAYERS: dict[type, Any] = {DynamicLayer: SlotLayer, DynamicSlidingWindowLayer: SlidingSlotLayer}
