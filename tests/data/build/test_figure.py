"""The files that explain a build: the same bytes every time, and true to the rows."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

from polyrefuse_data.build.companions import CROISSANT, FIGURE, LICENCES
from polyrefuse_data.build.figure import render_figure
from polyrefuse_data.build.package import altered_files, read_manifest
from polyrefuse_data.core.schema import ROW_CHECKS, column_names


def test_they_stand_in_the_manifest(small_build: Path) -> None:
    manifest = read_manifest(small_build)
    assert {"README.md", FIGURE, LICENCES, CROISSANT} <= set(manifest["files"])
    assert altered_files(small_build, manifest) == []


def test_the_card_shows_the_figure_and_names_the_rest(small_build: Path) -> None:
    card = (small_build / "README.md").read_text(encoding="utf-8")
    for name in (f"]({FIGURE})", LICENCES, CROISSANT, "CHANGELOG.md"):
        assert name in card
    for heading in ("Provenance", "Licence", "Access", "Versions", "Known limits", "How to cite", "Checks"):
        assert f"\n## {heading}\n" in card
    assert "rows are machine translations" in card


def test_every_configuration_names_the_digest(small_build: Path) -> None:
    """For `datasets` keys its cache on that, and would serve the rows of another build."""
    import yaml

    manifest = read_manifest(small_build)
    head = yaml.safe_load((small_build / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert len(head["configs"]) == 4
    assert all(manifest["digest"] in config["description"] for config in head["configs"])


def test_the_figure_is_drawn_from_the_counts() -> None:
    flagged = {lang: dict.fromkeys(ROW_CHECKS, 0) for lang in ("de", "yo")}
    flagged["yo"]["echo"], flagged["yo"]["digits"] = 50, 1
    svg = render_figure(flagged, {"de": 200, "yo": 2000})
    drawn = ElementTree.fromstring(svg)  # noqa: S314 (our own)
    texts = [element.text for element in drawn.iter() if element.text]
    assert "2.5%" in texts
    assert "<0.1%" in texts
    assert texts.count("0") == 2 * len(ROW_CHECKS) - 2
    assert svg == render_figure(flagged, {"de": 200, "yo": 2000})


def test_the_figure_is_made_of_numbers_not_of_shades_alone() -> None:
    dark = render_figure({"yo": dict.fromkeys(ROW_CHECKS, 10)}, {"yo": 10})
    light = render_figure({"yo": dict.fromkeys(ROW_CHECKS, 0)}, {"yo": 10})
    assert dark.count("100.0%") == len(ROW_CHECKS)
    assert 'fill="#ffffff">100.0%' in dark
    assert 'fill="#222222">0<' in light


def test_croissant_names_every_file_and_column(small_build: Path) -> None:
    value = json.loads((small_build / CROISSANT).read_text(encoding="utf-8"))
    files = read_manifest(small_build)["files"]
    listed = {one["@id"]: one["sha256"] for one in value["distribution"] if one["@type"] == "cr:FileObject"}
    assert listed == {name: facts["sha256"] for name, facts in files.items() if name.endswith(".parquet")}
    assert [one["name"] for one in value["recordSet"]] == ["train", "validation", "test"]
    for one in value["recordSet"]:
        assert [field["name"] for field in one["field"]] == column_names()
