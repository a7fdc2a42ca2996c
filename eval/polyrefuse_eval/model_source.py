"""Where a model comes from: name and revision, a folder's hash, and in one line why it cannot be had."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path


def split_revision(name: str) -> tuple[str, str | None]:
    """Return model and revision of `MODEL[@REVISION]`; an existing path is taken whole."""
    if Path(name).exists() or "@" not in name:
        return name, None
    model, _, revision = name.rpartition("@")
    return model, revision


def folder_revision(folder: Path) -> str:
    """Return a hash of the model files in `folder` (16 hex digits): the revision of a local model.

    Of files above 64 MiB only the size and the first MiB (a safetensors header) are read.
    """
    digest = hashlib.sha256()
    wanted = sorted(
        path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".jinja", ".model")
    )
    for path in wanted:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read() if size <= 64 * 2**20 else file.read(2**20))
    return digest.hexdigest()[:16]


def explain(source: str, error: Exception) -> str:
    """Return one line on why `source` cannot be loaded, from what the library said."""
    text = str(error)
    # What the source is called, a folder's path for one, says nothing of what is wrong with it.
    low = re.sub(rf"(?<!\w){re.escape(source)}(?!\w)", "", text).lower()
    first = next(iter(text.strip().splitlines()), type(error).__name__)
    if "gated" in low or "awaiting a review" in low:
        return (
            f"'{source}' is gated or private: accept its terms on its page, then log in with "
            "`hf auth login` or set HF_TOKEN"
        )
    if "trust_remote_code" in low:
        return f"'{source}' wants to run code of its own; read that code, then pass --trust-remote-code"
    if "not a valid model identifier" in low or "404" in low or "repository not found" in low:
        return f"no model '{source}' on the Hub and no folder of that name"
    if "is not a valid git identifier" in low or ("revision" in low and "not" in low):
        return f"'{source}' has no such revision: {first}"
    if "connect" in low or "offline" in low or "resolve" in low or "couldn't reach" in low:
        return (
            f"'{source}' is not in the local cache and the Hub cannot be reached; give a folder, or go online"
        )
    if "safetensors" in low:
        return f"'{source}' has no safetensors weights; pickled weights are not read: {first}"
    if "unrecognized configuration class" in low or "unrecognized model" in low:
        return f"'{source}' is no causal language model that transformers knows: {first}"
    return f"'{source}' cannot be loaded: {first}"
