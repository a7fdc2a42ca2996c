"""The published loops, written plainly from the papers' description: the baseline of the benchmark.

Padded batches of 32, scores from logits at all positions cast to float64, a sweep over the training
prompts that scores them and another that reads the whole residual stream in float64, six sweeps over
every candidate (each of ablation and addition: refusal on harmful, refusal on harmless, KL on harmless
prompts), one intervention after another. Arditi et al. 2024, section 2.3 and appendix C; Wang et al. 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

BATCH_SIZE = 32
GENERATION_BATCH_SIZE = 8


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _with(args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Tensor) -> Any:
    return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})


@contextmanager
def hooked(
    chat: Any, *, ablate: Tensor | None = None, add: tuple[int, Tensor] | None = None
) -> Iterator[None]:
    """Ablate a direction at every layer input, attention and MLP output; or add a vector at a layer."""
    handles = []

    def take_out(x: Tensor) -> Tensor:
        unit = (ablate / (ablate.norm() + 1e-8)).to(x)
        return x - (x @ unit).unsqueeze(-1) * unit

    def before(_module: Any, args: Any, kwargs: Any) -> Any:
        return _with(args, kwargs, take_out(_hidden(args, kwargs)))

    def after(_module: Any, _args: Any, output: Any) -> Any:
        return (take_out(output[0]), *output[1:]) if isinstance(output, tuple) else take_out(output)

    def plus(_module: Any, args: Any, kwargs: Any) -> Any:
        hidden = _hidden(args, kwargs)
        return _with(args, kwargs, hidden + add[1].to(hidden))

    try:
        if ablate is not None:
            for layer, writes in zip(chat.layers, chat.structure.writes, strict=True):
                handles.append(layer.register_forward_pre_hook(before, with_kwargs=True))
                for name in writes:
                    handles.append(layer.get_submodule(name).register_forward_hook(after))
        if add is not None:
            handles.append(chat.layers[add[0]].register_forward_pre_hook(plus, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _padded(chat: Any, prompts: Sequence[str]) -> Any:
    chat.tokenizer.padding_side = "left"
    texts = [chat.template.render(prompt) for prompt in prompts]
    return chat.tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt").to(chat.device)


@torch.no_grad()
def last_logits(chat: Any, prompts: Sequence[str]) -> Tensor:
    """Logits after the last token, by way of those at all positions in float64."""
    return torch.cat([logits.to(torch.float64)[:, -1, :].clone() for logits in _sweep(chat, prompts)])


def _sweep(chat: Any, prompts: Sequence[str]) -> Iterator[Tensor]:
    """Logits at all positions, batch by batch."""
    for start in range(0, len(prompts), BATCH_SIZE):
        inputs = _padded(chat, prompts[start : start + BATCH_SIZE])
        yield chat.model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits


def refusal_scores(logits: Tensor, ids: Sequence[int]) -> Tensor:
    p = torch.softmax(logits, -1)[:, list(ids)].sum(-1)
    return (p + 1e-8).log() - (1 - p + 1e-8).log()


def kl(logits: Tensor, base: Tensor) -> float:
    p, q = torch.softmax(base, -1), torch.softmax(logits, -1)
    return float((p * ((p + 1e-6).log() - (q + 1e-6).log())).sum(-1).mean())


@torch.no_grad()
def mean_activations(chat: Any, prompts: Sequence[str], n_post: int) -> Tensor:
    """Mean inputs of all layers at the post-instruction tokens [positions, layers, d] in float64."""
    total = torch.zeros(n_post, chat.n_layers, chat.width, dtype=torch.float64, device=chat.device)

    def reader(layer: int) -> Callable[..., None]:
        def read(_module: Any, args: Any, kwargs: Any) -> None:
            stream = _hidden(args, kwargs).to(torch.float64)
            total[:, layer] += stream[:, -n_post:].sum(0) / len(prompts)

        return read

    handles = [
        layer.register_forward_pre_hook(reader(index), with_kwargs=True)
        for index, layer in enumerate(chat.layers)
    ]
    try:
        for _logits in _sweep(chat, prompts):
            pass
    finally:
        for handle in handles:
            handle.remove()
    return total


def difference_in_means(
    chat: Any, harmful: Sequence[str], harmless: Sequence[str], refusal_ids: Sequence[int] = ()
) -> Tensor:
    """Difference of the means; with `refusal_ids` of the prompts whose score has the label's sign."""
    if refusal_ids:
        scores = [refusal_scores(last_logits(chat, prompts), refusal_ids) for prompts in (harmful, harmless)]
        harmful = [prompt for prompt, score in zip(harmful, scores[0], strict=True) if score > 0]
        harmless = [prompt for prompt, score in zip(harmless, scores[1], strict=True) if score < 0]
    n_post = len(chat.post_instruction)
    return mean_activations(chat, harmful, n_post) - mean_activations(chat, harmless, n_post)


def candidate_scores(
    chat: Any,
    vectors: Tensor,
    harmful: Sequence[str],
    harmless: Sequence[str],
    ids: Sequence[int],
    only: Sequence[tuple[int, int]] | None = None,
) -> dict[tuple[int, int], dict[str, float]]:
    """Six sweeps over every candidate (position, layer) of `vectors` [positions, layers, d]."""
    n_post, n_layers, _ = vectors.shape
    candidates = only or [(p - n_post, layer) for p in range(n_post) for layer in range(n_layers)]
    base = last_logits(chat, harmless)
    scores: dict[tuple[int, int], dict[str, float]] = {candidate: {} for candidate in candidates}
    for edit in ("ablation", "addition"):
        for name, prompts in (("kl", harmless), ("harmful", harmful), ("harmless", harmless)):
            for position, layer in candidates:
                vector = vectors[position, layer]
                with hooked(chat, ablate=vector) if edit == "ablation" else hooked(chat, add=(layer, vector)):
                    logits = last_logits(chat, prompts)
                value = kl(logits, base) if name == "kl" else float(refusal_scores(logits, ids).mean())
                scores[position, layer][f"{edit}_{name}"] = value
    return scores


@torch.no_grad()
def answers(chat: Any, prompts: Sequence[str], lengths: Sequence[int], **edit: Any) -> list[list[int]]:
    """Greedy answers in batches of 8 through `model.generate`, under one intervention.

    The answer to `prompts[i]` ends after `lengths[i]` tokens: its next one is the end of the sequence.
    """
    from transformers import GenerationConfig, LogitsProcessorList

    end = min(chat.stop_ids)
    made = []
    for start in range(0, len(prompts), GENERATION_BATCH_SIZE):
        part = slice(start, start + GENERATION_BATCH_SIZE)
        inputs = _padded(chat, prompts[part])
        width = inputs.input_ids.shape[1]
        ends_at = torch.tensor(lengths[part], device=chat.device)

        def force_end(ids: Tensor, logits: Tensor, ends_at: Tensor = ends_at, width: int = width) -> Tensor:
            logits[ends_at <= ids.shape[1] - width, end] = torch.inf
            return logits

        settings = GenerationConfig(
            max_new_tokens=max(lengths[part]), do_sample=False, pad_token_id=chat.pad_id, eos_token_id=end
        )
        with hooked(chat, **edit):
            output = chat.model.generate(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                generation_config=settings,
                logits_processor=LogitsProcessorList([force_end]),
            )
        made += [row[:length] for row, length in zip(output[:, width:].tolist(), lengths[part], strict=True)]
    return made
