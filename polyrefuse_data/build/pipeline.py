"""Build a data set: recipe -> prompts -> translations -> checks -> package. The manifest is written last."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyrefuse_data.build.folder import PackageFolder
from polyrefuse_data.build.inputs import Gap, Inputs
from polyrefuse_data.build.model import LanguagePart, Package
from polyrefuse_data.build.quality import quality_summary
from polyrefuse_data.build.surface_cues import stored_surface_cues, surface_cue_summary
from polyrefuse_data.build.translations import add_translations, default_memory
from polyrefuse_data.checks import rows as row_checks
from polyrefuse_data.checks.language import LanguageVotes
from polyrefuse_data.checks.lists import (
    Item,
    alignment_findings,
    collision_findings,
    duplicate_findings,
)
from polyrefuse_data.checks.surface_cue_report import surface_cue_findings
from polyrefuse_data.checks.thresholds import Thresholds, load_thresholds
from polyrefuse_data.core.errors import SourceError
from polyrefuse_data.core.findings import Finding, sort_findings
from polyrefuse_data.core.languages import LANGUAGES, SOURCE_LANGUAGE, parse_languages
from polyrefuse_data.core.paths import normalise_paths
from polyrefuse_data.core.schema import Row
from polyrefuse_data.core.unicode_text import LONGEST_TEXT
from polyrefuse_data.prompts import recipe as recipes
from polyrefuse_data.prompts.load import Progress, read_sources
from polyrefuse_data.prompts.recipe import Recipe
from polyrefuse_data.prompts.splits import draw_splits, pool_prompts
from polyrefuse_data.translate.memory.store import TranslationMemory

if TYPE_CHECKING:
    from polyrefuse_data.cluster.connect import ClusterOptions
    from polyrefuse_data.quality.measure import ModelRequest
    from polyrefuse_data.translate.asking import RunSettings
    from polyrefuse_data.translate.fill import LiveRequest
    from polyrefuse_data.translate.plan import PlanRow

REPLAY = "replay"
"""The translator that takes from the memory alone."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build: see `polyrefuse build --help` for each.

    Paths may be text; `langs` may be text as on the command line (`all`, `de,yo`), `size` too (`16/8/8`).
    Raises `UnknownNameError` for an unknown language, `RecipeError` for a size that is not understood.
    """

    recipe: str = "paper"
    langs: Sequence[str] = tuple(LANGUAGES)
    out: Path | None = None
    sources: Path | None = None
    memory: Path | None = None
    translator: str = REPLAY
    seed: int | None = None
    size: Mapping[str, int] | None = None
    allow_gaps: bool = False
    replace: bool = False
    """Replace a build of another recipe, or one with more languages."""
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
    scores: Path | None = None
    """Scores by models, as `polyrefuse audit --quality` records them; they become columns."""
    models: ModelRequest | None = None
    """Models that score the translations, and all candidates; what `scores` has is not scored again."""

    def __post_init__(self) -> None:
        normalise_paths(self, "out", "sources", "memory", "thresholds", "log", "scores")
        text = self.langs if isinstance(self.langs, str) else ",".join(self.langs)
        object.__setattr__(self, "langs", tuple(parse_languages(text)))
        object.__setattr__(self, "recipe", str(self.recipe))
        if isinstance(self.size, str):
            object.__setattr__(self, "size", recipes.parse_size(self.size))

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
    """The result of a build: not `complete` if gaps kept it from packaging, `unchanged` if up to date."""

    folder: Path
    manifest: Mapping[str, Any] = field(repr=False)
    gaps: tuple[Gap, ...] = ()
    complete: bool = True
    unchanged: bool = False


def build(request: BuildRequest, progress: Progress = lambda what, done, total: None) -> BuildResult:
    """Build a data set and return what was made; see `BuildRequest`.

    Building twice from the same inputs gives the same bytes, on another day and in another folder. With
    gaps and without `allow_gaps`, nothing is packaged: `complete` is False, and the manifest of a folder
    that held no complete build names the gaps. Raises `PolyRefuseError`.
    """
    recipe, folder = recipes.load_recipe(request.recipe)
    recipe = recipe.changed(request.seed, request.size)
    package_folder = _output_folder(request, recipe)
    inputs = _select(recipe, folder, request, progress)
    add_translations(inputs, request, progress)
    header = inputs.header(request.all_votes)
    if inputs.gaps and not request.allow_gaps:
        manifest = {**header, "complete": False, "gaps": [gap.with_reasons() for gap in inputs.gaps]}
        package_folder.write_incomplete(manifest)
        return BuildResult(package_folder.path, manifest, tuple(inputs.gaps), complete=False)
    unchanged = package_folder.unchanged(header)
    if unchanged is not None:
        return BuildResult(package_folder.path, unchanged, tuple(inputs.gaps), unchanged=True)
    return _package(inputs, request, header, package_folder, progress)


def _output_folder(request: BuildRequest, recipe: Recipe) -> PackageFolder:
    """Return the folder to build in; raises `BuildError` for one that may not be written or replaced."""
    folder = PackageFolder(request.out or Path("builds") / recipe.name)
    folder.check_ours()
    if not request.replace:
        folder.check_kept(recipe.name, request.langs)
    return folder


def _select(recipe: Recipe, folder: Path | None, request: BuildRequest, progress: Progress) -> Inputs:
    progress("sources", 0, len(recipe.used_sources()))
    prompts, used = read_sources(recipe, folder, request.sources, progress)
    for prompt in chain.from_iterable(prompts.values()):
        if len(prompt.text) > LONGEST_TEXT:
            raise SourceError(
                f"source {prompt.source}: a prompt has {len(prompt.text)} characters (it begins "
                f"'{prompt.text[:40]}'); expected at most {LONGEST_TEXT}"
            )
    pools = {
        name: pool_prompts(name, pool, prompts, lambda pin: recipes.read_pin(pin, folder))
        for name, pool in recipe.pools.items()
    }
    return Inputs(recipe, draw_splits(recipe, pools), used, load_thresholds(request.thresholds))


def _package(
    inputs: Inputs,
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
                part = package_folder.stage_part(
                    lang,
                    digest,
                    rows,
                    findings,
                    pairs=inputs.has_pairs,
                    measured=inputs.measured,
                    quality=quality_summary(rows, inputs.recorded.get(lang, {})) if inputs.measured else None,
                    surface_cues=surface_cue_summary(lang, rows, inputs.thresholds),
                )
            parts[lang] = part
        progress("checks", len(inputs.rows), len(inputs.rows))
        items = [
            Item(row.id, row.prompt.label, row.split, row.prompt.text) for row in inputs.selection.placed
        ]
        findings = duplicate_findings(items, inputs.thresholds)
        findings += [finding for part in parts.values() for finding in part.findings]
        findings += surface_cue_findings(stored_surface_cues(parts.values()))
        findings += [gap.finding() for gap in inputs.gaps]
        package = Package(
            header=header,
            recipe=inputs.recipe,
            sources=[vars(source) for source in inputs.sources],
            parts=parts,
            findings=sort_findings(findings),
            gaps=[gap.with_reasons() for gap in inputs.gaps],
        )
        manifest = package_folder.finish(package)
    return BuildResult(package_folder.path, manifest, tuple(inputs.gaps))


def plan_build(request: BuildRequest) -> list[PlanRow]:
    """Return what a build would ask its live translators for; nothing is asked, nothing is written."""
    from polyrefuse_data.translate.fill import Chain
    from polyrefuse_data.translate.plan import plan

    recipe, folder = recipes.load_recipe(request.recipe)
    recipe = recipe.changed(request.seed, request.size)
    _output_folder(request, recipe)
    inputs = _select(recipe, folder, request, lambda what, done, total: None)
    english = {row.prompt.hash: row.prompt.text for row in inputs.selection.placed}
    chain = Chain(request.live(), asks=False)
    path = request.memory or default_memory()
    with contextlib.ExitStack() as stack:
        stack.callback(chain.close)
        memory = stack.enter_context(TranslationMemory(path)) if path.exists() else None
        return plan(english, request.langs, chain, memory)


def _checked(inputs: Inputs, lang: str, all_votes: bool) -> tuple[list[Row], list[Finding]]:
    """Return the rows of one language with scores and flags, and what the checks found."""
    from dataclasses import replace

    rows = inputs.rows[lang]
    batch = row_checks.Batch(
        LANGUAGES[lang],
        [row.text for row in rows],
        [row.text_en for row in rows],
        inputs.backs[lang],
        LanguageVotes(all_votes),
        inputs.recorded.get(lang, {}),
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
