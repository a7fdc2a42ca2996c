"""Run the checks of a build over any folder: a build, or the published release."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from polyrefuse_data.audit.folders import AuditList, Opened, by_language, open_folder
from polyrefuse_data.audit.model_scores import ModelReport, model_reports
from polyrefuse_data.checks.alignment import alignment
from polyrefuse_data.checks.language import LanguageVotes, unknown_to_langdetect
from polyrefuse_data.checks.lists import (
    LIST_CHECKS,
    Item,
    alignment_findings,
    collision_findings,
    duplicate_findings,
)
from polyrefuse_data.checks.recorded import RECORDED_CHECKS, Recorded
from polyrefuse_data.checks.round_trips import (
    RoundTrip,
    bleu_signature,
    chrf_signature,
    measure_round_trip,
)
from polyrefuse_data.checks.rows import CHECKS, Batch, Scored, row_findings, run_checks
from polyrefuse_data.checks.surface_cue_report import surface_cue_findings
from polyrefuse_data.checks.surface_cues import SurfaceCues, surface_cues_by_split
from polyrefuse_data.checks.thresholds import Thresholds, load_thresholds
from polyrefuse_data.core.errors import unknown_name
from polyrefuse_data.core.findings import Finding, count_by_severity, sort_findings
from polyrefuse_data.core.languages import LANGUAGES, SOURCE_LANGUAGE, language
from polyrefuse_data.quality.measure import ModelRequest, Translated, measure
from polyrefuse_data.quality.scores_file import ScoresFile
from polyrefuse_data.quality.sentences import OF_TRANSLATION

NO_MODELS = ModelRequest()


@dataclass(frozen=True)
class ListReport:
    """The measures of one list: rows, rows flagged by check, length correlation with the English."""

    lang: str
    label: str
    split: str
    rows: int
    flagged: Mapping[str, int]
    flagged_rows: int
    correlation: float | None


@dataclass(frozen=True)
class Report:
    """The result of an audit."""

    folder: Path
    kind: str
    title: str
    thresholds: Thresholds
    lists: tuple[ListReport, ...]
    findings: tuple[Finding, ...]
    texts: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False)
    """(language, row id) -> text of the rows that a finding names, for reports that show them."""
    round_trips: tuple[RoundTrip, ...] = ()
    """Lists with back-translations at hand."""
    similarity_model: str | None = None
    """The model of the similarity of back-translations."""
    models: tuple[ModelReport, ...] = ()
    """What models say of the translations, by check and language."""
    unjudged: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Check -> languages that no model named for it knows."""
    surface_cues: tuple[SurfaceCues, ...] = ()
    """By what of their form the labels of each language and split can be told apart."""

    @property
    def has_errors(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)

    def per_thousand(self, check: str, lang: str) -> float | None:
        """Return flagged rows per 1,000 of one check and language; None without a row."""
        rows = sum(report.rows for report in self.lists if report.lang == lang)
        flagged = sum(report.flagged.get(check, 0) for report in self.lists if report.lang == lang)
        return 1000 * flagged / rows if rows else None

    def languages(self) -> list[str]:
        """Return the languages with a list, in published order."""
        present = {report.lang for report in self.lists}
        return [lang for lang in LANGUAGES if lang in present]

    def unknown_to_langdetect(self) -> list[str]:
        """Return the languages of the folder that langdetect takes no part in judging."""
        unknown = unknown_to_langdetect()
        return [lang for lang in self.languages() if lang in unknown]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as its JSON form has it."""
        return {
            "folder": str(self.folder),
            "kind": self.kind,
            "title": self.title,
            "rows": sum(report.rows for report in self.lists),
            "severities": count_by_severity(self.findings),
            "thresholds": {"provenance": self.thresholds.provenance, "digest": self.thresholds.digest()},
            "not_judged_by_langdetect": self.unknown_to_langdetect(),
            "lists": [{**vars(report), "flagged": dict(report.flagged)} for report in self.lists],
            "round_trips": {
                "chrf_signature": chrf_signature(),
                "bleu_signature": bleu_signature(),
                "similarity_model": self.similarity_model,
                "lists": [dict(vars(report)) for report in self.round_trips],
            },
            "models": [report.to_dict() for report in self.models],
            "not_judged_by_models": {check: list(langs) for check, langs in self.unjudged.items()},
            "surface_cues": [measured.to_dict() for measured in self.surface_cues],
            "findings": [finding.to_dict() for finding in self.findings],
        }


def audit(
    folder: str | Path,
    english: str | Path | None = None,
    back: str | Path | None = None,
    only: Sequence[str] = (),
    all_votes: bool = False,
    thresholds: str | Path | None = None,
    memory: str | Path | None = None,
    similarity: str | None = None,
    models: ModelRequest = NO_MODELS,
    scores: str | Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Run every check over `folder` and return the report; `only` keeps the findings of some checks.

    `memory` is a translation memory with back-translations. `models` score the translations, `similarity` is
    short for their sentence-embedding model; `scores` is the file that keeps their scores, and holds those of
    earlier audits. Raises `PolyRefuseError` for a folder, memory, model or file of scores that cannot be
    read, an unknown check, or a similarity of back-translations where there are none.
    """
    for check in only:
        if check not in all_checks():
            raise unknown_name("check", check, all_checks())
    english, back, thresholds, memory, scores = (
        None if path is None else Path(path) for path in (english, back, thresholds, memory, scores)
    )
    folder = Path(folder)
    bounds = load_thresholds(thresholds)
    opened = open_folder(folder, english, back, memory)
    if similarity is not None:
        models = replace(models, similarity=similarity)
    file = ScoresFile(scores, create=models.asks)
    translated = [_translated(part) for part in by_language(opened.lists) if part.lang != SOURCE_LANGUAGE]
    unjudged = measure(translated, models, file, progress) if models.asks else {}
    recorded = {part.lang: file.recorded(part.lang, part.english, part.texts) for part in translated}
    votes = LanguageVotes(all_votes)
    findings: list[Finding] = list(opened.findings)
    reports, trips = [], []
    scored_lists = _scored_lists(opened.lists, recorded, votes, bounds, progress)
    for part, scored in zip(opened.lists, scored_lists, strict=True):
        findings += row_findings(scored, part.ids, part.lang, part.label, part.split, range(len(part.ids)))
        findings += _list_findings(part, bounds)
        reports.append(_list_report(part, scored))
        trips.append(
            measure_round_trip(
                part.lang,
                part.label,
                part.split,
                part.english,
                part.backs,
                scored.scores["round_trip"],
                scored.scores.get("similarity") if _of_backs(recorded.get(part.lang, {})) else None,
            )
        )
    findings += duplicate_findings(opened.prompts, bounds)
    findings += _collisions(opened)
    cues = _surface_cues(opened.lists, bounds)
    findings += surface_cue_findings(cues)
    kept = sort_findings(finding for finding in findings if not only or finding.check in only)
    return Report(
        folder,
        opened.kind,
        opened.title,
        bounds,
        tuple(reports),
        tuple(kept),
        _texts(opened, kept),
        tuple(trip for trip in trips if trip is not None),
        next((name for checks in recorded.values() for name in [_of_backs(checks)] if name), None),
        tuple(model_reports(by_language(opened.lists), recorded, bounds)),
        unjudged,
        tuple(cues),
    )


def all_checks() -> list[str]:
    """Return the names of all checks: of rows, of lists, and of a folder's structure."""
    return [*CHECKS, *RECORDED_CHECKS, *LIST_CHECKS, "structure", "gap", "altered"]


def _surface_cues(lists: Sequence[AuditList], thresholds: Thresholds) -> list[SurfaceCues]:
    texts: dict[str, dict[tuple[str, str], Sequence[str]]] = {}
    for part in lists:
        texts.setdefault(part.lang, {})[part.label, part.split] = part.texts
    return [
        cues for lang, prompts in texts.items() for cues in surface_cues_by_split(lang, prompts, thresholds)
    ]


def _translated(part: AuditList) -> Translated:
    return Translated(lang=part.lang, english=part.english, texts=part.texts, backs=part.backs)


def _of_backs(recorded: Mapping[str, Recorded]) -> str | None:
    """Return the model of the similarity of back-translations; None where none or another was taken."""
    similarity = recorded.get("similarity")
    return None if similarity is None or similarity.model.endswith(OF_TRANSLATION) else similarity.model


def _scored_lists(
    lists: Sequence[AuditList],
    recorded: Mapping[str, Mapping[str, Recorded]],
    votes: LanguageVotes,
    thresholds: Thresholds,
    progress: Callable[[int, int], None],
) -> list[Scored]:
    """Return the scores of each list; all the rows of a language are scored together."""
    start: Counter[str] = Counter()
    joined = by_language(lists)
    by_code: dict[str, Scored] = {}
    for number, part in enumerate(joined):
        progress(number, len(joined))
        by_code[part.lang] = _score(part, recorded.get(part.lang, {}), votes, thresholds)
    progress(len(joined), len(joined))
    scored = []
    for part in lists:
        first, last = start[part.lang], start[part.lang] + len(part.ids)
        start[part.lang] = last
        scored.append(by_code[part.lang].rows(first, last))
    return scored


def _score(
    part: AuditList, recorded: Mapping[str, Recorded], votes: LanguageVotes, thresholds: Thresholds
) -> Scored:
    batch = Batch(language(part.lang), part.texts, part.english, part.backs, votes, recorded)
    scored = run_checks(batch, thresholds)
    if part.kept_round_trip is None:
        return scored
    pairs = zip(part.kept_round_trip, scored.scores["round_trip"], strict=True)
    kept = [fresh if stored is None else stored for stored, fresh in pairs]
    flags = [thresholds.flagged("round_trip", part.lang, score) for score in kept]
    return Scored({**scored.scores, "round_trip": kept}, {**scored.flags, "round_trip": flags})


def _pairs(part: AuditList) -> tuple[list[str], list[str]]:
    known = [
        (english, text) for english, text in zip(part.english, part.texts, strict=True) if english is not None
    ]
    return [english for english, _ in known], [text for _, text in known]


def _list_findings(part: AuditList, thresholds: Thresholds) -> list[Finding]:
    if part.lang == SOURCE_LANGUAGE:
        return []
    english, texts = _pairs(part)
    return alignment_findings(english, texts, part.lang, part.label, part.split, thresholds)


def _list_report(part: AuditList, scored: Scored) -> ListReport:
    flagged = {check: sum(flags) for check, flags in scored.flags.items()}
    any_flag = sum(any(row) for row in zip(*scored.flags.values(), strict=True))
    correlation = None if part.lang == SOURCE_LANGUAGE else alignment(*_pairs(part)).correlation
    return ListReport(part.lang, part.label, part.split, len(part.ids), flagged, any_flag, correlation)


def _collisions(opened: Opened) -> list[Finding]:
    findings = []
    for lang in {part.lang for part in opened.lists} - {SOURCE_LANGUAGE}:
        items, texts = [], []
        for part in opened.lists:
            if part.lang == lang:
                for row, english, text in zip(part.ids, part.english, part.texts, strict=True):
                    if english is not None:
                        items.append(Item(row, part.label, part.split, english))
                        texts.append(text)
        findings += collision_findings(items, texts, lang)
    return findings


def _texts(opened: Opened, findings: list[Finding]) -> dict[tuple[str, str], str]:
    wanted = {(finding.lang or SOURCE_LANGUAGE, row) for finding in findings for row in finding.ids}
    texts = {(SOURCE_LANGUAGE, item.id): item.text for item in opened.prompts}
    for part in opened.lists:
        texts.update({(part.lang, row): text for row, text in zip(part.ids, part.texts, strict=True)})
    return {key: text for key, text in texts.items() if key in wanted}
