"""Figures show names from files as they are."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_a_dollar_sign_in_a_name_is_no_formula(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from polyrefuse_eval.figures import explain, new_figure, save_figure

    figure, _ = new_figure(1, 1, 3, 3)
    explain(figure, "Title", r"recipe $\\unknown{$ of a stranger")
    assert save_figure(figure, tmp_path / "figure.png").stat().st_size > 0
    assert r"$\\unknown{$" in "".join((tmp_path / "figure.svg").read_text("utf-8").split("<!--")[1:])
