"""Compare translations with their English by a sentence-embedding model of sentence-transformers.

A multilingual model compares the translation itself, another its back-translation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polyrefuse_data.core.contents import read_utf8
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.hub_access import offline_if_unreachable
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.quality.estimators import first_line
from polyrefuse_data.quality.known_languages import KNOWN
from polyrefuse_data.translate.backends.local import folder_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 32

SOURCE, ENGLISH = "source", "english"
"""What is compared with the English: the translation (of a multilingual model), or its back-translation."""

OF_TRANSLATION = " of the translation"
"""The end of an identity whose similarities are those of translations, not of back-translations."""

PREFIXES = {"intfloat/multilingual-e5-small": "query: ", "intfloat/multilingual-e5-base": "query: "}
PREFIXES["intfloat/multilingual-e5-large"] = "query: "
"""What models expect before each text, where their configuration does not say so (their cards do)."""


class SimilarityError(PolyRefuseError):
    """A sentence-embedding model that cannot be used: not there, without weights, or a missing extra."""


class SentenceModel:
    """A loaded model: `identity` is its name with its revision; `compares` is `SOURCE` or `ENGLISH`."""

    def __init__(self, model: Any, identity: str, name: str = "", compares: str = ENGLISH) -> None:
        self._model = model
        self.name, self.compares = name, compares
        self.identity = identity if compares == ENGLISH else identity + OF_TRANSLATION
        self._prefix = PREFIXES.get(name, "")
        self._english: dict[str, NDArray[np.float32]] = {}

    def similarities(self, english: Sequence[str], others: Sequence[str]) -> list[float]:
        """Return the cosine (-1 to 1) of each of `others` with its English, lists of equal length."""
        return self.similarity_and_nearest(english, others)[0]

    def similarity_and_nearest(
        self, english: Sequence[str], others: Sequence[str]
    ) -> tuple[list[float], list[float]]:
        """Return each row's cosine with its English, and how much nearer the nearest other English is.

        The second is the highest cosine with a different English minus the own, -2 to 2: positive where the
        row is nearer to another row. English is embedded once for all languages.
        """
        distinct = list(dict.fromkeys(english))
        if not distinct:
            return [], []
        new = [text for text in distinct if text not in self._english]
        if new:
            self._english.update(zip(new, self.embed(new), strict=True))
        cosines = self.embed(others) @ np.stack([self._english[text] for text in distinct]).T
        column = {text: number for number, text in enumerate(distinct)}
        rows, own = np.arange(len(english)), np.array([column[text] for text in english])
        similarity = cosines[rows, own].copy()
        cosines[rows, own] = -np.inf
        nearest = cosines.max(axis=1) - similarity if len(distinct) > 1 else np.full(len(english), -2.0)
        return [float(value) for value in similarity], [float(value) for value in nearest]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of `texts`, (texts, width), each row of length 1."""
        embeddings: NDArray[np.float32] = self._model.encode(
            [self._prefix + text for text in texts],
            batch_size=BATCH,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        return embeddings


def load_sentence_model(name: str, compares: str = "auto") -> SentenceModel:
    """Load the model of `MODEL[@REVISION]`, a name on the Hub or a folder; on a GPU where there is one.

    A model without a pooling of its own takes the mean over tokens. Weights are read from safetensors only,
    and no code from the Hub is run. `compares` is `SOURCE`, `ENGLISH`, or `auto`: `SOURCE` for a model that
    the table of models knows as multilingual. Raises `SimilarityError`.
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
    if folder:
        check_modules(Path(model), name)
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
        raise SimilarityError(f"--similarity {name} cannot be loaded: {first_line(error)}") from None
    config = getattr(getattr(loaded, "transformers_model", None), "config", None)
    commit = folder_digest(model) if folder else getattr(config, "_commit_hash", None) or revision
    return SentenceModel(loaded, f"{model}@{commit}" if commit else model, model, compared(name, compares))


def check_modules(folder: Path, name: str) -> None:
    """Raise `SimilarityError` where a model's folder names code of its own.

    sentence-transformers before 6.0 runs the code of a folder whatever `trust_remote_code` says.
    """
    path = folder / "modules.json"
    if not path.exists():
        return
    try:
        types = [str(module["type"]) for module in parse_json(read_utf8(path))]
    except (OSError, ValueError, TypeError, KeyError):
        raise SimilarityError(f"--similarity {name}: '{path}' is not a list of modules") from None
    foreign = [kind for kind in types if not kind.startswith("sentence_transformers.")]
    if foreign:
        raise SimilarityError(
            f"--similarity {name}: '{path}' names code that is not of sentence-transformers ({foreign[0]}), "
            "which is not run; use another model"
        )


def compared(name: str, choice: str) -> str:
    """Return what the model `name` compares with the English by `choice`: `SOURCE`, `ENGLISH`, or `auto`."""
    if choice != "auto":
        return choice
    return SOURCE if name.partition("@")[0] in KNOWN else ENGLISH
