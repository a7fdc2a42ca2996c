"""Publish a release to the Hub: one commit against the revision that was read, verified by reading it back.

In this order, so that an interruption anywhere leaves the old version or the new one, and running again
finishes: look at the folder, look at the Hub, create the data set private, turn gating on, commit everything
at once, read everything back and compare, tag, and only then make public, if that was asked for. A commit
whose files do not come back as they were sent is undone.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from polyrefuse_data.changelog import changelog, entry, first_entry
from polyrefuse_data.companions import CARD
from polyrefuse_data.differences import MINOR, NONE, Differences, bumped, compare
from polyrefuse_data.errors import PublishError
from polyrefuse_data.hub import HubDataset, HubError, RemoteFile, RemoteState
from polyrefuse_data.local_release import LocalRelease, build_release, results_release
from polyrefuse_data.package import MANIFEST, file_sha256
from polyrefuse_data.snapshots import (
    FolderSnapshot,
    HubSnapshot,
    Version,
    latest_version,
    parse_version,
    version_tag,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from polyrefuse_data.hub import Operation

CHANGELOG = "CHANGELOG.md"
"""Made when publishing, for it tells what changed since the last version; all else comes from the build."""

FIRST_VERSION: Version = (1, 0, 0)
READERS = 4
"""Files that are read back at the same time."""

UNREAD = "the files are there, but were not all read back"

Progress = Callable[[str, int, int], None]


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
    dry_run: bool = False


@dataclass(frozen=True)
class Plan:
    """What publishing would do, known before anything is sent."""

    name: str
    release: LocalRelease
    state: RemoteState | None
    version: Version
    send: Mapping[str, Path]
    delete: tuple[str, ...]
    same: tuple[str, ...]
    kept: tuple[str, ...]
    """Files on the Hub that no release of ours put there; they are left alone."""

    gate: str | None
    make_public: bool
    differences: Differences | None
    sizes: Mapping[str, int]
    """Bytes of every file of the release."""

    @property
    def tag(self) -> str:
        return version_tag(self.version)

    @property
    def bytes_to_send(self) -> int:
        return sum(self.sizes[name] for name in self.send)

    @property
    def tagged(self) -> bool:
        return self.state is not None and self.tag in self.state.tags

    @property
    def nothing_to_do(self) -> bool:
        """Whether files, tag, gate and visibility are on the Hub as asked for."""
        return not (self.send or self.delete or self.gate or self.make_public) and self.tagged


@dataclass(frozen=True)
class PublishResult:
    """What was done: the commit that holds the release, and how many files were sent and read back."""

    plan: Plan
    commit: str | None = None
    sent: int = 0
    verified: int = 0


def publish(
    request: PublishRequest, api: HfApi | None = None, progress: Progress = lambda what, done, total: None
) -> PublishResult:
    """Publish and verify; after a `PolyRefuseError` the Hub shows the old version or the new one."""
    if request.gated not in (None, "auto", "manual"):
        raise PublishError(f"--gated {request.gated}; expected auto or manual")
    if request.gated and request.ungated:
        raise PublishError("--gated and --ungated at once; choose one")
    try:
        with tempfile.TemporaryDirectory(prefix="polyrefuse-") as folder:
            return _publish(request, Path(folder), api, progress)
    except OSError as error:
        raise PublishError(
            f"cannot read or write {error.filename or 'a temporary file'}: {error.strerror or error}; "
            "mend that and run again to finish"
        ) from None


def _publish(
    request: PublishRequest, workspace: Path, api: HfApi | None, progress: Progress
) -> PublishResult:
    if request.results:
        release = results_release(request.folder, workspace)
    else:
        release = build_release(request.folder, request.allow_gaps)
    hub = HubDataset(request.to, api)
    if not request.dry_run or hub.has_token:
        hub.check_token()
    progress("comparing", 0, 1)
    plan = make_plan(request, release, hub, workspace)
    if request.dry_run:
        return PublishResult(plan)
    return _carry_out(plan, hub, progress)


def make_plan(request: PublishRequest, release: LocalRelease, hub: HubDataset, workspace: Path) -> Plan:
    """Look at the Hub and return what publishing would do; raises `PublishError` for what it must not do."""
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
    """Return the files that a release of ours put there; raises for a data set that is not ours."""
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
            manifest = json.loads(path.read_text(encoding="utf-8"))
            listed, form = set(manifest["files"]), manifest["format"]
        except (ValueError, KeyError, TypeError):
            raise PublishError(
                f"{hub.name} has a {MANIFEST} that is not ours; publish to another name"
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
    version = given or bumped(last, "patch" if changed == NONE else changed)
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
        lines = [f"- Files that changed or came: {', '.join(differences.files)}."]
    return changelog(older, version, release.manifest["digest"], lines)


def _carry_out(plan: Plan, hub: HubDataset, progress: Progress) -> PublishResult:
    state = plan.state
    if state is None:
        hub.create_private()
        state = hub.state()
        if state is None:
            raise PublishError(
                f"{hub.name} was created, but the Hub does not show it yet; run again to finish"
            )
    if plan.gate is not None and state.gated != plan.gate:
        hub.change_settings(gated=plan.gate)
    commit = state.head
    before: dict[str, bytes | None] = {}
    if plan.send or plan.delete:
        before = _kept_for_undoing(plan, hub, state.head)
        progress("sending", 0, len(plan.send))
        commit = _commit(plan, hub, state.head)
        progress("sending", len(plan.send), len(plan.send))
    wrong = _read_back(plan, hub, commit, progress)
    if wrong:
        _undo(plan, hub, state.head, commit, wrong, before)
    if plan.tag not in state.tags:
        hub.tag(plan.tag, commit, f"{plan.release.title}, {plan.tag}")
    if plan.make_public:
        hub.change_settings(private=False)
    return PublishResult(plan, commit, len(plan.send), len(plan.release.files))


def _commit(plan: Plan, hub: HubDataset, parent: str) -> str:
    """Make the commit; if its answer is lost, look whether it is there."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[Operation] = [CommitOperationDelete(path_in_repo=name) for name in plan.delete]
    operations += [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in plan.send.items()
    ]
    try:
        return hub.commit(operations, parent, f"{plan.release.title}, {plan.tag}")
    except HubError as error:
        if not error.may_have_happened:
            raise
        try:
            after = hub.state()
            there = hub.files(after.head) if after and after.head != parent else None
        except HubError:
            raise error from None
        if after is not None and there is not None and _holds(plan, there):
            return after.head
        raise


def _holds(plan: Plan, there: Mapping[str, RemoteFile]) -> bool:
    """Return whether a revision lists exactly what the plan publishes."""
    files = plan.release.files
    return not set(plan.delete) & set(there) and all(
        name in there and there[name].is_same_as(path) for name, path in files.items()
    )


def _read_back(plan: Plan, hub: HubDataset, commit: str, progress: Progress) -> list[str]:
    """Read every file of the release from the Hub and return the names of those with another hash."""
    names = sorted(plan.release.files)
    wrong = []
    with ThreadPoolExecutor(READERS) as pool:
        running = {
            pool.submit(_comes_back, hub, name, commit, plan.release.sha256[name]): name for name in names
        }
        try:
            for done, future in enumerate(as_completed(running), start=1):
                if not future.result():
                    wrong.append(running[future])
                progress("reading back", done, len(names))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return sorted(wrong)


def _comes_back(hub: HubDataset, name: str, commit: str, sha256: str) -> bool:
    # Twice before it counts, for an error of the transfer is not one of what is stored.
    for _ in range(2):
        with hub.downloaded(name, commit, lost=UNREAD) as path:
            if file_sha256(path) == sha256:
                return True
    return False


def _kept_for_undoing(plan: Plan, hub: HubDataset, head: str) -> dict[str, bytes | None]:
    """Return what the files that will be overwritten or removed hold now: None for those in large storage.

    Those the Hub itself can put back. The others (card, manifest, ...: small) are read before, and compared
    with what the Hub lists, for a Hub that alters files must not be asked for them when it matters.
    """
    kept: dict[str, bytes | None] = {}
    there = hub.files(head)
    for name in [*plan.send, *plan.delete]:
        if name not in there:
            continue
        if there[name].sha256 is not None:
            kept[name] = None
            continue
        with hub.downloaded(name, head) as path:
            if not there[name].is_same_as(path):
                raise PublishError(
                    f"{hub.name}: {name} does not come back as the Hub lists it; nothing was published, "
                    "look before going on"
                )
            kept[name] = path.read_bytes()
    return kept


def _undo(
    plan: Plan,
    hub: HubDataset,
    parent: str,
    commit: str,
    wrong: list[str],
    before: Mapping[str, bytes | None],
) -> None:
    """Put the old version back on main and raise."""
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

    names = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
    said = f"{hub.name}: {names} came back with another sha256 than was sent"
    if commit == parent:
        raise PublishError(
            f"{said}, though nothing was sent now; the Hub serves altered files, look before using them"
        )
    operations: list[Operation] = []
    for name in [*plan.send, *plan.delete]:
        content = before.get(name)
        if content is not None:
            operations.append(CommitOperationAdd(path_in_repo=name, path_or_fileobj=content))
        elif name in before:
            operations.append(
                CommitOperationCopy(src_path_in_repo=name, path_in_repo=name, src_revision=parent)
            )
        else:
            operations.append(CommitOperationDelete(path_in_repo=name))
    title = f"Undo {plan.tag}: {len(wrong)} files did not come back as they were sent"
    try:
        hub.commit(operations, commit, title)
    except HubError as error:
        if not (error.may_have_happened and _undone(plan, hub, parent, commit)):
            raise PublishError(
                f"{said}, and the old version could not be put back ({error}); {plan.tag} was not tagged"
            ) from None
    raise PublishError(f"{said}; the old version was put back and nothing was tagged: run again")


def _undone(plan: Plan, hub: HubDataset, parent: str, commit: str) -> bool:
    """Return whether main lists the old files again, after the answer to the undoing commit was lost."""
    try:
        state = hub.state()
        if state is None or state.head == commit:
            return False
        old, now = hub.files(parent), hub.files(state.head)
    except HubError:
        return False
    return all(old.get(name) == now.get(name) for name in [*plan.send, *plan.delete])
