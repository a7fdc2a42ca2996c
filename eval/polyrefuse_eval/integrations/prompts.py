"""Load prompts for other evaluation tools, from a local build or from the data set on the Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from polyrefuse_data.build.loader import FOLDER_VARIABLE, default_folder
from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_eval.results.data import open_data

_ON_HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?")


@dataclass(frozen=True)
class HarnessPrompt:
    """A prompt; its `id` and `group` are the same in all languages."""

    id: str
    group: str
    lang: str
    label: str
    text: str


def harness_prompts(
    lang: str, label: str = "harmful", split: str = "test", source: str | None = None
) -> list[HarnessPrompt]:
    """Return the prompts of one language, label and split, in published order.

    `source` is the folder of a build, or `OWNER/NAME[@REVISION]` on the Hub, which `datasets` loads with
    the user's credentials; by default $POLYREFUSE_DATA, otherwise a build under ./builds. Raises
    `DatasetFolderError` where it holds no data set.
    """
    place = source or os.environ.get(FOLDER_VARIABLE)
    on_hub = None if place is None or Path(place).exists() else _ON_HUB.fullmatch(place)
    if on_hub:
        return list(_from_hub(on_hub["name"], on_hub["revision"], lang, label, split))
    folder = Path(place) if place is not None else default_folder()
    return [
        HarnessPrompt(row.id, row.group, row.lang, row.label, row.text)
        for row in open_data(folder, [lang]).prompts(lang, split, label)
    ]


def _from_hub(name: str, revision: str | None, lang: str, label: str, split: str) -> Iterator[HarnessPrompt]:
    from datasets import load_dataset

    try:
        rows = load_dataset(name, lang, split=split, revision=revision)
    except Exception as error:
        # The libraries below raise errors of a dozen classes without a common base.
        raise DatasetFolderError(
            f"'{name}' is not a folder, and cannot be loaded from the Hub "
            f"({type(error).__name__}: {next(iter(str(error).splitlines()), '')}); accept its terms on its "
            f"page and log in with `hf auth login`, or point {FOLDER_VARIABLE} at a build"
        ) from error
    labels = rows.features["label"].names
    for row in rows:
        if labels[row["label"]] == label:
            yield HarnessPrompt(row["id"], row["group"], row["lang"], label, row["text"])
