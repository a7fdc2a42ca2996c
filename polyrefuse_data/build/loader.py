"""Load a build as `datasets` does, after checking that it is complete and unaltered."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyrefuse_data.build.card import DEFAULT_CONFIG
from polyrefuse_data.build.package import MANIFEST, altered_files, read_manifest
from polyrefuse_data.checks.languages_file import register_recorded
from polyrefuse_data.core.display import counted
from polyrefuse_data.core.errors import DatasetFolderError, unknown_name
from polyrefuse_data.core.languages import language
from polyrefuse_data.core.schema import SPLITS

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

FOLDER_VARIABLE = "POLYREFUSE_DATA"
"""Environment variable: the folder of the build that `load` takes if none is named."""

_BUILDS = Path("builds")
"""Where `polyrefuse build` puts its builds if --out names no folder."""

_PREFERRED = ("paper", "clean", "sample")
"""Builds of the package's own recipes, the first of them taken before any other build."""


def default_folder() -> Path:
    """Return the build that `load` takes if none is named.

    It is the folder of the environment variable; else builds/paper, builds/clean or builds/sample; else the
    only build under builds/, or the working folder if that is a build. A complete build goes before one with
    gaps. Raises `DatasetFolderError` where there is none, or more than one to choose from.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    complete = {folder: _is_complete(folder) for folder in _builds_here()}
    for folders in ([folder for folder in complete if complete[folder]], list(complete)):
        preferred = [_BUILDS / name for name in _PREFERRED if _BUILDS / name in folders]
        if preferred or len(folders) == 1:
            return [*preferred, *folders][0]
        if folders:
            raise DatasetFolderError(
                f"there are several builds: {', '.join(map(str, folders))}; name one by path= or "
                f"{FOLDER_VARIABLE}"
            )
    raise DatasetFolderError(
        "no build under builds/; make one with `polyrefuse build`, "
        f"or name a folder by path= or {FOLDER_VARIABLE}"
    )


def _builds_here() -> list[Path]:
    """Return the builds under builds/ in the working folder, and the working folder if that is one."""
    below = sorted(_BUILDS.iterdir()) if _BUILDS.is_dir() else []
    return [folder for folder in [*below, Path()] if (folder / MANIFEST).is_file()]


def _is_complete(folder: Path) -> bool:
    try:
        return bool(read_manifest(folder)["complete"])
    except DatasetFolderError:
        return False


def load(
    lang: str = DEFAULT_CONFIG, split: str | None = None, path: str | os.PathLike[str] | None = None
) -> Dataset | DatasetDict:
    """Return the rows of one language, or of all, as `datasets.load_dataset` does.

    `lang` is a code or "all"; `split` is train, validation or test, or None for all three; `path` is the
    folder of a build, whatever it is called (default: see `default_folder`). The rows are read from the
    folder into memory, past the cache of `datasets`. Altered files and incomplete builds raise
    `DatasetFolderError`, an unknown language or split `UnknownNameError`.
    """
    folder = Path(path) if path is not None else default_folder()
    manifest = read_manifest(folder)
    register_recorded(manifest, folder)
    if not manifest["complete"]:
        missing = sum(len(gap["ids"]) for gap in manifest["gaps"])
        raise DatasetFolderError(
            f"{folder}: nothing was packaged, {counted(missing, 'prompt')} without a translation; "
            "translate them, or build with --allow-gaps"
        )
    altered = altered_files(folder, manifest)
    if altered:
        raise DatasetFolderError(
            f"{folder}: {', '.join(altered[:3])} changed after the build; build the data set again"
        )
    if lang != DEFAULT_CONFIG and language(lang).code not in manifest["languages"]:
        raise unknown_name("language of this build", lang, [*manifest["languages"], DEFAULT_CONFIG])
    langs = list(manifest["languages"]) if lang == DEFAULT_CONFIG else [language(lang).code]
    splits = [name for name in SPLITS if _rows(manifest, langs, name)]
    if split is not None and split not in splits:
        raise unknown_name("split of this build", split, splits)
    from datasets import DatasetDict

    if split is not None:
        return _dataset(folder, langs, split)
    return DatasetDict({name: _dataset(folder, langs, name) for name in splits})


def _rows(manifest: Mapping[str, Any], langs: Sequence[str], split: str) -> int:
    """Return the number of rows that `manifest` counts in one split of `langs`."""
    return sum(manifest["files"].get(f"{lang}/{split}.parquet", {}).get("rows", 0) for lang in langs)


def _dataset(folder: Path, langs: Sequence[str], split: str) -> Dataset:
    """Return the rows of one split, with the features of our columns, whatever the files say of them."""
    import pyarrow as pa
    from datasets import Dataset, DatasetInfo, Features, NamedSplit

    from polyrefuse_data.build.model import features
    from polyrefuse_data.build.row_files import read_row_table

    paths = [folder / lang / f"{split}.parquet" for lang in langs]
    try:
        table = pa.concat_tables([read_row_table(path, str(path)) for path in paths])
        by_name = features(pairs=True)
        of_columns = Features.from_dict({name: by_name[name] for name in table.column_names})
    except (KeyError, pa.ArrowException):
        raise DatasetFolderError(
            f"{folder}: the files of '{split}' do not have the columns of a build; build the data set again"
        ) from None
    info = DatasetInfo(features=of_columns)
    return Dataset(table.cast(of_columns.arrow_schema), info, NamedSplit(split))
