"""Draw the check results of a build as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from polyrefuse_data.core.schema import ROW_CHECKS

_CELL, _LEFT, _TOP = 52, 64, 84
"""Pixels: side of a cell, space for the names of languages and of checks."""


def render_figure(flagged: Mapping[str, Mapping[str, int]], rows: Mapping[str, int]) -> str:
    """Return an SVG: the share of rows that each check flags, a line a language, a column a check.

    `flagged` is language -> check -> rows; `rows` language -> all its rows. A share stands as a number in
    its cell, so that nobody has to tell shades apart. Written by hand, for no drawing library promises the
    same bytes from one version to the next.
    """
    width, height = _LEFT + _CELL * len(ROW_CHECKS) + 16, _TOP + 24 * len(flagged) + 40
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" font-family="sans-serif" font-size="11">',
        "<title>Share of rows that each check flags, by language</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for column, check in enumerate(ROW_CHECKS):
        x = _LEFT + _CELL * column + _CELL // 2
        lines.append(
            f'<text x="{x}" y="{_TOP - 8}" transform="rotate(-40 {x} {_TOP - 8})" fill="#222222">'
            f"{escape(check)}</text>"
        )
    for line, (lang, counts) in enumerate(flagged.items()):
        y = _TOP + 24 * line
        lines.append(
            f'<text x="{_LEFT - 12}" y="{y + 16}" text-anchor="end" fill="#222222">{escape(lang)}</text>'
        )
        for column, check in enumerate(ROW_CHECKS):
            share = counts[check] / rows[lang] if rows[lang] else 0.0
            x = _LEFT + _CELL * column
            # The square root keeps a few rows in a thousand visible; full shade is at one row in four.
            shade = min(1.0, (share / 0.25) ** 0.5)
            fill = "#{:02x}{:02x}{:02x}".format(*(round(255 - shade * (255 - end)) for end in (165, 60, 0)))
            ink = "#ffffff" if shade > 0.7 else "#222222"
            lines.append(
                f'<rect x="{x}" y="{y}" width="{_CELL - 2}" height="22" fill="{fill}" stroke="#dddddd"/>'
            )
            text = "0" if not counts[check] else f"{100 * share:.1f}%" if share >= 0.001 else "&lt;0.1%"
            lines.append(
                f'<text x="{x + _CELL // 2 - 1}" y="{y + 15}" text-anchor="middle" fill="{ink}">{text}</text>'
            )
    lines.append(
        f'<text x="{_LEFT}" y="{height - 14}" fill="#555555">'
        "share of rows flagged, by language and check</text>"
    )
    lines.append("</svg>\n")
    return "\n".join(lines)
