"""Take the translations of a build from the memory, which live translators fill first; score and choose."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from polyrefuse_data.build.inputs import Inputs, Known
from polyrefuse_data.checks.language import LanguageVotes
from polyrefuse_data.core.languages import SOURCE_LANGUAGE
from polyrefuse_data.prompts.load import Progress
from polyrefuse_data.quality.scores_file import ScoresFile
from polyrefuse_data.translate.memory.store import TranslationMemory

if TYPE_CHECKING:
    from polyrefuse_data.build.pipeline import BuildRequest
    from polyrefuse_data.quality.measure import Translated
    from polyrefuse_data.translate.fill import Candidates, Chain

Backs = Mapping[tuple[str, str], str]
"""Hashes of an English text and of its translation -> back-translation."""


def add_translations(inputs: Inputs, request: BuildRequest, progress: Progress) -> None:
    """Fill `inputs` with the rows of every language and their recorded scores; name what has no translation.

    A live translator first adds to the memory what it lacks. Of several candidates the best is taken, and the
    memory keeps why.
    """
    from polyrefuse_data.translate.fill import Chain, fill_memory
    from polyrefuse_data.translate.progress import TranslationProgress

    chain = Chain(request.live())
    english = {row.prompt.hash: row.prompt.text for row in inputs.selection.placed}
    reasons: dict[tuple[str, str], str] = {}
    asked = request.models is not None and request.models.asks
    scores = ScoresFile(request.scores, create=asked or request.candidates > 1)
    with contextlib.ExitStack() as stack:
        stack.callback(chain.close)
        memory = _open_memory(inputs, request, chain)
        candidates: dict[str, Candidates] = {}
        backs: dict[str, Backs] = {}
        if memory is not None:
            stack.callback(memory.close)
            for name in chain.replayed:
                memory.require_backend(name)
            if chain.backends:
                watcher = stack.enter_context(TranslationProgress(request.quiet, request.log))
                reasons = fill_memory(english, request.langs, chain, memory, watcher)
            targets = [lang for lang in request.langs if lang != SOURCE_LANGUAGE]
            candidates = {lang: chain.candidates(memory, lang, english) for lang in targets}
            backs = {lang: memory.backs(lang) for lang in targets}
        taken = _choose(inputs, request, english, candidates, backs, scores, memory, progress)
    for lang in request.langs:
        live = bool(chain.backends)
        inputs.add_language(lang, taken.get(lang, {}), backs.get(lang, {}), reasons, live=live)
    _score_rows(inputs, request, scores, progress)


def _choose(
    inputs: Inputs,
    request: BuildRequest,
    english: Mapping[str, str],
    candidates: Mapping[str, Candidates],
    backs: Mapping[str, Backs],
    scores: ScoresFile,
    memory: TranslationMemory | None,
    progress: Progress,
) -> dict[str, Known]:
    """Return the translations to take by language; without `--candidates` there is one for each prompt."""
    if request.candidates < 2 or memory is None:
        return {lang: {key: own[0] for key, own in each.items()} for lang, each in candidates.items()}
    from polyrefuse_data.build.candidates import choose, record_disagreement, slots

    lists = [part for lang, own in candidates.items() for part in slots(lang, own, english, backs[lang])]
    _measure(lists, request, scores, progress)
    votes = LanguageVotes(request.all_votes)
    taken: dict[str, Known] = {}
    for number, (lang, own) in enumerate(candidates.items()):
        progress("candidates", number, len(candidates))
        choices = choose(lang, own, english, backs[lang], scores, inputs.thresholds, votes)
        memory.record_choices(lang, choices.ranked)
        record_disagreement(lang, choices, english, scores)
        taken[lang] = choices.taken
    progress("candidates", len(candidates), len(candidates))
    scores.save()
    return taken


def _measure(lists: list[Translated], request: BuildRequest, scores: ScoresFile, progress: Progress) -> None:
    """Score `lists` by the models of the request, if it names any."""
    if request.models is not None and request.models.asks:
        from polyrefuse_data.quality.measure import measure

        measure(lists, request.models, scores, lambda done, total: progress("models", done, total))


def _score_rows(inputs: Inputs, request: BuildRequest, scores: ScoresFile, progress: Progress) -> None:
    """Take the scores of the rows into `inputs`; only those of the very English and translation count."""
    from polyrefuse_data.quality.measure import Translated

    lists = [
        Translated(
            lang=lang,
            english=[row.text_en for row in rows],
            texts=[row.text for row in rows],
            backs=inputs.backs[lang],
        )
        for lang, rows in inputs.rows.items()
        if lang != SOURCE_LANGUAGE
    ]
    _measure(lists, request, scores, progress)
    for part in lists:
        recorded = scores.recorded(part.lang, part.english, part.texts)
        if recorded:
            inputs.recorded[part.lang] = recorded


def _open_memory(inputs: Inputs, request: BuildRequest, chain: Chain) -> TranslationMemory | None:
    """Open the memory if something has to come from it, or if it is named: it may hold corrections."""
    langs = [lang for lang in request.langs if lang != SOURCE_LANGUAGE]
    path = request.memory or default_memory()
    within = all(lang in row.prompt.translations for row in inputs.selection.placed for lang in langs)
    if not langs or (within and not chain.backends and request.memory is None):
        return None
    return TranslationMemory(path, create=request.memory is None or bool(chain.backends))


def default_memory() -> Path:
    """Return where the translation memory lies if none is named."""
    import platformdirs

    return Path(platformdirs.user_data_dir("polyrefuse")) / "memory.sqlite"
