"""Publishing, the whole way: what is on the Hub is what was built, once, gated, tagged and read back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from hub_server import READ_TOKEN, STRANGER_TOKEN, LoopbackHub, metadata_errors
from publishing import NAME, built_files, client, edited, retranslated, run, send, shown_files, tokens_in

from polyrefuse_data.build.package import read_manifest
from polyrefuse_data.core.errors import PublishError
from polyrefuse_data.publish.plan import CHANGELOG
from polyrefuse_data.publish.snapshots import open_snapshot


def test_the_bytes_on_the_hub_are_the_bytes_built(hub: LoopbackHub, sample_build: Path) -> None:
    result = send(hub, sample_build)
    assert shown_files(hub) == built_files(sample_build)
    assert result.verified == len(built_files(sample_build)) + 1  # and the changelog
    repo = hub.repos[NAME]
    assert repo.private
    assert repo.gated == "manual"
    assert repo.tags == {"v1.0.0": repo.head}
    assert hub.tokens_at_store == []


def test_everything_is_one_commit_on_the_revision_that_was_read(hub: LoopbackHub, small_build: Path) -> None:
    send(hub, small_build)
    repo = hub.repos[NAME]
    assert len(repo.commits) == 2  # the Hub's own first one, and ours
    bodies = [path for method, path, _ in hub.requests if method == "POST" and "/commit/" in path]
    assert len(bodies) == 1


def test_gating_stands_before_anything_is_sent(hub: LoopbackHub, small_build: Path) -> None:
    send(hub, small_build)
    order = [
        path.split("/")[-1].split(".")[0] for method, path, _ in hub.requests if method in ("PUT", "POST")
    ]
    assert order.index("settings") < order.index("main")


def test_the_card_alone_does_not_gate(hub: LoopbackHub, small_build: Path) -> None:
    """The effect that the API call is for: the gating texts of the card are there, and gate nothing."""
    send(hub, small_build, gated=None)
    assert "extra_gated_prompt" in shown_files(hub)["README.md"].decode()
    assert hub.repos[NAME].gated is False
    assert hub.repos[NAME].private


def test_a_second_time_nothing_is_sent(hub: LoopbackHub, small_build: Path) -> None:
    first = send(hub, small_build)
    assert not first.plan.nothing_to_do
    assert sum(size for _, _, size in hub.sent()) > 10_000
    again = send(hub, small_build)
    assert again.plan.nothing_to_do
    assert again.commit == first.commit
    assert again.verified == first.verified
    assert hub.sent() == []


def test_only_what_changed_is_sent_and_the_version_follows(
    hub: LoopbackHub, small_build: Path, tmp_path: Path
) -> None:
    send(hub, small_build)
    other = retranslated(small_build, tmp_path / "other")
    hub.sent()
    result = send(hub, other)
    changed = {name for name, data in built_files(other).items() if data != built_files(small_build)[name]}
    assert set(result.plan.send) == {*changed, CHANGELOG}
    assert any(name.startswith("yo/") for name in changed)
    stored = [path for method, path, _ in hub.sent() if method == "PUT" and path.startswith("/lfs-store/")]
    assert len(stored) == sum(name.endswith(".parquet") for name in changed)
    assert result.plan.tag == "v1.1.0"
    assert set(hub.repos[NAME].tags) == {"v1.0.0", "v1.1.0"}
    assert shown_files(hub, "v1.0.0") == built_files(small_build)
    assert shown_files(hub, "v1.1.0") == built_files(other)


def test_files_of_languages_that_went_are_removed(
    hub: LoopbackHub, small_build: Path, other_build: Path
) -> None:
    send(hub, small_build)
    assert "ja/test.parquet" in shown_files(hub)
    result = send(hub, other_build)
    assert shown_files(hub) == built_files(other_build)
    assert "ja/test.parquet" in result.plan.delete
    assert result.plan.tag == "v2.0.0"


def test_what_others_put_there_is_left_alone(hub: LoopbackHub, small_build: Path, tmp_path: Path) -> None:
    send(hub, small_build)
    repo = hub.repos[NAME]
    repo.add("by hand", {**repo.commits[repo.head].files, "NOTE.txt": hub.blob(b"a note", False)})
    result = send(hub, retranslated(small_build, tmp_path / "other"))
    assert result.plan.kept == ("NOTE.txt",)
    assert hub.files(NAME)["NOTE.txt"] == b"a note"


def test_what_somebody_edited_on_the_hub_is_put_right(hub: LoopbackHub, small_build: Path) -> None:
    send(hub, small_build)
    repo = hub.repos[NAME]
    tags = dict(repo.tags)
    repo.add("by hand", {**repo.commits[repo.head].files, "README.md": hub.blob(b"my words", False)})
    result = send(hub, small_build)
    assert set(result.plan.send) == {"README.md"}
    assert shown_files(hub) == built_files(small_build)
    assert repo.tags == tags
    assert send(hub, small_build).plan.nothing_to_do


def test_a_data_set_that_is_not_ours_is_not_touched(hub: LoopbackHub, small_build: Path) -> None:
    client(hub).create_repo(NAME, repo_type="dataset", private=True)
    hub.repos[NAME].add("theirs", {"theirs.parquet": hub.blob(b"x", True)})
    before = hub.files(NAME)
    with pytest.raises(PublishError, match=r"did not publish \(theirs.parquet\)"):
        send(hub, small_build)
    assert hub.files(NAME) == before


def test_changelog_counts_and_holds_no_prompt(hub: LoopbackHub, small_build: Path, tmp_path: Path) -> None:
    send(hub, small_build)
    other = retranslated(small_build, tmp_path / "other", every=8)
    send(hub, other)
    text = hub.files(NAME)[CHANGELOG].decode()
    # 2 labels x (2 of 16 train, 2 of 16 validation, 3 of 24 test)
    assert "## v1.1.0\n\n- Translations changed: 14 (yo 14)." in text
    assert text.index("## v1.1.0") < text.index("## v1.0.0")
    assert "First version: 336 rows in 3 languages." in text
    assert read_manifest(other)["digest"] in text


def test_dry_run_shows_and_sends_nothing(hub: LoopbackHub, small_build: Path, tmp_path: Path) -> None:
    fresh = run(hub, tmp_path, "publish", small_build, "--to", NAME, "--gated", "manual", "--dry-run")
    assert fresh.returncode == 0, fresh.stderr
    assert "would be created, private" in fresh.stdout
    assert "gating would be turned to manual" in fresh.stdout
    for name in built_files(small_build):
        assert name in fresh.stdout
    assert hub.repos == {}
    send(hub, small_build)
    hub.sent()
    other = retranslated(small_build, tmp_path / "other")
    shown = run(hub, tmp_path, "publish", other, "--to", NAME, "--gated", "manual", "--dry-run")
    assert "yo/test.parquet" in shown.stdout
    assert "en/test.parquet" not in shown.stdout
    assert "translations that changed: 14" in shown.stdout
    assert "version v1.1.0" in shown.stdout
    assert hub.sent() == []


def test_dry_run_needs_no_token(hub: LoopbackHub, small_build: Path) -> None:
    assert send(hub, small_build, token=False, dry_run=True).plan.state is None
    assert hub.repos == {}


def test_public_comes_last_and_behind_the_gate(hub: LoopbackHub, small_build: Path) -> None:
    send(hub, small_build, public=True)
    repo = hub.repos[NAME]
    assert not repo.private
    assert repo.gated == "manual"
    changing = [path for method, path, _ in hub.requests if method in ("PUT", "POST")]
    assert changing[-1].endswith("/settings")
    with pytest.raises(PublishError, match="not granted access"):
        open_snapshot(f"{NAME}@v1.0.0", client(hub, STRANGER_TOKEN))


def test_a_gate_that_is_there_stays(hub: LoopbackHub, small_build: Path, tmp_path: Path) -> None:
    send(hub, small_build)
    send(hub, retranslated(small_build, tmp_path / "other"), ungated=True, public=True)
    assert hub.repos[NAME].gated == "manual"


def test_version_of_ones_own(hub: LoopbackHub, small_build: Path, tmp_path: Path) -> None:
    send(hub, small_build, version="0.9.0")
    assert set(hub.repos[NAME].tags) == {"v0.9.0"}
    other = retranslated(small_build, tmp_path / "other")
    with pytest.raises(PublishError, match="expected three numbers"):
        send(hub, other, version="next")
    with pytest.raises(PublishError, match=r"v0.8.0 comes before v0.9.0"):
        send(hub, other, version="0.8.0")
    with pytest.raises(PublishError, match=r"has a version v0.9.0 already"):
        send(hub, other, version="0.9.0")
    with pytest.raises(PublishError, match=r"would be the same"):
        send(hub, small_build, version="1.0.0")
    assert send(hub, other, version="v1.0.0").plan.tag == "v1.0.0"


def test_the_command_says_what_it_did_and_never_the_token(
    hub: LoopbackHub, small_build: Path, tmp_path: Path
) -> None:
    build = tmp_path / "build"
    shutil.copytree(small_build, build)
    first = run(hub, tmp_path, "publish", build, "--to", NAME, "--gated", "manual", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert f"Published: {NAME} v1.0.0, commit {hub.repos[NAME].head}" in first.stdout
    assert "all identical" in first.stdout
    again = run(hub, tmp_path, "publish", build, "--to", NAME, "--gated", "manual", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("Nothing sent")
    outputs = [text for done in (first, again) for text in (done.stdout, done.stderr)]
    assert tokens_in(*outputs, tmp_path, hub.contents) == []
    # The search does find one where there is one.
    (tmp_path / "leak").write_text(f"Bearer {READ_TOKEN}")
    assert tokens_in(tmp_path) == [str(tmp_path / "leak")]


def test_nothing_is_left_behind_on_this_machine(hub: LoopbackHub, small_build: Path, tmp_path: Path) -> None:
    done = run(hub, tmp_path, "publish", small_build, "--to", NAME, "--gated", "manual", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()] == []
    assert not any(path.suffix == ".parquet" for path in tmp_path.rglob("*"))


def test_the_card_passes_the_metadata_check(small_build: Path, tmp_path: Path) -> None:
    card = (small_build / "README.md").read_text(encoding="utf-8")
    assert metadata_errors(card) == []
    # The check does see a licence that the Hub does not know.
    assert metadata_errors(card.replace("license: apache-2.0", "license: my-own"))


def test_a_licence_of_ones_own_is_named_as_the_hub_wants_it() -> None:
    from polyrefuse_data.build.card import _hub_licence

    head = yaml.safe_dump(_hub_licence("Company licence 2"))
    assert metadata_errors(f"---\n{head}---\n") == []
    assert _hub_licence("CC-BY-NC-4.0") == {"license": "cc-by-nc-4.0"}


def test_a_card_that_the_hub_refuses_is_not_sent(hub: LoopbackHub, small_build: Path, tmp_path: Path) -> None:
    from polyrefuse_data.build.package import MANIFEST
    from polyrefuse_data.core.paths import file_sha256

    bad = edited(small_build, tmp_path / "bad")
    card = (bad / "README.md").read_text().replace("license: apache-2.0", "license: whatever")
    (bad / "README.md").write_text(card)
    manifest = json.loads((bad / MANIFEST).read_text())
    manifest["files"]["README.md"].update(sha256=file_sha256(bad / "README.md"))
    (bad / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(PublishError, match=r"does not accept the card: .*license"):
        send(hub, bad)
    assert set(hub.files(NAME)) == {".gitattributes"}
