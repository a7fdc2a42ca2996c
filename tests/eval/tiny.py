"""Tiny chat models with random weights, one a family, and a tokenizer made here."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch

from polyrefuse_eval.models.chat import ChatModel

FAMILIES = (
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "gpt_neox",
    "mixtral",
    "qwen3_moe",
)

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "<|im_start|>model\n"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}\n\n"
    "{% else %}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}"
)
NEEDS_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ raise_exception('a system prompt is needed') }}{% endif %}"
    + CHATML
)
THINKING = (
    CHATML + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)

SPECIALS = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]")


@functools.cache
def _backend() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [
        ("t", "h"),
        ("th", "e"),
        ("i", "n"),
        ("e", "r"),
        ("a", "n"),
        ("Ġ", "a"),
        ("Ġ", "the"),
        ("o", "n"),
    ]
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    return tokenizer


def tokenizer(template: str | None = CHATML) -> Any:
    """Return a byte-level BPE tokenizer with `template`; no token is learned from anybody's text."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_backend().to_str()),
        pad_token="<pad>",  # noqa: S106
        bos_token="<s>",  # noqa: S106
        eos_token="<|im_end|>",  # noqa: S106
    )
    made.chat_template = template
    return made


def config(family: str, *, vocabulary: int, layers: int = 3, **more: Any) -> Any:
    """Return the configuration of a tiny model of `family`."""
    import transformers as hf

    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "initializer_range": 0.2,
    }
    moe = {"num_experts_per_tok": 2}
    table: dict[str, tuple[str, dict[str, Any]]] = {
        "llama": ("LlamaConfig", {}),
        "qwen2": ("Qwen2Config", {}),
        "qwen3": ("Qwen3Config", {"head_dim": 8}),
        "mistral": ("MistralConfig", {"sliding_window": None}),
        "gemma": ("GemmaConfig", {"head_dim": 8}),
        "gemma2": ("Gemma2Config", {"head_dim": 8, "sliding_window": 128, "query_pre_attn_scalar": 8}),
        "gemma3": ("Gemma3TextConfig", {"head_dim": 8, "sliding_window": 128, "query_pre_attn_scalar": 8}),
        "phi3": ("Phi3Config", {}),
        "gpt_neox": ("GPTNeoXConfig", {}),
        "mixtral": ("MixtralConfig", {"num_local_experts": 4, "sliding_window": None, **moe}),
        "qwen3_moe": (
            "Qwen3MoeConfig",
            {"num_experts": 4, "head_dim": 8, "moe_intermediate_size": 24, "decoder_sparse_step": 1, **moe},
        ),
    }
    name, own = table[family]
    if family == "gpt_neox":
        common.pop("num_key_value_heads")
    return getattr(hf, name)(**{**common, **own, **more})


def tiny_model(family: str = "llama", *, seed: int = 0, layers: int = 3, **more: Any) -> Any:
    """Return a seeded random causal language model of `family`, float32, on the CPU."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    vocabulary = len(tokenizer())
    model = AutoModelForCausalLM.from_config(config(family, vocabulary=vocabulary, layers=layers, **more))
    for name, weight in model.named_parameters():
        if "norm" in name and weight.ndim == 1:
            with torch.no_grad():
                weight.add_(0.3 * torch.randn_like(weight))
    return model.float().eval()


def chat_model(family: str = "llama", *, template: str = CHATML, **more: Any) -> ChatModel:
    return ChatModel.from_parts(tiny_model(family, **more), tokenizer(template), name=f"tiny-{family}")


def assert_mostly_equal(some: Mapping[Any, Any], others: Mapping[Any, Any]) -> None:
    """Assert that all but one, or one in ten, of greedy answers are the same, by their keys.

    Batches of other shapes round differently, which may decide between two tokens that are equally likely.
    """
    assert some.keys() == others.keys()
    different = [key for key in some if some[key] != others[key]]
    assert len(different) <= max(1, len(some) // 10), different


PROMPTS = (
    "Name the tallest tree.",
    "Why does rain fall?",
    "Tell me of an old bridge and of the people who made it, at some length, please.",
    "Sing.",
    "¿Qué hora es en Lima?",
    "雨はなぜ降りますか。",
    "How do bees find the way home when the sky is grey?",
)
