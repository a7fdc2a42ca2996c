"""Fill the memory with what a build lacks: chains, candidates, back-translations; and choose from it.

The memory decides, not the run: what a build takes is chosen from the entries that are there, by rules
that do not depend on the order in which they came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from polyrefuse_data.checks.text import round_trip
from polyrefuse_data.cluster.connect import ClusterOptions
from polyrefuse_data.core.languages import LANGUAGES, SOURCE_LANGUAGE
from polyrefuse_data.core.schema import text_hash
from polyrefuse_data.http.faults import TranslatorError
from polyrefuse_data.translate.answers import Judge
from polyrefuse_data.translate.asking import RunSettings
from polyrefuse_data.translate.backends.base import Backend, Closing, Settings
from polyrefuse_data.translate.backends.registry import check_coverage, covers, make_chain, parse_chain
from polyrefuse_data.translate.memory.store import BACK, FORWARD, HUMAN, TranslationMemory, Translator
from polyrefuse_data.translate.runner import Runner, Watcher, Work

REPLAY = "replay"
"""The translator that asks the memory and nothing else: `replay`, or `replay:BACKEND`."""

Chosen = dict[tuple[str, int], tuple[Translator, str]]
"""(English hash, occurrence) -> who translated and the text."""

Matches = Callable[[Translator], bool]


@dataclass(frozen=True)
class LiveRequest:
    """How to translate: a chain of backends and `replay`s, and what to do with them."""

    chain: str = REPLAY
    url: str | None = None
    timeout: float = 30.0
    candidates: int = 1
    back_translate: bool = False
    run: RunSettings = field(default_factory=RunSettings)
    cluster: ClusterOptions | None = None
    threads: int | None = None


class Chain:
    """The links of `--translator`: each takes entries of the memory, and some can add to them."""

    def __init__(self, request: LiveRequest, asks: bool = True) -> None:
        """Make the backends of `request`; unless it `asks`, for a plan only: see `Settings`."""
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
                one = next(made)
                self.links.append((_by_translator(one.translator), one))
        if request.candidates > len(self.links):
            raise TranslatorError(
                f"--candidates {request.candidates} needs as many translators; "
                f"--translator names {len(self.links)}"
            )

    def close(self) -> None:
        """Give back what backends hold besides memory: a cluster."""
        for backend in self.backends:
            if isinstance(backend, Closing):
                backend.close()

    @property
    def backends(self) -> list[Backend]:
        """The links that can translate, in order."""
        return [backend for _, backend in self.links if backend is not None]

    def choose(self, memory: TranslationMemory, lang: str, english: Mapping[str, str]) -> Chosen:
        """Return the translations into `lang` that the chain takes from the memory.

        People win. Else the first link with an entry; with candidates, of the first so many that one whose
        back-translation is nearest to the English (chrF++), the earlier where they tie. `english` gives
        the text of a hash; prompts that it lacks are left out.
        """
        backs = memory.backs(lang) if self.request.candidates > 1 else {}
        chosen: Chosen = {}
        for key, entries in memory.candidates(lang).items():
            if key[0] not in english:
                continue
            if entries[0][0].backend == HUMAN:
                chosen[key] = entries[0]
                continue
            ours = self.ranked(entries)[: self.request.candidates]
            if ours:
                chosen[key] = max(ours, key=lambda one: _score(english[key[0]], key[0], one[1], backs))
        # a correction stands for every repeat of its prompt
        people = {
            one: entry for (one, number), entry in chosen.items() if not number and entry[0].backend == HUMAN
        }
        return {key: people.get(key[0], entry) for key, entry in chosen.items()}

    def ranked(self, entries: Sequence[tuple[Translator, str]]) -> list[tuple[Translator, str]]:
        """Return the first entry of each link that has one, in the order of the links."""
        found = []
        for matches, _ in self.links:
            for entry in entries:
                if entry not in found and matches(entry[0]):
                    found.append(entry)
                    break
        return found


def _by_backend(name: str) -> Matches:
    return lambda translator: not name or translator.backend == name


def _by_translator(wanted: Translator) -> Matches:
    return lambda translator: translator == wanted


def _score(english: str, english_hash: str, text: str, backs: Mapping[tuple[str, str], str]) -> float:
    back = backs.get((english_hash, text_hash(text)))
    return -1.0 if back is None else round_trip(english, back)


def missing(
    chain: Chain, memory: TranslationMemory | None, english: Mapping[str, str], lang: str
) -> dict[str, int]:
    """Return the hashes of prompts that lack candidates in `lang`, with how many they lack, in order."""
    have: dict[str, int] = {}
    if memory is not None:
        for (english_hash, occurrence), entries in memory.candidates(lang).items():
            if occurrence == 0:
                human = entries[0][0].backend == HUMAN
                have[english_hash] = chain.request.candidates if human else len(chain.ranked(entries))
    wanted = chain.request.candidates
    return {one: wanted - have.get(one, 0) for one in english if have.get(one, 0) < wanted}


def fill_memory(
    english: Mapping[str, str],
    langs: Sequence[str],
    chain: Chain,
    memory: TranslationMemory,
    watcher: Watcher,
) -> dict[tuple[str, str], str]:
    """Ask the chain's backends for what the memory lacks; return (English hash, language) -> why it does.

    Each backend gives its own reason: `google: echo; mymemory: answer` (see `faults.REASONS`).
    Raises `TranslatorError` for a language that no backend covers, before the first request, and when the
    last backend had to be given up; what was translated by then is in the memory.
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
        works = []
        for lang in needed:
            if not covers(backend, LANGUAGES[lang]):
                for english_hash, lacks in lacking[lang].items():
                    if lacks:
                        reasons.setdefault((english_hash, lang), []).append(f"{backend.name}: uncovered")
                continue
            known = {
                english_hash
                for (english_hash, _), entries in memory.candidates(lang).items()
                if any(translator == backend.translator for translator, _ in entries)
            }
            for (english_hash, _), entries in memory.candidates(lang).items():
                for translator, text in entries:
                    if translator == backend.translator and english_hash in english:
                        judge.ratios.add(SOURCE_LANGUAGE, lang, english[english_hash], text)
            for english_hash, lacks in lacking[lang].items():
                if lacks and english_hash not in known:
                    works.append(Work(english[english_hash], lang, FORWARD, english[english_hash]))
        if not works:
            continue
        failed, stopped = Runner(backend, memory, chain.request.run, watcher, judge).run(works)
        problem = stopped or problem
        for work in works:
            key = (text_hash(work.english), work.lang)
            if work in failed:
                reasons.setdefault(key, []).append(f"{backend.name}: {failed[work]}")
            else:
                lacking[work.lang][key[0]] -= 1
    if problem is not None and any(lacks for lang in needed for lacks in lacking[lang].values()):
        raise problem
    if back:
        _fill_backs(english, targets, chain, memory, watcher, judge)
    return {(one, lang): "; ".join(why) for (one, lang), why in reasons.items() if lacking[lang].get(one)}


def _fill_backs(
    english: Mapping[str, str],
    langs: Sequence[str],
    chain: Chain,
    memory: TranslationMemory,
    watcher: Watcher,
    judge: Judge,
) -> None:
    """Ask for the back-translations that the memory lacks: by who translated, else by the next."""
    backends = chain.backends
    todo: list[tuple[Work, list[Backend]]] = []
    for lang in langs:
        backs = memory.backs(lang)
        for (english_hash, _), entries in memory.candidates(lang).items():
            if english_hash not in english:
                continue
            human = entries[0][0].backend == HUMAN
            wanted = entries[:1] if human else chain.ranked(entries)[: chain.request.candidates]
            for translator, text in wanted:
                if (english_hash, text_hash(text)) in backs:
                    continue
                order = sorted(backends, key=lambda one: one.translator != translator)
                work = Work(english[english_hash], lang, BACK, text)
                todo.append((work, [one for one in order if covers(one, LANGUAGES[lang], back=True)]))
    todo = list({work: (work, order) for work, order in todo}.values())
    problem: TranslatorError | None = None
    for turn in range(len(backends)):
        left: list[tuple[Work, list[Backend]]] = []
        for backend in backends:
            works = [work for work, order in todo if turn < len(order) and order[turn] is backend]
            if works:
                failed, stopped = Runner(backend, memory, chain.request.run, watcher, judge).run(works)
                problem = stopped or problem
                left += [(work, order) for work, order in todo if work in failed]
        todo = left
    if problem is not None and todo:
        raise problem
