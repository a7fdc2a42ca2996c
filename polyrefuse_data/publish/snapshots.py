"""Open a version of the data set in a folder or at a revision on the Hub; files are read one at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from polyrefuse_data.build.manifest import manifest_problem
from polyrefuse_data.build.package import FORMAT, MANIFEST, altered_files, read_manifest, safe_path
from polyrefuse_data.core.errors import DatasetFolderError, PublishError
from polyrefuse_data.core.parsing import parse_json

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from polyrefuse_data.publish.hub import HubDataset

VERSION_TAG = re.compile(r"v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
"""Tags that name versions; others are ignored."""

_HUB_ADDRESS = re.compile(r"(?:hf://(?:datasets/)?)?(?P<name>[^/@:]+/[^/@:]+)(?:@(?P<revision>[^@]+))?")

Version = tuple[int, int, int]


class Snapshot(Protocol):
    """A version that can be compared: its name, manifest and files, and its number if it has one."""

    name: str
    manifest: Mapping[str, Any]
    version: Version | None

    def file(self, name: str) -> Any:
        """Return a context manager that yields the path of a local copy of the file."""


class FolderSnapshot:
    """A build in a folder."""

    version: Version | None = None

    def __init__(self, path: Path) -> None:
        self.name, self.path = str(path), path
        self.manifest: Mapping[str, Any] = read_manifest(path)
        if not self.manifest["complete"]:
            raise DatasetFolderError(
                f"{path}: the build has gaps and packaged nothing; build it with --allow-gaps"
            )
        altered = altered_files(path, self.manifest)
        if altered:
            raise DatasetFolderError(
                f"{path}: {', '.join(altered[:3])} changed after the build; build the data set again"
            )

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Yield the path of the file."""
        yield safe_path(self.path, name)


class HubSnapshot:
    """A revision on the Hub; only the files that are asked for are read."""

    def __init__(self, hub: HubDataset, revision: str, version: Version | None = None) -> None:
        self.hub, self.commit = hub, hub.commit_of(revision)
        self.name, self.version = f"{hub.name}@{revision}", version
        if MANIFEST not in hub.files(self.commit):
            raise DatasetFolderError(
                f"{self.name} has no {MANIFEST}; expected a data set that polyrefuse published"
            )
        with hub.downloaded(MANIFEST, self.commit) as path:
            self.manifest: Mapping[str, Any] = _parsed(path, self.name)

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Yield the path of a temporary copy of the file."""
        with self.hub.downloaded(name, self.commit) as path:
            yield path


def _parsed(path: Path, name: str) -> dict[str, Any]:
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetFolderError(f"the manifest of {name} cannot be read ({error})") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DatasetFolderError(
            f"the manifest of {name} is not of format {FORMAT}; was it published by polyrefuse?"
        )
    problem = manifest_problem(value)
    if problem:
        raise DatasetFolderError(f"the manifest of {name} is not that of a build ({problem})")
    return value


def parse_version(text: str) -> Version | None:
    """Return (major, minor, patch) of `1.2.3` or `v1.2.3`, else None."""
    match = VERSION_TAG.fullmatch(text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def version_tag(version: Version) -> str:
    """Return the tag of a version: `v1.2.3`."""
    return "v" + ".".join(map(str, version))


def latest_version(tags: Mapping[str, str]) -> tuple[Version, str] | None:
    """Return the highest version among tags (name -> commit) and its commit, or None if there is none."""
    versions = {
        version: commit for tag, commit in tags.items() if (version := parse_version(tag)) is not None
    }
    return max(versions.items()) if versions else None


def open_snapshot(given: str, api: HfApi | None = None) -> Snapshot:
    """Open a folder, or a revision on the Hub: `hf://NAME/DATASET@REVISION` or `NAME/DATASET@REVISION`.

    Without a revision, main. What is a folder is never looked for on the Hub. Raises `PolyRefuseError`.
    """
    if not given.startswith("hf://") and Path(given).exists():
        return FolderSnapshot(Path(given))
    match = _HUB_ADDRESS.fullmatch(given)
    if not match or (given.startswith((".", "/")) and "@" not in given):
        raise DatasetFolderError(
            f"{given}: no such folder; expected a build, or a revision on the Hub as acme/polyrefuse@v1.0.0"
        )
    from polyrefuse_data.publish.hub import HubDataset

    hub = HubDataset(match["name"], api, "nothing was compared")
    state = hub.state()
    if state is None:
        raise PublishError(
            f"{given}: no such folder, and no data set {match['name']} on the Hub that this token may see"
        )
    revision = match["revision"] or "main"
    commit = state.tags.get(revision) or (state.head if revision == "main" else revision)
    of_commit = latest_version({tag: target for tag, target in state.tags.items() if target == commit})
    version = parse_version(revision) or (of_commit[0] if of_commit else None)
    return HubSnapshot(hub, revision, version)


def read_records(snapshot: Snapshot, name: str, facts: Any) -> list[dict[str, Any]]:
    """Return the records of a Parquet file; none where the manifest has no `facts` of it."""
    if not facts:
        return []
    from polyrefuse_data.build.row_files import read_row_table

    with snapshot.file(name) as path:
        records: list[dict[str, Any]] = read_row_table(path, f"{name} of {snapshot.name}").to_pylist()
    return records
