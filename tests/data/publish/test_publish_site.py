"""A leaderboard goes to a static Space: its files and a card in one commit, nothing else of its folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_server import READ_TOKEN, LoopbackHub, metadata_errors
from leaderboard_runs import write_run
from publishing import client, run
from run_records import CELLS, finished_run

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.publish.plan import PublishRequest
from polyrefuse_data.publish.publish import PublishResult, publish
from polyrefuse_eval.leaderboard.boards import leaderboard
from polyrefuse_eval.leaderboard.runs import read_runs
from polyrefuse_eval.leaderboard.site import write_site

SPACE = "acme/leaderboard"


def site(folder: Path, *models: str) -> Path:
    """Write the leaderboard of runs of `models`, beside files that are none of it."""
    runs = [
        write_run(folder / "runs" / name, model=f"example/{name}", langs=("en", "de"), with_scores=False)
        for name in models or ("model-a",)
    ]
    write_site(leaderboard(*read_runs(runs)), folder / "site")
    (folder / "site" / "notes.txt").write_text("not for others")
    return folder / "site"


def send(hub: LoopbackHub, folder: Path, **options: Any) -> PublishResult:
    return publish(PublishRequest(folder, SPACE, site=True, **options), client(hub))


def refused(hub: LoopbackHub, folder: Path, **options: Any) -> str:
    hub.sent()
    with pytest.raises(PolyRefuseError) as caught:
        send(hub, folder, **options)
    changed = [path for method, path, _ in hub.sent() if method != "GET" and "validate" not in path]
    assert changed == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_commit_of_the_leaderboard_s_files_and_a_card(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = site(tmp_path)
    result = send(hub, folder)
    names = {*json.loads((folder / "leaderboard.json").read_text())["sha256"], "leaderboard.json"}
    files = hub.files(SPACE)
    assert set(files) - {".gitattributes", "style.css"} == names | {"README.md"}
    assert {name: files[name] for name in names} == {name: (folder / name).read_bytes() for name in names}
    card = files["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["sdk"] == "static"
    assert metadata_errors(card) == []
    assert result.verified == len(names) + 1
    assert result.plan.release.left_out == ["notes.txt"]
    repo = hub.repos[SPACE]
    assert (repo.sdk, repo.private, repo.tags, len(repo.commits)) == ("static", True, {}, 2)


def test_a_leaderboard_of_a_run_with_all_strengths_goes(hub: LoopbackHub, tmp_path: Path) -> None:
    cells = (*CELLS, ("harmful", "ablation:en@0.25"), ("harmless", "addition:de+en@2"))
    run_folder = finished_run(tmp_path / "run", rows=3, cells=cells)
    write_site(leaderboard(*read_runs([run_folder.path])), tmp_path / "site")
    data = (tmp_path / "site" / "data" / "run.json").read_text()
    assert '"harmful.ablation-en@0.25": 3' in data, "it counts answers by condition"
    send(hub, tmp_path / "site")
    assert hub.files(SPACE)["data/run.json"].decode() == data


def test_again_nothing_is_sent_and_what_went_is_removed(hub: LoopbackHub, tmp_path: Path) -> None:
    old = site(tmp_path / "old", "model-a", "model-b")
    send(hub, old)
    assert "data/model-b.json" in hub.files(SPACE)
    hub.sent()
    again = send(hub, old)
    assert again.plan.nothing_to_do
    assert not [path for _, path, _ in hub.sent() if "/commit/" in path]
    send(hub, site(tmp_path / "new", "model-a"), public=True)
    assert "data/model-b.json" not in hub.files(SPACE)
    assert "style.css" in hub.files(SPACE), "what was not published from here is left alone"
    assert not hub.repos[SPACE].private


def test_a_commit_that_does_not_come_back_is_undone(hub: LoopbackHub, tmp_path: Path) -> None:
    send(hub, site(tmp_path / "old", "model-a"))
    before = hub.files(SPACE)
    head = hub.repos[SPACE].head
    hub.fault("GET", rf"/spaces/{SPACE}/resolve/(?!{head}).*index\.html", corrupt=True)
    with pytest.raises(PolyRefuseError, match=r"index\.html came back with a different sha256.* put back"):
        send(hub, site(tmp_path / "new", "model-b"))
    assert hub.files(SPACE) == before


def altered(folder: Path) -> None:
    (folder / "index.html").write_text("<p>another page")


def with_foreign_file(folder: Path) -> None:
    index = json.loads((folder / "leaderboard.json").read_text())
    index["sha256"]["../secret.json"] = "0" * 64
    (folder / "leaderboard.json").write_text(json.dumps(index))


def listing(name: str, text: str) -> Callable[[Path], None]:
    """Return what adds a file to a leaderboard that says that it was written there."""

    def add(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        index = json.loads((folder / "leaderboard.json").read_text())
        index["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        (folder / "leaderboard.json").write_text(json.dumps(index))

    return add


def linked(folder: Path) -> None:
    """Put the data of a leaderboard behind a link."""
    (folder / "data").rename(folder.parent / "elsewhere")
    (folder / "data").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda folder: (folder / "leaderboard.json").unlink(), {}, "no index.html and leaderboard.json in"),
        (lambda folder: (folder / "leaderboard.json").write_text("{"), {}, "not that of a leaderboard"),
        (altered, {}, "index.html is not as it was written .* write the leaderboard again"),
        (with_foreign_file, {}, "names ../secret.json; expected the folder of a leaderboard"),
        (listing("more.js", "alert(1)"), {}, "names more.js"),
        (listing(".git/config.json", "{}"), {}, "names .git/config.json"),
        (listing("data/a b.json", "{}"), {}, "names data/a b.json"),
        (listing(f"{'a' * 200}.json", "{}"), {}, "names aaa"),
        (listing("data/more.json", '{"response": "Sure, here"}'), {}, "model completions .*key 'response'"),
        (
            listing("data/more.json", '{"answers": {"Sure, here": 1}}'),
            {},
            "completions .*key 'answers'",
        ),
        (linked, {}, "data' is a link"),
        (lambda _folder: None, {"gated": "manual"}, "--gated and --site at once"),
        (lambda _folder: None, {"version": "1.0.0"}, "--version and --site at once"),
    ],
)
def test_what_is_refused_before_anything_is_sent(
    change: Callable[[Path], object],
    options: dict[str, Any],
    message: str,
    hub: LoopbackHub,
    tmp_path: Path,
) -> None:
    folder = site(tmp_path)
    change(folder)
    assert re.search(message, refused(hub, folder, **options))


def test_spaces_of_something_else_are_left_alone(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = site(tmp_path)
    api = client(hub)
    api.create_repo(SPACE, repo_type="space", space_sdk="gradio")
    assert "is a Space of the SDK gradio, and a leaderboard needs a static one" in refused(hub, folder)
    hub.repos[SPACE].sdk = "static"
    send(hub, folder)  # as the Hub created it
    api.create_repo("acme/own", repo_type="space", space_sdk="static")
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="index.html", repo_id="acme/own", repo_type="space")
    with pytest.raises(PolyRefuseError, match="acme/own holds files that are not of a leaderboard"):
        publish(PublishRequest(folder, "acme/own", site=True), api)
    with pytest.raises(PolyRefuseError, match="is not the name of a Space on the Hub"):
        publish(PublishRequest(folder, "leaderboard", site=True), api)
    with pytest.raises(PolyRefuseError, match="may only read"):
        publish(PublishRequest(folder, SPACE, site=True), client(hub, READ_TOKEN))


def test_the_command_shows_the_plan_and_the_address(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = site(tmp_path)
    planned = run(hub, tmp_path, "publish", "--site", folder, "--to", SPACE, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "would be created, private" in planned.stdout
    assert "not part of the release, stays here: notes.txt" in planned.stdout
    assert "version" not in planned.stdout
    assert SPACE not in hub.repos
    done = run(hub, tmp_path, "publish", "--site", folder, "--to", SPACE)
    assert done.returncode == 0, done.stderr
    assert f"Open:   {hub.url}/spaces/{SPACE}" in done.stdout
    without = run(hub, tmp_path, "publish", "--site", folder, "--to", SPACE, token=None)
    assert (without.returncode, without.stdout) == (2, "")
    assert "no token for the Hub" in without.stderr
