"""Show the report of an audit to people: lines for a terminal, and a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from polyrefuse_data.audit.audit import ListReport, Report
from polyrefuse_data.checks.recorded import RECORDED_CHECKS
from polyrefuse_data.checks.round_trips import bleu_signature, chrf_signature
from polyrefuse_data.checks.rows import CHECKS
from polyrefuse_data.checks.surface_cue_report import COLUMNS, surface_cue_cells
from polyrefuse_data.core.display import counted, visible_value
from polyrefuse_data.core.files import write_text
from polyrefuse_data.core.findings import count_by_severity, severity_line

FEW = 4
"""How many ids of a finding a line shows."""


def report_lines(report: Report) -> Iterator[str]:
    """Yield the report as lines: findings, most severe first, then flagged rows per 1,000."""
    rows = sum(part.rows for part in report.lists)
    size = f"{counted(rows, 'row')} in {counted(len(report.languages()), 'language')}"
    yield f"{report.folder}: {report.title}, {size}"
    for finding in report.findings:
        place = " ".join(part for part in (finding.lang, finding.label, finding.split) if part)
        few = ", ".join(finding.ids[:FEW]) + (", ..." if len(finding.ids) > FEW else "")
        yield f"{finding.severity:8} {finding.check:15} {place}: {finding.message}" + (
            f" ({few})" if few else ""
        )
    yield ""
    yield "Rows flagged per 1,000 (- where none):"
    langs = report.languages()
    yield "  " + "check".ljust(14) + "".join(lang.rjust(6) for lang in langs)
    for check in (*CHECKS, *RECORDED_CHECKS):
        values = [report.per_thousand(check, lang) for lang in langs]
        if any(values):
            yield (
                "  "
                + check.ljust(14)
                + "".join((f"{value:.1f}" if value else "-").rjust(6) for value in values)
            )
    yield from _round_trip_lines(report)
    yield from _model_lines(report)
    yield from _surface_cue_lines(report)
    unknown = report.unknown_to_langdetect()
    if unknown:
        yield f"langdetect does not know {', '.join(unknown)} and is not used there."
    yield severity_line(count_by_severity(report.findings))


def _round_trip_lines(report: Report) -> Iterator[str]:
    if not report.round_trips:
        return
    yield ""
    yield "Round trips, back-translations against the English:"
    yield "  lang  label     split         rows  chrF++   BLEU  similarity"
    for trip in report.round_trips:
        similarity = "-" if trip.similarity is None else f"{trip.similarity:.3f}"
        yield (
            f"  {trip.lang:4}  {trip.label:8}  {trip.split:10}  {trip.rows:6}  {trip.chrf:6.1f}"
            f"  {trip.bleu:5.1f}  {similarity:>10}"
        )
    yield f"  BLEU of the list: {bleu_signature()}"
    yield f"  chrF++, mean of rows: {chrf_signature()}"
    if report.similarity_model:
        yield f"  similarity, mean cosine: {report.similarity_model}"
    yield ""


def _model_lines(report: Report) -> Iterator[str]:
    """Yield what models say: a line a check and language with the mean, and the ids of the worst rows."""
    for check, langs in report.unjudged.items():
        yield f"{check}: none of the named models knows {', '.join(langs)}; not judged."
    if not report.models:
        return
    yield ""
    yield "Model scores, worst rows first:"
    for model in dict.fromkeys((each.check, each.model) for each in report.models):
        yield f"  {model[0]}: {model[1]}"
        for each in report.models:
            if (each.check, each.model) == model:
                worst = ", ".join(f"{row} {score:.3f}" for row, score in each.worst[:FEW])
                calibrated = "" if each.calibrated else " (no thresholds: `polyrefuse calibrate --scores`)"
                yield f"    {each.lang:4} {each.rows:6} rows, mean {each.mean:.3f}{calibrated}; {worst}"
    yield ""


def _surface_cue_lines(report: Report) -> Iterator[str]:
    """Yield a table of what of their form tells harmful prompts from harmless ones."""
    if not report.surface_cues:
        return
    yield ""
    yield "Labels told apart by form, % of harmful/% of harmless prompts, or AUROC (* tells them apart):"
    table = [["lang", "split", *COLUMNS]]
    table += [[each.lang, each.split, *surface_cue_cells(each)] for each in report.surface_cues]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        yield f"  {'  '.join(cells)}".rstrip()
    yield ""


def render_html(report: Report, path: Path, show_texts: bool) -> None:
    """Write the report as one HTML page without any outside file; texts only if `show_texts`.

    Raises `PolyRefuseError` if the page cannot be written.
    """
    import jinja2

    template = (resources.files("polyrefuse_data") / "data" / "audit.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=visible_value
    )
    page = environment.from_string(template).render(
        report=report,
        rows=sum(part.rows for part in report.lists),
        counts=count_by_severity(report.findings),
        langs=report.languages(),
        checks={**CHECKS, **{each.check: RECORDED_CHECKS[each.check] for each in report.models}},
        models=report.models,
        counted=counted,
        shade=_shade,
        plot=_alignment_plot(report),
        signatures=(bleu_signature(), chrf_signature()) if report.round_trips else (),
        texts=report.texts if show_texts else {},
        cue_columns=COLUMNS,
        cue_cells={(each.lang, each.split): surface_cue_cells(each) for each in report.surface_cues},
        unknown=", ".join(report.unknown_to_langdetect()),
    )
    write_text(path, page)


def _shade(value: float | None) -> float:
    """Return the opacity of a cell for `value` flagged rows per 1,000: full from 100 on."""
    return 0.0 if not value else round(min(1.0, 0.15 + (value / 100) ** 0.5), 2)


def _alignment_plot(report: Report) -> dict[str, Any]:
    """Return the points of the alignment plot: one column a language, height by length correlation."""
    langs = [lang for lang in report.languages() if lang != "en"]
    height, column = 200, 52

    def point(part: ListReport) -> dict[str, Any]:
        correlation = part.correlation or 0.0
        rows = counted(part.rows, "row")
        offset = 0 if part.label == "harmless" else 12
        offset += {"train": 0, "validation": 4, "test": 8}[part.split]
        return {
            "x": 40 + langs.index(part.lang) * column + 12 + offset,
            "y": round(10 + (1 - max(-0.2, correlation)) / 1.2 * height, 1),
            "bad": report.thresholds.flagged("alignment", part.lang, part.correlation),
            "label": part.label,
            "title": f"{part.lang} {part.label} {part.split}: {correlation:.2f} over {rows}",
        }

    return {
        "langs": [{"lang": lang, "x": 40 + index * column + 24} for index, lang in enumerate(langs)],
        "points": [point(part) for part in report.lists if part.correlation is not None],
        "width": 50 + len(langs) * column,
        "height": height + 40,
        "ticks": [
            {"y": round(10 + (1 - value) / 1.2 * height, 1), "value": value} for value in (0.0, 0.5, 1.0)
        ],
    }
