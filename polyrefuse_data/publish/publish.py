"""Publish a release to the Hub: one commit against the revision that was read, verified by reading it back.

In this order, so that an interruption anywhere leaves the old version or the new one, and running again
finishes: look at the folder, look at the Hub, create the repository private, turn gating on, commit
everything at once, read everything back and compare, tag, and only then make public, if that was asked for.
A commit whose files do not come back as they were sent is undone. A Space has neither gate nor tags.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from polyrefuse_data.core.errors import PublishError
from polyrefuse_data.core.files import temporary_folder
from polyrefuse_data.core.paths import file_sha256
from polyrefuse_data.publish.hub import HubDataset, HubRepository, HubSpace, RemoteFile
from polyrefuse_data.publish.hub_errors import HubError
from polyrefuse_data.publish.local_release import build_release, results_release
from polyrefuse_data.publish.plan import Plan, PublishRequest, make_plan
from polyrefuse_data.publish.site import plan_site, site_release

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from polyrefuse_data.publish.hub import Operation

READERS = 4
"""Files that are read back at the same time."""

UNREAD = "the files are there, but were not all read back"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PublishResult:
    """The commit that holds the release, and how many files were sent and read back."""

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
        with temporary_folder() as workspace:
            return _publish(request, workspace, api, progress)
    except OSError as error:
        raise PublishError(
            f"cannot read or write {error.filename or 'a temporary file'}: {error.strerror or error}; "
            "fix that and run again to finish"
        ) from None


def _publish(
    request: PublishRequest, workspace: Path, api: HfApi | None, progress: Progress
) -> PublishResult:
    if request.site:
        release = site_release(request.folder, workspace)
    elif request.results:
        release = results_release(request.folder, workspace)
    else:
        release = build_release(request.folder, request.allow_gaps)
    hub = HubSpace(request.to, api) if request.site else HubDataset(request.to, api)
    if not request.dry_run or hub.has_token:
        hub.check_token()
    progress("comparing", 0, 1)
    if isinstance(hub, HubSpace):
        plan = plan_site(request, release, hub)
    else:
        plan = make_plan(request, release, hub, workspace)
    if request.dry_run:
        return PublishResult(plan)
    return _carry_out(plan, hub, progress)


def _carry_out(plan: Plan, hub: HubRepository, progress: Progress) -> PublishResult:
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
        before = _content_before(plan, hub, state.head)
        progress("sending", 0, len(plan.send))
        commit = _commit(plan, hub, state.head)
        progress("sending", len(plan.send), len(plan.send))
    wrong = _read_back(plan, hub, commit, progress)
    if wrong:
        _undo(plan, hub, state.head, commit, wrong, before)
    if plan.tag is not None and plan.tag not in state.tags:
        hub.tag(plan.tag, commit, plan.label)
    if plan.make_public:
        hub.change_settings(private=False)
    return PublishResult(plan, commit, len(plan.send), len(plan.release.files))


def _commit(plan: Plan, hub: HubRepository, parent: str) -> str:
    """Make the commit; if its answer is lost, look whether it is there."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[Operation] = [CommitOperationDelete(path_in_repo=name) for name in plan.delete]
    operations += [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in plan.send.items()
    ]
    try:
        return hub.commit(operations, parent, plan.label)
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


def _read_back(plan: Plan, hub: HubRepository, commit: str, progress: Progress) -> list[str]:
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


def _comes_back(hub: HubRepository, name: str, commit: str, sha256: str) -> bool:
    # Twice before it counts, for an error of the transfer is not one of what is stored.
    for _ in range(2):
        with hub.downloaded(name, commit, lost=UNREAD) as path:
            if file_sha256(path) == sha256:
                return True
    return False


def _content_before(plan: Plan, hub: HubRepository, head: str) -> dict[str, bytes | None]:
    """Return what the files that will be overwritten or removed hold now: None for those in large storage.

    Those the Hub itself can put back. The others (card, manifest, ...: small) are read before, and compared
    with what the Hub lists, for a Hub that alters files must not be asked for them when it matters.
    """
    before: dict[str, bytes | None] = {}
    listed = hub.files(head)
    for name in [*plan.send, *plan.delete]:
        if name not in listed:
            continue
        if listed[name].sha256 is not None:
            before[name] = None
            continue
        with hub.downloaded(name, head) as path:
            if not listed[name].is_same_as(path):
                raise PublishError(
                    f"{hub.name}: {name} does not come back as the Hub lists it; nothing was published: "
                    "inspect it before you continue"
                )
            before[name] = path.read_bytes()
    return before


def _undo(
    plan: Plan,
    hub: HubRepository,
    parent: str,
    commit: str,
    wrong: list[str],
    before: Mapping[str, bytes | None],
) -> None:
    """Put the old version back on main and raise."""
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

    names = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
    said = f"{hub.name}: {names} came back with a different sha256"
    if commit == parent:
        raise PublishError(
            f"{said}, though nothing was sent now: the Hub serves altered files; inspect them "
            "before you use them"
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
    title = f"Undo {plan.label}: {len(wrong)} files did not come back as they were sent"
    try:
        hub.commit(operations, commit, title)
    except HubError as error:
        if not (error.may_have_happened and _undone(plan, hub, parent, commit)):
            raise PublishError(
                f"{said}, and the old version could not be put back ({error}); {plan.label} is not published"
            ) from None
    raise PublishError(f"{said}; the old version was put back and nothing was tagged: run again")


def _undone(plan: Plan, hub: HubRepository, parent: str, commit: str) -> bool:
    """Return whether main lists the old files again, after the answer to the undoing commit was lost."""
    try:
        state = hub.state()
        if state is None or state.head == commit:
            return False
        old, now = hub.files(parent), hub.files(state.head)
    except HubError:
        return False
    return all(old.get(name) == now.get(name) for name in [*plan.send, *plan.delete])
