"""Records and whole runs, made up: no model, no judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyrefuse_eval.report.tables import write_tables
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.records import Completion, VerdictRecord

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


def verdicts(lang: str, label: str, refused: Sequence[bool | None], **said: Any) -> list[VerdictRecord]:
    """Return verdicts on unedited answers, all of which the judge read as `said`."""
    fields = {"coherent": True, "response_lang": lang, **said}
    return [
        verdict_on(answer_to(f"{label}-{index}", lang, label, "baseline"), JUDGE, refused=value, **fields)
        for index, value in enumerate(refused)
    ]
