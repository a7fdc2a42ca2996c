"""Sentence similarity of back-translations with the English, by any local sentence-embedding model.

`MODEL[@REVISION]` names an encoder on the Hub or a folder. A sentence's embedding is the mean of the last
layer over its tokens (padding left out), of length 1; the similarity of two is their cosine. Models that
want another pooling, or a prefix before each text, score lower than they could. torch and transformers are
imported when a model is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.translate.backends.local import folder_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 32
LONGEST = 512
"""Tokens of a text that are embedded, at most; fewer if the model takes fewer."""


class SimilarityError(PolyRefuseError):
    """A sentence-embedding model that cannot be used: not there, no encoder, or a missing extra."""


class SentenceModel:
    """A sentence-embedding model with its tokenizer; `identity` says which, with its revision."""

    def __init__(self, model: Any, tokenizer: Any, identity: str) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.identity = identity
        # position embeddings of the RoBERTa family start at 2: two fewer are safe for every model
        positions = getattr(model.config, "max_position_embeddings", None) or LONGEST + 2
        self._longest = min(LONGEST, tokenizer.model_max_length, positions - 2)
        self._english: dict[str, NDArray[np.float32]] = {}

    def similarities(self, english: Sequence[str], backs: Sequence[str]) -> list[float]:
        """Return the cosine (-1 to 1) of each back-translation with its English, lists of equal length.

        English is embedded once: every language has the same.
        """
        fresh = [text for text in dict.fromkeys(english) if text not in self._english]
        self._english.update(zip(fresh, self.embed(fresh), strict=True))
        return [
            float(self._english[text] @ back) for text, back in zip(english, self.embed(backs), strict=True)
        ]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of `texts`, (texts, width), each row of length 1."""
        import torch

        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        rows = np.zeros((len(texts), self._model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            encoded = self._tokenizer(
                [texts[index] for index in chosen],
                padding=True,
                truncation=True,
                max_length=self._longest,
                return_tensors="pt",
            ).to(self._model.device)
            with torch.inference_mode():
                last = self._model(**encoded).last_hidden_state.float()
            mask = encoded["attention_mask"].unsqueeze(-1).to(last.dtype)
            mean = (last * mask).sum(1) / mask.sum(1).clamp(min=1)
            rows[chosen] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        return rows


def load_sentence_model(name: str) -> SentenceModel:
    """Return the model that `MODEL[@REVISION]` names, on a GPU where there is one.

    Weights are read from safetensors only, and no code from the Hub is run. Raises `SimilarityError`.
    """
    model, _, revision = name.partition("@")
    if not model:
        raise SimilarityError("--similarity names no model; expected MODEL[@REVISION] or a folder")
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise SimilarityError(
            f"--similarity needs {error.name}, which is not installed: pip install 'polyrefuse[local]'"
        ) from None
    folder = os.path.isdir(model)  # noqa: PTH112 (a name on the Hub is no path)
    if folder and revision:
        raise SimilarityError(f"--similarity {name}: {model} is a folder, which has no revisions")
    options: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, **options)
        loaded = AutoModel.from_pretrained(model, use_safetensors=True, **options)
    except (OSError, ValueError, ImportError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SimilarityError(f"--similarity {name} cannot be loaded: {first[:200]}") from None
    if loaded.config.is_encoder_decoder or tokenizer.pad_token is None:
        raise SimilarityError(
            f"--similarity {name} is of type '{loaded.config.model_type}' and no encoder of sentences; "
            "name a sentence-embedding model, such as one of BERT's or XLM-RoBERTa's kind"
        )
    loaded.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    commit = folder_digest(model) if folder else getattr(loaded.config, "_commit_hash", None) or revision
    return SentenceModel(loaded, tokenizer, f"{model}@{commit}" if commit else model)
