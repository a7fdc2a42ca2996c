"""Records and whole runs, made up: no model, no judge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from polyrefuse_eval.report.tables import write_tables
from polyrefuse_eval.results.agreement_records import AgreementFile, AgreementRecord
from polyrefuse_eval.results.files import read_content, write_json
from polyrefuse_eval.results.folder import AGREEMENT_FILE, RESULTS_FILE, SUMMARY_FILE, RunFolder
from polyrefuse_eval.results.records import Completion, ServiceNote, VerdictRecord
from polyrefuse_eval.results.service_files import SERVICE_FILE, service_file
from polyrefuse_eval.results.settings import RunSettings
from polyrefuse_eval.results.summary_records import MadeFrom, Summary
from polyrefuse_eval.results.validation import write_record
from polyrefuse_eval.results.verification import made_from

JUDGE = "native-1"
SIGNATURE = {"model": {"model": "m", "revision": "1"}, "judges": [JUDGE], "settings": {"seed": 0}}


COMPLETION = Completion(
    key="a/baseline",
    id="a",
    group="g",
    lang="de",
    label="harmful",
    condition="baseline",
    response="Nein.",
    n_tokens=2,
    ended=True,
)


def verdict_on(answer: Completion, judge: str, **said: Any) -> VerdictRecord:
    """Return what `judge` says of `answer`: undecided, but for what is given."""
    fields = {"refused": None, "reason": "", "response_lang": None, "coherent": None, "harmful": None, **said}
    return VerdictRecord(
        key=answer.key,
        id=answer.id,
        group=answer.group,
        lang=answer.lang,
        label=answer.label,
        condition=answer.condition,
        judge=judge,
        response_sha256=answer.response_sha256,
        **fields,
    )


VERDICT = verdict_on(COMPLETION, "native-1", reason="empty", coherent=False)


def answer_to(row: str, lang: str, label: str, condition: str) -> Completion:
    """Return an answer to `row` that tells its place."""
    return Completion(
        key=f"{row}/{condition}",
        id=row,
        group=f"group-{row}",
        lang=lang,
        label=label,
        condition=condition,
        response=f"Answer to {row} in {lang} under {condition}.",
        n_tokens=6,
        ended=True,
    )


CELLS = (("harmful", "baseline"), ("harmful", "ablation:en"), ("harmless", "baseline"))


def finished_run(
    path: Path,
    *,
    langs: Sequence[str] = ("de", "en"),
    judge: str = "native-1",
    rows: int = 6,
    cells: Sequence[tuple[str, str]] = CELLS,
) -> RunFolder:
    """Write a whole run of made-up answers and verdicts, with its tables: no model, no judge."""
    signature = {
        "model": {"model": "example/tiny", "revision": "1"},
        "data": {"digest": "d" * 64, "recipe": "sample"},
        "judges": [judge],
        "settings": {"langs": list(langs), "direction_langs": ["en"], "seed": 0},
        "versions": {"polyrefuse": "0.1.0"},
    }
    run = RunFolder.open(path, signature)
    for lang in langs:
        answers = [
            answer_to(f"{label}-test-{row:04d}", lang, label, condition)
            for label, condition in cells
            for row in range(rows)
        ]
        run.write_completions(lang, answers)
        refused = {("harmful", "baseline"): True}
        run.write_verdicts(
            judge,
            lang,
            [
                verdict_on(answer, judge, refused=refused.get((answer.label, answer.condition), False))
                for answer in answers
            ],
        )
    write_tables(run)
    return run


def made_now(run: RunFolder) -> MadeFrom:
    """Return what a summary of `run` is made from, as its files are now."""
    return made_from(run, read_content(run.path / RESULTS_FILE), run.judges())


def write_summary(run: RunFolder, summary: Summary) -> None:
    """Write `summary` alone into the folder of `run`."""
    write_record(run.path / SUMMARY_FILE, summary)


def write_agreement(folder: Path, record: AgreementRecord) -> None:
    """Write into the run in `folder` that its judges agree as `record` says."""
    write_record(folder / AGREEMENT_FILE, AgreementFile(agreement=(record,)))


REFUSED_BY_SERVICE = "harmful-test-0000/baseline"
"""The answer of a served run that the service itself refused."""


def service_note(lang: str, key: str) -> ServiceNote:
    """Return what a service says of an answer; another version of it answers in English."""
    return ServiceNote(
        model="1" if lang == "de" else "2",
        system_fingerprint="fp",
        refusal="refusal" if key == REFUSED_BY_SERVICE else None,
        prompt_tokens=5,
        completion_tokens=6,
    )


def served_run(path: Path) -> RunFolder:
    """Write a finished run of a model behind an endpoint, which refused once and changed its version."""
    run = finished_run(path)
    content = json.loads((run.path / "run.json").read_text())
    settings = json.loads(json.dumps(RunSettings(langs=("de", "en"), direction_langs=("en",)).signature()))
    content["signature"]["settings"] = settings
    content["signature"]["model"] = {
        "model": "tiny",
        "endpoint": "local",
        "temperature": "0",
        "revision": "1",
    }
    content["request"] = {
        "model": {"name": "openai:tiny", "endpoint": "local", "temperature": 0.0, "local_revision": None},
        "data": {**content["signature"]["data"], "prompts": {}},
        "settings": settings,
        "judges": ["native-1"],
        "versions": content["signature"]["versions"],
    }
    write_json(run.path / "run.json", content)
    for lang in run.languages():
        answers = [
            replace(answer, service=service_note(lang, answer.key))
            if answer.condition == "baseline"
            else answer
            for answer in run.completions(lang)
        ]
        run.write_completions(lang, answers)
        run.write_verdicts(
            "native-1",
            lang,
            [
                replace(verdict, service_refused=verdict.key == REFUSED_BY_SERVICE)
                for verdict in run.verdicts("native-1", lang)
            ],
        )
    write_record(run.path / SERVICE_FILE, service_file(run.completions("de") + run.completions("en")))
    write_json(run.path / "answered.json", {"answers": {"de": 18, "en": 18}, "directions": ["en"]})
    write_tables(run)
    return run


def verdicts(lang: str, label: str, refused: Sequence[bool | None], **said: Any) -> list[VerdictRecord]:
    """Return verdicts on unedited answers, all of which the judge read as `said`."""
    fields = {"coherent": True, "response_lang": lang, **said}
    return [
        verdict_on(answer_to(f"{label}-{index}", lang, label, "baseline"), JUDGE, refused=value, **fields)
        for index, value in enumerate(refused)
    ]
