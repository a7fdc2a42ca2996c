"""Write the leaderboard's site and read its page back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from polyrefuse_eval.leaderboard.boards import leaderboard
from polyrefuse_eval.leaderboard.runs import read_runs
from polyrefuse_eval.leaderboard.site import write_site

HOSTILE = (
    "<script>window.hit=1</script>",
    '"><img src=x onerror="window.hit=1">',
    "</script><b>",
    "{{ 7 * 7 }}{% raw %}",
    "`|*[x](javascript:alert(1))",
)


class Elements(HTMLParser):
    """All elements of a page with their attributes, and the text of each."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))
        if tag not in ("meta", "br", "img", "link", "input"):
            self.open.append(self.found[-1][2])

    def handle_endtag(self, tag: str) -> None:
        if self.open:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        for texts in self.open:
            texts.append(data)

    def named(self, *tags: str) -> Iterator[tuple[dict[str, str | None], str]]:
        return ((attributes, "".join(text)) for tag, attributes, text in self.found if tag in tags)


def site(out: Path, *folders: Path) -> Path:
    write_site(leaderboard(*read_runs(folders)), out)
    return out


def resolve(site_folder: Path, address: str) -> Any:
    """Return what a link's JSON Pointer leads to."""
    file, _, fragment = address.partition("#")
    found = json.loads((site_folder / unquote(file)).read_text(encoding="utf-8"))
    for part in unquote(fragment).split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found
