"""How the names of models behind endpoints are told from others, and written down."""

from __future__ import annotations

import re
from pathlib import PureWindowsPath

PREFIX = "openai:"
"""How the name of a model behind an endpoint begins."""

_PATH = re.compile(r"[/\\~.]|[A-Za-z]:[/\\]|file:", re.IGNORECASE)
"""How a path begins, on POSIX systems and on Windows; names of models begin with none of these."""


def public_name(model: str) -> str:
    """Return the name of a served model as it is written down: of a path, by which servers go too, its last
    part. A relative path that begins with a name (`models/mine`) looks like a model of the Hub, and stays.
    """
    return (PureWindowsPath(model).name or "?") if _PATH.match(model) else model
