"""What is never published, whatever the Hub says: each refused before a single request."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import LoopbackHub
from hypothesis import given
from hypothesis import strategies as st
from publishing import NAME, client, edited, send, shown_files

from polyrefuse_data.build.package import MANIFEST
from polyrefuse_data.core.errors import PolyRefuseError, PublishError
from polyrefuse_data.core.paths import file_sha256
from polyrefuse_data.core.schema import column_names
from polyrefuse_data.publish.completion_guard import find_completion
from polyrefuse_data.publish.hub import HubDataset


def change_manifest(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def without_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def with_another_manifest(folder: Path) -> None:
    change_manifest(folder, format="something-else")


def with_an_altered_file(folder: Path) -> None:
    with (folder / "yo" / "test.parquet").open("ab") as file:
        file.write(b"x")


def with_a_missing_file(folder: Path) -> None:
    (folder / "ja" / "train.parquet").unlink()


def with_an_edited_card(folder: Path) -> None:
    (folder / "README.md").write_text("my own words")


def incomplete(folder: Path) -> None:
    gap = {
        "lang": "yo",
        "split": "test",
        "label": "harmful",
        "ids": ["harmful-test-0001", "harmful-test-0002"],
    }
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest |= {"complete": False, "files": {}, "gaps": [gap]}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def outside(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["../README.md"] = manifest["files"]["README.md"]
    (folder / MANIFEST).write_text(json.dumps(manifest))


def with_a_stray_file_in_the_manifest(folder: Path) -> None:
    (folder / "notes.txt").write_text("a")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["notes.txt"] = {"sha256": file_sha256(folder / "notes.txt"), "bytes": 1}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def with_completions_beside_it(folder: Path) -> None:
    (folder / "answers.jsonl").write_text('{"id": "harmful-test-0001", "response": "Sure"}\n')


def with_a_column_of_completions(folder: Path) -> None:
    path = folder / "en" / "test.parquet"
    table = pq.read_table(path)
    table = table.append_column("completion", pa.array(["Sure"] * table.num_rows))
    pq.write_table(table, path)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["en/test.parquet"]["sha256"] = file_sha256(path)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def with_a_column_of_its_own(folder: Path) -> None:
    path = folder / "en" / "test.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("notes", pa.array(["x"] * table.num_rows)), path)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["en/test.parquet"]["sha256"] = file_sha256(path)
    (folder / MANIFEST).write_text(json.dumps(manifest))


REFUSED: dict[Callable[[Path], None], str] = {
    without_manifest: "no manifest.json; expected a complete build",
    with_another_manifest: "is not a manifest of format",
    with_an_altered_file: "yo/test.parquet changed after the build",
    with_a_missing_file: "ja/train.parquet changed after the build",
    with_an_edited_card: "README.md changed after the build",
    incomplete: "nothing was packaged, 2 prompts without a translation",
    outside: "which is not a file of a build",
    with_a_stray_file_in_the_manifest: "names notes.txt, which is not a file of a build",
    with_completions_beside_it: r"answers.jsonl looks as if .*completions \(line 1, key 'response'\)",
    with_a_column_of_completions: r"en/test.parquet looks as if .*completions \(column 'completion'\)",
    with_a_column_of_its_own: "columns that are not the published ones: notes",
}


@pytest.mark.parametrize("spoil", REFUSED)
@pytest.mark.parametrize("allow_gaps", [False, True])
def test_a_folder_that_is_no_sound_build(
    hub: LoopbackHub, small_build: Path, tmp_path: Path, spoil: Callable[[Path], None], allow_gaps: bool
) -> None:
    folder = edited(small_build, tmp_path / "build")
    spoil(folder)
    with pytest.raises(PolyRefuseError, match=REFUSED[spoil]) as caught:
        send(hub, folder, allow_gaps=allow_gaps)
    assert "\n" not in str(caught.value)
    assert hub.requests == []


def test_a_folder_that_is_not_there(hub: LoopbackHub, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="no such folder; expected a complete build"):
        send(hub, tmp_path / "nowhere")


GAP = {"lang": "yo", "split": "test", "label": "harmful", "ids": ["harmful-test-0001"]}
FAILED = {
    "check": "alignment",
    "severity": "error",
    "lang": "yo",
    "label": "harmful",
    "split": "test",
    "ids": ["harmful-test-0001"],
    "message": "not parallel",
}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"gaps": [GAP]}, r"has gaps: 1 prompt without a translation \(yo\)"),
        ({"findings": [FAILED]}, r"1 finding of severity error \(alignment\); look with `polyrefuse audit`"),
    ],
)
def test_gaps_and_failed_checks_only_if_allowed(
    hub: LoopbackHub, small_build: Path, tmp_path: Path, changes: dict[str, object], line: str
) -> None:
    folder = edited(small_build, tmp_path / "build", **changes)
    with pytest.raises(PublishError, match=line):
        send(hub, folder)
    assert hub.requests == []
    send(hub, folder, allow_gaps=True)
    assert "manifest.json" in shown_files(hub)


def test_the_card_tells_of_gaps_and_failed_checks(small_build: Path) -> None:
    """Built from the package, as a build with gaps is: both stand in the card that is published."""
    from dataclasses import replace

    from polyrefuse_data.build.card import render_card
    from polyrefuse_data.build.model import LanguagePart, Package
    from polyrefuse_data.build.package import read_manifest
    from polyrefuse_data.core.findings import Finding
    from polyrefuse_data.prompts.recipe import load_recipe

    manifest = read_manifest(small_build)
    parts = {
        lang: LanguagePart(
            {name: facts for name, facts in manifest["files"].items() if name.startswith(f"{lang}/")},
            summary,
            [],
        )
        for lang, summary in manifest["languages"].items()
    }
    recipe, _ = load_recipe("sample")
    package = Package(manifest, recipe, manifest["sources"], parts, [], [])
    clean = render_card(package)
    assert "has gaps" not in clean
    assert "has failed checks" not in clean
    failed = replace(
        package,
        findings=[Finding(**{**FAILED, "ids": tuple(FAILED["ids"])})],
        gaps=[GAP],  # type: ignore[arg-type]
    )
    told = render_card(failed)
    assert "**This build has gaps:** 1 prompts" in told
    assert "- alignment, yo harmful test: not parallel (1 rows)" in told


@pytest.mark.parametrize("existing", [False, True])
def test_no_public_release_without_a_gate_unless_meant(
    hub: LoopbackHub, small_build: Path, existing: bool
) -> None:
    if existing:
        client(hub).create_repo(NAME, repo_type="dataset", private=False)
    with pytest.raises(PublishError, match="would be public without a gate; add --gated manual"):
        send(hub, small_build, gated=None, public=not existing)
    assert not hub.repos or shown_files(hub) == {}
    send(hub, small_build, ungated=True, public=not existing)
    assert not hub.repos[NAME].private
    assert hub.repos[NAME].gated is False


def test_options_that_contradict_each_other(hub: LoopbackHub, small_build: Path) -> None:
    with pytest.raises(PublishError, match="at once; choose one"):
        send(hub, small_build, gated="manual", ungated=True)
    with pytest.raises(PublishError, match="expected auto or manual"):
        send(hub, small_build, gated="yes")


@pytest.mark.parametrize(
    "name", ["polyrefuse", "acme/", "acme/poly refuse", "a/b/c", "acme/../x", "-a/b", ""]
)
def test_names_that_are_none(hub: LoopbackHub, name: str) -> None:
    with pytest.raises(PublishError, match="expected NAMESPACE/NAME"):
        HubDataset(name, client(hub))


def test_published_columns_are_no_completions() -> None:
    from polyrefuse_data.publish.completion_guard import completion_columns

    assert completion_columns(column_names()) == []


@pytest.mark.parametrize(
    "key",
    [
        "response",
        "Completion",
        "completions",
        "model_output",
        "generated_text",
        "answer",
        "baseline.response",
    ],
)
def test_keys_of_completions_are_seen_at_any_depth(key: str) -> None:
    assert find_completion({"rows": [{"id": "a", "more": {key: "Sure, here"}}]}) == f"key '{key}'"


@pytest.mark.parametrize(
    "value",
    [
        {"n": 3, "n_unjudged": 0, "refusal_rate": 0.5, "signature": "judge:native|version:1"},
        {"n_responses": 572, "response_rate": 0.1, "completion_sha256": "ab" * 32, "max_output_tokens": 512},
        {"lang": "yo", "refused": None},
    ],
)
def test_numbers_and_signatures_are_no_completions(value: object) -> None:
    assert find_completion(value) is None


@given(st.text(min_size=1))
def test_a_text_under_a_key_that_names_a_number_is_no_number(text: str) -> None:
    found = find_completion({"response_count": text})
    assert (found is None) == bool(re.fullmatch(r"[0-9a-f]{8,64}", text))


def test_offline_mode_and_a_token_in_quotes_are_named(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    from polyrefuse_data.publish.snapshots import open_snapshot

    quoted = HfApi(hub.url, "\u201chf_not_a_real_one\u201d")
    with pytest.raises(PublishError, match="typographic quotes") as caught:
        HubDataset("acme/x", quoted).check_token()
    assert "hf_not_a_real_one" not in str(caught.value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PublishError, match=r"HF_HUB_OFFLINE is set.*nothing was published"):
        HubDataset("acme/x", HfApi(hub.url, "hf_x")).check_token()
    with pytest.raises(PublishError, match=r"HF_HUB_OFFLINE is set.*nothing was compared"):
        open_snapshot("hf://acme/x@v1.0.0", HfApi(hub.url, "hf_x"))
