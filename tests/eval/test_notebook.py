"""The notebook runs from the first cell to the last, on the organisms, and shows its pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorials" / "notebook.ipynb"
PICTURES = 4


def pictures(notebook: dict[str, object]) -> int:
    cells = notebook["cells"]
    assert isinstance(cells, list)
    return sum("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))


def test_the_stored_notebook_has_its_outputs_and_no_path_of_a_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert pictures(json.loads(text)) == PICTURES
    assert '"output_type": "error"' not in text
    for place in ("/root", "/tmp/", "/home/", "/work/"):  # noqa: S108
        assert place not in text


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_notebook_runs(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="the notebook extra is not installed")
    client = pytest.importorskip("nbclient", reason="the notebook extra is not installed")
    notebook = nbformat.read(NOTEBOOK, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client.NotebookClient(notebook, timeout=7200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert pictures(notebook) == PICTURES
