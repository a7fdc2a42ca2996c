"""Estimate errors of translations with MetricX through transformers.

MetricX (Juraska et al. 2023, 2024) is an mT5 whose decoder takes one step: the logit of one unused token of
the vocabulary is the number of errors, 0 (none) to 25. Without a reference, MetricX-23 reads
`candidate: ... source: ...` and MetricX-24 `source: ... candidate: ...`, without an end-of-sequence token.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyrefuse_data.core.hub_access import offline_if_unreachable
from polyrefuse_data.core.weights import load_weights
from polyrefuse_data.quality.estimators import EstimatorSpec, QualityError, best_device
from polyrefuse_data.translate.backends.local import folder_digest

ERROR_TOKEN = 250089
"""The token of mT5's vocabulary whose logit is the prediction (`<extra_id_10>`)."""

MOST_ERRORS = 25.0
LONGEST_INPUT = 1536
"""Tokens: what MetricX-24 was fitted to; longer texts are cut off."""

TOKENIZER = "google/mt5-xl"
"""The tokenizer of every mT5, for models that come without one."""

TOKENS_A_BATCH = 4096


class MetricXEstimator:
    """A MetricX of either generation, by its name."""

    def __init__(self, spec: EstimatorSpec) -> None:
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        self._torch = torch
        with offline_if_unreachable():
            self._tokenizer = _tokenizer(AutoTokenizer, spec)
            model = load_weights(AutoModelForSeq2SeqLM, spec.model, revision=spec.revision)
        if model.config.vocab_size <= ERROR_TOKEN:
            raise QualityError(
                f"--quality metricx:{spec.model} has a vocabulary of {model.config.vocab_size} tokens; "
                f"expected an mT5 with token {ERROR_TOKEN}"
            )
        self._device = best_device()
        self._model = model.to(self._device).eval()
        self._source_first = "metricx-23" not in spec.model.lower()
        self.identity = f"metricx:{spec.model}@{spec.revision or folder_digest(spec.model)}"

    def scores(self, english: Sequence[str], texts: Sequence[str]) -> list[float]:
        """Return the predicted errors of each translation, 0 to 25, lower is better."""
        inputs = [self._input(source, text) for source, text in zip(english, texts, strict=True)]
        tokens = [
            ids[:-1] if ids and ids[-1] == self._tokenizer.eos_token_id else ids
            for ids in self._tokenizer(inputs, truncation=True, max_length=LONGEST_INPUT)["input_ids"]
        ]
        values = [0.0] * len(tokens)
        for rows in _batches([len(ids) for ids in tokens]):
            for row, value in zip(rows, self._batch([tokens[row] for row in rows]), strict=True):
                values[row] = value
        return values

    def _input(self, source: str, text: str) -> str:
        if self._source_first:
            return f"source: {source} candidate: {text}"
        return f"candidate: {text} source: {source}"

    def _batch(self, tokens: Sequence[Sequence[int]]) -> list[float]:
        torch = self._torch
        longest = max(1, max(len(ids) for ids in tokens))
        padding = self._tokenizer.pad_token_id or 0
        ids = torch.full((len(tokens), longest), padding, device=self._device)
        mask = torch.zeros_like(ids)
        for row, own in enumerate(tokens):
            ids[row, : len(own)] = torch.tensor(own, device=self._device)
            mask[row, : len(own)] = 1
        start = torch.zeros((len(tokens), 1), dtype=torch.long, device=self._device)
        with torch.inference_mode():
            logits = self._model(input_ids=ids, attention_mask=mask, decoder_input_ids=start).logits
        errors: list[float] = logits[:, 0, ERROR_TOKEN].float().clamp(0.0, MOST_ERRORS).tolist()
        return errors


def _tokenizer(loader: Any, spec: EstimatorSpec) -> Any:
    """Return the model's own tokenizer, or mT5's where it has none."""
    if Path(spec.model).is_dir() and not any(Path(spec.model).glob("tokenizer*")):
        return loader.from_pretrained(TOKENIZER)
    try:
        return loader.from_pretrained(spec.model, revision=spec.revision)
    except (OSError, ValueError):
        return loader.from_pretrained(TOKENIZER)


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Return the rows in batches of similar length, each of at most `TOKENS_A_BATCH` padded tokens."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if batches and (len(batches[-1]) + 1) * lengths[row] <= TOKENS_A_BATCH:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
