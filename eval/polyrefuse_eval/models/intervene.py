"""Edits of the forward pass: directional ablation and activation addition, temporary and total.

`applied(chat, edits)` installs hooks for the length of a `with` block. They return new tensors,
work in the prefill and in every decoding step, nest, and are gone on every exit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polyrefuse_eval.errors import InterventionError
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.kv_cache import cached_tokens
from polyrefuse_eval.models.row_edits import (
    RowAblations,
    RowAdditions,
    RowTransformations,
    Tokens,
    Transform,
    check_tokens,
)
from polyrefuse_eval.models.structure import (
    first_tensor,
    layer_input,
    submodule,
    with_first_tensor,
    with_layer_input,
    write_modules,
)


def _tensor(value: Any, attribute: str) -> Tensor:
    """Return `value`, or its `attribute`, as a tensor; raises `InterventionError`."""
    value = getattr(value, attribute, value)
    try:
        return value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise InterventionError(
            f"an edit takes a direction or a tensor; given {type(value).__name__}"
        ) from None


@dataclass(frozen=True, eq=False)
class Ablation:
    """Directional ablation: x ← x - coefficient · Σ r (r·x) at every layer's input and every
    write into the residual stream (Arditi et al. 2024, eq. 4).

    `directions` [d] or [k, d] of any norm; several are orthonormalised. An array becomes a tensor, and so
    does the unit vector of a `Direction`.
    """

    directions: Tensor
    coefficient: float = 1.0
    tokens: Tokens = "all"

    def __post_init__(self) -> None:
        object.__setattr__(self, "directions", _tensor(self.directions, "unit"))


@dataclass(frozen=True, eq=False)
class Addition:
    """Activation addition: x ← x + coefficient · direction at the input of `layer` (eq. 3).

    `direction` [d] is added as it is: give it the norm that it should have. An array becomes a tensor, and so
    does the difference in means of a `Direction`.
    """

    direction: Tensor
    layer: int
    coefficient: float = 1.0
    tokens: Tokens = "all"

    def __post_init__(self) -> None:
        object.__setattr__(self, "direction", _tensor(self.direction, "vector"))


@dataclass(frozen=True, eq=False)
class Transformation:
    """Any other edit: x ← function(x) at the input of each of `layers`, None for all of them.

    `function` maps states [rows, tokens, d] to states of the same shape, each token by itself. Workers get
    it by pickle, so it is a function of a module or a `functools.partial` of one.
    """

    function: Transform
    layers: tuple[int, ...] | None = None
    tokens: Tokens = "all"


Edit = Ablation | Addition | Transformation
Edits = tuple[Edit, ...]
"""The edits of one row of a batch; an empty tuple is the model as it is."""

BASELINE: Edits = ()


def as_edits(edits: Edit | Sequence[Edit]) -> Edits:
    """Return one edit, or a sequence of them, as a tuple; raises `InterventionError` for anything else."""
    row = (edits,) if isinstance(edits, Ablation | Addition | Transformation) else edits
    if not isinstance(row, Sequence) or not all(
        isinstance(edit, Ablation | Addition | Transformation) for edit in row
    ):
        raise InterventionError(
            f"expected edits such as Ablation or Addition, given {type(edits).__name__}; several: a tuple"
        )
    return row if isinstance(row, tuple) else tuple(row)


class Applied:
    """Tell the hooks of `applied` which edits each row of the batch has, and where a new prompt begins."""

    def __init__(
        self, chat: ChatModel, rows: Sequence[Edits], uniform: bool, prompt_width: int | None
    ) -> None:
        self._given_width = prompt_width
        self._prompt_width = prompt_width
        self._offset = self._end = 0
        self._rows_of_pass = 1
        self._rows = list(rows)
        self._assigned = list(range(len(rows)))
        self.uniform = uniform
        """One edit for all rows, whatever their number."""
        self._check(chat)
        ablations = [[edit for edit in row if isinstance(edit, Ablation)] for row in rows]
        self.ablates = any(ablations)
        self._given_ablations = self._ablations = RowAblations(
            [[(edit.directions, edit.coefficient, edit.tokens) for edit in row] for row in ablations],
            chat.width,
        )
        self._structure = chat.structure
        self._given_additions = self._additions = {
            layer: RowAdditions([_sums(row, layer) for row in rows], chat.width)
            for layer in sorted({edit.layer for row in rows for edit in row if isinstance(edit, Addition)})
        }
        transformations = [[edit for edit in row if isinstance(edit, Transformation)] for row in rows]
        self._given_transformations = self._transformations = {
            layer: RowTransformations(
                [
                    [
                        (edit.function, edit.tokens)
                        for edit in row
                        if edit.layers is None or layer in edit.layers
                    ]
                    for row in transformations
                ]
            )
            for layer in (range(chat.n_layers) if any(transformations) else ())
        }

    def _check(self, chat: ChatModel) -> None:
        for row in self._rows:
            for edit in row:
                layers: tuple[int, ...] = ()
                if isinstance(edit, Transformation):
                    layers = edit.layers or ()
                else:
                    vector = edit.directions if isinstance(edit, Ablation) else edit.direction
                    if vector.shape[-1] != chat.width:
                        raise InterventionError(
                            f"a direction of width {vector.shape[-1]} does not fit {chat.name}, "
                            f"whose residual stream is {chat.width} wide"
                        )
                if isinstance(edit, Addition):
                    layers = (edit.layer,)
                for layer in layers:
                    if not 0 <= layer < chat.n_layers:
                        raise InterventionError(
                            f"layer {layer} is not in {chat.name}, which has layers 0 to {chat.n_layers - 1}"
                        )
                check_tokens(edit.tokens)

    @property
    def layers_of_additions(self) -> list[int]:
        """Return the layers at whose input something is added."""
        return list(self._additions)

    @property
    def layers_of_transformations(self) -> list[int]:
        """Return the layers whose input is transformed."""
        return [layer for layer, rows in self._transformations.items() if rows]

    def new_prompt(self, width: int | None = None) -> None:
        """Forget the last prompt; `width` is the next one's, else its first forward pass tells."""
        self._prompt_width = width or self._given_width

    def end_prompt(self) -> None:
        """Count all tokens that follow, up to the next prompt, as behind the prompts of their rows."""
        self._prompt_width = 0

    def assign(self, rows: Sequence[int]) -> None:
        """Give each row of the batch the edits of one of the given rows, by its index."""
        if self.uniform or list(rows) == self._assigned:
            return
        self._assigned = list(rows)
        self._ablations = self._given_ablations.selected(rows)
        self._additions = {layer: given.selected(rows) for layer, given in self._given_additions.items()}
        self._transformations = {
            layer: given.selected(rows) for layer, given in self._given_transformations.items()
        }

    def begin(self, past: int | None, rows: int, width: int) -> None:
        """Note that a forward pass over `rows` of `width` tokens begins behind `past` cached ones; None
        where the cache does not count them: behind those of the pass before."""
        self._rows_of_pass = rows
        self._offset = self._end if past is None else past
        self._end = self._offset + width
        if self._prompt_width is None:
            self._prompt_width = self._end

    def ablate(self, hidden: Tensor) -> Tensor:
        """Return `hidden` with each row's directions taken out, of every stream where there are several.

        hidden: [rows, tokens, d], [streams, rows, tokens, d], or [rows * tokens, d].
        """
        if hidden.dim() == 2:
            by_row = hidden.view(self._rows_of_pass, -1, hidden.shape[-1])
            return self._ablations.apply(by_row, self._mask).view_as(hidden)
        return self._ablations.apply(hidden, self._mask)

    def add(self, layer: int, hidden: Tensor) -> Tensor:
        """Return `hidden` with each row's vector of `layer` added, to the active stream where there are
        several."""
        in_prompt = self._offset < (self._prompt_width or 0)
        return self._in_active_stream(
            hidden, lambda states: self._additions[layer].apply(states, self._mask, in_prompt)
        )

    def transform(self, layer: int, hidden: Tensor) -> Tensor:
        """Return `hidden` with each row's functions of `layer` applied, to the active stream where there are
        several."""
        return self._in_active_stream(
            hidden, lambda states: self._transformations[layer].apply(states, self._mask)
        )

    def _in_active_stream(self, hidden: Tensor, edit: Transform) -> Tensor:
        stream = self._structure.active_stream
        if stream is None:
            return edit(hidden)
        edited = hidden.clone()
        edited[stream] = edit(hidden[stream])
        return edited

    def _mask(self, tokens: Tokens, width: int) -> Tensor | None:
        if tokens == "all":
            return None
        columns = torch.arange(self._offset, self._offset + width)
        end = self._prompt_width or 0
        if tokens == "prompt":
            return (columns < end).float()
        if tokens == "decoding":
            return (columns >= end).float()
        wanted = torch.tensor([end + int(position) for position in tokens])
        return torch.isin(columns, wanted).float()


def _sums(row: Edits, layer: int) -> dict[Tokens, Tensor]:
    """Return the sum of the vectors that `row` adds at `layer`, for each scope."""
    sums: dict[Tokens, Tensor] = {}
    for edit in row:
        if isinstance(edit, Addition) and edit.layer == layer:
            vector = edit.coefficient * edit.direction.detach().float().cpu()
            sums[edit.tokens] = sums[edit.tokens] + vector if edit.tokens in sums else vector
    return sums


@contextmanager
def applied(
    chat: ChatModel, edits: Edit | Edits | Sequence[Edits], *, prompt_width: int | None = None
) -> Iterator[Applied]:
    """Edit every forward pass of `chat.model` inside the block.

    `edits` is one edit or a tuple of them, for every row; or a list with one tuple of edits for
    each row of the batch. At one site a row's ablations come before its additions, and those before its
    transformations. For edits of other than all tokens, the first forward pass in the block tells how
    wide the (left-padded) prompt is, unless `prompt_width` does; `Applied.new_prompt` begins another.

    Raises `InterventionError` where an edit does not fit the model, or where the model is compiled
    by `torch.compile`, which does not see hooks that come and go.
    """
    if isinstance(edits, Ablation | Addition | Transformation):
        edits = (edits,)
    uniform = isinstance(edits, tuple)
    rows = [as_edits(edits)] if isinstance(edits, tuple) else [as_edits(row) for row in edits]
    _refuse_compiled(chat)
    state = Applied(chat, rows, uniform, prompt_width)
    with ExitStack() as stack:
        _install(chat, state, stack)
        yield state


def _install(chat: ChatModel, state: Applied, stack: ExitStack) -> None:
    def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = args[0] if args else kwargs.get("input_ids")
        if tokens is None:
            tokens = kwargs["inputs_embeds"]
        state.begin(cached_tokens(kwargs), *tokens.shape[:2])

    def ablate_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return with_layer_input(args, kwargs, state.ablate(layer_input(args, kwargs)))

    def ablate_write(_module: nn.Module, _args: Any, output: Any) -> Any:
        return with_first_tensor(output, state.ablate(first_tensor(output)))

    def editor(layer: int, edit: Callable[[int, Tensor], Tensor]) -> Callable[..., Any]:
        def edit_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return with_layer_input(args, kwargs, edit(layer, layer_input(args, kwargs)))

        return edit_input

    parent, _, _ = chat.structure.layers.rpartition(".")
    decoder = submodule(chat.model, parent, "decoder")
    stack.callback(decoder.register_forward_pre_hook(note, with_kwargs=True).remove)
    if state.ablates:
        for layer in chat.layers:
            stack.callback(layer.register_forward_pre_hook(ablate_input, with_kwargs=True).remove)
        for module in write_modules(chat.layers, chat.structure):
            stack.callback(module.register_forward_hook(ablate_write).remove)
    edits_of_layers = [(layer, state.add) for layer in state.layers_of_additions]
    edits_of_layers += [(layer, state.transform) for layer in state.layers_of_transformations]
    for index, edit in edits_of_layers:
        hook = chat.layers[index].register_forward_pre_hook(editor(index, edit), with_kwargs=True)
        stack.callback(hook.remove)


def _refuse_compiled(chat: ChatModel) -> None:
    for module in chat.model.modules():
        if getattr(module, "_orig_mod", None) is not None or getattr(module, "_compiled_call_impl", None):
            raise InterventionError(
                f"{chat.name} is compiled by torch.compile, which ignores hooks that are added later; "
                "edit the uncompiled model"
            )
