"""Make the files that explain a build: card, figure of check results, licence notes, Croissant.

Each is made from the package alone, so that building again gives the same bytes; all stand in the manifest.
"""

from __future__ import annotations

from polyrefuse_data.build.card import render_card, render_licences
from polyrefuse_data.build.croissant import render_croissant
from polyrefuse_data.build.figure import render_figure
from polyrefuse_data.build.model import Package

CARD = "README.md"
FIGURE = "checks.svg"
LICENCES = "LICENCES.md"
CROISSANT = "croissant.json"


def companion_files(package: Package) -> dict[str, bytes]:
    """Return name -> bytes of the files that explain a build."""
    texts = {
        CARD: render_card(package),
        FIGURE: render_figure(
            {lang: part.summary["flagged"] for lang, part in package.parts.items()},
            {lang: sum(part.summary["rows"].values()) for lang, part in package.parts.items()},
        ),
        LICENCES: render_licences(package),
        CROISSANT: render_croissant(package),
    }
    return {name: text.encode("utf-8") for name, text in texts.items()}
