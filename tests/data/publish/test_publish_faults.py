"""A Hub that fails in every way: one clear line, the old version or the new one; running again finishes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from hub_server import READ_TOKEN, STRANGER_TOKEN, LoopbackHub
from publishing import NAME, built_files, client, edited, retranslated, run, send, shown_files, tokens_in

from polyrefuse_data.build.package import read_manifest
from polyrefuse_data.core.errors import PublishError
from polyrefuse_data.core.paths import file_sha256
from polyrefuse_data.publish.hub import HubDataset

Arrange = Callable[[LoopbackHub], Any]


def head(hub: LoopbackHub) -> str:
    """Return the commit that is shown now, so that only later ones are struck."""
    return hub.repos[NAME].head if NAME in hub.repos else "none"


def known(hub: LoopbackHub) -> str:
    """Return a pattern of the contents that are there now."""
    return "|".join(hub.contents) or "none"


FAULTS: dict[str, tuple[Arrange, str]] = {
    "401 of a token that the Hub does not know any more": (
        lambda hub: hub.fault(
            "GET", "whoami", status=401, message="Invalid credentials in Authorization header"
        ),
        r"does not accept the token \(401\) \(.*\); make a new one with write access, set HF_TOKEN",
    ),
    "401 in the middle": (
        lambda hub: hub.fault(
            "POST", "/commit/", status=401, message="Invalid credentials in Authorization header"
        ),
        r"does not accept the token \(401",
    ),
    "403 when committing": (
        lambda hub: hub.fault("POST", "/commit/", status=403, message="no write access"),
        r"may not do this: publishing to acme/polyrefuse \(403\) \(no write access\); use one with write",
    ),
    "403 when changing the settings": (
        lambda hub: hub.fault("PUT", "/settings", status=403, message="not an admin"),
        r"may not do this: changing the settings of acme/polyrefuse \(403\) \(not an admin\)",
    ),
    "403 when pre-uploading": (
        lambda hub: hub.fault("POST", "/preupload/", status=403),
        r"may not do this: publishing to acme/polyrefuse \(403\)",
    ),
    "403 of the card's check": (
        lambda hub: hub.fault("POST", "/validate-yaml", status=403),
        r"may not do this: publishing to acme/polyrefuse \(403\)",
    ),
    "404 in the middle": (
        lambda hub: hub.fault("POST", "/preupload/", status=404, message="Repository not found"),
        r"no data set acme/polyrefuse on the Hub, or this token may not see it \(404\)",
    ),
    "409 of a commit at the same time": (
        lambda hub: hub.fault("POST", "/commit/", status=409, message="another commit is in progress"),
        r"changed by somebody else while publishing to acme/polyrefuse \(409\).*nothing was .*: run again",
    ),
    "429 of the commit": (
        lambda hub: hub.fault("POST", "/commit/", status=429, headers={"Retry-After": "120"}),
        r"the Hub's rate limit is reached \(429\), publishing .*run again after 120 seconds",
    ),
    "429 of the uploads": (
        lambda hub: hub.fault("PUT", "/lfs-store/", status=429),
        r"the Hub's rate limit is reached \(429\), publishing",
    ),
    "429 of whoami": (
        lambda hub: hub.fault("GET", "whoami", status=429),
        r"the Hub's rate limit is reached \(429\), asking who the token belongs to",
    ),
    "500 of the third upload": (
        lambda hub: hub.fault("PUT", "/lfs-store/", status=500, skip=2),
        r"the Hub failed \(500\), publishing to acme/polyrefuse .*nothing was published; run again to finish",
    ),
    "500 of the upload's check": (
        lambda hub: hub.fault("POST", "/lfs-verify/", status=500, skip=1),
        r"the Hub failed \(500\), publishing",
    ),
    "500 of the commit": (
        lambda hub: hub.fault("POST", "/commit/", status=500),
        r"the Hub failed \(500\), publishing .*nothing was published",
    ),
    "503 when listing": (
        lambda hub: hub.fault("GET", "/tree/", status=503),
        r"the Hub failed \(503\), listing acme/polyrefuse",
    ),
    "500 when tagging": (
        lambda hub: hub.fault("POST", "/tag/", status=500),
        r"the Hub failed \(500\), tagging .*the files are published, the tag is not; run again to finish",
    ),
    "409 when tagging": (
        lambda hub: hub.fault("POST", "/tag/", status=409),
        r"changed by somebody else while tagging acme/polyrefuse \(409\).*the tag is not",
    ),
    "500 when reading back": (
        lambda hub: hub.fault("GET", "/cdn/", status=500, skip=1),
        r"the Hub failed \(500\), reading .*; (nothing was published|the files are there, .*); run again",
    ),
    "a connection that drops during an upload": (
        lambda hub: hub.fault("PUT", "/lfs-store/", drop=True, skip=1),
        r"the connection to the Hub broke \(\w+\), publishing .*nothing was published; run again to finish",
    ),
    "a connection that drops before the commit": (
        lambda hub: hub.fault("POST", "/commit/", drop=True),
        r"the connection to the Hub broke \(\w+\), publishing .*nothing was published; run again to finish",
    ),
    "a connection that drops at the start": (
        lambda hub: hub.fault("GET", "/api/datasets/", drop=True),
        r"the connection to the Hub broke \(\w+\), reading acme/polyrefuse",
    ),
    "a connection that drops when reading back": (
        lambda hub: hub.fault("GET", "/cdn/", drop=True),
        r"connection to the Hub broke \(\w+\), reading .*(nothing was published|not all read back); run",
    ),
    "files that come back altered": (
        lambda hub: hub.fault("GET", f"/cdn/(?!{known(hub)})", corrupt=True),
        r"came back with a different sha256; the old version was put back and nothing was tagged",
    ),
    "a small file that comes back altered": (
        lambda hub: hub.fault("GET", f"/resolve/(?!{head(hub)})[^/]+/croissant.json", corrupt=True),
        r"acme/polyrefuse: croissant.json came back with a different sha256; the old version was",
    ),
}


def check_line(error: PublishError) -> None:
    """One line, not long, without a token."""
    assert "\n" not in str(error)
    assert len(str(error)) < 420
    assert tokens_in(str(error)) == []


@pytest.fixture(scope="module")
def new_build(small_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next version of `small_build`: other Yoruba, and other small files."""
    folder = retranslated(small_build, tmp_path_factory.mktemp("builds") / "new")
    other = tmp_path_factory.mktemp("builds") / "newer"
    files = read_manifest(folder)["files"]
    for name in ("croissant.json", "README.md"):
        text = (folder / name).read_text(encoding="utf-8").replace("harmful", "very harmful")
        (folder / name).write_text(text, encoding="utf-8")
        files[name] = {"sha256": file_sha256(folder / name), "bytes": len(text.encode())}
    return edited(folder, other, files=files)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_leaves_the_old_version_or_the_new_one(
    hub: LoopbackHub, small_build: Path, new_build: Path, name: str
) -> None:
    arrange, line = FAULTS[name]
    send(hub, small_build, gated="auto")  # so that the second time has a gate to change
    old, new = built_files(small_build), built_files(new_build)
    tags = dict(hub.repos[NAME].tags)
    arrange(hub)
    with pytest.raises(PublishError, match=line) as caught:
        send(hub, new_build)
    check_line(caught.value)
    assert shown_files(hub) in (old, new)
    if "nothing was published" in str(caught.value) or "put back" in str(caught.value):
        assert shown_files(hub) == old
    assert hub.repos[NAME].tags == tags
    hub.faults.clear()
    send(hub, new_build)
    assert shown_files(hub) == new
    assert shown_files(hub, "v1.1.0") == new
    assert hub.repos[NAME].gated == "manual"


LATER_ONLY = ("503 when listing",)
"""Faults that strike only where a data set is there already."""


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in LATER_ONLY])
def test_a_fault_of_the_first_publication(hub: LoopbackHub, small_build: Path, name: str) -> None:
    arrange, line = FAULTS[name]
    arrange(hub)
    with pytest.raises(PublishError, match=line) as caught:
        send(hub, small_build, public=True)
    check_line(caught.value)
    if NAME in hub.repos:
        assert hub.repos[NAME].private
        assert shown_files(hub) in ({}, built_files(small_build))
        assert hub.repos[NAME].tags == {}
    hub.faults.clear()
    send(hub, small_build, public=True)
    assert shown_files(hub, "v1.0.0") == built_files(small_build)
    assert not hub.repos[NAME].private


def test_a_passing_fault_is_ridden_out(hub: LoopbackHub, small_build: Path) -> None:
    hub.fault("PUT", "/lfs-store/", status=500, times=2)
    if not huggingface_hub.__version__.startswith("0."):  # which tries this request once only
        hub.fault("POST", "/preupload/", status=429, times=1, headers={"Retry-After": "1"})
    hub.fault("PUT", "/lfs-store/", drop=True, times=1, skip=4)
    send(hub, small_build)
    assert shown_files(hub, "v1.0.0") == built_files(small_build)


def test_an_error_of_the_transfer_is_not_one_of_the_store(hub: LoopbackHub, small_build: Path) -> None:
    hub.fault("GET", "/cdn/", corrupt=True, times=1)
    send(hub, small_build)
    assert shown_files(hub, "v1.0.0") == built_files(small_build)


@pytest.mark.parametrize("how", [{"drop": True}, {"status": 502}])
def test_a_commit_whose_answer_is_lost_is_found(
    hub: LoopbackHub, small_build: Path, how: dict[str, Any]
) -> None:
    hub.fault("POST", "/commit/", after=True, times=1, **how)
    result = send(hub, small_build)
    assert result.commit == hub.repos[NAME].head
    assert len(hub.repos[NAME].commits) == 2
    assert shown_files(hub, "v1.0.0") == built_files(small_build)


@pytest.mark.parametrize("how", [{"drop": True, "after": True}, {"drop": True}, {"status": 403}])
def test_undoing_that_fails_is_told(
    hub: LoopbackHub, small_build: Path, new_build: Path, how: dict[str, Any]
) -> None:
    send(hub, small_build)
    hub.fault("GET", f"/cdn/(?!{known(hub)})", corrupt=True)
    hub.fault("POST", "/commit/", skip=1, **how)
    undone = "after" in how  # only its answer was lost
    line = "the old version was put back" if undone else "the old version could not be put back"
    with pytest.raises(PublishError, match=f"came back with a different sha256.*{line}"):
        send(hub, new_build)
    assert shown_files(hub) == built_files(small_build if undone else new_build)
    assert set(hub.repos[NAME].tags) == {"v1.0.0"}


def test_a_hub_that_alters_what_is_there_is_not_published_to(
    hub: LoopbackHub, small_build: Path, new_build: Path
) -> None:
    """For then nothing could be put back."""
    send(hub, small_build)
    fault = hub.fault("GET", "/resolve/[^/]+/README.md", corrupt=True)
    with pytest.raises(
        PublishError, match=r"README.md does not come back as the Hub lists it; nothing was published"
    ):
        send(hub, new_build)
    assert fault.reached.is_set()
    assert shown_files(hub) == built_files(small_build)


def test_an_altered_file_is_seen_even_if_nothing_is_sent(hub: LoopbackHub, small_build: Path) -> None:
    send(hub, small_build)
    hub.fault("GET", "/cdn/", corrupt=True)
    with pytest.raises(PublishError, match="though nothing was sent now: the Hub serves altered files"):
        send(hub, small_build)


def test_a_parent_that_moved_is_respected(hub: LoopbackHub, small_build: Path, new_build: Path) -> None:
    send(hub, small_build)
    repo = hub.repos[NAME]

    def somebody_commits() -> None:
        repo.add("meanwhile", {**repo.resolve("main").files, "NOTE.txt": hub.blob(b"theirs", False)})  # type: ignore[union-attr]

    hub.fault("POST", "/commit/", before=somebody_commits, times=1)
    with pytest.raises(PublishError, match=r"changed by somebody else .*\(412\).*nothing was published"):
        send(hub, new_build)
    assert shown_files(hub) == {**built_files(small_build), "NOTE.txt": b"theirs"}
    send(hub, new_build)
    assert shown_files(hub) == {**built_files(new_build), "NOTE.txt": b"theirs"}


def test_a_data_set_that_comes_to_be_meanwhile(hub: LoopbackHub, small_build: Path) -> None:
    def somebody_creates() -> None:
        client(hub).create_repo(NAME, repo_type="dataset", private=True)

    hub.fault("POST", "/repos/create", before=somebody_creates, times=1)
    with pytest.raises(
        PublishError, match=r"changed by somebody else while creating acme/polyrefuse \(409\)"
    ):
        send(hub, small_build)
    send(hub, small_build)
    assert shown_files(hub) == built_files(small_build)


def test_gating_that_the_hub_does_not_turn_on_stops_everything(hub: LoopbackHub, small_build: Path) -> None:
    hub.fault("PUT", "/settings", status=200)  # says yes and does nothing
    with pytest.raises(PublishError, match="did not turn gating to 'manual'"):
        send(hub, small_build)
    assert shown_files(hub) == {}


def test_gated_for_others(hub: LoopbackHub, small_build: Path) -> None:
    send(hub, small_build, public=True)
    stranger = HubDataset(NAME, client(hub, STRANGER_TOKEN))
    with (
        pytest.raises(PublishError, match=r"is gated and this token was not granted access \(403\)"),
        stranger.downloaded("manifest.json", "main"),
    ):
        pass
    hub.repos[NAME].granted.add("stranger")
    with stranger.downloaded("manifest.json", "main") as path:
        assert path.read_bytes() == built_files(small_build)["manifest.json"]


def test_a_stranger_may_not_publish(hub: LoopbackHub, small_build: Path) -> None:
    with pytest.raises(PublishError, match=r"may not do this: creating acme/polyrefuse \(403\)"):
        send(hub, small_build, token=STRANGER_TOKEN)
    assert hub.repos == {}


@pytest.mark.parametrize(
    ("token", "line"),
    [
        (None, "no token for the Hub; make one with write access"),
        (
            READ_TOKEN,
            "the token of acme may only read; publishing to acme/polyrefuse needs one with write access",
        ),
        ("hf_unknownTokenThatMustNeverShow", "the Hub does not accept the token (401)"),
    ],
)
def test_tokens_that_do_not_do(
    hub: LoopbackHub, small_build: Path, tmp_path: Path, token: str | None, line: str
) -> None:
    done = run(
        hub, tmp_path, "publish", small_build, "--to", NAME, "--gated", "manual", token=token, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"Error: {line}"), done.stderr
    assert done.stderr.count("\n") == 1
    assert hub.repos == {}
    assert (token or "hf_") not in done.stdout + done.stderr
    assert tokens_in(done.stdout, done.stderr, tmp_path) == []


def test_a_hub_that_is_not_there(hub: LoopbackHub, small_build: Path, tmp_path: Path) -> None:
    hub._server.server_close()
    done = run(hub, tmp_path, "publish", small_build, "--to", NAME, "--gated", "manual", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: the Hub at http://127.0.0.1")
    assert "cannot be reached" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_error_in_the_middle_does_not_show_the_token(
    hub: LoopbackHub, small_build: Path, tmp_path: Path
) -> None:
    from hub_server import WRITE_TOKEN

    hub.fault("POST", "/commit/", status=403, message=f"token {WRITE_TOKEN} lacks write access")
    done = run(hub, tmp_path, "publish", small_build, "--to", NAME, "--gated", "manual", cwd=tmp_path)
    assert done.returncode == 2
    assert "token *** lacks write access" in done.stderr
    assert tokens_in(done.stdout, done.stderr, tmp_path) == []


def test_an_answer_that_is_none_of_a_hub(hub: LoopbackHub, small_build: Path) -> None:
    """As of a proxy that wants a password first."""
    hub.fault("GET", "whoami", status=200, message="Welcome")
    hub.fault("GET", "/api/datasets/", status=200)
    with pytest.raises(PublishError, match=r"the answer is not what a Hub says"):
        send(hub, small_build)
    assert hub.repos == {}


def test_a_disk_that_is_full(hub: LoopbackHub, small_build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr("polyrefuse_data.publish.plan._changelog", full)
    with pytest.raises(
        PublishError, match=r"cannot read or write /somewhere: No space left on device; fix that"
    ):
        send(hub, small_build)
    assert hub.repos == {}
