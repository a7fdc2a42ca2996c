"""What a leaderboard's folder would send to a static Space: the files that it lists, and a card.

Nothing else of the folder is read. Without a version: a site replaces the one before, which the Space's
history keeps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyrefuse_data.build.card import render_template
from polyrefuse_data.build.companions import CARD
from polyrefuse_data.core.contents import read_utf8
from polyrefuse_data.core.display import counted, visible
from polyrefuse_data.core.errors import PublishError
from polyrefuse_data.core.files import write_text
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.core.paths import file_sha256, inside
from polyrefuse_data.publish.completion_guard import refuse_completions
from polyrefuse_data.publish.hub import STATIC, HubSpace, RemoteFile, RemoteState
from polyrefuse_data.publish.local_release import LocalRelease, files_left_out
from polyrefuse_data.publish.plan import Plan, PublishRequest

INDEX = "leaderboard.json"
"""The file of a leaderboard that names all others with their sha256."""

PAGE = "index.html"
FORMAT_PREFIX = "polyrefuse-leaderboard-"
WRITTEN = re.compile(r"index\.html|leaderboard\.(md|csv)|data/[A-Za-z0-9_-][A-Za-z0-9._-]*\.json")
"""Files that `polyrefuse eval leaderboard` writes beside the index."""

TEMPLATE_FILES = frozenset({CARD, PAGE, "style.css"})
"""Files with which the Hub creates a static Space."""

NO_SITE = "expected the folder of a leaderboard (make one with `polyrefuse eval leaderboard RUNS --out SITE`)"


def site_release(folder: Path, workspace: Path) -> LocalRelease:
    """Return the release of the leaderboard in `folder`, with a card that is written into `workspace`.

    Raises `PublishError` for a folder of something else, and for files that were changed since they were
    written.
    """
    if not (folder / PAGE).is_file() or not (folder / INDEX).is_file():
        raise PublishError(f"{folder}: no {PAGE} and {INDEX} in it; {NO_SITE}")
    index = _read_index(folder)
    hashes = dict(index["sha256"])
    foreign = sorted(name for name in hashes if not WRITTEN.fullmatch(name))
    files = {name: inside(folder, name, error=PublishError) for name in hashes if name not in foreign}
    if foreign or PAGE not in files:
        raise PublishError(f"{folder}: {INDEX} names {foreign[0] if foreign else f'no {PAGE}'}; {NO_SITE}")
    changed = sorted(
        name
        for name, path in files.items()
        if path.is_symlink() or not path.is_file() or file_sha256(path) != hashes[name]
    )
    if changed:
        raise PublishError(
            f"{folder}: {changed[0]} is not as it was written ({counted(len(changed), 'file')}); write the "
            "leaderboard again: polyrefuse eval leaderboard RUNS --out SITE"
        )
    files[INDEX] = folder / INDEX
    for name, path in files.items():
        refuse_completions(path, f"{folder}/{name}")
    files[CARD] = workspace / CARD
    write_text(
        files[CARD],
        render_template(
            "space.md.j2",
            runs=[visible(name).replace("`", "'") for name in sorted(index["entries"])],
            index=INDEX,
        ),
        error=PublishError,
    )
    hashes |= {name: file_sha256(files[name]) for name in (INDEX, CARD)}
    return LocalRelease(
        "PolyRefuse leaderboard", files, hashes, index, False, files_left_out(folder, set(files) - {CARD})
    )


def plan_site(request: PublishRequest, release: LocalRelease, hub: HubSpace) -> Plan:
    """Return what publishing a leaderboard would do; raises `PublishError` for what it must not do."""
    _check_options(request)
    state = hub.state()
    if state is not None and state.sdk not in (STATIC, None):
        raise PublishError(
            f"{hub.name} is a Space of the SDK {state.sdk}, and a leaderboard needs a {STATIC} one; publish "
            "to another name, which is created"
        )
    there = hub.files(state.head) if state else {}
    ours = _site_files(hub, state, there)
    files = release.files
    same = {name for name, path in files.items() if name in there and there[name].is_same_as(path)}
    return Plan(
        name=request.to,
        release=release,
        state=state,
        version=None,
        send={name: path for name, path in sorted(files.items()) if name not in same},
        delete=tuple(sorted(ours - set(files))),
        same=tuple(sorted(same)),
        kept=tuple(sorted(set(there) - ours - set(files))),
        gate=None,
        make_public=request.public and (state is None or state.private),
        differences=None,
        sizes={name: path.stat().st_size for name, path in files.items()},
    )


def _read_index(folder: Path) -> Mapping[str, Any]:
    """Return `leaderboard.json`; raises `PublishError` where it is none."""
    try:
        index = None if (folder / INDEX).is_symlink() else parse_json(read_utf8(folder / INDEX))
    except (OSError, ValueError):
        index = None
    if (
        not isinstance(index, dict)
        or not str(index.get("format")).startswith(FORMAT_PREFIX)
        or not isinstance(index.get("entries"), dict)
        or not isinstance(index.get("sha256"), dict)
    ):
        raise PublishError(f"{folder}: {INDEX} is not that of a leaderboard; {NO_SITE}")
    return index


def _check_options(request: PublishRequest) -> None:
    """Raise `PublishError` for options that mean nothing for a Space."""
    given = {
        "--results": request.results,
        "--gated": request.gated,
        "--ungated": request.ungated,
        "--allow-gaps": request.allow_gaps,
        "--version": request.version,
    }
    wrong = next((name for name, value in given.items() if value), None)
    if wrong:
        raise PublishError(f"{wrong} and --site at once: a Space has neither gate nor version; leave it out")


def _site_files(hub: HubSpace, state: RemoteState | None, there: Mapping[str, RemoteFile]) -> set[str]:
    """Return the files that a leaderboard put into the Space, or the Hub when it created that.

    Raises `PublishError` for a Space of something else.
    """
    if state is None or not set(there) - {CARD}:
        return set(there)
    if INDEX in there:
        with hub.downloaded(INDEX, state.head) as path:
            try:
                index = parse_json(path.read_text(encoding="utf-8"))
                if str(index["format"]).startswith(FORMAT_PREFIX):
                    return set(there) & {*index["sha256"], INDEX, CARD}
            except (ValueError, KeyError, TypeError):
                pass
    elif set(there) <= TEMPLATE_FILES and hub.has_one_commit():
        return set(there)
    some = ", ".join(sorted(set(there) - {CARD})[:3])
    raise PublishError(
        f"{hub.name} holds files that are not of a leaderboard ({some}); publish to another name, or empty it"
    )
