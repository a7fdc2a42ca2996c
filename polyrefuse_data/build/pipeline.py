"""The one pipeline: recipe -> prompts -> translations -> checks -> package. The manifest is written last."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyrefuse_data.build.package import LanguagePart, Package, PackageFolder
from polyrefuse_data.checks import rows as row_checks
from polyrefuse_data.checks.language import LanguageVotes
from polyrefuse_data.checks.lists import (
    Item,
    alignment_findings,
    collision_findings,
    duplicate_findings,
)
from polyrefuse_data.checks.thresholds import Thresholds, load_thresholds
from polyrefuse_data.core.findings import Finding, sort_findings
from polyrefuse_data.core.languages import LANGUAGES, PUBLISHED_LANGUAGES, SOURCE_LANGUAGE
from polyrefuse_data.core.schema import ORIGINAL, PlacedPrompt, Row, text_hash
from polyrefuse_data.core.version import __version__
from polyrefuse_data.prompts import recipe as recipes
from polyrefuse_data.prompts.load import Progress, SourceUsed, read_sources
from polyrefuse_data.prompts.recipe import Recipe
from polyrefuse_data.prompts.splits import Selection, draw_splits, pool_prompts
from polyrefuse_data.translate.memory.store import HUMAN, TranslationMemory, Translator

if TYPE_CHECKING:
    from polyrefuse_data.cluster.connect import ClusterOptions
    from polyrefuse_data.translate.asking import RunSettings
    from polyrefuse_data.translate.fill import Chain, LiveRequest
    from polyrefuse_data.translate.plan import PlanRow

REPLAY = "replay"
"""The translator that asks the memory and nothing else."""

VERSIONED = ("py3langid", "lingua-language-detector", "langdetect", "sacrebleu", "pyarrow")
"""Packages whose version can change a score or a byte; they stand in the manifest."""


@dataclass(frozen=True)
class Gap:
    """A prompt without a translation: named, never dropped silently."""

    lang: str
    split: str
    label: str
    ids: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    """Why each of `ids` has none: a backend's name and a reason of `translate.faults.REASONS`."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build: see `polyrefuse build --help` for each."""

    recipe: str = "paper"
    langs: Sequence[str] = tuple(LANGUAGES)
    out: Path | None = None
    sources: Path | None = None
    memory: Path | None = None
    translator: str = REPLAY
    seed: int | None = None
    size: Mapping[str, int] | None = None
    allow_gaps: bool = False
    all_votes: bool = False
    thresholds: Path | None = None
    translator_url: str | None = None
    timeout: float = 30.0
    candidates: int = 1
    back_translate: bool = False
    connections: int | None = None
    requests_per_second: float | None = None
    characters_per_second: float | None = None
    log: Path | None = None
    quiet: bool = True
    cluster: ClusterOptions | None = None
    """Where local models translate; None for here."""
    threads: int | None = None
    """Threads of torch that a local model takes; None takes torch's own number."""
    run: RunSettings | None = None
    """How to retry, in place of the three limits above."""

    def live(self) -> LiveRequest:
        """Return how to translate."""
        from polyrefuse_data.translate.asking import RunSettings
        from polyrefuse_data.translate.fill import LiveRequest

        run = self.run or RunSettings(self.connections, self.requests_per_second, self.characters_per_second)
        return LiveRequest(
            self.translator,
            self.translator_url,
            self.timeout,
            self.candidates,
            self.back_translate,
            run,
            self.cluster,
            self.threads,
        )


@dataclass(frozen=True)
class BuildResult:
    """What a build made: not `complete` if gaps kept it from packaging, `unchanged` if nothing was to do."""

    folder: Path
    manifest: Mapping[str, Any]
    gaps: tuple[Gap, ...] = ()
    complete: bool = True
    unchanged: bool = False


@dataclass
class _Inputs:
    """Everything that decides the bytes of a build."""

    recipe: Recipe
    selection: Selection
    sources: list[SourceUsed]
    thresholds: Thresholds
    rows: dict[str, list[Row]] = field(default_factory=dict)
    backs: dict[str, list[str | None]] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)


def build(request: BuildRequest, progress: Progress = lambda what, done, total: None) -> BuildResult:
    """Build a data set and return what was made; see `BuildRequest`.

    Building twice from the same inputs gives the same bytes, on another day and in another folder. With
    gaps and without `allow_gaps`, nothing is packaged: `complete` is False, and the manifest of a folder
    that held no complete build names the gaps. Raises `PolyRefuseError`.
    """
    recipe, folder = recipes.load_recipe(request.recipe)
    recipe = recipe.changed(request.seed, request.size)
    out = request.out or Path("builds") / recipe.name
    package_folder = PackageFolder(out)
    package_folder.check_ours()
    inputs = _select(recipe, folder, request, progress)
    _translate(inputs, request)
    header = _header(inputs, request)
    if inputs.gaps and not request.allow_gaps:
        manifest = {**header, "complete": False, "gaps": [_gap_with_reasons(gap) for gap in inputs.gaps]}
        package_folder.write_incomplete(manifest)
        return BuildResult(out, manifest, tuple(inputs.gaps), complete=False)
    kept = package_folder.unchanged(header)
    if kept is not None:
        return BuildResult(out, kept, tuple(inputs.gaps), unchanged=True)
    return _package(inputs, request, header, package_folder, progress)


def _select(recipe: Recipe, folder: Path | None, request: BuildRequest, progress: Progress) -> _Inputs:
    progress("sources", 0, len(recipe.used_sources()))
    prompts, used = read_sources(recipe, folder, request.sources, progress)
    pools = {
        name: pool_prompts(name, pool, prompts, lambda pin: recipes.read_pin(pin, folder))
        for name, pool in recipe.pools.items()
    }
    return _Inputs(recipe, draw_splits(recipe, pools), used, load_thresholds(request.thresholds))


def _package(
    inputs: _Inputs,
    request: BuildRequest,
    header: dict[str, Any],
    package_folder: PackageFolder,
    progress: Progress,
) -> BuildResult:
    with package_folder.staging():
        parts: dict[str, LanguagePart] = {}
        for number, lang in enumerate(inputs.rows):
            progress("checks", number, len(inputs.rows))
            digest = header["inputs"]["languages"][lang]
            part = package_folder.staged_part(lang, digest)
            if part is None:
                rows, findings = _checked(inputs, lang, request.all_votes)
                part = package_folder.stage_part(lang, digest, rows, findings)
            parts[lang] = part
        progress("checks", len(inputs.rows), len(inputs.rows))
        items = [
            Item(row.id, row.prompt.label, row.split, row.prompt.text) for row in inputs.selection.placed
        ]
        findings = duplicate_findings(items, inputs.thresholds)
        findings += [finding for part in parts.values() for finding in part.findings]
        findings += [_gap_finding(gap) for gap in inputs.gaps]
        package = Package(
            header=header,
            recipe=inputs.recipe,
            sources=[vars(source) for source in inputs.sources],
            parts=parts,
            findings=sort_findings(findings),
            gaps=[_gap_with_reasons(gap) for gap in inputs.gaps],
        )
        manifest = package_folder.finish(package)
    return BuildResult(package_folder.path, manifest, tuple(inputs.gaps))


def _translate(inputs: _Inputs, request: BuildRequest) -> None:
    """Fill `inputs` with the rows of every language, and name what has no translation.

    A live translator first adds to the memory what it lacks; then the rows are taken from the memory.
    """
    from polyrefuse_data.translate.fill import Chain, fill_memory
    from polyrefuse_data.translate.progress import TranslationProgress

    chain = Chain(request.live())
    english = {row.prompt.hash: row.prompt.text for row in inputs.selection.placed}
    reasons: dict[tuple[str, str], str] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(chain.close)
        memory = _open_memory(inputs, request, chain)
        if memory is not None:
            stack.callback(memory.close)
            for name in chain.replayed:
                memory.require_backend(name)
            if chain.backends:
                watcher = stack.enter_context(TranslationProgress(request.quiet, request.log))
                reasons = fill_memory(english, request.langs, chain, memory, watcher)
        for lang in request.langs:
            known: Mapping[tuple[str, int], tuple[Translator, str]] = {}
            backs: Mapping[tuple[str, str], str] = {}
            if memory is not None and lang != SOURCE_LANGUAGE:
                known, backs = chain.choose(memory, lang, english), memory.backs(lang)
            _translate_into(inputs, lang, known, backs, reasons, live=bool(chain.backends))


def _open_memory(inputs: _Inputs, request: BuildRequest, chain: Chain) -> TranslationMemory | None:
    """Open the memory if something has to come from it, or if it is named: it may hold corrections."""
    langs = [lang for lang in request.langs if lang != SOURCE_LANGUAGE]
    path = request.memory or default_memory()
    within = all(lang in row.prompt.translations for row in inputs.selection.placed for lang in langs)
    if not langs or (within and not chain.backends and request.memory is None):
        return None
    return TranslationMemory(path, create=request.memory is None or bool(chain.backends))


def plan_build(request: BuildRequest) -> list[PlanRow]:
    """Return what a build would ask its live translators for; nothing is asked, nothing is written."""
    from polyrefuse_data.translate.fill import Chain
    from polyrefuse_data.translate.plan import plan

    recipe, folder = recipes.load_recipe(request.recipe)
    recipe = recipe.changed(request.seed, request.size)
    inputs = _select(recipe, folder, request, lambda what, done, total: None)
    english = {row.prompt.hash: row.prompt.text for row in inputs.selection.placed}
    chain = Chain(request.live(), asks=False)
    path = request.memory or default_memory()
    with contextlib.ExitStack() as stack:
        stack.callback(chain.close)
        memory = stack.enter_context(TranslationMemory(path)) if path.exists() else None
        return plan(english, request.langs, chain, memory)


def default_memory() -> Path:
    """Return where the translation memory lies if none is named."""
    import platformdirs

    return Path(platformdirs.user_data_dir("polyrefuse")) / "memory.sqlite"


def _translate_into(
    inputs: _Inputs,
    lang: str,
    known: Mapping[tuple[str, int], tuple[Translator, str]],
    backs: Mapping[tuple[str, str], str],
    reasons: Mapping[tuple[str, str], str],
    live: bool,
) -> None:
    rows: list[Row] = []
    texts_back: list[str | None] = []
    missing: dict[tuple[str, str], dict[str, str]] = {}
    for placed in inputs.selection.placed:
        found = _translation(placed, lang, known, live)
        if found is None:
            why = reasons.get((placed.prompt.hash, lang), "not in the memory")
            missing.setdefault((placed.split, placed.prompt.label), {})[placed.id] = why
            continue
        translator, text = found
        rows.append(_row(placed, lang, text, translator))
        texts_back.append(backs.get((placed.prompt.hash, text_hash(text))))
    inputs.rows[lang] = rows
    inputs.backs[lang] = texts_back
    for (split, label), ids in missing.items():
        inputs.gaps.append(Gap(lang, split, label, tuple(ids), tuple(ids.values())))


def _translation(
    placed: PlacedPrompt, lang: str, known: Mapping[tuple[str, int], tuple[Translator, str]], live: bool
) -> tuple[str, str] | None:
    """Return (translator's signature, text) of one prompt in one language, or None.

    A source's own translations stand unless a live translator was asked for or a person corrected them.
    """
    prompt = placed.prompt
    if lang == SOURCE_LANGUAGE:
        return ORIGINAL, prompt.text
    found = known.get((prompt.hash, placed.occurrence)) or known.get((prompt.hash, 0))
    if lang in prompt.translations and not live and (found is None or found[0].backend != HUMAN):
        from polyrefuse_data.prompts.sample import TRANSLATOR

        return Translator(TRANSLATOR, __version__).signature, prompt.translations[lang]
    return (found[0].signature, found[1]) if found else None


def _row(placed: PlacedPrompt, lang: str, text: str, translator: str) -> Row:
    prompt = placed.prompt
    return Row(
        id=placed.id,
        group=prompt.group,
        lang=lang,
        text=text,
        text_en=prompt.text,
        label=prompt.label,
        split=placed.split,
        category=prompt.category,
        source_category=prompt.source_category,
        source=prompt.source,
        source_licence=prompt.licence,
        translator=translator,
        duplicate_of=placed.duplicate_of,
    )


def _checked(inputs: _Inputs, lang: str, all_votes: bool) -> tuple[list[Row], list[Finding]]:
    """Return the rows of one language with scores and flags, and what the checks found."""
    from dataclasses import replace

    rows = inputs.rows[lang]
    batch = row_checks.Batch(
        LANGUAGES[lang],
        [row.text for row in rows],
        [row.text_en for row in rows],
        inputs.backs[lang],
        LanguageVotes(all_votes),
    )
    scored = row_checks.run_checks(batch, inputs.thresholds)
    checked = [
        replace(
            row,
            scores={check: values[position] for check, values in scored.scores.items()},
            flags={check: values[position] for check, values in scored.flags.items()},
        )
        for position, row in enumerate(rows)
    ]
    findings = rows_findings(rows, scored, lang, inputs.thresholds)
    return checked, findings


def rows_findings(
    rows: Sequence[Row], scored: row_checks.Scored, lang: str, thresholds: Thresholds
) -> list[Finding]:
    """Return what the checks find in the rows of one language: by label and split, then over all."""
    places: dict[tuple[str, str], list[int]] = {}
    for position, row in enumerate(rows):
        places.setdefault((row.label, row.split), []).append(position)
    ids = [row.id for row in rows]
    findings: list[Finding] = []
    for (label, split), positions in places.items():
        findings += row_checks.row_findings(scored, ids, lang, label, split, positions)
        if lang != SOURCE_LANGUAGE:
            english = [rows[position].text_en for position in positions]
            texts = [rows[position].text for position in positions]
            findings += alignment_findings(english, texts, lang, label, split, thresholds)
    if lang != SOURCE_LANGUAGE:
        items = [Item(row.id, row.label, row.split, row.text_en) for row in rows]
        findings += collision_findings(items, [row.text for row in rows], lang)
    return findings


def _header(inputs: _Inputs, request: BuildRequest) -> dict[str, Any]:
    """Return the part of the manifest that is known before any check has run: all inputs, by hash."""
    versions = {"polyrefuse": __version__, **{name: metadata.version(name) for name in VERSIONED}}
    common = {
        "checks": row_checks.VERSION,
        "thresholds": inputs.thresholds.digest(),
        "all_votes": request.all_votes,
        "versions": versions,
    }
    if set(LANGUAGES) != set(PUBLISHED_LANGUAGES):  # detectors choose among all that are known
        common["languages"] = sorted(LANGUAGES)
    languages = {
        lang: _digest(
            [
                common,
                [
                    [
                        row.id,
                        row.group,
                        row.text,
                        row.text_en,
                        row.translator,
                        row.source,
                        row.source_licence,
                        row.category,
                        row.source_category,
                        row.duplicate_of,
                    ]
                    for row in rows
                ],
                inputs.backs[lang],
            ]
        )
        for lang, rows in inputs.rows.items()
    }
    selection = inputs.selection
    return {
        "recipe": {
            **inputs.recipe.model_dump(mode="json", exclude_none=True),
            "digest": _digest(inputs.recipe.model_dump(mode="json")),
        },
        "seed": inputs.recipe.seed,
        "sizes": inputs.recipe.sizes(),
        "sources": [vars(source) for source in inputs.sources],
        "dropped": [vars(one) for one in selection.dropped],
        "topped_up": {
            f"{label}-{split}": n for (label, split), n in sorted(selection.topped_up.items()) if n
        },
        "thresholds": {"digest": inputs.thresholds.digest(), "provenance": inputs.thresholds.provenance},
        "all_votes": request.all_votes,
        "versions": versions,
        "inputs": {"languages": languages, "gaps": _digest([_gap_record(gap) for gap in inputs.gaps])},
    }


def _digest(value: Any) -> str:
    return text_hash(json.dumps(value, sort_keys=True, ensure_ascii=False))


def _gap_record(gap: Gap) -> dict[str, Any]:
    return {"lang": gap.lang, "split": gap.split, "label": gap.label, "ids": list(gap.ids)}


def _gap_with_reasons(gap: Gap) -> dict[str, Any]:
    return {**_gap_record(gap), "reasons": dict(zip(gap.ids, gap.reasons, strict=True))}


def _gap_finding(gap: Gap) -> Finding:
    counts = Counter(gap.reasons)
    why = ", ".join(f"{reason} {number}" for reason, number in sorted(counts.items()))
    message = f"{len(gap.ids)} prompts without a translation ({why})"
    return Finding("gap", "error", gap.lang, gap.label, gap.split, gap.ids, message)
