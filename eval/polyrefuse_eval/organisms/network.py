"""The network of the test organisms: a small Llama in plain torch whose rows can each be edited.

It computes what `transformers.LlamaForCausalLM` computes (a test compares the logits), without
importing transformers, and edits the residual stream inside the forward pass: each row of a batch
has its own ablation, addition and interchanges. Training needs that, evaluation does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """Sizes of the network. `vocabulary` counts tokens, the rest is as in a Llama configuration."""

    vocabulary: int
    width: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 352
    positions: int = 512
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-5


@dataclass(frozen=True, kw_only=True)
class Plant:
    """Planted directions: orthonormal vectors, the layer at whose input they are read, and their strength.

    name: what they are for, `refusal` or `harmfulness`.
    directions: [n, d]; one that all languages share, or one for each of `langs`.
    strength: difference between the two classes along a direction, in units of the stream.
    """

    name: str
    directions: Tensor
    layer: int
    strength: float
    langs: tuple[str, ...] = ()

    def rows(self, langs: Sequence[str]) -> Tensor:
        """Return the row of `directions` that belongs to each of `langs` (B languages), [B]."""
        return torch.tensor([self.langs.index(lang) if self.langs else 0 for lang in langs])

    def named(self) -> dict[str, Tensor]:
        """Return the vectors [d] under the name of the plant, or as NAME.LANG for each language."""
        names = [f"{self.name}.{lang}" for lang in self.langs] or [self.name]
        return {name: row.clone() for name, row in zip(names, self.directions, strict=True)}


@dataclass(frozen=True, kw_only=True)
class Interchange:
    """Each row takes over the coordinate that its source row has (Geiger et al. 2022).

    own: [B, d] the planted unit vector of each row: the source's coordinate is that along the source's own.
    layer: the layer at whose input it happens.
    source: [B] batch indices; a row's own index for none.
    positions: [B, P] token indices.
    """

    own: Tensor
    layer: int
    source: Tensor
    positions: Tensor


@dataclass(frozen=True, kw_only=True)
class Edits:
    """Changes of the residual stream of each row of a batch (B rows, T tokens, width d).

    ablated: [B, d] unit vectors, projected out of the input of every layer and of the output of every
        attention and MLP; a row of zeros leaves that batch row alone.
    added: [B, d], added to the input of layer `layer` [B] at the tokens marked in `scope` [B, T].
    """

    ablated: Tensor
    added: Tensor
    layer: Tensor
    scope: Tensor
    interchanges: tuple[Interchange, ...] = ()


class Norm(nn.Module):
    """Root-mean-square norm with a gain, as in Llama."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, stream: Tensor) -> Tensor:
        return functional.rms_norm(stream, self.weight.shape, self.weight, self.epsilon)


def rotations(positions: int, head_width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return cosines and sines [positions, head_width] of the rotary embedding, halves repeated.

    The sines of the first half are negative: they belong to the second half of what is rotated.
    """
    frequency = theta ** (-torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
    angle = torch.arange(positions, dtype=torch.float32)[:, None] * frequency[None, :]
    cosine, sine = angle.cos(), angle.sin()
    return torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)


def rotate(values: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Apply the rotary embedding to [B, heads, T, head_width]."""
    return torch.addcmul(values * cosine, values.roll(values.shape[-1] // 2, -1), sine)


class Block(nn.Module):
    """One decoder layer; `attend` and `transform` return what is written to the stream.

    `attend` is written out: a fused kernel takes twice as long for rows as short as these (2 CPU cores).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, hidden = shape.width, shape.hidden
        self.heads = shape.heads
        self.input_layernorm = Norm(width, shape.norm_epsilon)
        self.qkv_proj = nn.Linear(width, 3 * width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.post_attention_layernorm = Norm(width, shape.norm_epsilon)
        self.gate_up_proj = nn.Linear(width, 2 * hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def attend(self, stream: Tensor, cosine: Tensor, sine: Tensor, read: Tensor | None = None) -> Tensor:
        """Return what [B, T, d] hears; where `read` [B, T] marks N tokens, what these do, [N, d]."""
        batch, length, width = stream.shape
        mixed = self.qkv_proj(self.input_layernorm(stream))
        mixed = mixed.view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key = rotate(mixed[:2], cosine, sine).flatten(1, 2)
        future = torch.full((length, length), -torch.inf, dtype=stream.dtype, device=stream.device).triu(1)
        scale = query.shape[-1] ** -0.5
        scores = torch.baddbmm(future.expand(len(query), -1, -1), query, key.transpose(1, 2), alpha=scale)
        heard = torch.bmm(scores.softmax(dim=-1), mixed[2].flatten(0, 1))
        heard = heard.view(batch, self.heads, length, -1).transpose(1, 2).reshape(batch, length, width)
        written: Tensor = self.o_proj(heard if read is None else heard[read])
        return written

    def through(
        self,
        stream: Tensor,
        cosine: Tensor,
        sine: Tensor,
        ablated: Tensor | None,
        read: Tensor | None = None,
    ) -> Tensor:
        """Return the stream [B, T, d] behind this layer, or [N, d] where `read` [B, T] marks N tokens.

        ablated: [B, d] unit vectors, projected out of what is written.
        """
        heard = self.attend(stream, cosine, sine, read)
        if read is not None:
            stream = stream[read]
            ablated = None if ablated is None else ablated[read.nonzero()[:, 0]]
        stream = stream + without(heard, ablated)
        return stream + without(self.transform(stream), ablated)

    def transform(self, stream: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(self.post_attention_layernorm(stream)).chunk(2, dim=-1)
        written: Tensor = self.down_proj(functional.silu(gate) * up)
        return written


def without(stream: Tensor, direction: Tensor | None) -> Tensor:
    """Return `stream` [B, T, d], or [B, d], less its projection on each row's unit vector in [B, d]."""
    if direction is None:
        return stream
    if stream.dim() == 2:
        return without(stream[:, None], direction)[:, 0]
    return torch.baddbmm(stream, stream @ direction[:, :, None], direction[:, None, :], alpha=-1)


class OrganismNetwork(nn.Module):
    """A decoder with tied embeddings; rows are padded on the right."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width, shape.norm_epsilon)
        cosine, sine = rotations(shape.positions, shape.width // shape.heads, shape.rope_theta)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights from `generator`: embeddings and matrices normal, gains one."""
        depth_scale = (2 * self.shape.layers) ** -0.5
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if weight.dim() < 2:
                    continue
                deviation = 0.1 if name.startswith("embed") else weight.shape[1] ** -0.5
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    deviation *= depth_scale
                weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)

    def forward(
        self,
        tokens: Tensor,
        edits: Edits | None = None,
        keep: Sequence[int] = (),
        read: Tensor | None = None,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the final normed stream [B, T, d] and, for the layers in `keep`, their inputs.

        The inputs kept are those before an addition or interchange at that layer. An interchange comes
        before an addition, so that no row takes over what was added to another.
        read: [B, T] marks the N tokens whose final stream is read: that alone is returned, [N, d], and what
        decides nothing else is not computed in the last layer.
        """
        cosine = self.cosine[: tokens.shape[1]]
        sine = self.sine[: tokens.shape[1]]
        ablated = edits.ablated if edits is not None and bool(edits.ablated.any()) else None
        kept: dict[int, Tensor] = {}
        stream: Tensor = self.embed_tokens(tokens)
        for index, block in enumerate(self.blocks()):
            stream = without(stream, ablated)
            if index in keep:
                kept[index] = stream
            if edits is not None:
                for interchange in edits.interchanges:
                    if interchange.layer == index:
                        stream = interchanged(stream, interchange)
                marked = (edits.layer == index)[:, None] & edits.scope
                stream = stream + marked[..., None] * edits.added[:, None, :]
            is_last = index == self.shape.layers - 1
            stream = block.through(stream, cosine, sine, ablated, read if is_last else None)
        return self.norm(stream), kept

    def blocks(self) -> Iterator[Block]:
        """Yield the decoder layers, from the first."""
        for block in self.layers:
            assert isinstance(block, Block)  # noqa: S101  (for the type checker)
            yield block

    def logits(self, stream: Tensor) -> Tensor:
        """Return the logits [..., vocabulary] of the normed stream [..., d]."""
        return stream @ self.embed_tokens.weight.T

    def llama_weights(self) -> dict[str, Tensor]:
        """Return the weights under the names of `transformers.LlamaForCausalLM`, contiguous."""
        weights: dict[str, Tensor] = {
            "model.norm.weight": self.norm.weight,
            "model.embed_tokens.weight": self.embed_tokens.weight,
        }
        for index, block in enumerate(self.blocks()):
            prefix = f"model.layers.{index}."
            weights[prefix + "input_layernorm.weight"] = block.input_layernorm.weight
            weights[prefix + "post_attention_layernorm.weight"] = block.post_attention_layernorm.weight
            parts = zip("qkv", block.qkv_proj.weight.chunk(3), strict=True)
            weights |= {f"{prefix}self_attn.{part}_proj.weight": weight for part, weight in parts}
            weights[prefix + "self_attn.o_proj.weight"] = block.o_proj.weight
            gate, up = block.gate_up_proj.weight.chunk(2)
            weights[prefix + "mlp.gate_proj.weight"] = gate
            weights[prefix + "mlp.up_proj.weight"] = up
            weights[prefix + "mlp.down_proj.weight"] = block.down_proj.weight
        return {name: weight.detach().clone().contiguous() for name, weight in sorted(weights.items())}

    def llama_config(self, special: Mapping[str, int | None]) -> dict[str, Any]:
        """Return the `config.json` of this network; `special` holds bos, eos and pad token ids."""
        shape = asdict(self.shape)
        return {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "head_dim": shape["width"] // shape["heads"],
            "hidden_act": "silu",
            "hidden_size": shape["width"],
            "initializer_range": 0.02,
            "intermediate_size": shape["hidden"],
            "max_position_embeddings": shape["positions"],
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": shape["heads"],
            "num_hidden_layers": shape["layers"],
            "num_key_value_heads": shape["heads"],
            "rms_norm_eps": shape["norm_epsilon"],
            "rope_theta": shape["rope_theta"],
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
            "use_cache": True,
            "vocab_size": shape["vocabulary"],
            **special,
        }


def along(vectors: Tensor, directions: Tensor) -> Tensor:
    """Return the coordinate [B, P] of `vectors` [B, P, d] along each row's unit vector in [B, d]."""
    return (vectors @ directions[:, :, None])[..., 0]


def interchanged(stream: Tensor, interchange: Interchange) -> Tensor:
    """Return `stream` [B, T, d] after `interchange`; only the coordinates along `own` change."""
    rows = torch.arange(len(stream))[:, None]
    positions = interchange.positions
    coordinate = along(stream[rows, positions], interchange.own)
    change = coordinate[interchange.source] - coordinate
    shift = torch.zeros(stream.shape[:2], dtype=stream.dtype)
    shift = shift.index_put((rows.expand_as(positions), positions), change)
    return stream + shift[:, :, None] * interchange.own[:, None, :]
