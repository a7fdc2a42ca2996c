"""Two reviewers of one export: kappa by hand, and the rows on which they differ."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from polyrefuse_data.audit.agreement import OTHER, SAME, reviewer_agreement
from polyrefuse_data.audit.review_cells import COLUMNS, ReviewError
from polyrefuse_data.cli.review import review


def write(path: Path, corrections: dict[int, str], rows: range = range(10)) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        for row in rows:
            identity = {"id": f"harmful-test-{row:04d}", "lang": "yo", "key": f"k{row}", "label": "harmful"}
            writer.writerow({**identity, "text_en": "a text", "correction": corrections.get(row, "")})
    return path


def test_kappa_of_two_reviewers_and_the_rows_on_which_they_differ(tmp_path: Path) -> None:
    first = write(tmp_path / "a.csv", {0: "x", 1: "y", 2: "z", 3: "w"})
    second = write(tmp_path / "b.csv", {0: "x", 1: "other", 2: "z", 9: "v"}, range(11))
    agreement = reviewer_agreement(first, second)
    # both correct 3, one corrects 3 and one 9: 8 of 10 agreed; chance .4 * .4 + .6 * .6 = .52
    assert (agreement.rows, agreement.agreed) == (10, 8)
    assert agreement.kappa == pytest.approx((0.8 - 0.52) / 0.48)
    assert [row.outcome for row in agreement.corrected].count(SAME) == 2
    assert [row.id for row in agreement.corrected if row.outcome == OTHER] == ["harmful-test-0001"]
    assert (agreement.only_first, agreement.only_second) == (0, 1)
    shown = CliRunner().invoke(review, ["agree", str(first), str(second)])
    assert "agreed on 8, kappa 0.58" in shown.stdout
    assert "  yo harmful-test-0009" in shown.stdout


def test_reviewers_who_leave_every_row_have_no_kappa(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.csv", {}), write(tmp_path / "b.csv", {})
    assert reviewer_agreement(first, second).kappa is None
    with pytest.raises(ReviewError, match="no row in common"):
        reviewer_agreement(first, write(tmp_path / "c.csv", {}, range(20, 22)))


@pytest.mark.parametrize("row", [{"id": "b"}, {"correction": None}, {"lang": ["yo"]}])
def test_a_row_without_its_texts_is_one_line(tmp_path: Path, row: dict[str, object]) -> None:
    whole = dict.fromkeys(COLUMNS, "x")
    second = row if "id" in row else {**whole, **row}
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(whole)}\n{json.dumps(second)}\n", "utf-8")
    with pytest.raises(ReviewError, match=r"line 2: no text in .*; expected a file of `polyrefuse review"):
        reviewer_agreement(path, path)
