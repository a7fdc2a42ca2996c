"""Write a site: every file whole, the old site until then, and never over anything that is not ours."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.leaderboard.boards import Leaderboard
from polyrefuse_eval.leaderboard.entries import SITE_FILE
from polyrefuse_eval.leaderboard.page import page
from polyrefuse_eval.leaderboard.tables import FORMAT, comma_separated, markdown, site_json
from polyrefuse_eval.results.folder import read_json

_PARTIAL = ".partial-"


def site_files(found: Leaderboard) -> dict[str, str]:
    """Return the site: file name to text. `leaderboard.json` is last, and names all of them."""
    files = {run.file: _json(run.json()) for run in found.runs}
    files |= {
        "index.html": page(found),
        "leaderboard.md": markdown(found),
        "leaderboard.csv": comma_separated(found),
    }
    names = sorted({*files, SITE_FILE})
    return {**files, SITE_FILE: _json(site_json(found, names))}


def write_site(found: Leaderboard, out: Path) -> Path:
    """Write the site of `found` into `out`, a new or empty folder or an older site; return the page.

    Files that an older site had and the new one has not are removed; others in the folder are left
    alone. Raises `RunFolderError` where `out` is something else, or cannot be written.
    """
    old = check_site_folder(out)
    files = site_files(found)
    try:
        out.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=out))
        try:
            _write(files, staged)
            (out / "data").mkdir(exist_ok=True)
            for name in files:
                (staged / name).replace(out / name)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        for name in old - set(files):
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise RunFolderError(f"cannot write the site to '{out}': {error.strerror}") from None
    return out / "index.html"


def check_site_folder(out: Path) -> set[str]:
    """Return the files of the older site in `out`, none where it is new or empty.

    Raises `RunFolderError` where there is something that `write_site` has not written.
    """
    if not out.exists():
        return set()
    advice = "choose another --out, or an empty folder"
    if not out.is_dir():
        raise RunFolderError(f"'{out}' is a file; {advice}")
    if all(path.name.startswith(_PARTIAL) for path in out.iterdir()):
        return set()
    marker = out / SITE_FILE
    found = read_json(marker) if marker.is_file() else {}
    if found.get("format") != FORMAT:
        raise RunFolderError(f"'{out}' is not empty and holds no leaderboard; {advice}")
    names = [name for name in found.get("files", []) if isinstance(name, str)]
    return {name for name in names if _is_ours(name)}


def _is_ours(name: str) -> bool:
    """Whether a file name of an older site is one that this module could have given."""
    folder, _, rest = name.rpartition("/")
    return folder in ("", "data") and bool(rest) and not rest.startswith(".") and "\\" not in rest


def _write(files: Mapping[str, str], folder: Path) -> None:
    (folder / "data").mkdir()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def _json(value: Any) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """Return `value` with numbers that JSON cannot hold as None."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
