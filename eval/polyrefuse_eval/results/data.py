"""Read the rows of a build folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from polyrefuse_data.checks.languages_file import register_recorded
from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_data.core.languages import LANGUAGES, language, parse_languages
from polyrefuse_data.core.schema import LABELS, SPLITS, Row
from polyrefuse_eval.results.sources import ALL


class Prompts(Protocol):
    """Prompts of a build, read from its folder or sent to a worker."""

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

    def has(self, lang: str, split: str) -> bool:
        """Return whether the folder holds this language and split."""
        return (self.path / language(lang).code / f"{split}.parquet").is_file()

    def rows(self, lang: str, split: str) -> list[Row]:
        """Return the rows of one language and split, in published order.

        Raises `DatasetFolderError` where the folder lacks them.
        """
        from polyrefuse_data.build.package import read_rows

        code = language(lang).code
        if not self.has(lang, split):
            raise DatasetFolderError(
                f"'{self.path}' holds no {split} split in '{lang}' (languages there: "
                f"{', '.join(self.languages) or 'none'}); build it with --langs {lang}, or leave it out"
            )
        return read_rows(self.path, code, split)

    def select(self, langs: str) -> list[str]:
        """Return the codes that `langs` names, each in the folder; `all` are the languages of the folder.

        Raises `DatasetFolderError` where one is not in the folder, `UnknownNameError` where it is none.
        """
        if langs.strip() == ALL:
            return [code for code in LANGUAGES if code in self.languages]
        codes = parse_languages(langs)
        self.require(codes)
        return codes

    def require(self, langs: Sequence[str]) -> None:
        """Raise `DatasetFolderError` unless the folder holds all of `langs`."""
        missing = [lang for lang in langs if language(lang).code not in self.languages]
        if missing:
            raise DatasetFolderError(
                f"'{self.path}' lacks {', '.join(missing)} (it holds "
                f"{', '.join(self.languages) or 'no language'}); build it with these languages, or name "
                "others with --langs"
            )

    def gaps(self, langs: Sequence[str], splits: Sequence[str]) -> list[tuple[str, str, str]]:
        """Return (language, split, label) of which the folder holds no prompt."""
        return [
            (lang, split, label)
            for lang in langs
            for split in splits
            for label in LABELS
            if not self.has(lang, split) or not any(row.label == label for row in self.rows(lang, split))
        ]

    def prompts(self, lang: str, split: str, label: str, limit: int | None = None) -> list[Row]:
        """Return the first `limit` rows with `label`; the same groups in every language.

        Raises `DatasetFolderError` where there are none.
        """
        rows = [row for row in self.rows(lang, split) if row.label == label]
        if not rows:
            raise DatasetFolderError(f"'{self.path}' holds no {label} prompts in '{lang}', split {split}")
        return rows[:limit]

    def require_prompts(self, langs: Sequence[str], splits: Sequence[str]) -> None:
        """Raise `DatasetFolderError`, naming all of them, where there is no prompt of a label in a split."""
        gaps = [
            f"{label} prompts in '{lang}', split {split}" for lang, split, label in self.gaps(langs, splits)
        ]
        if gaps:
            raise DatasetFolderError(
                f"'{self.path}' holds no {'; no '.join(gaps)}; leave these languages out of --langs"
            )

    def prompts_digest(self, lang: str) -> str:
        """Return a sha256 of the prompts in `lang`, whatever else the folder holds."""
        hashed = hashlib.sha256()
        for split in SPLITS:
            rows = self.rows(lang, split) if self.has(lang, split) else []
            for row in rows:
                hashed.update(json.dumps([split, row.id, row.group, row.label, row.text]).encode("utf-8"))
        return hashed.hexdigest()

    def texts_by_id(self, lang: str, split: str) -> dict[str, str]:
        """Return the prompts of one language and split by the id of their row."""
        return {row.id: row.text for row in self.rows(lang, split)}


def open_data(folder: str | Path, langs: Sequence[str] = ()) -> DataFolder:
    """Return the build in `folder`, which must hold all of `langs`.

    Raises `DatasetFolderError` where there is no complete build, or a language is missing.
    """
    from polyrefuse_data.build.package import read_manifest

    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetFolderError(
            f"no folder '{folder}'; make one with: polyrefuse build --recipe sample --out {folder}"
        )
    manifest = read_manifest(folder)
    if not manifest["complete"]:
        raise DatasetFolderError(f"'{folder}' is a build that is not complete; run polyrefuse build again")
    register_recorded(manifest, folder)
    data = DataFolder(folder, manifest["digest"], manifest["recipe"]["name"])
    data.require(langs)
    return data
