"""A translation service on loopback that misbehaves on purpose, in a process of its own.

It speaks as Google's mobile page, MyMemory, LibreTranslate, Microsoft, DeepL and OpenAI do, so that the
real clients can be pointed at it. Its translations are those of the embedded sample, both ways, so that
every right answer is known; other texts get made-up words of the language, remembered for the way back.
"""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

FAULTS = (
    "429",
    "429_retry_after",
    "500",
    "503",
    "reset",
    "stall",
    "half_body",
    "half_text",
    "empty",
    "captcha",
    "echo",
    "other_language",
    "swapped",
    "entities",
    "refusal",
)
"""Faults of which some requests may suffer; `redirect`, which ends all work, is asked for by name."""

WORDS = {
    "sw": "habari ya asubuhi kwamba watoto wanapenda kusoma vitabu shuleni kila siku pamoja na mwalimu wao "
    "mzuri ambaye anafundisha lugha nyingi kwa furaha nyumbani wazazi wanapika chakula kitamu "
    "jioni halafu wanalala",
    "hi": "यह बच्चे हर दिन स्कूल में किताबें पढ़ना पसंद करते हैं और शिक्षक उनको कई भाषाएँ सिखाते हैं घर पर माता पिता "
    "शाम को स्वादिष्ट खाना बनाते हैं फिर सब लोग साथ बैठकर बातें करते हैं",
    "de": "die Kinder lesen jeden Tag gerne Bücher in der Schule und der Lehrer erklärt ihnen viele "
    "Sprachen mit großer Freude während die Eltern abends zu Hause ein gutes Essen kochen",
    "en": "the children like to read books at school every day and the teacher explains many languages "
    "to them with great joy while the parents cook a good meal at home in the evening",
}
"""Words that language detectors know, to make up translations from."""

KEPT = re.compile(r"https?://\S+|`[^`]+`|\[#\d+\]|\d+|[\"“”]")
PAUSE = 0.25
"""Seconds that a swapped answer waits for another one to change places with."""


@lru_cache(maxsize=1)
def table() -> dict[tuple[str, str], dict[str, str]]:
    """Return (source, target) -> text -> translation, from the embedded sample and its contrast pairs."""
    from polyrefuse_data.prompts.sample import contrast_prompts, sample_prompts

    found: dict[tuple[str, str], dict[str, str]] = {}
    for prompt in (*sample_prompts(), *contrast_prompts()):
        for lang, text in prompt.translations.items():
            found.setdefault(("en", lang), {})[prompt.text] = text
            found.setdefault((lang, "en"), {})[text] = prompt.text
    return found


def translation(text: str, source: str, target: str) -> str:
    """Return the right translation of `text`: the sample's, or words made up from the text's hash."""
    known = table().get((source, target), {}).get(text.strip())
    if known is not None:
        return known
    if "\n" in text:
        return "\n".join(
            translation(line, source, target) if line.strip() else line for line in text.split("\n")
        )
    words = WORDS.get(target, WORDS["de"]).split()
    made = random.Random(hashlib.sha256(f"{source}{target}{text}".encode()).digest())
    count = max(2, len(text.split()))
    parts = [made.choice(words) for _ in range(count)]
    for number, kept in enumerate(KEPT.findall(text)):
        parts.insert(min(len(parts), 2 * number + 1), kept)
    end = text.rstrip()[-1:]
    return " ".join(parts) + (end if end in ".?!:" else "")


def other_language(text: str, source: str, target: str) -> str:
    """Return `text` in a language that was not asked for."""
    instead = "fr" if target != "fr" else "pl"
    known = table().get(("en", instead), {})
    return known.get(text) or known[next(iter(known))]


Reply = tuple[int, dict[str, str], bytes]


class Service:
    """What the server knows: how to misbehave, and what it was asked."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.delay = float(config.get("delay", 0.0))
        self.rate = float(config.get("rate", 0.0))
        self.faults = list(config.get("faults", FAULTS))
        self.proof = bool(config.get("proof", True))
        self.key = config.get("key")
        self.always: dict[str, str] = config.get("always", {})
        self.retry_after = config.get("retry_after", 1)
        self.random = random.Random(config.get("seed", 0))
        self.asked: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.waiting: tuple[asyncio.Future[Reply], Reply] | None = None
        self.open = self.most_open = 0
        self.seen_addresses: list[str] = []

    async def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply | str:
        """Return status, headers and body; or `reset`, `stall`."""
        address = urlsplit(target)
        if address.path == "/stats":
            return 200, {}, json.dumps(self.stats()).encode()
        if address.path == "/elsewhere":
            self.done["followed"] += 1
            return 200, {}, page("elsewhere", "anderswo ist ein ganz anderer Text").encode()
        self.seen_addresses.append(target)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if self.delay:
                await asyncio.sleep(self.delay)
            return await self._answer(address.path, parse_qs(address.query), headers, body)
        finally:
            self.open -= 1

    async def _answer(
        self, path: str, query: dict[str, list[str]], headers: dict[str, str], body: bytes
    ) -> Reply | str:
        form, text, source, target, key = understand(path, query, headers, body)
        if form == "models":
            return 200, {}, json.dumps({"data": [{"id": "tiny"}]}).encode()
        if self.key is not None and key != self.key:
            return 403, {}, b'{"message": "bad key ' + str(key).encode() + b'"}'
        self.asked[text] += 1
        fault = self.always.get(text) or self.always.get("*")
        if fault is None and self.random.random() < self.rate:
            fault = self.random.choice(self.faults)
        self.done[fault or "ok"] += 1
        return await self._misbehave(fault, form, text, source, target, body)

    async def _misbehave(
        self, fault: str | None, form: str, text: str, source: str, target: str, body: bytes
    ) -> Reply | str:
        right = translation(text, source, target)
        if fault in ("reset", "stall"):
            return fault
        if fault == "429":
            return 429, {}, b"slow down"
        if fault == "429_retry_after":
            return 429, {"Retry-After": str(self.retry_after)}, b"slow down"
        if fault in ("500", "503"):
            return int(fault), {}, b"<html>error</html>"
        if fault == "redirect":
            return 301, {"Location": "/elsewhere"}, b""
        if fault == "empty":
            return 200, {}, b""
        if fault == "captcha":
            return (
                200,
                {"Content-Type": "text/html"},
                b"<html><body>Our systems have detected unusual traffic",
            )
        said = {
            "half_text": right[: len(right) // 2],
            "echo": text,
            "other_language": other_language(text, source, target),
            "entities": "".join(f"&#{ord(one)};" if number == 0 or one in "'\"&" else one
                                for number, one in enumerate(right)),
            "refusal": "I'm sorry, but I can't help with that.",
        }.get(fault or "", right)  # fmt: skip
        reply = 200, {}, formed(form, text, said, body, self.proof).encode()
        if fault == "half_body":
            return 200, {"Content-Length": str(len(reply[2]))}, reply[2][: len(reply[2]) // 2]
        return await self._swapped(reply) if fault == "swapped" else reply

    async def _swapped(self, reply: Reply) -> Reply:
        """Change places with the next answer that is to be swapped; alone after a while, stay."""
        if self.waiting is not None:
            other, theirs = self.waiting
            self.waiting = None
            other.set_result(reply)
            self.done["really_swapped"] += 2
            return theirs
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.waiting = future, reply
        try:
            return await asyncio.wait_for(asyncio.shield(future), PAUSE)
        except asyncio.TimeoutError:
            if future.done():
                return future.result()
            self.waiting = None
            return reply

    def stats(self) -> dict[str, Any]:
        return {
            "requests": sum(self.asked.values()),
            "texts": len(self.asked),
            "most_for_a_text": max(self.asked.values(), default=0),
            "asked": dict(self.asked) if len(self.asked) < 3000 else {},
            "done": dict(self.done),
            "most_open": self.most_open,
            "addresses": self.seen_addresses[:200],
        }


def understand(
    path: str, query: dict[str, list[str]], headers: dict[str, str], body: bytes
) -> tuple[str, str, str, str, str | None]:
    """Return the form of a request, its text, source and target language, and the key it carries."""
    if path == "/m":
        return "google", query["q"][0], short(query["sl"][0]), short(query["tl"][0]), None
    if path == "/get":
        source, _, target = query["langpair"][0].partition("|")
        return "mymemory", query["q"][0], short(source), short(target), None
    if path == "/v1/models":
        return "models", "", "", "", None
    value = json.loads(body)
    if path == "/microsoft":
        key = headers.get("ocp-apim-subscription-key")
        return "microsoft", value[0]["text"], short(query["from"][0]), short(query["to"][0]), key
    if path == "/v2/translate":
        key = headers.get("authorization", "").removeprefix("DeepL-Auth-Key ")
        return "deepl", value["text"][0], short(value["source_lang"]), short(value["target_lang"]), key
    if path == "/v1/chat/completions":
        system, text = (one["content"] for one in value["messages"])
        source, target = re.search(r"from (\w+) to (\w+)\.", system).groups()  # type: ignore[union-attr]
        key = headers.get("authorization", "").removeprefix("Bearer ")
        return "openai", text, coded(source), coded(target), key or None
    asked = value["q"]
    text = asked[0] if isinstance(asked, list) else asked
    return "libre", text, short(value["source"]), short(value["target"]), value.get("api_key")


def short(code: str) -> str:
    return code.split("-")[0].lower()


def coded(name: str) -> str:
    from polyrefuse_data.core.languages import LANGUAGES

    codes = {language.name: code for code, language in LANGUAGES.items()} | {"Swahili": "sw", "Hindi": "hi"}
    return codes[name]


def page(asked: str, text: str, proof: bool = True) -> str:
    """Return a page as Google's mobile page is: a form with the text that was asked, and the result."""
    field = f'<input type="text" aria-label="Source text" name="q" value="{html.escape(asked)}">'
    form = f'<form action="/m">{field if proof else ""}</form>'
    result = f'<div class="result-container">{html.escape(text)}</div>'
    return f"<html><body>{form}{result}<div>links</div></body></html>"


def formed(form: str, asked: str, text: str, body: bytes, proof: bool) -> str:
    """Return an answer as the service of `form` writes it."""
    if form == "google":
        return page(asked, text, proof)
    if form == "mymemory":
        matches = [{"segment": asked, "translation": text}] if proof else []
        value: Any = {"responseData": {"translatedText": text}, "responseStatus": 200, "matches": matches}
    elif form == "microsoft":
        sent = json.loads(body)
        texts = [text, *(one["text"] for one in sent[1:])] if proof else [text]
        value = [{"translations": [{"text": one, "to": "xx"}]} for one in texts]
    elif form == "deepl":
        sent = json.loads(body)["text"]
        said = [text, *sent[1:]]
        one = {"detected_source_language": "EN", "billed_characters": len(asked)}
        value = {"translations": [{"text": part, **one} for part in said]}
    elif form == "openai":
        system = json.loads(body)["messages"][0]["content"]
        tag = re.search(r"\[\d{8}\]", system).group()  # type: ignore[union-attr]
        content = f"{tag}\n{text}" if proof else text
        value = {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]}
    else:
        sent = json.loads(body)["q"]
        value = {"translatedText": [text, *sent[1:]] if isinstance(sent, list) else text}
    return json.dumps(value)


class Connection(asyncio.Protocol):
    """As much of HTTP/1.1 as these clients need, and no slower than it must be."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.buffer = b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, rest = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        method, target, _ = lines[0].split(" ")
        self.task = asyncio.ensure_future(self.serve(method, target, headers, rest[:length]))

    async def serve(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        try:
            reply = await self.service.answer(method, target, headers, body)
        except Exception as error:
            reply = 500, {}, f"{type(error).__name__} in the server: {error}".encode()
        if reply == "stall":
            return
        if reply == "reset":
            self.transport.abort()
            return
        status, extra, content = reply  # type: ignore[misc]
        head = {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(content)), **extra}
        text = f"HTTP/1.1 {status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in head.items())
        self.transport.write(text.encode() + b"\r\n" + content)
        if int(head["Content-Length"]) != len(content):
            self.transport.close()


async def serve(config: dict[str, Any]) -> None:
    table()
    service = Service(config)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(service), "127.0.0.1", config.get("port", 0)
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


class Server:
    """Starts the service in a process of its own; a context manager."""

    def __init__(self, **config: Any) -> None:
        self.config = config

    def __enter__(self) -> Server:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), json.dumps(self.config)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *unused: object) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as answer:  # noqa: S310 (loopback)
            value: dict[str, Any] = json.load(answer)
        return value


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Return when `condition` holds; raises `TimeoutError` if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
