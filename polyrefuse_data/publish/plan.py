"""Plan a publication: files to send, version, gate; read from the Hub, where nothing changes yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from polyrefuse_data.build.companions import CARD
from polyrefuse_data.build.package import MANIFEST
from polyrefuse_data.core.errors import PublishError
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.core.paths import file_sha256, normalise_paths
from polyrefuse_data.publish.changelog import changelog, entry, first_entry
from polyrefuse_data.publish.differences import MINOR, NONE, PATCH, Differences, bumped, compare
from polyrefuse_data.publish.hub import HubDataset, RemoteFile, RemoteState
from polyrefuse_data.publish.local_release import LocalRelease
from polyrefuse_data.publish.snapshots import (
    FolderSnapshot,
    HubSnapshot,
    Version,
    latest_version,
    parse_version,
    version_tag,
)

CHANGELOG = "CHANGELOG.md"
"""Made when publishing, for it tells what changed since the last version; all else comes from the build."""

FIRST_VERSION: Version = (1, 0, 0)


@dataclass(frozen=True)
class PublishRequest:
    """What to publish where; see `polyrefuse publish --help` for each."""

    folder: Path
    to: str
    gated: str | None = None
    ungated: bool = False
    public: bool = False
    allow_gaps: bool = False
    version: str | None = None
    results: bool = False
    site: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        normalise_paths(self, "folder")


@dataclass(frozen=True)
class Plan:
    """What publishing would do, known before anything is sent."""

    name: str
    release: LocalRelease
    state: RemoteState | None
    version: Version | None
    """None for a Space, which has no versions."""
    send: Mapping[str, Path]
    delete: tuple[str, ...]
    same: tuple[str, ...]
    kept: tuple[str, ...]
    """Files on the Hub that no release put there; they are left alone."""

    gate: str | None
    make_public: bool
    differences: Differences | None
    sizes: Mapping[str, int]
    """Bytes of every file of the release."""

    @property
    def tag(self) -> str | None:
        """The tag of the version, None without one."""
        return None if self.version is None else version_tag(self.version)

    @property
    def label(self) -> str:
        """What is published, in messages of commits and tags."""
        return self.release.title if self.tag is None else f"{self.release.title}, {self.tag}"

    @property
    def bytes_to_send(self) -> int:
        return sum(self.sizes[name] for name in self.send)

    @property
    def tagged(self) -> bool:
        """Whether the version is tagged on the Hub; a Space needs no tag."""
        return self.state is not None and (self.tag is None or self.tag in self.state.tags)

    @property
    def nothing_to_do(self) -> bool:
        """Whether files, tag, gate and visibility are on the Hub as asked for."""
        return not (self.send or self.delete or self.gate or self.make_public) and self.tagged


def make_plan(request: PublishRequest, release: LocalRelease, hub: HubDataset, workspace: Path) -> Plan:
    """Return what publishing would do; raises `PublishError` for what it must not do."""
    state = hub.state()
    public = request.public or (state is not None and not state.private)
    gate = request.gated if request.gated and (state is None or state.gated != request.gated) else None
    gated = request.gated or (state is not None and state.gated)
    if release.has_prompts and public and not gated and not request.ungated:
        raise PublishError(
            f"{request.to} would be public without a gate; add --gated manual (or auto), or --ungated if "
            "that is meant"
        )
    there = hub.files(state.head) if state else {}
    ours = _published_files(hub, state, there, release)
    base = latest_version(state.tags) if state else None
    version, differences, older = _version(request, release, hub, base)
    (workspace / CHANGELOG).write_text(
        _changelog(release, version, base, differences, older), encoding="utf-8"
    )
    files = {**release.files, CHANGELOG: workspace / CHANGELOG}
    same = {name for name, path in files.items() if name in there and there[name].is_same_as(path)}
    return Plan(
        name=request.to,
        release=replace(
            release, files=files, sha256={**release.sha256, CHANGELOG: file_sha256(workspace / CHANGELOG)}
        ),
        state=state,
        version=version,
        send={name: path for name, path in sorted(files.items()) if name not in same},
        delete=tuple(sorted(ours - set(files))),
        same=tuple(sorted(same)),
        kept=tuple(sorted(set(there) - ours - set(files))),
        gate=gate,
        make_public=request.public and (state is None or state.private),
        differences=differences,
        sizes={name: path.stat().st_size for name, path in files.items()},
    )


def _published_files(
    hub: HubDataset, state: RemoteState | None, there: Mapping[str, RemoteFile], release: LocalRelease
) -> set[str]:
    """Return the files that a release put there; raises `PublishError` for a data set of something else."""
    if state is None or not set(there) - {CARD}:
        return set(there)
    if MANIFEST not in there:
        some = ", ".join(sorted(there)[:3])
        raise PublishError(
            f"{hub.name} holds files that polyrefuse did not publish ({some}); publish to another name, or "
            "empty it"
        )
    with hub.downloaded(MANIFEST, state.head) as path:
        try:
            manifest = parse_json(path.read_text(encoding="utf-8"))
            listed, form = set(manifest["files"]), manifest["format"]
        except (ValueError, KeyError, TypeError):
            raise PublishError(
                f"{hub.name} has a {MANIFEST} that polyrefuse did not write; publish to another name"
            ) from None
    if form != release.manifest["format"]:
        kind, other = ("results", "a build") if release.has_prompts else ("a build", "results")
        raise PublishError(f"{hub.name} holds {kind}; publish {other} to another name")
    return {name for name in there if name in listed or name in (MANIFEST, CHANGELOG)}


def _version(
    request: PublishRequest, release: LocalRelease, hub: HubDataset, base: tuple[Version, str] | None
) -> tuple[Version, Differences | None, str]:
    """Return the version to publish, what changed since the last (None for the first), its changelog."""
    given = None
    if request.version is not None:
        given = parse_version(request.version)
        if given is None:
            raise PublishError(f"--version {request.version}; expected three numbers, as 1.0.0")
    if base is None:
        return given or FIRST_VERSION, None, ""
    last, commit = base
    older = hub.files(commit)
    text = ""
    if CHANGELOG in older:
        with hub.downloaded(CHANGELOG, commit) as path:
            text = path.read_text(encoding="utf-8")
    if release.has_prompts:
        differences = compare(HubSnapshot(hub, commit, last), FolderSnapshot(request.folder))
        differences.old = f"{hub.name}@{version_tag(last)}"
        changed = differences.bump
    else:
        differences = Differences(f"{hub.name}@{version_tag(last)}", str(request.folder), old_version=last)
        differences.files = [
            name
            for name, path in sorted(release.files.items())
            if name not in older or not older[name].is_same_as(path)
        ]
        changed = MINOR if differences.files else NONE
    if changed == NONE and MANIFEST in older and older[MANIFEST].is_same_as(release.files[MANIFEST]):
        if given not in (None, last):
            raise PublishError(
                f"{hub.name} has these files as {version_tag(last)}; {version_tag(given or last)} would be "
                "the same"
            )
        return last, differences, text
    version = given or bumped(last, PATCH if changed == NONE else changed)
    if version == last:
        raise PublishError(
            f"{hub.name} has a version {version_tag(last)} already, with other files; leave --version out "
            "for the next one"
        )
    if version < last:
        raise PublishError(
            f"--version {version_tag(version)} comes before {version_tag(last)}, which is published"
        )
    return version, differences, text


def _changelog(
    release: LocalRelease,
    version: Version,
    base: tuple[Version, str] | None,
    differences: Differences | None,
    older: str,
) -> str:
    if base is not None and version == base[0]:
        return older
    if differences is None:
        lines = first_entry(release.manifest)
    elif release.has_prompts:
        lines = entry(differences)
    else:
        lines = [f"- Files changed or added: {', '.join(differences.files)}."]
    return changelog(older, version, release.manifest["digest"], lines)
