"""The page's beginning: dates, names and sizes of models, maps, order, and how to make it again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from leaderboard_runs import FEW, JUDGE, one_run, write_run

from polyrefuse_eval.leaderboard.boards import leaderboard
from polyrefuse_eval.leaderboard.columns import BY_LANGUAGE, columns_of
from polyrefuse_eval.leaderboard.entries import entry_of
from polyrefuse_eval.leaderboard.grids import transfer
from polyrefuse_eval.leaderboard.model_names import family_of, size_of
from polyrefuse_eval.leaderboard.overview import overviews
from polyrefuse_eval.leaderboard.page import page
from polyrefuse_eval.leaderboard.reproduction import dates, page_command, run_command
from polyrefuse_eval.leaderboard.runs import read_runs
from polyrefuse_eval.results.folder import plain
from polyrefuse_eval.results.settings import RunSettings
from polyrefuse_eval.results.timings import Timing, add_timing


@pytest.mark.parametrize(("dates", "shown"), [(("2026-03-01", "2026-02-11"), "2026-03-01"), ((), "")])
def test_a_run_tells_when_it_was_measured(tmp_path: Path, dates: tuple[str, ...], shown: str) -> None:
    folder = write_run(tmp_path / "run", **FEW)
    for date in dates:
        add_timing(folder, Timing(part="cell", seconds=1.0, date=date))
    assert read_runs([folder])[0][0].measured == shown
    (folder / "timings.jsonl").write_text("not JSON\n{}\n")
    assert read_runs([folder])[0][0].measured == "", "no number depends on it"


@pytest.mark.parametrize(
    ("name", "family", "size"),
    [
        ("google/gemma-2-9b-it", "gemma", "1 to 10 billion"),
        ("qwen2.5-coder-0.5b-instruct", "qwen", "up to 1 billion"),
        ("smollm2-135m-instruct", "smollm", "up to 1 billion"),
        ("meta-llama/Meta-Llama-3.1-70B-Instruct", "llama", "10 to 100 billion"),
        ("mistralai/Mixtral-8x22B-v0.1", "mixtral", "over 100 billion"),
        ("organism-per-language", "organism", "not stated"),
        ("01-ai/Yi-1.5", "yi-1.5", "not stated"),
        ("gpt-4o-mini", "gpt", "not stated"),
    ],
)
def test_family_and_size_come_from_a_model_s_name(name: str, family: str, size: str) -> None:
    assert (family_of(name), size_of(name)) == (family, size)


def test_the_overview_has_a_map_for_each_rate_and_says_what_does_not_apply(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / "local", **FEW),
        write_run(tmp_path / "served", endpoint=True, model="small-chat", **FEW),
        write_run(tmp_path / "german", **{**FEW, "langs": ("de",)}),
    ]
    compared = leaderboard(*read_runs(folders))
    (overview,) = overviews(compared)
    assert overview.languages == ("de", "en", "yo")
    assert overview.title == "Groups 1 and 2: judge " + JUDGE
    assert [drawn.name for drawn in overview.maps] == ["baseline", "ablated", "over_refusal", "robustness"]
    unedited, ablated, *_ = overview.maps
    local, served, german = unedited.rows
    assert [figure.value for figure in local.cells if figure] == [
        row.baseline.value for row in local.entry.languages if row.baseline
    ]
    assert german.cells[1:] == (None, None)
    assert [row.absent for row in ablated.rows] == ["", "does not apply", ""]
    assert not served.absent
    text = page(compared)
    assert text.count('colspan="4">does not apply') == 2, "ablated and robustness"
    alone = leaderboard(*read_runs(folders[1:2]))
    assert [drawn.name for drawn in overviews(alone)[0].maps] == ["baseline", "over_refusal"]
    assert "so there are no rates" not in page(alone)


def test_languages_stand_in_one_order_whatever_the_order_of_a_run(tmp_path: Path) -> None:
    langs = ("yo", "de", "en")
    entry = entry_of(one_run(tmp_path, langs=langs, sources=langs), JUDGE)
    assert [row.lang for row in entry.languages] == ["de", "en", "yo"]
    grid = transfer(entry, "ablation", "harmful")
    assert grid is not None
    assert grid.columns == ("de", "en", "yo")
    assert [row.name for row in grid.rows][:4] == ["no edit", "de", "en", "yo"]


def test_a_column_of_which_no_line_has_a_number_is_left_out(tmp_path: Path) -> None:
    compared = leaderboard(*read_runs([write_run(tmp_path / "run", **FEW)]))
    labels = [column.label for column in columns_of(compared.boards[0], "de")]
    assert labels == [
        "Robustness", "Refused, no edit", "Refused, direction ablated", "Change", "Half strength",
        "Kept, own direction", "Kept, other languages’", "Over-refusal", "n", "Undecided",
    ]  # fmt: skip
    assert "Puzzled" in {column.label for column in BY_LANGUAGE} - set(labels)


def test_the_page_says_what_it_is_made_of_and_how_to_make_it_again(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / "a run", date="2026-03-01", **FEW),
        write_run(tmp_path / "b", date="2026-02-01", **FEW),
        write_run(tmp_path / "c", **FEW),
    ]
    runs = [replace(run, origin="Lab" if run.name == "c" else "") for run in read_runs(folders)[0]]
    assert page_command(runs) == (
        "polyrefuse eval leaderboard 'runs/a run' runs/b runs/c --origin c=Lab --out site/"
    )
    assert dates(runs) == "2026-02-01 to 2026-03-01 (2 of 3 runs state their date)"
    assert dates(runs[:1]) == "2026-03-01"
    assert dates(runs[2:]) == ""
    text = page(leaderboard(runs))
    for shown in (
        dates(runs),
        "digest dddddddddddd",
        f"{JUDGE} (",
        "measured with polyrefuse 0.1.0",
        "runs/b runs/c",
    ):
        assert shown in text, shown


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, ""),
        (
            {"n_test": 24, "strengths": [], "crossed": None},
            " --test first:24 --strengths none --crossed all",
        ),
        ({"n_test": 24, "test_seed": 0, "crossed": 8}, " --test 24 --crossed 8"),
        ({"final_punctuation": "removed"}, " --final-punctuation removed"),
        ({"n_test": "24; rm"}, " --test 'first:24; rm'"),
        ({"direction_langs": ["de", "en"], "filter_prompts": False}, " --directions de,en --no-filter"),
        (
            {"coefficient": 1.5, "refusal_tokens": "40,41; rm"},
            " --coefficient 1.5 --refusal-tokens '40,41; rm'",
        ),
    ],
)
def test_the_command_of_a_run_is_what_was_asked_for(
    tmp_path: Path, settings: dict[str, Any], options: str
) -> None:
    request = {
        "model": {"name": "example/a"},
        "data": {"recipe": "paper"},
        "settings": {**plain(RunSettings(langs=("de", "yo")).signature()), **settings},
    }
    run = replace(one_run(tmp_path), request=request)
    start = "polyrefuse eval run --model example/a --data builds/paper --langs de,yo"
    assert run_command(run) == f"{start}{options} --out runs/run"
    place = {name: getattr(run.results[0], name) for name in ("lang", "label", "judge")}
    fewer: Any = SimpleNamespace(**place, condition="addition:en", n=1, n_unjudged=0)
    part = replace(run, results=(*run.results, fewer))
    first = "" if "n_test" in settings else " --test first:all"
    assert run_command(part) == f"{start}{first}{options} --out runs/run"
    for damaged in (
        None,
        {},
        {"model": 7, "settings": []},
        {"model": {"name": "x"}, "settings": {"seed": {}}},
    ):
        run_command(replace(run, request=damaged))


def test_the_most_robust_is_first_and_what_has_no_summary_last(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / "weak", strength=0.1, **FEW),
        write_run(tmp_path / "none", with_summary=False, **FEW),
        write_run(tmp_path / "strong", strength=0.9, **FEW),
    ]
    (board,) = leaderboard(*read_runs(folders)).boards
    assert [entry.run.name for entry in board.entries] == ["strong", "weak", "none"]
