"""Write a site: every file whole, the old site until then, and never over a folder of something else."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyrefuse_data.core.display import visible_json
from polyrefuse_data.core.files import WORK_PREFIX
from polyrefuse_data.core.output_folder import write_together
from polyrefuse_data.core.paths import check_output, inside, remove_unchanged
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.leaderboard.boards import Leaderboard
from polyrefuse_eval.leaderboard.entries import SITE_FILE
from polyrefuse_eval.leaderboard.page import page
from polyrefuse_eval.leaderboard.tables import FORMAT, comma_separated, markdown, site_json
from polyrefuse_eval.results.folder import read_json

_REMOVABLE = re.compile(r"data/[^./][^/]*\.json")
"""Files that a site may lose when it is written again: its runs' own."""


def site_files(compared: Leaderboard) -> dict[str, str]:
    """Return the site: file name to text. `leaderboard.json` is last and names all, with their sha256."""
    files = {run.file: _json(run.json()) for run in compared.runs}
    files |= {
        "index.html": page(compared),
        "leaderboard.md": markdown(compared),
        "leaderboard.csv": comma_separated(compared),
    }
    index = {
        **site_json(compared, sorted({*files, SITE_FILE})),
        "sha256": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(files.items())},
    }
    return {**files, SITE_FILE: _json(index)}


def write_site(compared: Leaderboard, out: Path) -> Path:
    """Write the site of `compared` into `out`, a new or empty folder or an older site; return the page.

    Files of runs that only an older site had are removed, unless they were changed since; others in the
    folder are left alone. Raises `RunFolderError` where `out` is something else, or cannot be written.
    """
    old = check_site_folder(out)
    files = site_files(compared)
    write_together(out, {name: text.encode() for name, text in files.items()}, error=RunFolderError)
    for name in old.keys() - files.keys():
        remove_unchanged(out, name, old[name])
    return out / "index.html"


def check_site_folder(out: Path) -> dict[str, str]:
    """Return name and sha256 of the runs' files of the older site in `out`, none where it is new or empty.

    Raises `RunFolderError` where `out` is no place for a site, or holds something else.
    """
    check_output(out, error=RunFolderError)
    if not out.exists():
        return {}
    advice = "choose another --out, or an empty folder"
    if not out.is_dir():
        raise RunFolderError(f"'{out}' is a file; {advice}")
    inside(out, "data/any", error=RunFolderError)
    if all(path.name.startswith(WORK_PREFIX) for path in out.iterdir()):
        return {}
    marker = out / SITE_FILE
    index = read_json(marker) if marker.is_file() else {}
    if index.get("format") != FORMAT:
        raise RunFolderError(f"'{out}' is not empty and holds no leaderboard; {advice}")
    digests = index.get("sha256")
    pairs = digests.items() if isinstance(digests, dict) else ()
    return {name: digest for name, digest in pairs if _REMOVABLE.fullmatch(name) and isinstance(digest, str)}


def _json(value: Any) -> str:
    return visible_json(_finite(value)) + "\n"


def _finite(value: Any) -> Any:
    """Return `value` with numbers that JSON cannot hold as None."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
