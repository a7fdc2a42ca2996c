"""Models of quality estimation and of sentences with random weights, made from a config."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


def save_mt5_tokenizer(folder: Path, words: Sequence[str]) -> None:
    """Write a tokenizer of whole words with the special tokens of mT5: padding 0, end 1, unknown 2."""
    import tokenizers
    import transformers

    special = ["<pad>", "</s>", "<unk>"]
    unknown = {"unk_token": "<unk>"}
    tokens = {"pad_token": "<pad>", "eos_token": "</s>", **unknown}
    core = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(
            {word: number for number, word in enumerate([*special, *dict.fromkeys(words)])}, **unknown
        )
    )
    core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    core.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=core, **tokens).save_pretrained(folder)


def save_metricx(folder: Path, words: Sequence[str], vocabulary: int = 250112) -> Path:
    """Write a MetricX: an mT5 of width 8 with the vocabulary of a real one."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.MT5Config(
        vocab_size=vocabulary, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2,
        decoder_start_token_id=0, dropout_rate=0.0, tie_word_embeddings=False,
    )  # fmt: skip
    model = transformers.MT5ForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    model.save_pretrained(folder)
    save_mt5_tokenizer(folder, words)
    return folder


def save_comet(folder: Path, words: Sequence[str]) -> Path:
    """Write a CometKiwi: a unified metric over a two-layer XLM-R, with hparams and checkpoint as COMET's."""
    import tokenizers
    import torch
    import transformers
    import yaml
    from comet.models import str2model

    torch.manual_seed(0)
    encoder = folder / "encoder"
    encoder.mkdir(parents=True)
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *(f"▁{word}" for word in dict.fromkeys(words))]
    core = tokenizers.Tokenizer(
        tokenizers.models.Unigram(
            [(piece, -float(place > 3)) for place, piece in enumerate(pieces)], unk_id=3
        )
    )
    core.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    core.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    core.save(str(encoder / "tokenizer.json"))
    names = {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>"}
    settings = {f"{name}_token": token for name, token in names.items()}
    (encoder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "XLMRobertaTokenizerFast", "mask_token": "<unk>", **settings}), "utf-8"
    )
    transformers.XLMRobertaConfig(
        vocab_size=len(pieces), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=80, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    ).save_pretrained(encoder)  # fmt: skip
    values = {
        "encoder_model": "XLM-RoBERTa", "pretrained_model": str(encoder), "sent_layer": "mix",
        "word_layer": 2,
        "layer_transformation": "sparsemax", "input_segments": ["mt", "src"], "hidden_sizes": [8],
        "class_identifier": "unified_metric",
    }  # fmt: skip
    arguments = {name: value for name, value in values.items() if name != "class_identifier"}
    model = str2model["unified_metric"](**arguments, load_pretrained_weights=False)
    (folder / "checkpoints").mkdir()
    (folder / "hparams.yaml").write_text(yaml.safe_dump(values), "utf-8")
    kept = {**values, "pretrained_model": "encoder"}
    torch.save(
        {"hyper_parameters": kept, "state_dict": model.state_dict()}, folder / "checkpoints" / "model.ckpt"
    )
    return folder
