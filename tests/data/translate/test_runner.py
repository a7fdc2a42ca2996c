"""The runner against a service that misbehaves on purpose: nothing wrong, nothing lost, nothing unnamed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from translator_server import FAULTS, Server, translation, wait_until

from polyrefuse_data.checks.languages_file import registered
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.languages import LANGUAGES, Language
from polyrefuse_data.core.schema import text_hash
from polyrefuse_data.http.faults import Fault, TranslatorError
from polyrefuse_data.http.limits import BreakerSettings
from polyrefuse_data.prompts.sample import sample_prompts
from polyrefuse_data.translate.asking import RunSettings
from polyrefuse_data.translate.backends.base import Answer, Limits
from polyrefuse_data.translate.deciding import Answers, RepeatedAnswers, agreed
from polyrefuse_data.translate.fill import Chain, LiveRequest, fill_memory
from polyrefuse_data.translate.memory.store import (
    BACK,
    FORWARD,
    Question,
    Reply,
    TranslationMemory,
    Translator,
)
from polyrefuse_data.translate.progress import Tally, TranslationProgress
from polyrefuse_data.translate.runner import Runner
from polyrefuse_data.translate.tasks import Task

QUICK = RunSettings(backoff=0.02, longest_wait=2.0, breaker=BreakerSettings(failures=60, pause=0.2))


def prompts(count: int, start: int = 0) -> dict[str, str]:
    return {prompt.hash: prompt.text for prompt in sample_prompts()[start : start + count]}


def live(server: Server, timeout: float = 1.0, run: RunSettings = QUICK, **changes: object) -> LiveRequest:
    request = {"chain": "google", "url": f"{server.url}/m", "timeout": timeout, "run": run, **changes}
    return LiveRequest(**request)  # type: ignore[arg-type]


def fill(
    memory: TranslationMemory, request: LiveRequest, english: Mapping[str, str], langs: list[str]
) -> tuple[dict[tuple[str, str], str], Tally]:
    watcher = Tally()
    return fill_memory(english, langs, Chain(request), memory, watcher), watcher


def wrong_pairs(
    memory: TranslationMemory, english: Mapping[str, str], langs: list[str]
) -> list[tuple[str, str]]:
    """Return the translations in the memory that are not those of their English."""
    found = []
    for lang in langs:
        for (english_hash, _), entries in memory.candidates(lang).items():
            text = english[english_hash]
            found += [(text, answer) for _, answer in entries if answer != translation(text, "en", lang)]
    return found


@pytest.mark.parametrize("proof", [True, False])
def test_a_service_with_every_fault_gives_no_wrong_pair_and_loses_nothing(
    tmp_path: Path, proof: bool
) -> None:
    english, langs = prompts(90), ["de", "th", "yo"]
    with (
        Server(rate=0.3, proof=proof, retry_after=0.2, seed=7) as server,
        TranslationMemory(tmp_path / "m.sqlite", create=True) as memory,
    ):
        reasons, watcher = fill(memory, live(server, timeout=0.5), english, langs)
        stats = server.stats()
        assert wrong_pairs(memory, english, langs) == []
        there = {(one, lang) for lang in langs for one, _ in memory.candidates(lang)}
    wanted = {(one, lang) for lang in langs for one in english}
    assert there | set(reasons) == wanted
    assert not there & set(reasons)
    assert len(reasons) <= 1
    assert "followed" not in stats["done"]
    assert {name for name in stats["done"] if name in FAULTS} == set(FAULTS)  # each was there to be survived
    assert sum(watcher.retries.values()) > 50


def test_swaps_alone_fool_a_plain_loop_and_not_the_runner(tmp_path: Path) -> None:
    """No proof in the answers, nothing but swaps: only a second answer at another time tells."""
    from concurrent.futures import ThreadPoolExecutor

    from polyrefuse_data.translate.backends.registry import make_chain, parse_chain

    english = prompts(100)
    with Server(rate=0.2, faults=["swapped"], proof=False, delay=0.01) as server:
        request = live(server, timeout=3.0)
        backend = make_chain(parse_chain("google"), Chain(request).settings)[0]
        with ThreadPoolExecutor(16) as pool:
            plain = list(
                pool.map(
                    lambda text: backend.translate([text], LANGUAGES["en"], LANGUAGES["de"])[0].text,
                    english.values(),
                )
            )
        right = [translation(text, "en", "de") for text in english.values()]
        assert sum(one != other for one, other in zip(plain, right, strict=True)) > 10
        with TranslationMemory(tmp_path / "m.sqlite", create=True) as memory:
            reasons, _ = fill(memory, request, english, ["de"])
            assert reasons == {}
            assert wrong_pairs(memory, english, ["de"]) == []


def test_running_again_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    first, both = prompts(10), prompts(25)
    with Server() as server, TranslationMemory(tmp_path / "m.sqlite", create=True) as memory:
        fill(memory, live(server), first, ["de"])
        assert server.stats()["requests"] == 10
        fill(memory, live(server), both, ["de"])
        assert server.stats()["requests"] == 25
        fill(memory, live(server), both, ["de"])
        stats = server.stats()
    assert stats["requests"] == stats["texts"] == 25


def test_no_more_requests_are_out_than_connections(tmp_path: Path) -> None:
    with Server(delay=0.02) as server, TranslationMemory(tmp_path / "m.sqlite", create=True) as memory:
        fill(memory, live(server, run=RunSettings(connections=5)), prompts(60), ["de"])
        assert server.stats()["most_open"] == 5


def test_a_row_that_never_works_is_a_named_gap_and_the_next_backend_does_it(tmp_path: Path) -> None:
    english = prompts(12)
    stubborn = list(english.values())[3]
    key = (text_hash(stubborn), "de")
    with (
        Server(always={stubborn: "echo"}) as server,
        TranslationMemory(tmp_path / "m.sqlite", create=True) as memory,
    ):
        reasons, _ = fill(memory, live(server), english, ["de"])
        assert reasons == {key: "google: echo"}
        assert server.stats()["asked"][stubborn] == 4  # the same bad answer four times, then no more
        chain = Chain(live(server))
        chain.links.append((lambda translator: translator == GoodBackend.translator, GoodBackend()))
        assert fill_memory(english, ["de"], chain, memory, Tally()) == {}
        taken = chain.candidates(memory, "de", english)
    assert taken[key[0], 0] == [(GoodBackend.translator, translation(stubborn, "en", "de"))]
    assert sum(entry[0].backend == "google" for (entry,) in taken.values()) == 11


class GoodBackend:
    """In this process, batched, right."""

    name = "hf"
    translator = Translator("good", "1")
    limits = Limits(connections=1, batch=4)

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def code(self, language: Language) -> str | None:
        return language.code

    def translate(self, texts: list[str], source: Language, target: Language) -> list[Answer]:
        self.batches.append(list(texts))
        return [Answer(self.say(text, source, target), True) for text in texts]

    def say(self, text: str, source: Language, target: Language) -> str:
        return translation(text, source.code, target.code)


class PoorBackend(GoodBackend):
    """Says something fluent that is about another thing; its way back says so."""

    translator = Translator("poor", "1")

    def say(self, text: str, source: Language, target: Language) -> str:
        return translation(f"{text} but differently", source.code, target.code)


def test_a_gap_names_the_reason_of_each_backend_in_the_manifest(tmp_path: Path) -> None:
    from polyrefuse_data.build.pipeline import BuildRequest, build

    request = BuildRequest(
        "sample", langs=["de", "yo"], size={"train": 4, "validation": 2, "test": 4}, run=QUICK
    )
    with Server() as good:
        build(replace(request, out=tmp_path / "a", memory=tmp_path / "a.sqlite", translator="google",
                      translator_url=f"{good.url}/m"))  # fmt: skip
        stubborn = next(iter(good.stats()["asked"]))
    with Server(always={stubborn: "echo"}) as one, Server(always={stubborn: "refusal"}) as two:
        url = f"google={one.url}/m\nmymemory={two.url}/get\nlibre={one.url}/"
        result = build(replace(request, out=tmp_path / "b", memory=tmp_path / "b.sqlite",
                               translator="google,mymemory,libre", translator_url=url))  # fmt: skip
    assert not result.complete
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    reasons = {gap["lang"]: list(gap["reasons"].values()) for gap in manifest["gaps"]}
    assert reasons == {
        "de": ["google: echo; mymemory: answer; libre: echo"],
        "yo": ["google: echo; mymemory: answer; libre: uncovered"],
    }


def test_batches_are_sorted_by_length_and_fall_together_again_after_a_stop(tmp_path: Path) -> None:
    tasks = [Task(text, "de", FORWARD, text) for text in prompts(22).values()]
    whole, first, rest = GoodBackend(), GoodBackend(), GoodBackend()
    with TranslationMemory(tmp_path / "a.sqlite", create=True) as memory:
        Runner(whole, memory, QUICK, Tally()).run(tasks)
    lengths = [len(text) for batch in whole.batches for text in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert [len(batch) for batch in whole.batches] == [4, 4, 4, 4, 4, 2]

    class Stops(GoodBackend):
        def translate(self, texts: list[str], source: Language, target: Language) -> list[Answer]:
            if len(self.batches) == 2:
                raise TranslatorError("stop here")
            return super().translate(texts, source, target)

    first = Stops()
    with TranslationMemory(tmp_path / "b.sqlite", create=True) as memory:
        failed, problem = Runner(first, memory, QUICK, Tally()).run(tasks)
        assert problem is not None
        assert len(failed) == 22 - 8
        left = [task for task in tasks if task in failed]
        Runner(rest, memory, QUICK, Tally()).run(left)
    assert first.batches + rest.batches == whole.batches


def test_an_answer_that_another_text_waits_for_is_kept(tmp_path: Path) -> None:
    """Two texts share a line; the first is whole, and the run stops before the second is."""
    shared, first, second = prompts(3).values()
    tasks = [Task(text, "de", FORWARD, text) for text in (f"{shared}\n{first}", f"{shared}\n{second}")]

    class LineByLine(GoodBackend):
        limits = Limits(connections=1, keeps_lines=False)

    class Stops(LineByLine):
        def translate(self, texts: list[str], source: Language, target: Language) -> list[Answer]:
            if len(self.batches) == 2:
                raise TranslatorError("stop here")
            return super().translate(texts, source, target)

    with TranslationMemory(tmp_path / "m.sqlite", create=True) as memory:
        failed, _ = Runner(Stops(), memory, QUICK, Tally()).run(tasks)
        assert list(failed) == tasks[1:]
        rest = LineByLine()
        assert Runner(rest, memory, QUICK, Tally()).run(tasks[1:]) == ({}, None)
        assert rest.batches == [[second]]
        assert memory.replies(rest.translator) == {}


def test_a_local_model_is_not_asked_again_for_an_answer_that_it_would_repeat(tmp_path: Path) -> None:
    class Unpunctuated(GoodBackend):
        def say(self, text: str, source: Language, target: Language) -> str:
            return super().say(text, source, target).rstrip(".?!")

    backend = Unpunctuated()
    tasks = [Task(text, "de", FORWARD, text) for text in prompts(8).values()]
    with TranslationMemory(tmp_path / "m.sqlite", create=True) as memory:
        assert Runner(backend, memory, QUICK, Tally()).run(tasks) == ({}, None)
        assert len(memory.candidates("de")) == 8
    assert [len(batch) for batch in backend.batches] == [4, 4]


def test_each_of_two_candidates_is_asked_for_and_translated_back(tmp_path: Path) -> None:
    english = prompts(6)
    with Server() as server, TranslationMemory(tmp_path / "m.sqlite", create=True) as memory:
        chain = Chain(live(server))
        chain.request = live(server, candidates=2)
        poor = PoorBackend()
        chain.links.insert(0, (lambda translator: translator == poor.translator, poor))
        fill_memory(english, ["de"], chain, memory, Tally())
        candidates = chain.candidates(memory, "de", english)
        assert len(memory.backs("de")) == 12
    assert {key[0] for key in candidates} == set(english)
    assert all([one.backend for one, _ in found] == ["poor", "google"] for found in candidates.values())


def test_back_translations_are_those_of_the_chosen_texts(tmp_path: Path) -> None:
    english = prompts(8)
    with Server() as server, TranslationMemory(tmp_path / "m.sqlite", create=True) as memory:
        fill(memory, live(server, back_translate=True), english, ["ja", "yo"])
        for lang in ("ja", "yo"):
            backs = memory.backs(lang)
            for one, text in english.items():
                assert backs[one, text_hash(translation(text, "en", lang))] == text
        requests = server.stats()["requests"]
        fill(memory, live(server, back_translate=True), english, ["ja", "yo"])
        assert server.stats()["requests"] == requests == 32


def test_a_service_that_refuses_everything_is_stopped_with_a_clear_line(tmp_path: Path) -> None:
    run = RunSettings(backoff=0.01, breaker=BreakerSettings(failures=8, pause=0.05, pauses=2))
    with (
        Server(always={"*": "captcha"}) as server,
        TranslationMemory(tmp_path / "m.sqlite", create=True) as memory,
    ):
        with pytest.raises(TranslatorError, match=r"google gives no usable answer .*page.*kept"):
            fill(memory, live(server, run=run), prompts(200), ["de"])
        assert server.stats()["requests"] < 60


def test_a_service_that_asks_to_come_back_tomorrow_is_left_in_seconds(tmp_path: Path) -> None:
    english = prompts(40)
    with (
        Server(always={"*": "429_retry_after"}, retry_after=86_400) as server,
        TranslationMemory(tmp_path / "m.sqlite", create=True) as memory,
    ):
        with pytest.raises(TranslatorError, match="no more requests for 24 hours"):
            fill(memory, live(server), english, ["de"])
        assert server.stats()["requests"] <= 6 + 16


def test_pauses_and_long_silences_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyrefuse_data.core.progress.LINE_SECONDS", 0.05)
    run = RunSettings(backoff=0.05, breaker=BreakerSettings(failures=8, pause=0.1, pauses=1))
    log = tmp_path / "run.log"
    with (
        Server(always={"*": "captcha"}) as server,
        TranslationMemory(tmp_path / "m.sqlite", create=True) as memory,
        TranslationProgress(quiet=True, log=log) as watcher,
        pytest.raises(TranslatorError),
    ):
        fill_memory(prompts(20), ["de"], Chain(live(server, run=run)), memory, watcher)
    said = log.read_text()
    assert "google: no usable answer (page: no translation in the answer); no requests" in said
    assert "so far, en->de 0/20, retries " in said


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with (
        TranslationMemory(tmp_path / "m.sqlite", create=True) as memory,
        Server() as server,
        pytest.raises(PolyRefuseError, match="cannot write the log '/dev/full'"),
        TranslationProgress(quiet=True, log=Path("/dev/full")) as watcher,
    ):
        fill_memory(prompts(3), ["de"], Chain(live(server)), memory, watcher)


def test_nobody_at_the_address_is_one_clear_line(tmp_path: Path) -> None:
    with TranslationMemory(tmp_path / "m.sqlite", create=True) as memory:
        request = LiveRequest("google", url="http://127.0.0.1:9/m", run=QUICK)
        with pytest.raises(TranslatorError, match=r"no connection with http://127\.0\.0\.1:9"):
            fill(memory, request, prompts(30), ["de"])


def test_long_prompts_with_code_and_lines_survive(tmp_path: Path) -> None:
    sentence = "Please read the book in the evening and then write a summary of it."
    text = (
        f"{sentence} " * 90 + "\n\n- See https://a.example/x?y=1 first\n```\nx = 1  # stays\n```\n" + sentence
    )
    with (
        Server(rate=0.2, retry_after=0.1) as server,
        TranslationMemory(tmp_path / "m.sqlite", create=True) as memory,
    ):
        reasons, _ = fill(
            memory,
            live(server, timeout=0.5),
            {text_hash(text): text},
            ["sw"] if "sw" in LANGUAGES else ["de"],
        )
        assert reasons == {}
        (answer,) = (entries[0][1] for entries in memory.candidates("de").values())
        assert max(map(len, server.stats()["asked"])) <= 4_900
    assert "\n\n- " in answer
    assert "https://a.example/x?y=1" in answer
    assert "\n```\nx = 1  # stays\n```\n" in answer
    assert answer.count("\n") == text.count("\n")


SWAHILI = Language("sw", "Swahili", "Kiswahili")
HINDI = Language("hi", "Hindi", "हिन्दी", ("Devanagari",))


def test_a_new_language_needs_a_row_and_nothing_else(tmp_path: Path) -> None:
    from polyrefuse_data.build.pipeline import BuildRequest, build

    with registered([SWAHILI, HINDI]), Server(rate=0.2, retry_after=0.1) as server:
        result = build(
            BuildRequest(
                "sample", langs=["en", "hi", "sw"], size={"train": 8, "validation": 8, "test": 16},
                out=tmp_path / "out", memory=tmp_path / "m.sqlite", translator="google",
                translator_url=f"{server.url}/m", timeout=0.5, back_translate=True, run=QUICK,
            )
        )  # fmt: skip
    assert result.complete
    assert set(result.manifest["languages"]) == {"en", "hi", "sw"}
    for lang in ("hi", "sw"):
        summary = result.manifest["languages"][lang]
        assert sum(summary["rows"].values()) == 64
        assert summary["flagged"]["language"] == summary["flagged"]["script"] == 0
    assert "sw" not in LANGUAGES


def test_no_secret_stands_in_anything_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from polyrefuse_data.build.pipeline import BuildRequest, build

    secret = "sk-very-secret-0123456789"  # noqa: S105 (made up)
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    with Server(key=secret, rate=0.3, retry_after=0.1) as server:
        build(
            BuildRequest(
                "sample", langs=["de"], size={"train": 8, "validation": 8, "test": 8}, out=tmp_path / "out",
                memory=tmp_path / "m.sqlite", translator="openai:tiny", translator_url=f"{server.url}/v1",
                timeout=0.5, run=QUICK, log=tmp_path / "log.txt", quiet=False,
            )
        )  # fmt: skip
        # the server says the key in the answer to a wrong one
        monkeypatch.setenv("OPENAI_API_KEY", secret + "x")
        with pytest.raises(TranslatorError) as caught:
            build(
                BuildRequest(
                    "sample", langs=["fr"], size={"train": 8, "validation": 8, "test": 8},
                    out=tmp_path / "out2",
                    memory=tmp_path / "m.sqlite", translator="openai:tiny", translator_url=f"{server.url}/v1",
                    timeout=0.5, run=QUICK, log=tmp_path / "log.txt", quiet=False,
                )
            )  # fmt: skip
    said = capfd.readouterr()
    assert secret not in said.out + said.err + str(caught.value)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"m.sqlite", "log.txt", "manifest.json"} <= {path.name for path in files}
    for path in files:
        assert secret.encode() not in path.read_bytes()


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def command(server: Server, memory: Path, out: Path) -> list[str]:
    return [
        sys.executable, "-m", "polyrefuse_data.cli", "build", "--recipe", "sample", "--langs", "de,yo",
        "--size", "16/8/40", "--translator", "google", "--translator-url", f"{server.url}/m", "--quiet",
        "--memory", str(memory), "--out", str(out), "--connections", "8",
    ]  # fmt: skip


def test_killed_at_random_moments_nothing_is_lost_and_the_build_is_the_same(tmp_path: Path) -> None:
    with Server(delay=0.03) as server:
        subprocess.run(command(server, tmp_path / "calm.sqlite", tmp_path / "calm"), check=True)
        undisturbed = server.stats()["requests"]
    killed = 0
    moments = random.Random(3)
    with Server(delay=0.03) as server:
        for _ in range(3):
            before = server.stats()["requests"]
            process = subprocess.Popen(command(server, tmp_path / "m.sqlite", tmp_path / "out"))
            upto = before + moments.randrange(4, undisturbed // 5)
            wait_until(lambda n=upto, p=process: server.stats()["requests"] >= n or p.poll() is not None)  # type: ignore[misc]
            time.sleep(moments.uniform(0, 0.04))
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
            process.wait()
        subprocess.run(command(server, tmp_path / "m.sqlite", tmp_path / "out"), check=True)
        stats = server.stats()
    assert killed == 3
    assert undisturbed <= stats["requests"] <= undisturbed + 3 * 8
    assert digest(tmp_path / "out") == digest(tmp_path / "calm")


def test_progress_is_a_log_that_can_be_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    english = prompts(6)
    stubborn = next(iter(english.values()))
    log = tmp_path / "run.log"
    with (
        Server(always={stubborn: "echo"}) as server,
        TranslationMemory(tmp_path / "m.sqlite", create=True) as memory,
    ):
        with TranslationProgress(quiet=True, log=log) as watcher:
            fill_memory(english, ["de"], Chain(live(server)), memory, watcher)
        assert capfd.readouterr().err == ""
        with TranslationProgress(log=log) as watcher:
            fill_memory(english, ["ja"], Chain(live(server)), memory, watcher)
    lines = log.read_text().splitlines()
    assert any("google: en->de 5/6, 1 failed" in line for line in lines)
    assert any(f"no translation of en->de {text_hash(stubborn)[:16]}: echo" in line for line in lines)
    assert any("retries: echo 3" in line for line in lines)
    assert not any(stubborn in line for line in lines)
    shown = capfd.readouterr().err
    assert "google: en->ja 5/6, 1 failed" in shown
    assert f"google: one answer that was refused, echo: '{stubborn[:20]}" in shown


def reply(text: str, times: int, proven: bool = False, doubts: str = "") -> Reply:
    return Reply(text, times, proven, doubts)


def test_when_an_answer_counts() -> None:
    assert agreed([]) is None
    assert agreed([reply("a", 1)]) is None
    assert agreed([reply("a", 2)]) == reply("a", 2)
    assert agreed([reply("a", 1, proven=True)]) == reply("a", 1, proven=True)
    assert agreed([reply("a", 2, proven=True, doubts="length")]) is None
    assert agreed([reply("a", 3, doubts="length")]) == reply("a", 3, doubts="length")
    assert agreed([reply("a", 3, doubts="length"), reply("b", 1)]) is None, "b may be the whole of it"
    assert agreed([reply("a", 3, doubts="length"), reply("b", 1, doubts="end")]) is not None
    assert agreed([reply("a", 4, doubts="length"), reply("b", 1)]) == reply("a", 4, doubts="length")
    assert agreed([reply("a", 2), reply("b", 2)]) is None
    assert agreed([reply("a", 2, doubts="end"), reply("b", 1, proven=True)]) == reply("b", 1, proven=True)
    many = [reply(letter, 1, proven=True, doubts="end,length") for letter in "bcdefgh"]
    assert agreed([*many, reply("a", 2, proven=True, doubts="end")]) == reply(
        "a", 2, proven=True, doubts="end"
    )
    assert agreed([reply(letter, 1) for letter in "abcdefghi"]) is None


def test_an_answer_that_came_twice_in_one_company_is_asked_for_alone() -> None:
    one, two, three = (Question("en", "de", text) for text in "abc")
    mixed, apart = Answers(), Answers()
    for answers, companies in ((mixed, [{one, two}, {two}]), (apart, [{one, two}, {three}])):
        for company in companies:
            assert answers.agreed() is None
            answers.add(reply("x", 1), frozenset(company))
    assert mixed.agreed() is None
    assert mixed.contested
    assert apart.agreed() == reply("x", 2, proven=True)
    mixed.add(reply("y", 1, proven=True), frozenset())
    assert mixed.agreed() == reply("y", 1, proven=True)


class MixingBackend(GoodBackend):
    """Gives two requests that are out together each other's answers, whenever there are two."""

    translator = Translator("mixing", "1")
    limits = Limits(connections=4, batch=1)

    def __init__(self) -> None:
        super().__init__()
        self.turn = threading.Lock()
        self.waiting: list[tuple[str, threading.Event, list[str]]] = []

    def translate(self, texts: list[str], source: Language, target: Language) -> list[Answer]:
        mine = self.say(texts[0], source, target)
        with self.turn:
            if self.waiting:
                theirs, told, answer = self.waiting.pop()
                answer.append(mine)
                told.set()
                return [Answer(theirs)]
            told, answer = threading.Event(), []
            self.waiting.append((mine, told, answer))
        if not told.wait(0.05):
            with self.turn:
                self.waiting = [entry for entry in self.waiting if entry[1] is not told]
        return [Answer(answer[0] if answer else mine)]


@pytest.mark.parametrize("count", [2, 3, 24])
def test_a_service_that_mixes_up_all_it_can_gives_no_wrong_pair(tmp_path: Path, count: int) -> None:
    """The same two questions out together twice agree on the wrong answers."""
    english = prompts(count)
    tasks = [Task(text, "de", FORWARD, text) for text in english.values()]
    with TranslationMemory(tmp_path / "m.sqlite", create=True) as memory:
        failed, problem = Runner(MixingBackend(), memory, QUICK, Tally()).run(tasks)
        assert (failed, problem) == ({}, None)
        assert wrong_pairs(memory, english, ["de"]) == []
        assert len(memory.candidates("de")) == count


def test_answers_of_a_run_that_was_killed_do_not_count_as_two_companies(tmp_path: Path) -> None:
    ((_, text),) = prompts(1).items()
    question = Question("en", "de", text)
    backend = MixingBackend()
    with TranslationMemory(tmp_path / "m.sqlite", create=True) as memory:
        memory.keep(backend.translator, [(question, Reply("etwas ganz anderes", 2, False, ""))])
        Runner(backend, memory, QUICK, Tally()).run([Task(text, "de", FORWARD, text)])
        ((_, entries),) = memory.candidates("de").items()
    assert [answer for _, answer in entries] == [translation(text, "en", "de")]


def test_pieces_that_are_there_are_not_asked_for_again(tmp_path: Path) -> None:
    """A prompt of two pieces, the first of which was answered before the process died."""
    text = "The first line of the prompt.\nThe second line of the prompt."
    lines = text.split("\n")
    backend = GoodBackend()
    backend.limits = Limits(connections=1, batch=4, keeps_lines=False)
    with TranslationMemory(tmp_path / "m.sqlite", create=True) as memory:
        kept = Reply(translation(lines[0], "en", "de"), 1, True, "")
        memory.keep(backend.translator, [(Question("en", "de", lines[0]), kept)])
        Runner(backend, memory, QUICK, Tally()).run([Task(text, "de", FORWARD, text)])
        assert backend.batches == [[lines[1]]]
        (entries,) = memory.candidates("de").values()
        assert entries[0][1] == translation(text, "en", "de")
        assert memory.replies(backend.translator) == {}


def test_a_backend_with_a_bug_stops_with_one_line(tmp_path: Path) -> None:
    class Broken(GoodBackend):
        def translate(self, texts: list[str], source: Language, target: Language) -> list[Answer]:
            raise ZeroDivisionError

    tasks = [Task(text, "de", FORWARD, text) for text in prompts(5).values()]
    with TranslationMemory(tmp_path / "m.sqlite", create=True) as memory:
        failed, problem = Runner(Broken(), memory, QUICK, Tally()).run(tasks)
    assert set(failed.values()) == {"stopped"}
    assert "ZeroDivisionError" in str(problem)


class OneAnswer(GoodBackend):
    """Answers some texts with one fluent sentence, whatever they say."""

    translator = Translator("one", "1")
    limits = Limits(connections=1, batch=1)
    sentence = "Bitte lesen Sie die Nutzungsbedingungen auf unserer Seite, bevor Sie fortfahren."

    def __init__(self, first: int = 0) -> None:
        super().__init__()
        self.first = first

    def say(self, text: str, source: Language, target: Language) -> str:
        return super().say(text, source, target) if len(self.batches) <= self.first else self.sentence


@pytest.mark.parametrize(("count", "first"), [(2, 0), (30, 0), (30, 5)])
def test_one_answer_to_different_texts_is_a_fault_of_the_backend(
    tmp_path: Path, count: int, first: int
) -> None:
    texts = list(prompts(1000).values())[::30]  # neighbours ask for the same in other words
    tasks = [Task(text, "de", FORWARD, text) for text in texts[:count]]
    with TranslationMemory(tmp_path / "m.sqlite", create=True) as memory:
        backend = OneAnswer(first)
        failed, problem = Runner(backend, memory, QUICK, Tally()).run(tasks)
        entries = memory.candidates("de").values()
        assert memory.replies(backend.translator) == {}
    assert str(problem) == (
        "translator hf gives the same answer to different texts; those answers are not kept. Check the "
        f"service, or use another. One answer was: '{OneAnswer.sentence}'"
    )
    assert set(failed.values()) <= {"repeated", "stopped"}
    assert len(failed) == count - first
    right = {translation(task.english, "en", "de") for task in tasks if task not in failed}
    assert {answer for ((_, answer),) in entries} == right
    assert len(backend.batches) <= first + 9


def test_texts_that_are_much_alike_may_share_an_answer() -> None:
    repeated = RepeatedAnswers()
    texts = (
        "Summarize this text for me.",
        "Summarize the text for me.",
        "Summarize that text for me, please.",
    )
    assert not any(repeated.add(Question("en", "de", text), "Fasse den Text zusammen.", ()) for text in texts)
    assert not repeated.add(Question("en", "de", "Hello."), "Hallo.", ())
    assert not repeated.add(Question("en", "de", "Hi there"), "Hallo.", ())


def test_a_backend_that_is_given_up_shows_one_answer_and_the_log_does_not(tmp_path: Path) -> None:
    run = RunSettings(backoff=0.01, breaker=BreakerSettings(failures=8, pause=0.05, pauses=1))
    log = tmp_path / "run.log"
    with (
        Server(always={"*": "refusal"}) as server,
        TranslationMemory(tmp_path / "m.sqlite", create=True) as memory,
        pytest.raises(TranslatorError) as caught,
        TranslationProgress(quiet=True, log=log) as watcher,
    ):
        fill_memory(prompts(30), ["de"], Chain(live(server, run=run)), memory, watcher)
    assert str(caught.value).endswith("One answer was: 'I'm sorry, but I can't help with that.'")
    assert "gives no usable answer" in log.read_text()
    assert "I'm sorry" not in log.read_text()


def test_lines_of_the_log_and_counts_do_not_wait_for_each_other(tmp_path: Path) -> None:
    fault = Fault("throttled")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with TranslationProgress(quiet=True, log=tmp_path / "run.log") as watcher:
            task = Task("Hello", "de", BACK, "Hallo")
            watcher.begin("tiny", [task])
            steps = (lambda: watcher.pause(fault, 1.0), lambda: watcher.failed(task, "throttled"))
            threads = [
                threading.Thread(target=lambda step=step: [step() for _ in range(1500)], daemon=True)
                for step in steps
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert not any(thread.is_alive() for thread in threads)
    finally:
        sys.setswitchinterval(interval)


def test_back_tasks_go_the_other_way() -> None:
    task = Task("Hello", "de", BACK, "Hallo")
    assert (task.source, task.target) == ("de", "en")
    with pytest.raises(ValueError, match="expected one of throttled"):
        Fault("unheard of")
