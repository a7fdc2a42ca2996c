"""Load a build with `datasets`, after checking that it is complete and unaltered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from polyrefuse_data.build.card import DEFAULT_CONFIG
from polyrefuse_data.build.package import altered_files, read_manifest
from polyrefuse_data.checks.languages_file import register_recorded
from polyrefuse_data.core.errors import DatasetFolderError, unknown_name
from polyrefuse_data.core.languages import language
from polyrefuse_data.core.schema import SPLITS

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

FOLDER_VARIABLE = "POLYREFUSE_DATA"
"""Environment variable: the folder of the build that `load` takes if none is named."""

_PREFERRED = ("paper", "clean", "sample")


def default_folder() -> Path:
    """Return the build that `load` takes if none is named: the variable's, else one under ./builds."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    candidates = [Path("builds") / name for name in _PREFERRED]
    for folder in candidates:
        if (folder / "manifest.json").is_file():
            return folder
    raise DatasetFolderError(
        "no build under builds/; make one with `polyrefuse build`, "
        f"or name a folder by path= or {FOLDER_VARIABLE}"
    )


def load(
    lang: str = DEFAULT_CONFIG, split: str | None = None, path: str | os.PathLike[str] | None = None
) -> Dataset | DatasetDict:
    """Return the rows of one language, or of all, as `datasets.load_dataset` does.

    `lang` is a code or "all"; `split` is train, validation or test, or None for all three. Always the rows
    that lie in the folder: altered files and incomplete builds raise `DatasetFolderError`.
    """
    folder = Path(path) if path is not None else default_folder()
    manifest = read_manifest(folder)
    register_recorded(manifest, folder)
    if not manifest["complete"]:
        missing = sum(len(gap["ids"]) for gap in manifest["gaps"])
        raise DatasetFolderError(
            f"{folder}: {missing} prompts have no translation and nothing was packaged; "
            "translate them, or build with --allow-gaps"
        )
    altered = altered_files(folder, manifest)
    if altered:
        raise DatasetFolderError(f"{folder}: {', '.join(altered[:3])} not as built; build the data set again")
    if lang != DEFAULT_CONFIG and language(lang).code not in manifest["languages"]:
        raise unknown_name("language of this build", lang, [*manifest["languages"], DEFAULT_CONFIG])
    if split is not None and split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    from datasets import load_dataset

    return load_dataset(str(folder), lang, split=split)
