"""Render rows for review as one HTML page, offline and by keyboard; `review import` reads its export."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from polyrefuse_data.core.display import visible
from polyrefuse_data.core.languages import LANGUAGES

RIGHT_TO_LEFT = ("Arabic", "Hebrew", "Nko", "Syriac", "Thaana")
"""Scripts that are written from right to left."""


def review_page(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the page for `rows`: cells by column, with `scores`, `back` and `candidates`.

    The page makes no request: its policy allows its own style and script alone. Texts of rows stand in a
    block of data and are shown as text, whatever they hold.
    """
    import jinja2

    langs = sorted({row["lang"] for row in rows})
    data = {
        "columns": list(columns),
        "rows": [dict(row) for row in rows],
        "digest": hashlib.sha256("".join(row["key"] for row in rows).encode("utf-8")).hexdigest()[:16],
        "right_to_left": [
            lang
            for lang in langs
            if lang in LANGUAGES and any(script in RIGHT_TO_LEFT for script in LANGUAGES[lang].scripts)
        ],
    }
    style, script = _asset("review.css"), _asset("review.js")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_asset("review.html.j2")).render(
        title=visible(title),
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        data=_data_block(data),
    )


def _asset(name: str) -> str:
    return (resources.files("polyrefuse_data") / "data" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _data_block(value: object) -> str:
    """Return `value` as JSON that cannot end the script element which holds it."""
    text = json.dumps(value, ensure_ascii=True)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
