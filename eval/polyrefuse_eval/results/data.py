"""Read the rows of a build folder: the only thing that this side needs of the data side's output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from polyrefuse_data.checks.languages_file import register_recorded
from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_data.core.languages import language
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.core.schema import Row, row_from_values

MANIFEST = "manifest.json"


class Prompts(Protocol):
    """Prompts of a build, wherever they are."""

    @property
    def digest(self) -> str: ...

    def prompts(self, lang: str, split: str, label: str, limit: int | None = None) -> list[Row]:
        """Return the first `limit` rows with `label`; the same groups in every language."""
        ...


@dataclass(frozen=True)
class DataFolder:
    """A complete build: `digest` is what results cite."""

    path: Path
    digest: str
    recipe: str

    @property
    def languages(self) -> list[str]:
        """Codes of the languages that the folder holds."""
        return sorted(path.parent.name for path in self.path.glob("*/test.parquet"))

    def rows(self, lang: str, split: str) -> list[Row]:
        """Return the rows of one language and split, in published order.

        Raises `DatasetFolderError` where the folder lacks them.
        """
        file = self.path / language(lang).code / f"{split}.parquet"
        if not file.is_file():
            raise DatasetFolderError(
                f"'{self.path}' holds no {split} split in '{lang}' (languages there: "
                f"{', '.join(self.languages) or 'none'}); build it with --langs {lang}, or leave it out"
            )
        import pyarrow as pa
        import pyarrow.parquet as parquet

        try:
            records = parquet.read_table(file).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise DatasetFolderError(f"'{file}' is no Parquet file that can be read: {error}") from None
        try:
            return [row_from_values(record, split) for record in records]
        except KeyError as error:
            raise DatasetFolderError(f"'{file}' has no column {error}; build the data set again") from None

    def prompts(self, lang: str, split: str, label: str, limit: int | None = None) -> list[Row]:
        """Return the first `limit` rows with `label`; the same groups in every language."""
        found = [row for row in self.rows(lang, split) if row.label == label]
        if not found:
            raise DatasetFolderError(f"'{self.path}' holds no {label} prompts in '{lang}', split {split}")
        return found[:limit]


def open_data(folder: Path, langs: Sequence[str] = ()) -> DataFolder:
    """Return the build in `folder`, which must hold all of `langs`.

    Raises `DatasetFolderError` where there is no manifest (the build is not complete) or a
    language is missing.
    """
    manifest = _manifest(folder)
    register_recorded(manifest, folder)
    data = DataFolder(folder, str(manifest["digest"]), str(manifest.get("recipe", {}).get("name", "")))
    missing = [lang for lang in langs if language(lang).code not in data.languages]
    if missing:
        raise DatasetFolderError(
            f"'{folder}' lacks {', '.join(missing)} (it holds {', '.join(data.languages) or 'no language'}); "
            "build it with these languages, or name others with --langs"
        )
    return data


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not folder.is_dir():
        raise DatasetFolderError(
            f"no folder '{folder}'; make one with: polyrefuse build --recipe sample --out {folder}"
        )
    if not path.is_file():
        raise DatasetFolderError(
            f"'{folder}' has no {MANIFEST}, so no complete build; run polyrefuse build again"
        )
    try:
        manifest = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetFolderError(f"'{path}' is no JSON: {error}") from None
    if not isinstance(manifest, dict) or "digest" not in manifest:
        raise DatasetFolderError(f"'{path}' has no digest; build the data set again")
    if manifest.get("complete") is False:
        raise DatasetFolderError(f"'{folder}' is a build that is not complete; run polyrefuse build again")
    return manifest
