"""Similarity of back-translations with the English, by a model of sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.hub_access import offline_if_unreachable
from polyrefuse_data.translate.backends.local import folder_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 32


class SimilarityError(PolyRefuseError):
    """A sentence-embedding model that cannot be used: not there, without weights, or a missing extra."""


class SentenceModel:
    """A loaded model; `identity` is its name with its revision."""

    def __init__(self, model: Any, identity: str) -> None:
        self._model = model
        self.identity = identity
        self._english: dict[str, NDArray[np.float32]] = {}

    def similarities(self, english: Sequence[str], backs: Sequence[str]) -> list[float]:
        """Return the cosine (-1 to 1) of each back-translation with its English, lists of equal length.

        English is embedded once for all languages.
        """
        new = [text for text in dict.fromkeys(english) if text not in self._english]
        self._english.update(zip(new, self.embed(new), strict=True))
        return [
            float(self._english[text] @ back) for text, back in zip(english, self.embed(backs), strict=True)
        ]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of `texts`, (texts, width), each row of length 1."""
        embeddings: NDArray[np.float32] = self._model.encode(
            list(texts), batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False
        )
        return embeddings


def load_sentence_model(name: str) -> SentenceModel:
    """Load the model of `MODEL[@REVISION]`, a name on the Hub or a folder; on a GPU where there is one.

    A model without a pooling of its own takes the mean over tokens. Weights are read from safetensors only,
    and no code from the Hub is run. Raise `SimilarityError`.
    """
    model, _, revision = name.partition("@")
    if not model:
        raise SimilarityError("--similarity names no model; expected MODEL[@REVISION] or a folder")
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise SimilarityError(
            f"--similarity needs {error.name}, which is not installed: pip install 'polyrefuse[similarity]'"
        ) from None
    folder = Path(model).is_dir()
    if folder and revision:
        raise SimilarityError(f"--similarity {name}: {model} is a folder, which has no revisions")
    try:
        with offline_if_unreachable():
            loaded = SentenceTransformer(
                model,
                revision=revision or None,
                model_kwargs={"use_safetensors": True},
                trust_remote_code=False,
            )
        loaded.encode(["a text"], show_progress_bar=False)
    except Exception as error:  # the library raises what each kind of model does
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SimilarityError(f"--similarity {name} cannot be loaded: {first[:200]}") from None
    config = getattr(getattr(loaded, "transformers_model", None), "config", None)
    commit = folder_digest(model) if folder else getattr(config, "_commit_hash", None) or revision
    return SentenceModel(loaded, f"{model}@{commit}" if commit else model)
