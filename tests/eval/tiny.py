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

_LINEAR = ["linear_attention", "full_attention"]
_SLIDING = ["sliding_attention", "full_attention"]
_LATENT_ATTENTION = {"head_dim": None, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
                     "qk_nope_head_dim": 8, "v_head_dim": 8, "first_k_dense_replace": 1,
                     "num_key_value_heads": 4}  # fmt: skip
HYBRID: dict[str, dict[str, Any]] = {
    "qwen3_next": {"layer_types": _LINEAR * 2},
    "qwen3_5_text": {"layer_types": _LINEAR * 2},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2, "full_attn_idxs": None},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
              "expert_layer_offset": 1, "use_mamba_kernels": False},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "falcon_h1": {},
    "nemotron_h": {"layers_block_type": ["mamba", "attention", "moe", "mamba"]},
    "bamba": {"attn_layer_indices": [1, 3]},
    "zamba2": {"layers_block_type": ["mamba", "mamba", "hybrid"] * 2, "num_mem_blocks": 2},
    "recurrent_gemma": {},
    "olmo_hybrid": {"layer_types": _LINEAR * 2},
    "gemma3n_text": {"layer_types": _SLIDING * 2, "num_kv_shared_layers": 0,
                     "activation_sparsity_pattern": [0.0] * 4},
    "gemma4_text": {"layer_types": _SLIDING * 2, "num_kv_shared_layers": 0},
    "gpt_oss": {"layer_types": _SLIDING * 2},
    "llama4_text": {"layer_types": ["chunked_attention", "full_attention"] * 2, "moe_layers": [1, 3],
                    "attention_chunk_size": 64, "intermediate_size_mlp": 48},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "deepseek_v2": {**_LATENT_ATTENTION, "n_group": 1, "topk_group": 1},
    "deepseek_v3": {**_LATENT_ATTENTION, "n_group": 2, "topk_group": 1},
}  # fmt: skip
"""Families whose layers differ from one another, or do more than attention and an MLP; by `model_type`."""

_IMAGE_ROPE = {"rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1]}}
VISION: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gemma3": ("gemma3_text", {}, {"mm_tokens_per_image": 4}),
    "mistral3": ("mistral", {}, {}),
    "qwen2_5_vl": ("qwen2_5_vl_text", _IMAGE_ROPE, {}),
    "qwen3_vl": ("qwen3_vl_text", _IMAGE_ROPE, {}),
}
"""Decoders inside a model that also reads images: kind and settings of the text, settings of the wrapper."""


def _is_known(kind: str) -> bool:
    """Return whether the installed transformers has the family: generation 4 lacks the newest."""
    import transformers as hf

    return kind in hf.CONFIG_MAPPING


HYBRID = {kind: settings for kind, settings in HYBRID.items() if _is_known(kind)}
VISION = {kind: settings for kind, settings in VISION.items() if _is_known(kind)}

_SMALL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2, "init_std": 0.2, "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24, "moe_shared_expert_intermediate_size": 24,
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "mamba_d_state": 8, "mamba_d_head": 16, "mamba_n_heads": 4,
    "mamba_n_groups": 1, "mamba_d_ssm": 64, "mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8,
    "n_groups": 1, "chunk_size": 16, "mamba_chunk_size": 16, "mamba_headdim": 16, "n_mamba_heads": 4,
    "mamba_ngroups": 1, "hidden_size_per_layer_input": 8, "shared_intermediate_size": 24, "block_ff_dim": 48,
    "router_aux_loss_coef": 0.0,
}  # fmt: skip

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


def family_config(kind: str, vocabulary: int, **more: Any) -> Any:
    """Return a small configuration of `model_type` `kind`; `more` are settings of its own."""
    import transformers as hf

    make = hf.CONFIG_MAPPING[kind]
    base = make()
    sizes = {**_SMALL, "vocab_size": vocabulary, "vocab_size_per_layer_input": vocabulary}
    if "layers_block_type" in more:
        sizes["num_hidden_layers"] = len(more["layers_block_type"])
    known = {name: value for name, value in sizes.items() if name in base.to_dict()}
    return make(**{**known, **more})


def family_model(kind: str, *, seed: int = 0) -> Any:
    """Return a seeded random model of `kind`, one of `HYBRID` or `VISION`; no weight is as initialised."""
    import transformers as hf

    torch.manual_seed(seed)
    vocabulary = len(tokenizer())
    if kind in VISION:
        text, text_settings, more = VISION[kind]
        eye = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "depth": 2, "num_heads": 4,
               "num_attention_heads": 4, "image_size": 28, "patch_size": 14,
               "out_hidden_size": 32}  # fmt: skip
        vision = hf.CONFIG_MAPPING[kind]().vision_config
        eye = {name: value for name, value in eye.items() if name in vision.to_dict()}
        made = hf.CONFIG_MAPPING[kind](
            text_config=family_config(text, vocabulary, **text_settings).to_dict(),
            vision_config={"model_type": vision.model_type, **eye},
            **more,
        )
        model = hf.AutoModelForImageTextToText.from_config(made)
    else:
        model = hf.AutoModelForCausalLM.from_config(family_config(kind, vocabulary, **HYBRID[kind]))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(0.3 * torch.randn_like(weight))
        for name, buffer in model.named_buffers():
            if name.endswith("layer_scalar"):
                buffer.mul_(0.8)
    return model.float().eval()


def chat_model(family: str = "llama", *, template: str = CHATML, **more: Any) -> ChatModel:
    model = family_model(family) if family in HYBRID or family in VISION else tiny_model(family, **more)
    return ChatModel.from_parts(model, tokenizer(template), name=f"tiny-{family}")


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
