"""Fill the memory with what a build lacks: by chains of translators, with candidates and back-translations.

A build takes its translations from the memory, by rules that do not depend on the order in which they came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from polyrefuse_data.cluster.connect import ClusterOptions
from polyrefuse_data.core.languages import LANGUAGES, SOURCE_LANGUAGE
from polyrefuse_data.core.schema import text_hash
from polyrefuse_data.http.faults import TranslatorError
from polyrefuse_data.translate.answers import Judge
from polyrefuse_data.translate.asking import RunSettings
from polyrefuse_data.translate.backends.base import Backend, Closing, Settings
from polyrefuse_data.translate.backends.registry import check_coverage, covers, make_chain, parse_chain
from polyrefuse_data.translate.memory.store import BACK, FORWARD, HUMAN, TranslationMemory, Translator
from polyrefuse_data.translate.runner import Runner
from polyrefuse_data.translate.tasks import Task, Watcher

REPLAY = "replay"
"""The translator that takes what the memory has: `replay`, or `replay:BACKEND` for one backend's."""

Candidates = dict[tuple[str, int], list[tuple[Translator, str]]]
"""(English hash, occurrence) -> translations to choose from, each with its translator."""

Matches = Callable[[Translator], bool]


@dataclass(frozen=True)
class LiveRequest:
    """How to translate: the options of `polyrefuse build` that concern translators."""

    chain: str = REPLAY
    url: str | None = None
    timeout: float = 30.0
    candidates: int = 1
    back_translate: bool = False
    run: RunSettings = field(default_factory=RunSettings)
    cluster: ClusterOptions | None = None
    threads: int | None = None


class Chain:
    """The links of `--translator`: each takes entries of the memory, and those with a backend add entries."""

    def __init__(self, request: LiveRequest, asks: bool = True) -> None:
        """Make the backends of `request`; for a plan only, unless it `asks` (see `Settings`)."""
        self.request = request
        if request.candidates < 1:
            raise TranslatorError(f"--candidates is {request.candidates}; expected 1 or more")
        items = [item.strip() for item in request.chain.split(",")]
        live = [item for item in items if item.partition(":")[0] != REPLAY]
        if request.cluster is not None and not any(item.partition(":")[0] == "hf" for item in live):
            raise TranslatorError(
                "--executor dask is for local models, and --translator names none; add one: hf:MODEL@REVISION"
            )
        self.settings = Settings(request.url, request.timeout, request.cluster, request.threads, asks)
        made = iter(make_chain(parse_chain(",".join(live)), self.settings) if live else [])
        if request.url is not None and not live:
            raise TranslatorError("--translator-url has no backend to point; name one with --translator")
        self.links: list[tuple[Matches, Backend | None]] = []
        self.replayed: list[str] = []
        for item in items:
            name, _, backend = item.partition(":")
            if name == REPLAY:
                self.links.append((_by_backend(backend), None))
                self.replayed += [backend] if backend else []
            else:
                translating = next(made)
                self.links.append((_by_translator(translating.translator), translating))
        if request.candidates > len(self.links):
            raise TranslatorError(
                f"--candidates {request.candidates} needs as many translators; "
                f"--translator names {len(self.links)}"
            )

    def close(self) -> None:
        """Close the backends that hold a resource, such as a cluster."""
        for backend in self.backends:
            if isinstance(backend, Closing):
                backend.close()

    @property
    def backends(self) -> list[Backend]:
        """The links that can translate, in order."""
        return [backend for _, backend in self.links if backend is not None]

    def candidates(self, memory: TranslationMemory, lang: str, english: Mapping[str, str]) -> Candidates:
        """Return the translations into `lang` that the memory has for the chain, as many as were asked for.

        They are the first entry of each link that has one, in the order of the links; a person's translation
        stands alone, and for every repeat of its prompt. `english` maps hashes to texts; prompts that it
        lacks are left out.
        """
        candidates: Candidates = {}
        for key, entries in memory.candidates(lang).items():
            human = entries[0][0].backend == HUMAN
            ours = entries[:1] if human else self.ranked(entries)[: self.request.candidates]
            if key[0] in english and ours:
                candidates[key] = ours
        people = {
            english_hash: entries
            for (english_hash, occurrence), entries in candidates.items()
            if not occurrence and entries[0][0].backend == HUMAN
        }
        return {key: people.get(key[0], entries) for key, entries in candidates.items()}

    def ranked(self, entries: Sequence[tuple[Translator, str]]) -> list[tuple[Translator, str]]:
        """Return the first entry of each link that has one, in the order of the links."""
        ranked: list[tuple[Translator, str]] = []
        for matches, _ in self.links:
            own = (entry for entry in entries if entry not in ranked and matches(entry[0]))
            ranked += [entry for entry in [next(own, None)] if entry is not None]
        return ranked


def _by_backend(name: str) -> Matches:
    return lambda translator: not name or translator.backend == name


def _by_translator(wanted: Translator) -> Matches:
    return lambda translator: translator == wanted


def missing(
    chain: Chain, memory: TranslationMemory | None, english: Mapping[str, str], lang: str
) -> dict[str, int]:
    """Return the hashes of prompts that lack candidates in `lang`, each with the number that it lacks."""
    have: dict[str, int] = {}
    if memory is not None:
        for (english_hash, occurrence), entries in memory.candidates(lang).items():
            if occurrence == 0:
                human = entries[0][0].backend == HUMAN
                have[english_hash] = chain.request.candidates if human else len(chain.ranked(entries))
    wanted = chain.request.candidates
    lacking = {english_hash: wanted - have.get(english_hash, 0) for english_hash in english}
    return {english_hash: number for english_hash, number in lacking.items() if number > 0}


def fill_memory(
    english: Mapping[str, str],
    langs: Sequence[str],
    chain: Chain,
    memory: TranslationMemory,
    watcher: Watcher,
) -> dict[tuple[str, str], str]:
    """Ask the chain's backends for what the memory lacks; return why the rest has no translation.

    The reasons are by (English hash, language), each backend's own: `google: echo; mymemory: answer` (see
    `faults.REASONS`). Raise `TranslatorError` for a language that no backend covers, before the first
    request, and when the last backend was given up; what was translated by then is in the memory.
    """
    targets = [lang for lang in langs if lang != SOURCE_LANGUAGE]
    lacking = {lang: missing(chain, memory, english, lang) for lang in targets}
    needed = [lang for lang in targets if lacking[lang]]
    back = chain.request.back_translate or chain.request.candidates > 1
    check_coverage(chain.backends, needed)
    if back:
        check_coverage(chain.backends, targets, back)
    judge = Judge()
    reasons: dict[tuple[str, str], list[str]] = {}
    problem: TranslatorError | None = None
    for backend in chain.backends:
        tasks: list[Task] = []
        for lang in needed:
            if covers(backend, LANGUAGES[lang]):
                tasks += _forward_tasks(backend, lang, lacking[lang], english, memory, judge)
                continue
            for english_hash, lacks in lacking[lang].items():
                if lacks:
                    reasons.setdefault((english_hash, lang), []).append(f"{backend.name}: uncovered")
        if not tasks:
            continue
        failed, stopped = Runner(backend, memory, chain.request.run, watcher, judge).run(tasks)
        problem = stopped or problem
        for task in tasks:
            key = (text_hash(task.english), task.lang)
            if task in failed:
                reasons.setdefault(key, []).append(f"{backend.name}: {failed[task]}")
            else:
                lacking[task.lang][key[0]] -= 1
    if problem is not None and any(lacks for lang in needed for lacks in lacking[lang].values()):
        raise problem
    if back:
        _fill_backs(english, targets, chain, memory, watcher, judge)
    return {
        (english_hash, lang): "; ".join(why)
        for (english_hash, lang), why in reasons.items()
        if lacking[lang].get(english_hash)
    }


def _forward_tasks(
    backend: Backend,
    lang: str,
    lacking: Mapping[str, int],
    english: Mapping[str, str],
    memory: TranslationMemory,
    judge: Judge,
) -> list[Task]:
    """Return the prompts to ask `backend` for; show `judge` the lengths of what it translated before."""
    known = set()
    for (english_hash, _), entries in memory.candidates(lang).items():
        for translator, text in entries:
            if translator == backend.translator:
                known.add(english_hash)
                if english_hash in english:
                    judge.ratios.add(SOURCE_LANGUAGE, lang, english[english_hash], text)
    return [
        Task(english[english_hash], lang, FORWARD, english[english_hash])
        for english_hash, lacks in lacking.items()
        if lacks and english_hash not in known
    ]


def _fill_backs(
    english: Mapping[str, str],
    langs: Sequence[str],
    chain: Chain,
    memory: TranslationMemory,
    watcher: Watcher,
    judge: Judge,
) -> None:
    """Ask for the back-translations that the memory lacks: the backend that translated, else the next."""
    backends = chain.backends
    orders: dict[Task, list[Backend]] = {}
    for lang in langs:
        backs = memory.backs(lang)
        for (english_hash, _), entries in chain.candidates(memory, lang, english).items():
            for translator, text in entries:
                if (english_hash, text_hash(text)) in backs:
                    continue
                able = [backend for backend in backends if covers(backend, LANGUAGES[lang], back=True)]
                # False sorts first: the backend that translated.
                able.sort(key=lambda backend, own=translator: backend.translator != own)  # type: ignore[misc]
                orders[Task(english[english_hash], lang, BACK, text)] = able
    problem: TranslatorError | None = None
    for turn in range(len(backends)):
        left: dict[Task, list[Backend]] = {}
        for backend in backends:
            tasks = [task for task, order in orders.items() if turn < len(order) and order[turn] is backend]
            if tasks:
                failed, stopped = Runner(backend, memory, chain.request.run, watcher, judge).run(tasks)
                problem = stopped or problem
                left |= {task: orders[task] for task in tasks if task in failed}
        orders = left
    if problem is not None and orders:
        raise problem
