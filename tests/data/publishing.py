"""What the tests of publishing share: clients of the loopback Hub, edited builds, and runs of the command."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hub_server import TOKENS, WRITE_TOKEN, LoopbackHub
from huggingface_hub import HfApi

from polyrefuse_data.build.model import rows_digest, rows_table
from polyrefuse_data.build.package import MANIFEST, read_manifest, read_rows
from polyrefuse_data.core.paths import file_sha256
from polyrefuse_data.core.schema import Row
from polyrefuse_data.publish.plan import CHANGELOG, PublishRequest
from polyrefuse_data.publish.publish import PublishResult, publish

NAME = "acme/polyrefuse"


def client(hub: LoopbackHub, token: str | bool = WRITE_TOKEN) -> HfApi:
    """Return the real client, speaking to the loopback Hub."""
    return HfApi(endpoint=hub.url, token=token)


def send(hub: LoopbackHub, folder: Path, token: str | bool = WRITE_TOKEN, **options: Any) -> PublishResult:
    """Publish `folder` as acme/polyrefuse, gated unless said otherwise."""
    request = PublishRequest(
        folder, NAME, **{"gated": None if options.get("ungated") else "manual", **options}
    )
    return publish(request, client(hub, token))


def built_files(folder: Path) -> dict[str, bytes]:
    """Return name -> bytes of all that a build publishes."""
    return {name: (folder / name).read_bytes() for name in [*read_manifest(folder)["files"], MANIFEST]}


def shown_files(hub: LoopbackHub, revision: str = "main") -> dict[str, bytes]:
    """Return what the Hub shows of acme/polyrefuse, without what only the Hub and publishing make."""
    files = hub.files(NAME, revision)
    return {name: data for name, data in files.items() if name not in (".gitattributes", CHANGELOG)}


def edited(
    source: Path, target: Path, edit: Callable[[Row], Row | None] = lambda row: row, **manifest: Any
) -> Path:
    """Copy a build to `target` with its rows edited (None drops one) and its manifest made to fit."""
    shutil.copytree(source, target)
    value = {**read_manifest(target), **manifest}
    for name, facts in value["files"].items():
        if not name.endswith(".parquet"):
            continue
        lang, split = name.removesuffix(".parquet").split("/")
        rows = [new for row in read_rows(target, lang, split) if (new := edit(row)) is not None]
        table = rows_table(rows)
        pq.write_table(table, target / name, compression="zstd")
        facts.update(
            sha256=file_sha256(target / name),
            rows_sha256=rows_digest(table),
            bytes=(target / name).stat().st_size,
            rows=len(rows),
        )
    lines = [
        f"{name} {facts['rows_sha256']}" for name, facts in sorted(value["files"].items()) if "rows" in facts
    ]
    value["digest"] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    (target / MANIFEST).write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return target


def retranslated(source: Path, target: Path, lang: str = "yo", every: int = 10) -> Path:
    """Copy a build with some translations of one language changed."""

    def edit(row: Row) -> Row:
        return (
            replace(row, text=row.text + " !") if row.lang == lang and int(row.id[-4:]) % every == 0 else row
        )

    return edited(source, target, edit)


def environment(hub: LoopbackHub, home: Path, token: str | None = WRITE_TOKEN) -> dict[str, str]:
    """Return the environment of a process that speaks to the loopback Hub and keeps its files in `home`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    kept.update(
        HF_ENDPOINT=hub.url,
        HF_HUB_DISABLE_XET="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HOME=str(home / "hf"),
        TMPDIR=str(home / "tmp"),
        PYTHONPATH=os.pathsep.join(path for path in sys.path if path),
    )
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    return {**kept, "HF_TOKEN": token} if token else kept


def command(*arguments: str | Path) -> list[str]:
    """Return the command line of `polyrefuse` in this interpreter."""
    return [sys.executable, "-m", "polyrefuse_data.cli", *map(str, arguments)]


def run(
    hub: LoopbackHub,
    home: Path,
    *arguments: str | Path,
    token: str | None = WRITE_TOKEN,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `polyrefuse` against the loopback Hub."""
    env = environment(hub, home, token)
    return subprocess.run(
        command(*arguments), env=env, capture_output=True, text=True, timeout=120, check=False, cwd=cwd
    )


def tokens_in(*places: str | Path | Mapping[str, bytes]) -> list[str]:
    """Return where a token shows: in texts, in any file below folders, or in named contents."""
    found = []
    for place in places:
        if isinstance(place, str):
            contents: Mapping[str, bytes] = {"output": place.encode()}
        elif isinstance(place, Path):
            contents = {str(path): path.read_bytes() for path in place.rglob("*") if path.is_file()}
        else:
            contents = place
        found += [name for name, data in contents.items() for token in TOKENS if token.encode() in data]
    return found
