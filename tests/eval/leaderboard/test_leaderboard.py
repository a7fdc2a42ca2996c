"""The leaderboard: every number leads to its JSON, what differs stands apart, nothing is let through."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from click.testing import CliRunner
from leaderboard_runs import FEW, FORMULA, JUDGE, one_run, write_harmfulness, write_run
from leaderboard_site import HOSTILE, Elements, resolve, site
from run_records import write_agreement

from polyrefuse_data.checks.languages_file import registered
from polyrefuse_data.core import output_folder
from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.errors import RunFolderError
from polyrefuse_eval.leaderboard.boards import leaderboard
from polyrefuse_eval.leaderboard.comparability import differences_in_words
from polyrefuse_eval.leaderboard.entries import entry_of
from polyrefuse_eval.leaderboard.figures import (
    Figure,
    condition_text,
    language_name,
    mean_of,
    of_result,
    pointer,
)
from polyrefuse_eval.leaderboard.grids import transfer
from polyrefuse_eval.leaderboard.harmfulness import harmfulness_of
from polyrefuse_eval.leaderboard.overview import overviews
from polyrefuse_eval.leaderboard.page import page
from polyrefuse_eval.leaderboard.rate_chart import rate_chart
from polyrefuse_eval.leaderboard.records import record_table
from polyrefuse_eval.leaderboard.runs import read_runs
from polyrefuse_eval.leaderboard.site import write_site
from polyrefuse_eval.leaderboard.tables import comma_separated, markdown
from polyrefuse_eval.results.agreement_records import AgreementRecord


def call(*arguments: object) -> Any:
    return CliRunner().invoke(eval_group, ["leaderboard", *map(str, arguments)])


def test_every_number_on_the_page_is_the_number_in_its_json(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a/b", **FEW),
        write_run(tmp_path / "a/c~d e", model="other", judges=(JUDGE, "wild/guard"), seed=1, **FEW),
    ]
    out = site(tmp_path / "site", *runs)
    checked = 0
    for attributes, text in Elements((out / "index.html").read_text("utf-8")).named("a"):
        if attributes.get("class") != "n":
            continue
        value = resolve(out, attributes["href"] or "")
        first = (attributes["data-told"] or "").partition("\n")[0].replace("\u2212", "-").replace(",", "")
        shown, percent = re.match(r"(-?[\d.]+)( %| points)?", first).groups()  # type: ignore[union-attr]
        scale, step = (100, 0.1) if percent else (1, 0.01)
        assert abs(float(shown) - scale * value) <= 0.5001 * step, (first, value)
        printed = text.replace("\u2212", "-").replace(",", "").removesuffix(" %").removesuffix(" points")
        if printed.strip():
            assert printed in (shown, f"{100 * value:.0f}"), (text, first)
        checked += 1
    assert checked > 250


def test_a_number_tells_its_interval_its_counts_and_what_it_is(tmp_path: Path) -> None:
    entry = entry_of(one_run(tmp_path), JUDGE)
    row = entry.row("de")
    assert row is not None
    assert row.baseline is not None
    first, about, counts = row.baseline.told.split("\n")
    assert re.fullmatch(r"[\d.]+ % \[[\d.]+, [\d.]+\] \(95 % interval\)", first)
    assert about == f"refusal rate, German (de), harmful prompts, no edit; judge {JUDGE}"
    assert counts == "38 judged, 2 undecided: 90.0 % if none of these refused, 95.0 % if all did"
    assert row.source == "de"
    assert row.change is not None
    assert "after Holm" in row.change.about
    assert entry.worst is not None
    assert entry.worst.value == min(one.robustness.value for one in entry.languages if one.robustness)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("baseline", "no edit"),
        ("ablation:en", "direction of en ablated"),
        ("ablation:en@0.5", "direction of en ablated, strength 0.5"),
        ("addition:random", "random direction added"),
        ("ablation:pooled", "direction of all languages ablated"),
        ("something else", "something else"),
    ],
)
def test_conditions_in_words(condition: str, words: str) -> None:
    assert condition_text(condition) == words


def test_a_pointer_is_escaped_for_json_and_for_an_address(tmp_path: Path) -> None:
    (tmp_path / "x y.json").write_text(json.dumps({"a/b": {"c~d": [{"é#?": 5}]}}))
    assert resolve(tmp_path, pointer("x y.json", "a/b", "c~d", 0, "é#?")) == 5


def test_a_mean_has_the_mean_of_the_interval_ends_and_all_counts() -> None:
    figures = [
        Figure(0.2, "", "", 0.1, 0.4, 10, 1),
        Figure(0.6, "", "", 0.5, 0.8, 20, 2),
        Figure(None, "", "", n=0, n_unjudged=5),
    ]
    found = mean_of(figures, "rate", "link")
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.4, 0.3, 0.6))
    assert (found.n, found.n_unjudged) == (30, 8)
    assert "mean of 2 languages" in found.about
    assert mean_of(figures[2:], "rate", "link") is None


def test_what_is_none_is_shown_as_none() -> None:
    nothing = Figure(None, "refusal rate", "", n=0, n_unjudged=12)
    assert (nothing.text, nothing.short, nothing.interval) == ("–", "–", "")
    assert nothing.told == "not judged\nrefusal rate\n0 judged, 12 undecided"
    assert Figure(-0.0001, "", "").text == "0.0 %"
    assert Figure(-0.25, "", "").text == "\u221225.0 %"
    assert Figure(295498, "", "", kind="count").text == "295,498"


def test_runs_of_one_model_and_judges_are_told_apart_wherever_they_stand(tmp_path: Path) -> None:
    """Two runs of a model and one of another; then also the same judge in an older version."""
    few: dict[str, Any] = {"langs": ("de", "en"), "n": 8, "layers": 4, "judges": ("native-9",)}
    runs = [
        write_run(tmp_path / "first", model="example/same", **few),
        write_run(tmp_path / "second", model="example/same", **few),
        write_run(tmp_path / "other", model="example/other", **few),
    ]
    text = page(leaderboard(read_runs(runs)[0]))
    overview = text[text.index('<section id="overview"') : text.index('<section id="models"')]
    maps = overview.count("<figure")
    for name, count in (("first", maps), ("second", maps), ("other", 0)):
        assert overview.count(f'<span class="run-name">run {name}</span>') == count, name
    assert "run second, judge native-9" in text, "in detail"
    assert "mark judge" not in text
    older = write_run(tmp_path / "older", model="example/older", **few | {"judges": ("native-8",)})
    compared = leaderboard(read_runs([*runs, older])[0])
    text = page(compared)
    overview = text[text.index('<section id="overview"') : text.index('<section id="models"')]
    assert overview.count('<span class="mark judge">judge native-8</span>') == maps
    assert "judge native-9</span>" not in overview, "the first judge is marked nowhere"
    assert compared.apart == [
        "shown apart: older (judge native-8): judged by native-8, an older version, which reads some answers "
        "differently, instead of native-9"
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"digest": "e" * 64},
            "other data: digest eeeeeeeeeeee…, recipe paper instead of digest dddddddddddd…, recipe paper",
        ),
        ({"judges": ("wildguard",)}, "judged by wildguard instead of native-openers-1"),
        ({"template_hash": "f" * 64}, "another chat template of example/model-a (ffffffffffff)"),
        ({"settings": {"max_new_tokens": 64}}, "longest answer in tokens: 64 instead of 512"),
    ],
)
def test_what_differs_stands_apart_and_is_said(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    folders = [write_run(tmp_path / name, **FEW) for name in ("a", "b")]
    folders.append(write_run(tmp_path / "other", **{**FEW, **changes}))
    result = call(*folders, "--out", tmp_path / "site")
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("shown apart")]
    assert line.startswith("shown apart: other (judge ")
    assert said in line
    found = json.loads((tmp_path / "site/leaderboard.json").read_text())
    assert [[run for run, _ in board["entries"]] for board in found["boards"]] == [["a", "b"], ["other"]]
    text = "".join(text for _, text in Elements((tmp_path / "site/index.html").read_text()).named("body"))
    assert said in text
    assert "Group 2 of 2" in text


def test_other_models_templates_and_seeds_are_compared(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", **FEW)
    second = write_run(tmp_path / "b", model="other", template_hash="f" * 64, seed=3, **FEW)
    found = leaderboard(*read_runs([first, second]))
    assert len(found.boards) == 1
    assert found.apart == []


def test_the_draw_of_test_prompts_is_a_difference_where_it_takes_some(tmp_path: Path) -> None:
    def compared(name: str, settings: dict[str, Any]) -> Any:
        folders = [
            write_run(tmp_path / name / which, model=which, **{**FEW, "settings": {**settings, **more}})
            for which, more in (("first", {}), ("drawn", {"test_seed": 0}))
        ]
        return leaderboard(*read_runs(folders))

    basis = {"langs": ["en"], "max_new_tokens": 64}
    some = compared("some", {**basis, "n_test": 8})
    assert len(some.boards) == 2
    assert any("which test prompts: a draw with seed 0 instead of the first" in str(line) or
               "which test prompts: the first instead of a draw with seed 0" in str(line)
               for line in some.apart)  # fmt: skip
    answers = {entry.run.model for board in compared("all", basis).boards for entry in board.entries}
    assert answers == {"first", "drawn"}


def test_a_model_behind_an_endpoint_joins_the_table_of_local_models(tmp_path: Path) -> None:
    few = {**FEW, "settings": {"n_test": 40, "max_new_tokens": 64, "rule": "robust"}}
    folders = [
        write_run(tmp_path / "local", **few),
        write_run(tmp_path / "served", model="small-chat", endpoint=True, **few),
        write_run(tmp_path / "longer", endpoint=True, **{**FEW, "settings": {"max_new_tokens": 128}}),
    ]
    compared = leaderboard(*read_runs(folders))
    assert [[entry.run.name for entry in board.entries] for board in compared.boards] == [
        ["local", "served"],
        ["longer"],
    ]
    local, served = compared.boards[0].entries
    assert (local.has_edits, served.has_edits) == (True, False)
    assert served.run.endpoint == "https://api.example.org"
    assert served.baseline is not None
    assert "| small-chat@0123456789ab | served | does not apply | does not apply |" in markdown(compared)
    assert overviews(compared)[0].conditions == (
        "40 test prompts of each label in each language; answers of at most 64 tokens."
    )
    assert (served.ablated, served.robustness) == (None, None)
    assert [board.group for board in compared.boards] == [0, 1]
    assert any("longest answer in tokens: 128 instead of 64" in line for line in compared.apart)


def test_runs_with_other_edits_stand_apart_in_one_group(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / "robust", settings={"rule": "robust"}, **FEW),
        write_run(tmp_path / "mediating", settings={"rule": "mediating"}, **FEW),
        write_run(tmp_path / "german", settings={"rule": "robust"}, **{**FEW, "langs": ("de",)}),
    ]
    boards = leaderboard(*read_runs(folders)).boards
    assert [board.entries[0].run.name for board in boards] == ["robust", "mediating", "german"]
    assert {board.group for board in boards} == {0}, "rates without an edit can be compared"
    assert boards[1].differs == ("rule of selecting a direction: mediating instead of robust",)
    assert "languages: de instead of de en yo" in boards[2].differs


def test_a_language_of_one_s_own_has_the_name_that_its_run_records(tmp_path: Path) -> None:
    few = {**FEW, "langs": ("en", "sw"), "sources": ("en",)}
    swahili = {"code": "sw", "name": "Swahili", "native_name": "Kiswahili", "scripts": ["Latin"]}
    with registered([]):
        alone = leaderboard(*read_runs([write_run(tmp_path / "alone", **few)]))
        assert language_name("sw") == "sw"
        folder = write_run(tmp_path / "run", own_languages=[swahili], **few)
        named = leaderboard(*read_runs([folder]))
        assert language_name("sw") == "Swahili (sw)"
        assert "sw · Swahili · Kiswahili" in page(named)
        other = write_run(tmp_path / "other", own_languages=[{**swahili, "name": "Kiswahili"}], **few)
        _, (left_out,) = read_runs([folder, other])
        assert "'sw' is Kiswahili there and Swahili with other settings here" in left_out.reason
    assert alone.boards


def test_a_run_without_scores_summary_or_directions_leaves_charts_out_with_a_sentence(
    tmp_path: Path,
) -> None:
    folder = write_run(
        tmp_path / "one",
        langs=("en",),
        sources=("en",),
        strengths=(),
        n=0,
        with_summary=False,
        with_scores=False,
    )
    text = page(leaderboard(*read_runs([folder])))
    for sentence in (
        "no candidate scores",
        "One strength of ablation",
        "no summary of this judge",
        "no rates to draw",
    ):
        assert sentence in text
    assert "These runs have no summary." in text
    assert "not judged" in text
    assert ">None<" not in text


def test_published_tables_rescored_are_drawn_with_what_they_have(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "gemma", model="google/gemma-2-9b-it", sources=("ja",), strengths=(), published=True,
        with_scores=False, with_summary=False, judges=("wildguard", JUDGE), n=50,
    )  # fmt: skip
    found = leaderboard(*read_runs([folder]))
    assert [board.judge for board in found.boards] == ["wildguard", JUDGE]
    entry = found.entries[0]
    assert entry.over_refusal is None
    assert entry.baseline is not None
    assert {row.source for row in entry.languages} == {"ja"}
    drawn = rate_chart(entry)
    assert drawn is not None
    assert len(drawn.rows) == 14
    grid = transfer(entry, "ablation", "harmful")
    assert grid is not None
    assert [row.name for row in grid.rows] == ["no edit", "ja"]
    assert transfer(entry, "addition", "harmless") is None
    text = page(found)
    assert "The run holds no candidate scores, so there are no curves by layer." in text
    assert "direction of ja" in text


def test_what_else_is_known_of_answers_is_told(tmp_path: Path) -> None:
    result = replace(
        one_run(tmp_path).results[0],
        n_incoherent=3,
        n_harm_judged=36,
        harmful_rate=0.25,
        condition="baseline",
    )
    told = of_result(result, "data/x.json", 4).told
    assert "3 answers incoherent" in told
    assert "25.0 % of 36 harmful" in told


def test_harmfulness_is_drawn_beside_refusal_rates_or_alone(tmp_path: Path) -> None:
    folder = write_harmfulness(tmp_path / "harm")
    alone = leaderboard(*read_runs([folder]))
    assert alone.boards == ()
    out = tmp_path / "site"
    write_site(alone, out)
    text = (out / "index.html").read_text("utf-8")
    assert "None of these runs has refusal rates." in text
    assert "Yoruba (yo) is left out: 3 refused harmful prompts" in text
    (german, english) = harmfulness_of(alone.runs[0])
    assert german.scatter is not None
    assert [(one.label, one.behaviour, one.count) for one in german.scatter.points] == [
        ("harmful", "accepted", 10), ("harmful", "refused", 20),
        ("harmless", "accepted", 10), ("harmless", "refused", 20),
    ]  # fmt: skip
    assert all(one.path.count("M") == one.count for one in german.scatter.points)
    assert german.separation is not None
    figure = german.separation.rows[0][2]
    assert isinstance(figure, Figure)
    assert resolve(out, figure.link) == figure.value == 0.987
    assert english.chart is not None
    assert [panel.title.split()[0] for panel in english.chart.panels] == ["cosine", "share", "refusal"]
    assert english.chart.names[0] == "cosine"
    assert len(english.chart.names) == 5
    assert len(english.chart.slices) == 7, "hidden states of 6 layers and the output of the last"
    assert english.chart.panels[2].title == "refusal rate, prompt steered"
    assert [label for _, label in english.chart.panels[2].ticks] == ["0", "0.5", "1"]
    assert english.categories is not None
    assert english.categories.columns == ("category", "fraud", "malware")
    between = english.categories.rows[1][1]
    assert isinstance(between, Figure)
    assert resolve(out, between.link) == between.value == 0.7
    assert english.categories.rows[1][2] is None
    assert english.by_category is not None
    fraud, malware = english.by_category.rows
    assert [cell.value for cell in fraud[1:3] if isinstance(cell, Figure)] == [12, 4]
    assert isinstance(fraud[5], Figure)
    assert (resolve(out, fraud[5].link), fraud[5].text) == (15 / 16, "93.8 %")
    assert isinstance(fraud[6], Figure)
    assert resolve(out, fraud[6].link) == fraud[6].value == 5 / 16
    assert "at layer 5" in fraud[6].about
    assert malware[6] is None, "none of its prompts was asked about"


def test_harmfulness_in_a_run_s_folder_keeps_its_own_signature(tmp_path: Path) -> None:
    folder = write_harmfulness(write_run(tmp_path / "run", **FEW))
    found = leaderboard(*read_runs([folder]))
    assert len(found.boards) == 1
    text = page(found)
    assert "Harmfulness and refusal apart" in text
    (block,) = [
        texts[0] for _, attributes, texts in Elements(text).found if attributes.get("id") == "signatures"
    ]
    of_rates, of_harmfulness = json.loads(block)
    assert (of_rates["data"], of_harmfulness["data"]) == (
        f"digest {'d' * 64}, recipe paper",
        f"digest {'c' * 64}",
    )
    assert "f" * 16 in of_harmfulness["model"]


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"languages": {"de": {"cosine": "?", "n": 3}}}, "is of the form None; expected polyrefuse-harm"),
        ({"format": "polyrefuse-harmfulness-1"}, "is of the form polyrefuse-harmfulness-1; expected"),
        ({"format": "polyrefuse-harmfulness-2", "languages": 5}, r"is no HarmfulnessFile record \(signature"),
    ],
)
def test_harmfulness_of_another_form_is_left_out_in_one_line(
    tmp_path: Path, record: dict[str, Any], problem: str
) -> None:
    folder = write_harmfulness(tmp_path / "harm")
    (folder / "harmfulness.json").write_text(json.dumps(record))
    _, (left_out,) = read_runs([write_run(tmp_path / "run", **FEW), folder])
    assert re.search(problem, left_out.reason)


def test_agreement_of_judges_is_a_table_whose_numbers_lead_to_the_json(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", **FEW)
    record = AgreementRecord(
        lang="de",
        reference=JUDGE,
        judge="wildguard",
        n=39,
        n_unjudged=1,
        both_refused=38,
        only_reference=1,
        only_judge=0,
        neither=0,
        kappa=0.0,
        sensitivity=38 / 39,
        specificity=None,
        reference_compliance=0.2,
        judge_compliance=0.25,
    )
    write_agreement(folder, record)
    out = site(tmp_path / "site", folder)
    (run,), _ = read_runs([folder])
    table = record_table([asdict(record) for record in run.agreement], run.file, "agreement")
    assert table is not None
    assert table.columns[:4] == ("lang", "reference", "judge", "n")
    assert "specificity" not in table.columns, "of nothing"
    figure = table.rows[0][table.columns.index("kappa")]
    assert isinstance(figure, Figure)
    assert (figure.text, resolve(out, figure.link)) == ("0.00", 0.0)
    assert table.rows[0][1] == JUDGE
    assert "Agreement of judges" in (out / "index.html").read_text("utf-8")


def test_hostile_names_are_text_everywhere(tmp_path: Path) -> None:
    folders = []
    for number, name in enumerate(HOSTILE):
        folder = tmp_path / f"runs/{name.replace('/', '_')}"
        folders.append(
            write_run(
                folder, model=name, revision=name, langs=("de", "en"), sources=("en",), judges=(name,),
                settings={"langs": [name], name: name}, n=8, layers=4, seed=number,
            )
        )  # fmt: skip
        agreed = AgreementRecord(
            lang="de",
            reference=name,
            judge=name,
            n=8,
            n_unjudged=0,
            both_refused=4,
            only_reference=0,
            only_judge=0,
            neither=4,
            kappa=1.0,
            sensitivity=1.0,
            specificity=1.0,
            reference_compliance=0.5,
            judge_compliance=0.5,
        )
        write_agreement(folder, agreed)
    harm = write_harmfulness(tmp_path / "<i>harm", category=HOSTILE[1], model=HOSTILE[0])
    out = site(tmp_path / "site", *folders, harm, tmp_path / "<i>no run</i>")
    text = (out / "index.html").read_text("utf-8")
    elements = Elements(text)
    scripts = list(elements.named("script"))
    assert [attributes.get("type") for attributes, _ in scripts] == ["application/json", None]
    signatures = json.loads(scripts[0][1])
    assert {one["run"] for one in signatures} == {folder.name for folder in (*folders, harm)}
    assert not list(elements.named("img", "b", "i", "iframe", "link", "object"))
    for tag, attributes, _ in elements.found:
        assert not [name for name in attributes if name.startswith("on")], tag
        address = attributes.get("href") or "#"
        assert re.match(r"#|data/[A-Za-z0-9._-]+\.json|leaderboard\.(json|md|csv)", address), address
    assert "{{ 7 * 7 }}{% raw %}" in text
    for file in ("leaderboard.md", "leaderboard.csv"):
        assert (out / file).stat().st_size
    told = (out / "leaderboard.md").read_text("utf-8")
    assert "<" not in told
    assert not re.search(r"(?<!\\)\[x\]", told)
    assert {path.name for path in (out / "data").iterdir()} == {
        run.file.partition("/")[2] for run in read_runs([*folders, harm])[0]
    }


def test_the_policy_allows_the_page_s_own_style_and_script_and_nothing_else(tmp_path: Path) -> None:
    import base64
    import hashlib

    text = page(leaderboard(*read_runs([write_run(tmp_path / "run", **FEW)])))
    elements = Elements(text)
    (policy,) = [
        attributes["content"] or ""
        for attributes, _ in elements.named("meta")
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for (_, inline), directive in zip(
        [next(elements.named("style")), list(elements.named("script"))[1]],
        ("style-src", "script-src"),
        strict=True,
    ):
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert not [tag for tag, attributes, _ in elements.found if "style" in attributes or "src" in attributes]


def test_everything_that_the_page_refers_to_is_there(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / "a", judges=(JUDGE, "wildguard"), **FEW),
        write_run(tmp_path / "b", digest="e" * 64, **FEW),
        write_harmfulness(tmp_path / "c"),
        write_harmfulness(tmp_path / "d"),
    ]
    out = site(tmp_path / "site", *folders)
    found = Elements((out / "index.html").read_text("utf-8")).found
    names = [attributes["id"] for _, attributes, _ in found if "id" in attributes]
    assert len(names) == len(set(names)) > 10
    for tag, attributes, _ in found:
        for key in ("aria-labelledby", "for"):
            assert attributes.get(key, names[0]) in names, (tag, attributes)
        address = attributes.get("href") or ""
        if address.startswith("#"):
            assert address[1:] in names
        elif address:
            assert (out / unquote(address.partition("#")[0])).is_file()
    (block,) = [texts[0] for _, attributes, texts in found if attributes.get("id") == "signatures"]
    signatures = json.loads(block)
    used = {int(attributes["data-entry"] or "") for _, attributes, _ in found if "data-entry" in attributes}
    assert used == set(range(len(signatures))) == set(range(5))


def test_nothing_that_acts_on_a_terminal_or_a_spreadsheet_gets_into_the_site(tmp_path: Path) -> None:
    acting = "＝m\x1b]52;c;eA==\x07\x9b\u202eevil"
    settings = {"rule": acting, acting: 1}
    folder = write_run(tmp_path / "run", model=acting, revision=acting, settings=settings, **FEW)
    other = write_run(tmp_path / "other", seed=3, settings={"rule": "x"}, **FEW)
    result = call(folder, other, "--out", tmp_path / "site")
    assert result.exit_code == 0
    texts = {file.name: file.read_text("utf-8") for file in (tmp_path / "site").rglob("*") if file.is_file()}
    for name, text in {**texts, "said": result.output}.items():
        assert not set(text) & set("\x1b\x07\x9b\u202e"), name
    assert r"＝m\x1b]52" in texts["index.html"]
    assert r"'＝m\x1b]52" in texts["leaderboard.csv"]
    assert json.loads(texts["run.json"])["signature"]["model"]["model"] == acting
    assert "shown apart" in result.stderr


def test_no_answer_gets_into_the_site(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", **FEW)
    for name in ("completions.jsonl", "table.md", "notes.json"):
        (folder / name).write_text('{"response": "THE ANSWER"}\n')
    out = site(tmp_path / "site", folder)
    assert not [path for path in out.rglob("*") if path.is_file() and "THE ANSWER" in path.read_text("utf-8")]


def test_csv_has_a_row_for_each_language_and_no_formulas(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", model="=cmd()", **FEW)
    found = leaderboard(*read_runs([folder]))
    rows = list(csv.DictReader(io.StringIO(comma_separated(found))))
    assert [row["lang"] for row in rows] == ["mean", "de", "en", "yo"]
    assert rows[0]["model"] == "'=cmd()"
    entry = found.entries[0]
    row = entry.row("yo")
    assert row is not None
    assert row.baseline is not None
    assert float(rows[3]["baseline"]) == row.baseline.value
    assert int(rows[3]["n_baseline"]) == row.baseline.n
    assert (rows[3]["data_digest"], rows[3]["template_hash"]) == ("d" * 64, "a" * 64)


def test_markdown_has_a_table_for_the_models_and_each_language(tmp_path: Path) -> None:
    text = markdown(leaderboard(*read_runs([write_run(tmp_path / "run", model="organism", **FEW)])))
    tables = re.findall(r"^\| --- ", text, flags=re.MULTILINE)
    assert len(tables) == 4
    widths = {
        block: {line.count("|") for line in block.splitlines() if line.startswith("|")}
        for block in text.split("\n\n")
    }
    assert all(len(found) <= 1 for found in widths.values())
    assert "test organism, not a real model" in text
    assert f"data digest {'d' * 64}, recipe paper" in text
    assert FORMULA.partition(",")[0] in text


def test_the_same_runs_give_the_same_bytes_and_an_older_site_is_replaced(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / name, **FEW) for name in ("a", "b"))
    out = site(tmp_path / "site", first, second)
    (out / "CNAME").write_text("example.org")
    before = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    site(out, first, second)
    assert before == {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    site(out, second)
    assert {path.name for path in out.rglob("*") if path.is_file()} == {
        "CNAME", "index.html", "leaderboard.json", "leaderboard.md", "leaderboard.csv", "b.json",
    }  # fmt: skip


def test_an_older_site_s_list_of_files_cannot_remove_others(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", **FEW)
    out = site(tmp_path / "site", folder)
    precious = tmp_path / "precious.json"
    digest = hashlib.sha256(b"{}").hexdigest()
    kept = [precious, out / "mine.txt", out / "data" / "edited.json", out / "data" / ".hidden.json"]
    for path in (*kept, out / "data" / "old.json"):
        path.write_text("{}")
    (out / "data" / "edited.json").write_text("{ }")
    marker = json.loads((out / "leaderboard.json").read_text())
    names = ["../precious.json", str(precious), "data/../../precious.json", "mine.txt", "data/edited.json"]
    names += ["data/.hidden.json", "data/old.json", "data/absent.json", "data/not a digest.json"]
    marker["sha256"] |= {**dict.fromkeys(names, digest), "data/not a digest.json": 7}
    (out / "leaderboard.json").write_text(json.dumps(marker))
    site(out, folder)
    assert all(path.exists() for path in kept)
    assert not (out / "data" / "old.json").exists()


def test_a_site_is_not_written_through_a_link(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", **FEW)
    out = site(tmp_path / "site", folder)
    home = tmp_path / "home"
    (out / "data").rename(home)
    before = {path: path.read_bytes() for path in home.iterdir()}
    (out / "data").symlink_to(home)
    with pytest.raises(RunFolderError, match="data' is a link"):
        site(out, folder)
    assert before == {path: path.read_bytes() for path in home.iterdir()}
    with pytest.raises(RunFolderError, match="belongs to the system"):
        site(Path("/etc"), folder)


def test_a_site_that_cannot_be_made_leaves_the_old_one_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path / "a", **FEW)
    out = site(tmp_path / "site", folder)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output_folder, "own_file_opener", full)
    with pytest.raises(RunFolderError, match=r"cannot write to '.*': No space left"):
        write_site(leaderboard(*read_runs([folder])), out)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


def test_folders_that_are_no_runs_are_left_out_with_one_line_each(tmp_path: Path) -> None:
    good = write_run(tmp_path / "good", **FEW)
    (tmp_path / "empty").mkdir()
    unfinished = write_run(tmp_path / "unfinished", **FEW)
    (unfinished / "results.jsonl").unlink()
    torn = write_run(tmp_path / "torn", **FEW)
    with (torn / "results.jsonl").open("a") as file:
        file.write('{"lang": "de", "la')
    (tmp_path / "file").write_text("x")
    result = call(*sorted(path for path in tmp_path.iterdir()), "--out", tmp_path / "site")
    assert result.exit_code == 3, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("left out: ")]
    assert len(lines) == 4
    for words in (
        "'empty' holds no run.json",
        "'file' is not a folder",
        "'unfinished' has no results",
        "line ",
    ):
        assert sum(words in line for line in lines) == 1, (words, lines)
    text = (tmp_path / "site/index.html").read_text("utf-8")
    assert "Left out" in text
    assert "not a folder of a run" not in text
    assert str(tmp_path) not in text
    assert [run.name for run in read_runs([good])[0]] == ["good"]


@pytest.mark.parametrize("case", ["same name", "nothing", "not ours", "a file", "other json"])
def test_what_cannot_be_done_is_one_line_and_writes_nothing(tmp_path: Path, case: str) -> None:
    folder = write_run(tmp_path / "a/x", **FEW)
    arguments, out = [folder], tmp_path / "site"
    if case == "same name":
        arguments.append(write_run(tmp_path / "b/x", **FEW))
        said = "two runs are named 'x'"
    elif case == "nothing":
        (tmp_path / "empty").mkdir()
        arguments, said = [tmp_path / "empty"], "no run with results in the folders given"
    elif case == "a file":
        out.write_text("mine")
        said = "is a file"
    else:
        out.mkdir()
        (out / "leaderboard.json").write_text("{}") if case == "other json" else None
        (out / "thesis.tex").write_text("mine")
        said = "is not empty and holds no leaderboard"
    before = sorted(tmp_path.rglob("*"))
    result = call(*arguments, "--out", out)
    assert isinstance(result.exception, RunFolderError | SystemExit), result.exception
    assert said in str(result.exception) + result.output
    assert "\n" not in str(result.exception)
    assert sorted(tmp_path.rglob("*")) == before


def test_one_folder_given_twice_is_one_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", **FEW)
    assert len(read_runs([folder, tmp_path / "a/../a"])[0]) == 1


def test_runs_whose_names_are_one_file_name_keep_a_file_each(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, **FEW) for name in ("x y", "x?y", "X-Y")]
    files = [run.file for run in read_runs(folders)[0]]
    assert files == ["data/x-y.json", "data/x-y-2.json", "data/X-Y-3.json"]


def _luminance(colour: str) -> float:
    def linear(part: str) -> float:
        value = int(part, 16) / 255
        return value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4

    full = colour[1:] if len(colour) == 7 else "".join(2 * letter for letter in colour[1:])
    red, green, blue = (linear(full[start : start + 2]) for start in (0, 2, 4))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours (WCAG 2.2)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_colours_can_be_read_by_everybody() -> None:
    import polyrefuse_eval.leaderboard as package

    style = (Path(package.__file__).parent / "assets/style.css").read_text("utf-8")
    scale = re.findall(r"\.h\d+ \{ background: (#\w+); color: (#\w+); \}", style)
    assert len(scale) == 21
    assert all(contrast(*pair) >= 4.5 for pair in scale)
    lightness = [_luminance(background) for background, _ in scale]
    assert lightness == sorted(lightness), "more is lighter, so that no colour has to be told from another"
    for block in re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL):
        colours = dict(re.findall(r"--([\w-]+): (#\w+);", block))
        for name in ("ink", "quiet", "link"):
            assert contrast(colours[name], colours["paper"]) >= 4.5, name
            assert contrast(colours[name], colours["soft"]) >= 4.5, name
        assert contrast(colours["note"], colours["note-ink"]) >= 4.5
        graphics = ["baseline", "ablated", "mark", "focus", *(f"line-{number}" for number in range(6))]
        for name in graphics:
            assert contrast(colours[name], colours["paper"]) >= 3, name


def test_a_run_without_edits_differs_in_one_phrase_from_one_with_edits() -> None:
    basis = {"judge": {"name": "native-1"}, "data": "d", "template": "", "formula": None}
    edited = {**basis, "settings": {"langs": ["en"], "rule": "robust", "crossed": 128, "n_test": 5}}
    unedited = {**basis, "settings": {"langs": ["en", "de"], "n_test": 5}}
    assert differences_in_words(edited, unedited) == [
        "only answers without an edit",
        "languages: en de instead of en",
    ]
    assert differences_in_words(unedited, edited)[0] == "with edits, too"
    other = {**basis, "settings": {**edited["settings"], "rule": "mediating"}}
    assert differences_in_words(edited, other) == [
        "rule of selecting a direction: mediating instead of robust"
    ]
