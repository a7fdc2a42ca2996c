"""Write rows for review as a dataset of Argilla, and read the answers that its users gave.

Files go out and in: a folder that `argilla.Dataset.from_disk` loads, and what `records.to_list(flatten=True)`
or `records.to_json` writes of it. No client of Argilla is needed here.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import regex

from polyrefuse_data.audit.review_cells import REQUIRED, ReviewError, escape
from polyrefuse_data.core.output_folder import write_together
from polyrefuse_data.core.reading import Record, Table

RIGHT, WRONG = "right", "wrong"
"""Answers to the question whether a translation says what the English says."""

UNTOLD = "(called wrong, not corrected)"
"""Stands for the correction of a row that a reviewer called wrong and did not write anew."""

_FIELDS = {
    "text_en": "English",
    "text": "Translation",
    "back": "Back-translation",
    "candidates": "Other candidates",
    "flags": "Flags",
    "scores": "Scores",
}
_METADATA = {
    "row_id": "Row",
    "lang": "Language",
    "label": "Label",
    "flagged": "Flag",
    "group": "Group",
    "key": "Key",
}
VERDICT, CORRECTION, COMMENT = "verdict", "correction", "comment"
_GUIDELINES = (
    "Does the translation ask for the same thing as the English, as plainly? Choose Right or Wrong. If it "
    "is wrong, edit the correction, which starts as a copy of the translation. Make nothing milder than "
    "the English."
)


def write_argilla(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows`, as the page of a review has them, to `folder` as a dataset of Argilla called `name`.

    Raises `ReviewError` if something is in `folder` already. The file that makes it a dataset comes last.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ReviewError(f"'{folder}' is not empty; expected a new folder for --format argilla: choose one")
    plain = regex.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_") or "build"
    files: dict[str, object] = {
        "records.json": [_record(row) for row in rows],
        ".argilla/settings.json": _settings(),
        ".argilla/dataset.json": {"name": f"review-{plain}", "allow_extra_metadata": True},
    }
    write_together(
        folder, {name: f"{json.dumps(value, indent=1)}\n".encode() for name, value in files.items()}
    )


def _record(row: Mapping[str, Any]) -> dict[str, Any]:
    candidates = "\n".join(
        f"{number}. {one['text']} ({one['reason']})" for number, one in enumerate(row["candidates"], 1)
    )
    shown = {**row, "candidates": candidates}
    metadata: dict[str, Any] = {name: row[name] for name in ("lang", "label", "group", "key")}
    return {
        "id": f"{row['lang']}-{row['id']}",
        "fields": {name: shown[name] for name in _FIELDS if shown[name]},
        "metadata": {"row_id": row["id"], "flagged": row["flags"].split(), **metadata},
        "suggestions": {"correction": {"value": row["text"], "score": None, "agent": "translation"}},
        "responses": {},
        "vectors": {},
        "status": "pending",
        "_server_id": None,
    }


def _settings() -> dict[str, Any]:
    text = {"type": "text", "use_markdown": False}
    options = [{"value": RIGHT, "text": "Right"}, {"value": WRONG, "text": "Wrong"}]
    label = {"type": "label_selection", "options": options, "visible_options": None}
    terms = {"type": "terms", "values": None, "visible_for_annotators": True}
    questions: tuple[tuple[str, str, dict[str, Any]], ...] = (
        (VERDICT, "Does it say what the English says?", label),
        (CORRECTION, "Correction", text),
        (COMMENT, "Comment", text),
    )
    return {
        "guidelines": _GUIDELINES,
        "questions": [
            {
                "name": name,
                "type": settings["type"],
                "title": title,
                "settings": settings,
                "required": name == VERDICT,
            }
            for name, title, settings in questions
        ],
        "fields": [
            {
                "name": name,
                "title": title,
                "type": "text",
                "settings": text,
                "required": name in ("text_en", "text"),
            }
            for name, title in _FIELDS.items()
        ],
        "vectors": [],
        "metadata": [
            {"name": name, "title": title, "settings": terms, "visible_for_annotators": True}
            for name, title in _METADATA.items()
        ],
        "allow_extra_metadata": True,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
        "mapping": None,
    }


def is_argilla(table: Table) -> bool:
    """Return whether a table holds records of Argilla, nested or flat."""
    values = table.records[0].values
    return {"fields", "metadata", "responses"} <= set(values) or ("_server_id" in values and "key" in values)


def reviewers(table: Table) -> list[str]:
    """Return the users who answered something, in the order of their first answer."""
    return list(dict.fromkeys(user for record in table.records for user in _answers(table, record)))


def argilla_cells(table: Table, reviewer: str | None = None) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (record number, cells of a review file) of each record, with the answers of `reviewer` or of all.

    Without a `reviewer`, a record that two users corrected differently raises `ReviewError`; with one,
    records that the user did not answer are left out. Only submitted answers count. `records.to_json` does
    not say which are: there, those of a pending record are taken for drafts.
    """
    if reviewer is not None and reviewer not in (users := reviewers(table)):
        raise ReviewError(
            f"--reviewer {reviewer}: {table.source} has no submitted answer from this user; it has "
            f"answers from {', '.join(users) or 'nobody'}"
        )
    conflicts = []
    for record in table.records:
        by_user = _answers(table, record)
        if reviewer is not None:
            by_user = {user: answers for user, answers in by_user.items() if user == reviewer}
            if not by_user:
                continue
        identity = _identity(table, record)
        written = {
            user: correction
            for user, answers in by_user.items()
            if (correction := _correction(table, record, user, answers))
        }
        texts = {text for text in written.values() if text != UNTOLD}
        if len(texts) > 1:
            conflicts.append(
                f"{table.unit} {record.number}: {len(texts)} corrections, of {', '.join(written)}"
            )
            continue
        author = next((user for user, text in written.items() if text != UNTOLD), next(iter(written), ""))
        comments = [answers["comment"].strip() for answers in by_user.values() if answers.get("comment")]
        cells = {
            **identity,
            "correction": escape(next(iter(texts), UNTOLD if written else "")),
            "who": author,
            "comment": escape("; ".join(dict.fromkeys(comments))),
        }
        yield record.number, {name: cells[name] for name in REQUIRED}
    if conflicts:
        more = f"; and {len(conflicts) - 8} more" if len(conflicts) > 8 else ""
        raise ReviewError(
            f"{table.source}: nothing was imported; {'; '.join(conflicts[:8])}{more}; import one user's with "
            "--reviewer ID"
        )


def _identity(table: Table, record: Record) -> dict[str, str]:
    values = record.values
    nested = [values.get("fields"), values.get("metadata")]
    flat: dict[str, Any] = dict(values)
    for part in nested:
        if isinstance(part, Mapping):
            flat.update(part)
    cells = {name: flat.get(name) for name in ("row_id", "lang", "label", "text_en", "text", "key")}
    missing = [name for name, value in cells.items() if not isinstance(value, str)]
    if missing:
        raise ReviewError(
            f"{table.where(record)}: no text in {', '.join(missing)}; expected records that "
            "`polyrefuse review export --format argilla` wrote"
        )
    return {"id" if name == "row_id" else name: escape(str(value)) for name, value in cells.items()}


def _answers(table: Table, record: Record) -> dict[str, dict[str, str]]:
    """Return the submitted answers of a record: user -> question -> value."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    nested = record.values.get("responses")
    pending = record.values.get("status") == "pending"
    for question in (VERDICT, CORRECTION, COMMENT):
        if isinstance(nested, Mapping):
            answers = nested.get(question) or []
            fits = isinstance(answers, list) and all(isinstance(one, Mapping) for one in answers)
            triples = (
                [
                    (one.get("value"), one.get("user_id"), "draft" if pending else "submitted")
                    for one in answers
                ]
                if fits
                else None
            )
        else:
            triples = _flat_answers(record.values, question)
        if triples is None:
            raise ReviewError(
                f"{table.where(record)}: the responses to '{question}' are not a list of answers with "
                "their users; expected records.to_list(flatten=True) or records.to_json of Argilla"
            )
        for value, user, status in triples:
            if status in ("submitted", None) and isinstance(value, str) and isinstance(user, str):
                found[user][question] = value
    return dict(found)


def _flat_answers(values: Mapping[str, Any], question: str) -> list[tuple[Any, Any, Any]] | None:
    name = f"{question}.responses"
    columns = [values.get(key) for key in (name, f"{name}.users", f"{name}.status")]
    if columns[0] is None:
        return []
    if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        return None
    return list(zip(*columns, strict=True))


def _correction(table: Table, record: Record, user: str, answers: Mapping[str, str]) -> str:
    """Return what a user wrote in place of the translation; empty where it was left as it is."""
    fields = record.values.get("fields")
    text = (fields if isinstance(fields, Mapping) else record.values).get("text", "")
    written = answers.get("correction", "").strip()
    changed = written if written != str(text).strip() else ""
    if changed and answers.get("verdict") == RIGHT:
        raise ReviewError(
            f"{table.where(record)}: {user} calls the translation right and also corrects it; keep "
            "one of the two"
        )
    return changed or (UNTOLD if answers.get("verdict") == WRONG else "")
