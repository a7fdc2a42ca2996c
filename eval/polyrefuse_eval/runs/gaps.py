"""What the data of a run lack, known before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_data.core.schema import LABELS

if TYPE_CHECKING:
    from polyrefuse_eval.results.data import DataFolder
    from polyrefuse_eval.results.settings import RunSettings
    from polyrefuse_eval.runs.direction_source import DirectionSource


def say_gaps(
    data: DataFolder,
    settings: RunSettings,
    say: Callable[[str], None],
    elsewhere: DirectionSource | None = None,
) -> None:
    """Say which test prompts the data lacks: their rates will be missing. Directions may be from `elsewhere`.

    Raises `DatasetFolderError`, naming all of them, where a language lacks the prompts that its direction
    needs, or has no test prompts at all.
    """
    from polyrefuse_eval.results.sources import languages_of

    fitted = settings.fitted_sources
    sources = list(dict.fromkeys(lang for source in fitted for lang in languages_of(source, settings.langs)))
    if elsewhere is None:
        needed = _missing_prompts(data, sources)
    elif elsewhere.data is not None and (missing := _missing_prompts(elsewhere.data, sources)):
        raise DatasetFolderError(
            f"--directions-from '{elsewhere.data.path}' holds no {'; no '.join(missing)}; name others with "
            "--directions"
        )
    else:
        needed = []
    gaps = data.gaps(settings.langs, ("test",))
    needed += [
        f"test prompts in '{lang}'"
        for lang in settings.langs
        if all((lang, "test", label) in gaps for label in LABELS)
    ]
    if needed:
        raise DatasetFolderError(
            f"'{data.path}' holds no {'; no '.join(needed)}; leave these languages out of --langs or "
            "--directions, or take directions from another run or build with --directions-from"
        )
    for lang, _, label in gaps:
        say(f"no {label} test prompts in '{lang}': its rates on {label} prompts will be missing")


def _missing_prompts(data: DataFolder, sources: Sequence[str]) -> list[str]:
    """Return which training and validation prompts of the languages `sources` the data lack."""
    return [
        f"{label} prompts in '{lang}', split {split}"
        for lang, split, label in data.gaps(sources, ("train", "validation"))
    ]
