"""Directions from elsewhere: those of another run of the same model, or found on another build.

So a data set of test prompts alone, such as one's own, can be measured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyrefuse_data.core.errors import DatasetFolderError
from polyrefuse_data.core.files import write_bytes
from polyrefuse_data.core.languages import parse_languages
from polyrefuse_eval.errors import ChatModelError, DirectionError, RunFolderError
from polyrefuse_eval.results.data import DataFolder, open_data
from polyrefuse_eval.results.files import read_content
from polyrefuse_eval.results.folder import RUN_FILE, RunFolder, differences
from polyrefuse_eval.results.growth import GROWING
from polyrefuse_eval.results.settings import RunSettings
from polyrefuse_eval.results.sources import ALL, base_of, fitted_sources, parse_sources

DIGEST_LENGTH = 32

BASIS = ("model", "data", "settings")
"""Parts of a run's signature that its directions depend on."""


@dataclass(frozen=True, kw_only=True)
class DirectionSource:
    """Where directions come from: the `run` that has found them, or the build `data` to find them on.

    `identity` is what settings hold of it: `run:DIGEST` or `build:DIGEST`, of what its directions depend on.
    """

    identity: str
    run: Path | None = None
    data: DataFolder | None = None

    def select(self, directions: str, langs: Sequence[str]) -> list[str]:
        """Return the sources that `directions` names for a run of `langs`; raises `PolyRefuseError` where one
        of the directions that they need is not there."""
        if self.data is not None:
            return parse_sources(directions, langs, self.data.select)
        if directions == ALL:
            return self.stored()
        wanted = parse_sources(directions, langs, parse_languages)
        there = self.stored()
        missing = [source for source in fitted_sources(wanted, langs) if source not in there]
        if missing:
            raise DirectionError(
                f"the run '{self.run}' has no direction from {', '.join(missing)} (it has "
                f"{', '.join(there) or 'none'}); name others with --directions"
            )
        return wanted

    def over_refusal_from(self, sources: Sequence[str]) -> str | None:
        """Return the contrast pairs that directions of over-refusal among `sources` of the run come from."""
        if self.run is None or all(base_of(source) is None for source in sources):
            return None
        stated = RunFolder(self.run).signature.get("settings", {}).get("over_refusal_from")
        if not isinstance(stated, str):
            raise RunFolderError(
                f"the run '{self.run}' does not say which contrast pairs its directions are of; get it again"
            )
        return stated

    def check_model(self, model: Mapping[str, Any]) -> None:
        """Raise `ChatModelError`, saying what differs, where the run's directions are of another model."""
        if self.run is None:
            return
        self._check(RunFolder(self.run).signature["model"], model)

    def check_request(self, request: Mapping[str, Any]) -> None:
        """Do the same before the model is loaded, as far as the two requests tell."""
        there = None if self.run is None else RunFolder(self.run).request
        model = None if there is None else there.get("model")
        if isinstance(model, Mapping):
            self._check(model, request["model"])

    def _check(self, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
        differing = differences(there, here)
        if differing:
            raise ChatModelError(
                f"the directions of '{self.run}' are of another model ({'; '.join(differing)}); give a run "
                "of this model, or a build to find them on"
            )

    def check_files(self, settings: RunSettings) -> None:
        """Raise `DirectionError` where a run lacks what `settings` need besides its directions."""
        if settings.controls:
            self.check_control(settings.fitted_sources[0])
        if settings.has_gates:
            self.check_gates(settings.fitted_sources)

    def check_control(self, first: str) -> None:
        """Raise `DirectionError` where a run has no shuffled-label control of the direction of `first`."""
        if self.run is not None and not (self.run / f"directions/{first}.shuffled.safetensors").is_file():
            raise DirectionError(
                f"the run '{self.run}' has no control of the direction of '{first}'; name another first in "
                "--directions, or give --no-controls"
            )

    def check_gates(self, sources: Sequence[str]) -> None:
        """Raise `DirectionError` where a run has no gates, which conditional interventions need."""
        if self.run is None:
            return
        missing = [
            name for name in sources if not (self.run / f"directions/{name}.gate.safetensors").is_file()
        ]
        if missing:
            raise DirectionError(
                f"the run '{self.run}' made no conditional intervention with the direction of "
                f"{', '.join(missing)}; leave them out of --interventions, or give a build"
            )

    def copy(self, out: Path, sources: Sequence[str]) -> None:
        """Copy the directions of `sources` and what belongs to them into the run in `out`.

        What is there already stays. Does nothing where they are to be found on a build.
        """
        if self.run is None:
            return
        for source in sources:
            for name in (
                f"refusal_tokens/{source}.json",
                f"scores/{source}.json",
                f"directions/{source}.all.safetensors",
                f"directions/{source}.shuffled.safetensors",
                f"directions/{source}.gate.safetensors",
                f"directions/{source}.safetensors",
            ):
                file = self.run / name
                if file.is_file() and not (out / name).is_file():
                    write_bytes(out / name, read_content(file), error=RunFolderError)

    def stored(self) -> list[str]:
        """Return the sources whose directions the run holds, in its order."""
        if self.run is None:
            return []
        names = {file.name.removesuffix(".safetensors") for file in self.run.glob("directions/*.safetensors")}
        settings = RunFolder(self.run).signature.get("settings", {})
        listed = fitted_sources(settings.get("direction_langs", []), settings.get("langs", []))
        return [source for source in listed if source in names]


def open_direction_source(folder: Path) -> DirectionSource:
    """Return the source in `folder`, a run or a build.

    Raises `RunFolderError` for a run without directions, and `DatasetFolderError` where it is neither.
    """
    if not (folder / RUN_FILE).is_file():
        try:
            data = open_data(folder)
        except DatasetFolderError as error:
            raise DatasetFolderError(
                f"--directions-from '{folder}' is not a run (no {RUN_FILE} in it), and as a build: {error}"
            ) from None
        return DirectionSource(identity=f"build:{data.digest[:DIGEST_LENGTH]}", data=data)
    signature = RunFolder(folder).signature
    lacking = [name for name in BASIS if not isinstance(signature.get(name), Mapping)]
    if lacking:
        raise RunFolderError(
            f"the signature of the run '{folder}' lacks {', '.join(lacking)}; name a run of `eval run`"
        )
    settings = {name: value for name, value in signature["settings"].items() if name not in GROWING}
    basis = json.dumps([signature["model"], signature["data"], settings], sort_keys=True)
    digest = hashlib.sha256(basis.encode("utf-8")).hexdigest()[:DIGEST_LENGTH]
    source = DirectionSource(identity=f"run:{digest}", run=folder)
    if not source.stored():
        raise RunFolderError(
            f"the run '{folder}' has no directions yet; finish it with the command that made it"
        )
    return source
