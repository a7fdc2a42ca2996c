"""A run that somebody else made: every planted lie is found, also where the digests were made to fit it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from run_records import finished_run, made_now, verdict_on, write_summary

from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.judging.native.judge import NativeJudge
from polyrefuse_eval.judging.of_runs import verdict_records
from polyrefuse_eval.report.check import check_run
from polyrefuse_eval.report.publication import published_run
from polyrefuse_eval.report.tables import write_tables
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.statistics.rates import wilson

OTHER = "other-judge"
VERDICTS = f"verdicts/{OTHER}/de/harmful.baseline.jsonl"
Record = dict[str, Any]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in two languages with two judges: the native one, and one that refuses every other."""
    run = finished_run(tmp_path_factory.mktemp("honest") / "run", judge=NativeJudge.name)
    for lang in run.languages():
        answers = run.completions(lang)
        (read,) = verdict_records(NativeJudge(), lang, answers, {})
        run.write_verdicts(NativeJudge.name, lang, read)
        run.write_verdicts(
            OTHER,
            lang,
            [verdict_on(answer, OTHER, refused=int(answer.id[-1]) % 2 == 0) for answer in answers],
        )
    run.set_judges([NativeJudge.name, OTHER])
    write_tables(run)
    return run.path


def lines(change: Callable[[Record], Any], file: str = "results.jsonl") -> Callable[[Path], None]:
    """Return what changes the records of a file."""

    def apply(run: Path) -> None:
        records = [json.loads(line) for line in (run / file).read_text().splitlines()]
        for record in records:
            change(record)
        (run / file).write_text("".join(json.dumps(record, sort_keys=True) + "\n" for record in records))

    return apply


def part(
    file: str, change: Callable[[Any], Any], also: Callable[[Path], Any] = lambda run: None
) -> Callable[[Path], None]:
    """Return what changes the JSON value of a file, and whatever `also` changes."""

    def apply(run: Path) -> None:
        value = json.loads((run / file).read_text())
        change(value)
        (run / file).write_text(json.dumps(value))
        also(run)

    return apply


def better(result: Record) -> None:
    """State one refusal less in German, consistent with itself."""
    if (result["lang"], result["label"], result["judge"]) == ("de", "harmful", OTHER):
        hits, n = result["n_refused"] - 1, result["n"]
        low, high = wilson(hits, n)
        result.update(n_refused=hits, refusal_rate=hits / n, low=low, high=high)
        bounds(result)


def bounds(result: Record) -> None:
    """State the bounds that follow from the counts."""
    answers = result["n"] + result["n_unjudged"]
    result["refusal_least"] = result["n_refused"] / answers
    result["refusal_most"] = (result["n_refused"] + result["n_unjudged"]) / answers


def more_answers(result: Record) -> None:
    result["n_unjudged"] = 90
    bounds(result)


def first_verdict(change: Callable[[Record], Any]) -> Callable[[Path], None]:
    """Return what changes the first verdict on German harmful prompts."""
    seen: list[Record] = []
    return lines(lambda record: None if seen or seen.append(record) else change(record), VERDICTS)


def added_verdict(**changes: Any) -> Callable[[Path], None]:
    def apply(run: Path) -> None:
        record = json.loads((run / VERDICTS).read_text().splitlines()[0]) | changes
        with (run / VERDICTS).open("a") as file:
            file.write(json.dumps(record, sort_keys=True) + "\n")

    return apply


def retold(tell: Callable[[Path], None]) -> Callable[[Path], None]:
    """Return a lie about verdicts after which all tables were made again."""

    def apply(run: Path) -> None:
        tell(run)
        write_tables(RunFolder(run))

    return apply


def served_refusals(run: Path) -> None:
    """Call the refusals of a model behind an endpoint the service's."""
    part("run.json", lambda file: file["signature"]["model"].update(endpoint="local"))(run)
    lines(lambda record: record["refused"] and record.update(service_refused=True), VERDICTS)(run)


def further_strength(run: Path) -> None:
    """Judge half an ablation in a run of quarters."""
    part("run.json", lambda file: file["signature"]["settings"].update(strengths=[0.25]))(run)
    folder = RunFolder.existing(run)
    whole = [record for record in folder.verdicts(OTHER, "de") if record.condition == "ablation:en"]
    half = "ablation:en@0.5"
    folder.write_verdicts(
        OTHER,
        "de",
        [
            *folder.verdicts(OTHER, "de"),
            *(replace(record, condition=half, key=f"{record.id}/{half}") for record in whole),
        ],
    )


def of_summary(change: Callable[[Record], Any]) -> Callable[[Path], None]:
    return part("summary.json", lambda summary: change(summary["judges"][OTHER]["languages"]["de"]))


def of_english(summary: Record) -> Record:
    """Return what a summary says of English, the language in which the whole protocol was run."""
    english: Record = summary["judges"][OTHER]["languages"]["en"]
    return english


def narrow(estimate: Record) -> None:
    """Let an interval begin at its end."""
    estimate.update(low=estimate["high"])


def swap_languages(run: Path) -> None:
    for name in ("harmful.baseline", "harmful.ablation-en", "harmless.baseline"):
        file = f"verdicts/{OTHER}/{{}}/{name}.jsonl"
        shutil.copy(run / file.format("en"), run / file.format("de"))


def copied_answers(run: Path) -> None:
    """Give the answers to English prompts as those to German ones."""
    folder = RunFolder.existing(run)
    folder.write_completions("de", [replace(answer, lang="de") for answer in folder.completions("en")])


def swapped_answers(run: Path) -> None:
    """Let the native judge find German answers to English prompts, and English ones to German prompts."""
    for lang, other in (("de", "en"), ("en", "de")):
        for file in run.glob(f"verdicts/{NativeJudge.name}/{lang}/*.jsonl"):
            lines(lambda record, other=other: record.update(response_lang=other), str(file.relative_to(run)))(  # type: ignore[misc]
                run
            )


def without_harmless(run: Path) -> None:
    for file in run.glob("*/**/de/harmless.*"):
        file.unlink()


def without_first_ablated(run: Path) -> None:
    file = run / f"verdicts/{OTHER}/de/harmful.ablation-en.jsonl"
    file.write_text(file.read_text().partition("\n")[2])


LIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a rate, with its count and interval": (lines(better), "n_refused is 2; the verdicts give 3"),
    "a narrower interval": (
        lines(lambda record: record.update(low=record["refusal_rate"] and record["refusal_rate"] - 1e-3)),
        "low is 0.499; the verdicts give 0.1",
    ),
    "a rate that is none": (lines(lambda record: record.update(refusal_rate=1.5)), "is no Result record"),
    "a rate that is no number": (
        lines(lambda record: record.update(low=float("nan"))),
        "is no Result record",
    ),
    "a field of its own": (lines(lambda record: record.update(note="best")), "is no Result record"),
    "more answers judged": (lines(more_answers), "n_unjudged is 90; the verdicts give"),
    "a language that was not measured": (
        lines(lambda record: record.update(lang="fr") if record["lang"] == "de" else None),
        "fr",
    ),
    "a judge that read nothing": (
        lines(lambda record: record.update(judge="wildguard") if record["judge"] == OTHER else None),
        "judge wildguard, which run.json does not name",
    ),
    "results left out": (
        lambda run: (run / "results.jsonl").write_text(
            "".join((run / "results.jsonl").open().readlines()[1:])
        ),
        "is nothing; the verdicts give",
    ),
    "a smaller p": (
        lines(lambda record: record["n"] and record.update(p=0.0, p_holm=0.0), "comparisons.jsonl"),
        ".p is 0.0; the verdicts give",
    ),
    "a larger difference": (
        lines(lambda record: record["n"] and record.update(difference=-0.9), "comparisons.jsonl"),
        ".difference is -0.9",
    ),
    "more agreement": (
        part("agreement.json", lambda file: file["agreement"].clear()),
        "agreement.json:",
    ),
    "more robustness": (
        of_summary(lambda language: language["robustness"]["parts"].update(kept_own=0.1)),
        "robustness.parts.kept_own is 0.1; the verdicts give 1.0",
    ),
    "a robustness interval": (
        part(
            "summary.json", lambda summary: narrow(summary["judges"][OTHER]["languages"]["en"]["robustness"])
        ),
        "robustness.low is",
    ),
    "another formula": (
        part("summary.json", lambda summary: summary.update(formula="ours")),
        "formula is ours",
    ),
    "another baseline in the summary": (
        of_summary(
            lambda language: language["baseline"].update(
                hits=6, n=6, rate=1.0, low=wilson(6, 6)[0], high=wilson(6, 6)[1]
            )
        ),
        "its counts give",
    ),
    "a verdict": (first_verdict(lambda record: record.update(refused=False)), "the verdicts give"),
    "a direction that no answer was made with": (
        part(
            "run.json",
            lambda run: run["signature"]["settings"].update(direction_langs=["en", "de"]),
            also=lambda run: (run / "answered.json").write_text(
                '{"answers": {"de": 18, "en": 18}, "directions": ["en", "de"]}'
            ),
        ),
        "answered.json names a direction of 'de', with which no answer was made",
    ),
    "a direction that was not asked for": (
        lambda run: (run / "answered.json").write_text(
            '{"answers": {"de": 18, "en": 18}, "directions": ["en", "fr"]}'
        ),
        "answered.json names a direction of 'fr', which run.json does not name",
    ),
    "a direction left out": (
        lambda run: (run / "answered.json").write_text('{"answers": {"de": 18, "en": 18}, "directions": []}'),
        "answered.json lacks the direction of 'en', with which answers were made",
    ),
    "a verdict twice, and all tables": (retold(added_verdict()), "is there twice"),
    "a prompt of its own, and all tables": (
        retold(added_verdict(id="harmful-test-9999", key="harmful-test-9999/baseline", group="own")),
        "not all judges have read the same answers of de harmful baseline",
    ),
    "another group, and all tables": (
        retold(first_verdict(lambda record: record.update(group="own"))),
        "is of another group or label than elsewhere",
    ),
    "prompts left out, and all tables": (
        retold(lambda run: (run / VERDICTS).write_text((run / VERDICTS).read_text().partition("\n")[2])),
        "have no verdict of other-judge without an edit",
    ),
    "verdicts on other answers, and all tables": (
        retold(lines(lambda record: record.update(response_sha256="0" * 64), VERDICTS)),
        "is of another answer than the one in completions/",
    ),
    "answers of another language": (copied_answers, "the 12 answers in 'de' and 'en' are the same texts"),
    "languages that change places": (
        retold(swapped_answers),
        "most answers in 'de' are in 'en', and those in 'en' in 'de'",
    ),
    "a label left out of one language, and all tables": (
        retold(without_harmless),
        "harmless prompts have no verdict of other-judge without an edit in 'de'",
    ),
    "a prompt left out under an edit, and all tables": (
        retold(without_first_ablated),
        "1 prompts of de harmful baseline have no verdict of other-judge under ablation:en",
    ),
    "verdicts of another language": (swap_languages, "is of another condition"),
    "more prompts than were asked for": (
        part("run.json", lambda run: run["signature"]["settings"].update(n_test=3)),
        "6 verdicts of other-judge on de harmful baseline; run.json allows 3",
    ),
    "a language that the run did not ask for": (
        part("run.json", lambda run: run["signature"]["settings"].update(langs=["en"])),
        "in 'de', which run.json does not name",
    ),
    "a direction that the run did not fit": (
        part("run.json", lambda run: run["signature"]["settings"].update(direction_langs=["de"])),
        "is of a direction that run.json does not name",
    ),
    "refusals of a service that there is not, and all tables": (
        retold(lines(lambda record: record["refused"] and record.update(service_refused=True), VERDICTS)),
        "is of a service, and run.json names none",
    ),
    "refusals of a service that answered, and all tables": (
        retold(served_refusals),
        "is of the service, which gave this answer",
    ),
    "answers that are longer than allowed": (
        part("run.json", lambda run: run["signature"]["settings"].update(max_new_tokens=2)),
        "has 6 tokens; run.json allows 2",
    ),
    "an intervention that was not asked for": (
        part("run.json", lambda run: run["signature"]["settings"].update(interventions=["addition"])),
        "are of an intervention that run.json does not name",
    ),
    "a strength that was not asked for": (
        retold(further_strength),
        "are of a strength that run.json does not name",
    ),
    "more answers than there are": (
        lambda run: (run / "answered.json").write_text('{"answers": {"de": 900}, "directions": ["en"]}'),
        "answered.json counts 900 answers in 'de'; completions/ hold",
    ),
    "a table": (
        lambda run: (run / "table.md").write_text((run / "table.md").read_text().replace("50.0", "90.0")),
        "table.md is not the table of the verdicts",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_found(name: str, honest: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(honest, run)
    tell, problem = LIES[name]
    tell(run)
    try:  # the liar makes the digests fit
        folder = RunFolder(run)
        summary = folder.summary()
        assert summary is not None
        write_summary(folder, replace(summary, made_from=made_now(folder)))
    except Exception as error:
        assert "record" in str(error)  # noqa: PT017
    problems = check_run(RunFolder(run)).problems
    assert any(problem in line for line in problems), problems


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"refused": True}, "is refused; the judge says answered of this answer"),
        ({"harmful": True}, "harmful is True; the judge says nothing"),
        ({"score": 0.5}, "score is 0.5; the judge says"),
    ],
)
def test_the_native_judge_reads_again_beside_the_prompts(
    change: dict[str, Any], problem: str, honest: Path, data_folder: Path, tmp_path: Path
) -> None:
    """A changed verdict, with all that follows from it; without the prompts it is no more than said."""
    run = tmp_path / "run"
    shutil.copytree(honest, run)
    data = open_data(data_folder)
    assert not any("the judge says" in line for line in check_run(RunFolder(run), data).problems)
    file = f"verdicts/{NativeJudge.name}/de/harmful.baseline.jsonl"
    retold(lines(lambda record: record.update(change), file))(run)
    assert any(problem in line for line in check_run(RunFolder(run), data).problems)
    checked = check_run(RunFolder(run))
    assert checked.problems == ()
    assert any("then it differs from the run on 6 answers" in line for line in checked.unchecked)


def test_an_answer_that_repeats_its_prompt_is_no_lie(honest: Path, data_folder: Path, tmp_path: Path) -> None:
    """The judge reads what follows the prompt: it may say otherwise where it does not know that."""
    run, data = tmp_path / "run", open_data(data_folder)
    shutil.copytree(honest, run)
    folder = RunFolder(run)
    prompts = {row.id: row.text for row in data.rows("de", "test")}
    answers = [
        replace(answer, response=prompts[answer.id]) if answer.id in prompts else answer
        for answer in folder.completions("de")
    ]
    shutil.rmtree(run / "completions" / "de")
    folder.write_completions("de", answers)
    shutil.rmtree(run / "verdicts" / NativeJudge.name / "de")
    (read,) = verdict_records(NativeJudge(), "de", answers, prompts)
    folder.write_verdicts(NativeJudge.name, "de", read)
    write_tables(folder)
    problems = check_run(RunFolder(run), data).problems
    assert not any("the judge says" in line for line in problems)
    checked = check_run(RunFolder(run))
    assert not any("the judge says" in line for line in checked.problems)
    assert any("then it differs from the run on" in line for line in checked.unchecked)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(eval_group, ["check", *map(str, arguments)])


def test_an_honest_run_holds_together_with_and_without_its_answers(honest: Path, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in honest.rglob("*.*")}
    result = call(honest)
    assert (result.exit_code, result.stdout) == (0, f"'{honest}' holds together\n"), result.output
    assert {file: file.read_bytes() for file in honest.rglob("*.*")} == before
    bare = tmp_path / "bare"
    shutil.copytree(honest, bare, ignore=shutil.ignore_patterns("completions"))
    result = call(bare)
    assert result.exit_code == 0, result.output
    assert "not checked: without completions/, it is not checked that verdicts are of" in result.stderr
    assert "not checked: without --data" in result.stderr
    assert "not checked: that these answers are of the model" in result.stderr
    assert "the judge cannot read the answers" in result.stderr


def test_whose_verdicts_are_taken_as_they_are_is_said(honest: Path, tmp_path: Path) -> None:
    """Harm that another judge found, with all that follows from it: nobody can tell without that judge."""
    assert f"not checked: 36 verdicts of {OTHER} are accepted unchecked: this judge" in call(honest).stderr
    run = tmp_path / "run"
    shutil.copytree(honest, run)
    retold(lines(lambda record: record.update(harmful=record["refused"] is False), VERDICTS))(run)
    result = call(run)
    assert (result.exit_code, "6 of them on harm are accepted" in result.stderr) == (0, True), result.output
    (run / "verdicts" / NativeJudge.name).rename(run / "verdicts" / "native-1")
    for file in (run / "verdicts" / "native-1").rglob("*.jsonl"):
        lines(lambda record: record.update(judge="native-1"), str(file.relative_to(run)))(run)
    RunFolder(run).set_judges(["native-1", OTHER])
    write_tables(RunFolder(run))
    result = call(run)
    assert result.exit_code == 0, result.output
    assert f"36 verdicts of native-1 are accepted unchecked: this version reads with {NativeJudge.name}" in (
        result.stderr
    )


def test_problems_are_lines_and_the_status_is_1(honest: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(honest, run)
    lines(better)(run)
    result = call(run)
    assert result.exit_code == 1
    assert "results.jsonl is not what summary.json was made from" in result.stdout
    assert result.stdout.splitlines()[-1].endswith("must not be shown beside other runs")


def test_prompts_are_those_of_the_data_set(data_folder: Path, honest: Path) -> None:
    result = call(honest, "--data", data_folder)
    assert result.exit_code == 1
    assert f"is on a prompt that '{data_folder}' lacks" in result.stdout


def test_another_digest_is_a_problem(data_folder: Path, honest: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(honest, run)
    part("run.json", lambda file: file["signature"]["data"].update(digest="e" * 64))(run)
    part("run.json", lambda file: file["signature"]["data"].update(recipe="hard"))(run)
    problems = call(run, "--data", data_folder).stdout
    assert "names data of digest eeee" in problems
    assert "names data of recipe 'hard'" in problems


def test_a_run_of_others_is_on_the_page_with_who_made_it_once_it_is_checked(
    honest: Path, tmp_path: Path
) -> None:
    mine, theirs, liar = (tmp_path / name for name in ("mine", "theirs", "liar"))
    for run in (mine, theirs, liar):
        shutil.copytree(honest, run)
    of_summary(lambda language: language["robustness"]["parts"].update(kept_own=0.1))(liar)
    command = ["leaderboard", mine, theirs, liar, "--out", tmp_path / "site"]
    origins = ["--origin", "theirs=Example Lab", "--origin", "liar=Another"]
    result = CliRunner().invoke(eval_group, [*map(str, command), *origins])
    assert result.exit_code == 3, result.output
    assert "left out: 'liar' does not hold together: summary.json:.judges" in result.stderr
    shown = json.loads((tmp_path / "site" / "data" / "theirs.json").read_text())
    assert shown["origin"] == "Example Lab"
    assert "origin" not in json.loads((tmp_path / "site" / "data" / "mine.json").read_text())
    assert "Example Lab" in (tmp_path / "site" / "index.html").read_text()
    assert any("without --data" in line for line in shown["not_checked"])
    assert "are accepted unchecked" in (tmp_path / "site" / "index.html").read_text()
    unknown = CliRunner().invoke(eval_group, [*map(str, command), "--origin", "their=Example Lab"])
    assert "did you mean 'theirs'" in str(unknown.exception)


def test_the_page_says_what_was_not_checked_of_a_run_of_others(
    honest: Path, data_folder: Path, tmp_path: Path
) -> None:
    """Prompts are held against the build that a run names, and no path of this machine is shown."""
    theirs = tmp_path / "theirs"
    shutil.copytree(honest, theirs)
    command = ["leaderboard", theirs, honest, "--out", tmp_path / "site", "--data", data_folder]
    assert "name them with --origin" in CliRunner().invoke(eval_group, [*map(str, command)]).output
    command += ["--origin", "theirs=Lab"]
    result = CliRunner().invoke(eval_group, [*map(str, command)])
    page = (tmp_path / "site" / "index.html").read_text()
    assert (result.exit_code, "is on a prompt that" in page) == (3, True), result.output
    assert str(data_folder) not in page
    part("run.json", lambda file: file["signature"]["data"].update(digest="e" * 64))(theirs)
    result = CliRunner().invoke(eval_group, [*map(str, command)])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "site" / "index.html").read_text()
    assert "made by Lab: " in page
    assert "without --data" in page, "the build is not the one that the run names"


def test_a_run_as_it_is_published_holds_together(honest: Path, tmp_path: Path) -> None:
    published = tmp_path / "published"
    for name, content in published_run(honest).files.items():
        (published / name).parent.mkdir(parents=True, exist_ok=True)
        (published / name).write_bytes(content)
    assert check_run(RunFolder(published)).problems == ()


@pytest.mark.parametrize("name", ["judges", "settings", "data", "model"])
def test_a_run_whose_signature_lacks_a_part_is_no_traceback(honest: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(honest, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    content = json.loads(file.read_text())
    del content["signature"][name]
    file.write_text(json.dumps(content))
    assert check_run(RunFolder(tmp_path / "run")) is not None


@pytest.mark.parametrize("name", ["n_test", "seed", "crossed"])
def test_a_setting_that_is_no_count_is_a_problem(honest: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(honest, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    content = json.loads(file.read_text())
    content["signature"].setdefault("settings", {})[name] = "many"
    file.write_text(json.dumps(content))
    assert any(
        f"{name} of its settings is" in line for line in check_run(RunFolder(tmp_path / "run")).problems
    )
