"""Time and torture live translation against services on loopback, with the real clients.

- `throughput`: rows/s with 16 connections against a plain loop with the same client, answers after 50 ms.
- `overhead`: our own milliseconds a row, against a service without delay.
- `faults`: rows through a service that misbehaves in 30 % of its requests; wrong, lost and unnamed rows.
- `kills`: builds killed at random moments and run again; what was asked twice, and whether the bytes agree.
- `local`: rows/s of a local model, batches sorted by length against one at a time.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "data"))

from translator_server import Server, translation, wait_until

from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.core.schema import text_hash
from polyrefuse_data.prompts.sample import sample_prompts
from polyrefuse_data.translate.asking import RunSettings
from polyrefuse_data.translate.backends.base import Backend
from polyrefuse_data.translate.fill import Chain, LiveRequest, fill_memory
from polyrefuse_data.translate.memory.store import FORWARD, TranslationMemory
from polyrefuse_data.translate.progress import Tally
from polyrefuse_data.translate.runner import Runner
from polyrefuse_data.translate.tasks import Task

CONNECTIONS = 16
PATHS = {"google": "/m", "mymemory": "/get"}
EN = LANGUAGES["en"]


def texts(count: int) -> list[str]:
    """Return English prompts of the embedded sample."""
    return [prompt.text for prompt in sample_prompts()[:count]]


def request(server: Server, **changes: object) -> LiveRequest:
    """Return a request for the Google client at the server's address."""
    values = {"chain": "google", "url": f"{server.url}/m", **changes}
    return LiveRequest(**values)  # type: ignore[arg-type]


def run(server: Server, tasks: Sequence[Task], folder: str, settings: RunSettings) -> float:
    """Run tasks through the runner into a new memory; return the seconds."""
    path = Path(folder) / f"{time.monotonic_ns()}.sqlite"
    backend = Chain(request(server)).backends[0]
    with TranslationMemory(path, create=True) as memory:
        start = time.perf_counter()
        failed, problem = Runner(backend, memory, settings, Tally()).run(tasks)
        seconds = time.perf_counter() - start
    if failed or problem:
        sys.exit(f"the service is healthy, and yet: {problem or failed}")
    return seconds


def plain_loop(translate: Callable[[str], str], lines: Sequence[str]) -> float:
    """Translate line after line, as a script would; return the seconds."""
    start = time.perf_counter()
    for line in lines:
        translate(line)
    return time.perf_counter() - start


def bare_client(server: Server) -> Callable[[str], str]:
    """Return deep-translator's client as it is, pointed at the server."""
    from deep_translator import GoogleTranslator

    def translate(text: str) -> str:
        client = GoogleTranslator(source="en", target="de")
        client._base_url = f"{server.url}/m"
        return str(client.translate(text))

    return translate


def our_client(server: Server) -> Callable[[str], str]:
    """Return the same client on our connections, as the runner uses it."""
    backend: Backend = Chain(request(server)).backends[0]
    return lambda text: backend.translate([text], EN, LANGUAGES["de"])[0].text


def works_of(lines: Sequence[str], langs: Sequence[str] = ("de",)) -> list[Task]:
    """Return the lines as tasks."""
    return [Task(line, lang, FORWARD, line) for lang in langs for line in lines]


def warm_up(server: Server, folder: str) -> None:
    """Load detectors and open connections outside the clock."""
    run(server, works_of(texts(60)[30:]), folder, RunSettings())


def throughput(options: argparse.Namespace, folder: str) -> None:
    """Print the ratio to a plain loop, for both clients, the median of three rounds."""
    lines, many = texts(60), works_of(texts(960), ("de", "ja"))
    for proof, what in ((True, "answers prove themselves"), (False, "no proof, everything asked twice")):
        ratios: list[tuple[float, float, float]] = []
        with Server(delay=0.05, proof=proof) as server:
            warm_up(server, folder)
            for _ in range(3):
                ours = len(many) / run(server, many, folder, RunSettings(connections=CONNECTIONS))
                bare = len(lines) / plain_loop(bare_client(server), lines)
                same = len(lines) / plain_loop(our_client(server), lines)
                ratios.append((ours, ours / bare, ours / same))
        ours, bare, same = (statistics.median(column) for column in zip(*ratios, strict=True))
        print(
            f"throughput  {CONNECTIONS} connections, 50 ms, {what}: {ours:.0f} rows/s; "
            f"{bare:.1f} x the plain loop (deep-translator as it is), {same:.1f} x on our connections"
        )


def overhead(options: argparse.Namespace, folder: str) -> None:
    """Print what the runner adds to a row: one connection, no delay, the same client in the plain loop."""
    lines = texts(600)
    added, plain = [], []
    with Server() as server:
        warm_up(server, folder)
        for _ in range(5):
            alone = plain_loop(our_client(server), lines)
            plain.append(alone / len(lines))
            ours = run(server, works_of(lines), folder, RunSettings(connections=1))
            added.append((ours - alone) / len(lines))
    print(
        f"overhead    no delay: plain loop {statistics.median(plain) * 1000:.2f} ms a row, "
        f"our own {statistics.median(added) * 1000:.2f} ms a row more (checks, memory, queue)"
    )


def faults(options: argparse.Namespace, folder: str) -> None:
    """Print what became of `--rows` rows when 30 % of the requests go wrong."""
    langs = ["de", "th", "yo", "zh"]
    english = {text_hash(line): line for line in texts(-(-options.rows // len(langs)))}
    for backend, proof, seed in itertools.product(
        options.backend, options.proof, range(options.seed, options.seed + options.seeds)
    ):
        path = Path(folder) / f"faults-{backend}-{proof}-{seed}.sqlite"
        with (
            Server(rate=0.3, proof=proof == "yes", retry_after=1, seed=seed) as server,
            TranslationMemory(path, create=True) as memory,
        ):
            watcher = Tally()
            settings = RunSettings(backoff=0.1)
            url = server.url + PATHS[backend]
            chain = Chain(request(server, chain=backend, url=url, timeout=1.5, run=settings))
            start = time.perf_counter()
            reasons = fill_memory(english, langs, chain, memory, watcher)
            seconds = time.perf_counter() - start
            stats = server.stats()
            wrong, there = judged(memory, english, langs)
        wanted = {(one, lang) for one in english for lang in langs}
        named = set(reasons)
        print(
            f"faults      {backend}, seed {seed}, {len(wanted)} rows, 30 % of {stats['requests']} requests, "
            f"{'answers prove themselves' if proof == 'yes' else 'no proof'}, {seconds:.0f} s: "
            f"wrong pairs {wrong}, "
            f"lost {len(wanted - there - named)}, unresolved and named {len(named)}, "
            f"redirects followed {stats['done'].get('followed', 0)}"
        )
        print(f"            served: {dict(sorted(stats['done'].items()))}")
        for (one, lang), reason in reasons.items():
            print(f"            unresolved: {lang} {one[:16]} ({reason})")


def judged(
    memory: TranslationMemory, english: Mapping[str, str], langs: Sequence[str]
) -> tuple[int, set[tuple[str, str]]]:
    """Return the number of wrong pairs, and what is there."""
    wrong, there = 0, set()
    for lang in langs:
        for (one, _), entries in memory.candidates(lang).items():
            there.add((one, lang))
            wrong += entries[0][1] != translation(english[one], "en", lang)
    return wrong, there


def digest(folder: Path) -> list[tuple[str, str]]:
    """Return every file of a folder with its checksum."""
    return [
        (str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def kills(options: argparse.Namespace, folder: str) -> None:
    """Print what killing costs: `--kills` kills, a build finished after every ten of them."""
    connections = 8

    def command(server: Server, name: str) -> list[str]:
        return [
            sys.executable, "-m", "polyrefuse_data.cli", "build", "--recipe", "sample", "--langs", "de,th,yo",
            "--size", "32/16/80", "--translator", "google", "--translator-url", f"{server.url}/m", "--quiet",
            "--memory", f"{folder}/{name}.sqlite", "--out", f"{folder}/{name}",
            "--connections", str(connections),
        ]  # fmt: skip

    with Server(delay=0.02) as server:
        subprocess.run(command(server, "calm"), check=True)
        undisturbed = server.stats()["requests"]
    moments = random.Random(options.seed)
    killed = finished = repeated = most = different = 0
    for number in range(-(-options.kills // 10)):
        name = f"killed-{number}"
        with Server(delay=0.02) as server:
            here = 0
            for _ in range(10):
                before = server.stats()["requests"]
                process = subprocess.Popen(command(server, name))
                upto = before + moments.randrange(0, undisturbed // 8)
                wait_until(
                    lambda s=server, n=upto, p=process: s.stats()["requests"] >= n or p.poll() is not None,  # type: ignore[misc]
                    seconds=120.0,
                )
                time.sleep(moments.uniform(0, 0.3))
                if process.poll() is None:
                    os.kill(process.pid, signal.SIGKILL)
                    here += 1
                process.wait()
            subprocess.run(command(server, name), check=True)
            again = server.stats()["requests"] - undisturbed
        killed += here
        finished += 1
        repeated += again
        most = max(most, again - here * connections)
        different += digest(Path(folder) / name) != digest(Path(folder) / "calm")
    print(
        f"kills       {killed} kills in {finished} builds of {undisturbed} requests: {repeated} repeated "
        f"({repeated / max(killed, 1):.1f} a kill, at most {connections} may be out; "
        f"{'more than' if most > 0 else 'never more than'} that), builds that differ: {different}"
    )


def local(options: argparse.Namespace, folder: str) -> None:
    """Print rows/s of `--model`, or of a small model with random weights, in batches and one at a time."""
    import torch

    torch.set_num_threads(options.threads)
    from polyrefuse_data.translate.backends.local import LocalModel, local_spec

    if options.model:
        loaded = local_spec(options.model).load()
        model, tokenizer = loaded._model, loaded._tokenizer
    else:
        from tiny_translator import tiny_m2m100

        model, tokenizer = tiny_m2m100(Path(folder) / "tiny", texts(300), options.width)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
    mixed = [line for prompt in sample_prompts()[:: 1920 // options.local_rows] for line in (prompt.text,)]
    mixed = [line * (1 + number % 2) for number, line in enumerate(mixed)][: options.local_rows]
    rates = {}
    for batch in (1, options.batch):
        backend = LocalModel(model, tokenizer, "benchmark", beams=1, batch=batch)
        ordered = sorted(mixed, key=len, reverse=True)
        backend.translate(ordered[:batch], EN, LANGUAGES["de"])
        start = time.perf_counter()
        for position in range(0, len(ordered), batch):
            backend.translate(ordered[position : position + batch], EN, LANGUAGES["de"])
        rates[batch] = len(ordered) / (time.perf_counter() - start)
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads"
    )
    one, many = rates[1], rates[options.batch]
    print(
        f"local       {options.model or 'random weights'} on {device}: {many:.1f} rows/s in batches of "
        f"{options.batch}, {one:.1f} one at a time: {many / one:.1f} x"
    )


PARTS = {"throughput": throughput, "overhead": overhead, "faults": faults, "kills": kills, "local": local}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="what to run; all by default")
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="of faults: so many, from --seed on")
    parser.add_argument("--backend", nargs="+", choices=PATHS, default=list(PATHS), help="of faults")
    parser.add_argument("--proof", nargs="+", choices=["yes", "no"], default=["yes", "no"], help="of faults")
    parser.add_argument("--model", help="a local model, MODEL@REVISION or a folder")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--width", type=int, default=64, help="of the model with random weights")
    parser.add_argument("--local-rows", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.parts or PARTS:
            PARTS[name](options, folder)


if __name__ == "__main__":
    main()
