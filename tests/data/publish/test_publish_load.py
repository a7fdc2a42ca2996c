"""The whole way over HTTP: what `datasets` loads from the Hub are the rows that were built."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_server import READ_TOKEN, STRANGER_TOKEN, TOKENS, LoopbackHub
from publishing import NAME, environment, retranslated, send, tokens_in

from polyrefuse_data.build.package import read_rows
from polyrefuse_data.core.schema import row_values

LOAD = """
import json, sys
from datasets import load_dataset
name, config, split, revision, streaming = json.loads(sys.argv[1])
rows = load_dataset(name, config, split=split, revision=revision, streaming=streaming)
json.dump({"rows": list(rows), "label": rows.features["label"].names}, sys.stdout)
"""


def load(
    hub: LoopbackHub,
    home: Path,
    config: str,
    split: str,
    revision: str | None = None,
    streaming: bool = False,
    token: str = READ_TOKEN,
) -> subprocess.CompletedProcess[str]:
    """Load in a fresh process, as a user does."""
    given = json.dumps([NAME, config, split, revision, streaming])
    return subprocess.run(
        [sys.executable, "-c", LOAD, given],
        env=environment(hub, home, token),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def local_rows(folder: Path, lang: str, split: str) -> list[dict[str, Any]]:
    # Through JSON, for scores are single precision on both sides.
    return json.loads(json.dumps([row_values(row) for row in read_rows(folder, lang, split)]))


def test_build_publish_load(hub: LoopbackHub, sample_build: Path, tmp_path: Path) -> None:
    send(hub, sample_build)
    done = load(hub, tmp_path, "yo", "test")
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert loaded["rows"] == local_rows(sample_build, "yo", "test")
    assert len(loaded["rows"]) == 1144
    assert loaded["label"] == ["harmless", "harmful"]


def test_streaming(hub: LoopbackHub, sample_build: Path, tmp_path: Path) -> None:
    send(hub, sample_build)
    done = load(hub, tmp_path, "th", "validation", streaming=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == local_rows(sample_build, "th", "validation")


def test_all_languages_in_one(hub: LoopbackHub, small_build: Path, tmp_path: Path) -> None:
    send(hub, small_build)
    done = load(hub, tmp_path, "all", "train")
    assert done.returncode == 0, done.stderr
    expected = [row for lang in ("en", "ja", "yo") for row in local_rows(small_build, lang, "train")]
    assert json.loads(done.stdout)["rows"] == expected


def test_a_new_version_is_loaded_anew_and_the_old_by_its_tag(
    hub: LoopbackHub, small_build: Path, tmp_path: Path
) -> None:
    """With one cache throughout, as a user has it."""
    send(hub, small_build)
    old = json.loads(load(hub, tmp_path, "yo", "test").stdout)["rows"]
    new_build = retranslated(small_build, tmp_path / "new")
    send(hub, new_build)
    new = json.loads(load(hub, tmp_path, "yo", "test").stdout)["rows"]
    assert new != old
    assert new == local_rows(new_build, "yo", "test")
    assert json.loads(load(hub, tmp_path, "yo", "test", revision="v1.0.0").stdout)["rows"] == old


def test_the_gate_holds(hub: LoopbackHub, small_build: Path, tmp_path: Path) -> None:
    send(hub, small_build, public=True)
    refused = load(hub, tmp_path / "stranger", "yo", "test", token=STRANGER_TOKEN)
    assert refused.returncode != 0
    assert "gated" in refused.stderr.lower()
    assert '"rows"' not in refused.stdout
    hub.repos[NAME].granted.add("stranger")
    granted = load(hub, tmp_path / "stranger", "yo", "test", token=STRANGER_TOKEN)
    assert granted.returncode == 0, granted.stderr
    assert json.loads(granted.stdout)["rows"] == local_rows(small_build, "yo", "test")
    assert tokens_in(granted.stdout, granted.stderr) == []


def test_other_tools_ask_the_prompts_of_the_gated_data_set(
    hub: LoopbackHub, small_build: Path, tmp_path: Path
) -> None:
    pytest.importorskip("polyrefuse_eval.integrations.prompts")
    send(hub, small_build)
    code = (
        "import json, sys\nfrom polyrefuse_eval.integrations.prompts import harness_prompts\n"
        "print(json.dumps([prompt.text for prompt in harness_prompts('ja', 'harmful', 'test')]))"
    )

    def asked(token: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**environment(hub, tmp_path / TOKENS[token]["name"], token), "POLYREFUSE_DATA": NAME},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    done = asked(READ_TOKEN)
    assert done.returncode == 0, done.stderr
    rows = [row for row in read_rows(small_build, "ja", "test") if row.label == "harmful"]
    assert rows
    assert json.loads(done.stdout) == [row.text for row in rows]
    failed = asked(STRANGER_TOKEN)
    assert failed.returncode != 0
    assert "accept its terms on its page" in failed.stderr
    assert STRANGER_TOKEN not in failed.stderr
