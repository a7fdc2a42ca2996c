"""Google, MyMemory, LibreTranslate and Microsoft through deep-translator's clients.

The clients bring no time limit, share state between calls, follow redirects, and drop Retry-After. So each
call gets a client of its own, and its requests go through our `Web` (see `on_web`), which also reads the
proof of an answer: which text the service says that it translated.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import regex

from polyrefuse_data.core.languages import Language
from polyrefuse_data.core.schema import text_hash
from polyrefuse_data.http.client import Web, check_address, on_web
from polyrefuse_data.http.faults import Fault, Rejected, TranslatorError
from polyrefuse_data.translate.backends.base import (
    Answer,
    Limits,
    Settings,
    address_bytes,
    environment_key,
    utf8_bytes,
)
from polyrefuse_data.translate.memory.store import Translator

GOOGLE_LIMITS = Limits(address_bytes, 4_900, 5.0, None, 4, keeps_lines=False)
"""5 requests a second and 200,000 a day, by deep-translator's own message; the text stands in the address."""

MYMEMORY_LIMITS = Limits(utf8_bytes, 499, 2.0, None, 2, keeps_lines=False)
"""500 bytes a request; 5,000 characters a day without an address of one's own."""

LIBRE_LIMITS = Limits(maximum=2_000, requests_per_second=1_200 / 3_600, connections=4)
"""2,000 characters a request on the public server; 80 requests a minute for a short time, 1,200 an hour."""

MICROSOFT_LIMITS = Limits(maximum=10_000, characters_per_second=33_000 / 60, connections=8)
"""50,000 characters a request; the free tier takes 2 million an hour, about 33,000 a minute."""

LIBRE_KEY, MICROSOFT_KEY, MICROSOFT_REGION = "LIBRE_API_KEY", "MICROSOFT_API_KEY", "MICROSOFT_API_REGION"

_PREFERRED = {
    "google": {"zh": "zh-CN", "he": "iw", "jv": "jw"},
    "mymemory": {
        "ar": "ar-SA", "de": "de-DE", "en": "en-US", "es": "es-ES", "fr": "fr-FR",
        "it": "it-IT", "nl": "nl-NL", "pt": "pt-PT", "zh": "zh-CN",
    },
    "microsoft": {"zh": "zh-hans", "no": "nb", "sr": "sr-latn"},
}  # fmt: skip
"""Which of several names of a language a service is asked for."""

_LIBRE = (
    "ar az bg bn ca cs da de el en eo es et eu fa fi fr ga gl he hi hu id it ja ko ky lt lv ms nb nl pl pt "
    "ro ru sk sl sq sv th tl tr uk ur vi zh"
)
_MICROSOFT = (
    "af am ar as az ba bg bn bo bs ca cs cy da de dv el en es et eu fa fi fil fj fr ga gl gu ha he hi hr ht "
    "hu hy id ig is it ja ka kk km kn ko ku ky ln lo lt lug lv mg mi mk ml mn-cyrl mr ms mt my nb ne nl nso "
    "ny or pa pl ps pt ro ru rw si sk sl sm sn so sq sr-latn st sv sw ta te th ti tk tn to tr tt ty ug uk ur "
    "uz vi xh yo yue zh-hans zh-hant zu"
)


def _name_of(service: str, language: Language, names: Sequence[str]) -> str | None:
    """Return the service's name for `language`: its own row first, then the preferred, then the code."""
    if service in language.codes:
        return language.codes[service]
    for name in (_PREFERRED.get(service, {}).get(language.code, language.code), language.code):
        if name in names:
            return name
    regional = [name for name in names if name.split("-")[0] == language.code]
    return regional[0] if len(regional) == 1 else None


def google_code(language: Language) -> str | None:
    """Return Google's name for `language`."""
    from deep_translator.constants import GOOGLE_LANGUAGES_TO_CODES

    return _name_of("google", language, list(GOOGLE_LANGUAGES_TO_CODES.values()))


def mymemory_code(language: Language) -> str | None:
    """Return MyMemory's name for `language`."""
    from deep_translator.constants import MY_MEMORY_LANGUAGES_TO_CODES

    return _name_of("mymemory", language, list(MY_MEMORY_LANGUAGES_TO_CODES.values()))


def libre_code(language: Language) -> str | None:
    """Return LibreTranslate's name for `language`."""
    return _name_of("libre", language, _LIBRE.split())


def microsoft_code(language: Language) -> str | None:
    """Return Microsoft's name for `language`."""
    return _name_of("microsoft", language, _MICROSOFT.split())


def tag_of(text: str) -> str:
    """Return digits made from `text`: sent beside it as a text of its own, they come back unchanged."""
    return str(int(text_hash(text)[:12], 16) % 90_000_000 + 10_000_000)


class _Deep:
    """What the four have in common: a client for every call, its requests on our `Web`."""

    def __init__(
        self,
        name: str,
        version: str,
        limits: Limits,
        code: Callable[[Language], str | None],
        web: Web,
        address: str | None,
    ) -> None:
        self.name = name
        self.translator = Translator(name, version)
        self.limits = limits
        self.code = code
        self._web = web
        self._address = address

    def translate(self, texts: Sequence[str], source: Language, target: Language) -> list[Answer]:
        return [self._one(text, source, target) for text in texts]

    def _one(self, text: str, source: Language, target: Language) -> Answer:
        raise NotImplementedError

    def _ask(self, client: Any, text: str, web: Any = None, **others: Any) -> str:
        """Let `client` translate; returns its answer as text, and turns its exceptions into faults.

        `others` stand in for what the client's module imports.
        """
        if self._address is not None:
            client._base_url = self._address
        from deep_translator import exceptions as theirs

        call = on_web(type(client).translate, web or self._web, **others)
        try:
            answer = call(client, text)
        except theirs.TranslationNotFound:
            raise Fault("page", "no translation in the answer") from None
        except theirs.NotValidLength:
            raise Rejected("rejected", "too long for the service") from None
        except (Fault, TranslatorError):
            raise
        except Exception:  # what the client raises for an answer it did not expect has no common base
            raise Fault("page", "the answer has another form than the service's") from None
        if answer is None or not str(answer).strip():
            raise Fault("empty")
        if not isinstance(answer, str):
            raise Fault("page", "the answer is no text")
        return answer


_RESULT = regex.compile(
    r'<div\b[^>]*\bclass="[^"]*\b(?:t0|result-container)\b[^"]*"[^>]*>(?P<text>.*?)(?P<end></div>|$)', regex.S
)
_LONGEST_RESULT = 100_000
"""Characters of markup; a request holds some thousand characters of text."""

_INPUT = regex.compile(r"<input\b[^>]*>", regex.S)
_NAMED_Q = regex.compile(r'\bname="q"')
_VALUE = regex.compile(r'\bvalue="([^"]*)"')


def _asked_of(page: str) -> str | None:
    """Return the text that the page says it translated: its field `q`; None if it has none."""
    for field in _INPUT.findall(page):
        if _NAMED_Q.search(field):
            value = _VALUE.search(field)
            return html.unescape(value.group(1)) if value else None
    return None


def _same(one: str, other: str) -> bool:
    return " ".join(one.split()) == " ".join(other.split())


class Google(_Deep):
    """The mobile page of Google Translate, which holds the text that it translated in its own form."""

    def _one(self, text: str, source: Language, target: Language) -> Answer:
        from deep_translator import GoogleTranslator

        client = GoogleTranslator(source=str(self.code(source)), target=str(self.code(target)))
        page = _ResultOnly(self._web)
        answer = self._ask(client, text, page, BeautifulSoup=_soup)
        if page.asked is None:
            return Answer(answer)
        if not _same(page.asked, text):
            raise Fault("mismatch", "the page translates another text")
        return Answer(answer, proven=True)


class _ResultOnly:
    """A `Web` for one call that gives the client the part of a page that holds the translation.

    The client parses all that it gets, and a long page made to be parsed slowly would hold up every thread.
    `asked` is the text that the page says it translated.
    """

    def __init__(self, web: Web) -> None:
        self._web = web
        self.exceptions = web.exceptions
        self.asked: str | None = None

    def get(self, address: str, **options: Any) -> Any:
        response = self._web.get(address, **options)
        page = response.text
        self.asked = _asked_of(page)
        result = _RESULT.search(page)
        if result is None:
            raise Fault("page", "no translation in the answer")
        if not result["end"]:
            raise Fault("truncated", "the page ends inside the translation")
        if len(result.group()) > _LONGEST_RESULT:
            raise Fault("page", "far more than a translation in the answer")
        return _Plain(response.status_code, text=result.group())


_BARE_RESULT = regex.compile(r"<[^<>]*>(?P<text>[^<>&]*)</div>")


class _BareResult:
    """The translation in a page's part that holds text and nothing to parse: what is found, and its text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def find(self, *_: Any) -> _BareResult:
        return self

    def get_text(self, strip: bool) -> str:
        return self._text.strip() if strip else self._text


def _soup(page: str, parser: str) -> Any:
    """Return what the client parses a page to; to parse bare text would take nearly as long as to ask."""
    bare = _BARE_RESULT.fullmatch(page)
    if bare is not None:
        return _BareResult(bare["text"])
    from deep_translator import google

    return google.BeautifulSoup(page, parser)


class MyMemory(_Deep):
    """MyMemory's JSON interface; its warnings come in the place of a translation."""

    def _one(self, text: str, source: Language, target: Language) -> Answer:
        from deep_translator import MyMemoryTranslator

        client = MyMemoryTranslator(source=str(self.code(source)), target=str(self.code(target)))
        answer = self._ask(client, text)
        said = self._web.json(self._web.last)
        if said.get("quotaFinished") or "MYMEMORY WARNING" in answer.upper():
            raise TranslatorError("mymemory: the day's quota is used up; wait, or take another backend")
        status = said.get("responseStatus")
        if status is not None and str(status) not in ("200", ""):
            raise Fault("throttled" if str(status) == "429" else "server_error", f"status {status}")
        matches = said.get("matches")
        segments = (
            [str(one.get("segment", "")) for one in matches if isinstance(one, dict)]
            if isinstance(matches, list)
            else []
        )
        return Answer(answer, proven=any(_same(html.unescape(one), text) for one in segments))


class _WithTag:
    """A `Web` for one call that sends a tag beside the text, and keeps what came back for it."""

    def __init__(
        self, web: Web, add: Callable[[dict[str, Any]], dict[str, Any]], take: Callable[[Any], Any]
    ) -> None:
        self._web, self._add, self._take = web, add, take
        self.exceptions = web.exceptions
        self.tag: str | None = None

    def post(self, address: str, **options: Any) -> Any:
        response = self._web.post(address, **self._add(options))
        value = self._web.json(response)
        result = self._take(value)
        if isinstance(result, tuple):
            self.tag, value = result
        return _Plain(response.status_code, value)


class _Plain:
    """As much of an answer as deep-translator's clients look at."""

    def __init__(self, status_code: int, value: Any = None, text: str = "") -> None:
        self.status_code = status_code
        self.text = text
        self._value = value

    def json(self) -> Any:
        return self._value

    def close(self) -> None:
        """Nothing is open."""


def _judge_tag(sent: str, got: str | None) -> bool:
    if got is None:
        return False
    if "".join(got.split()) != sent:
        raise Fault("mismatch", "the token of another text came back")
    return True


class Libre(_Deep):
    """LibreTranslate: the key goes into the body, never into the address."""

    def __init__(self, *arguments: Any, key: str | None = None) -> None:
        super().__init__(*arguments)
        self._key = key

    def _one(self, text: str, source: Language, target: Language) -> Answer:
        from deep_translator import LibreTranslator

        tag = tag_of(text)
        web = _WithTag(self._web, lambda options: self._body(options, tag), _take_libre)
        # the client insists on a key; it goes no further than `_body`
        client = LibreTranslator(source="en", target="es", api_key="none")
        client._source, client._target = str(self.code(source)), str(self.code(target))
        answer = self._ask(client, text, web)
        return Answer(answer, _judge_tag(tag, web.tag))

    def _body(self, options: dict[str, Any], tag: str) -> dict[str, Any]:
        body = {**options["params"], "q": [options["params"]["q"], tag]}
        body.pop("api_key", None)
        return {"json": {**body, "api_key": self._key} if self._key else body}


def _take_libre(value: Any) -> Any:
    texts = value.get("translatedText") if isinstance(value, dict) else None
    if isinstance(texts, list) and len(texts) == 2:
        return str(texts[1]), {**value, "translatedText": texts[0]}
    return value


class Microsoft(_Deep):
    """Microsoft Translator, version 3; a token is the second text of every request."""

    def __init__(self, *arguments: Any, key: str, region: str | None = None) -> None:
        super().__init__(*arguments)
        self._key, self._region = key, region

    def _one(self, text: str, source: Language, target: Language) -> Answer:
        tag = tag_of(text)
        web = _WithTag(
            self._web, lambda options: {**options, "json": [*options["json"], {"text": tag}]}, _take_microsoft
        )
        client = _microsoft_client()(
            source=str(self.code(source)),
            target=str(self.code(target)),
            api_key=self._key,
            region=self._region,
        )
        answer = self._ask(client, text, web)
        return Answer(answer, _judge_tag(tag, web.tag))


def _take_microsoft(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 2:
        return str(value[1]["translations"][0]["text"]), value[:1]
    return value


def _microsoft_client() -> Any:
    from deep_translator import MicrosoftTranslator

    class Client(MicrosoftTranslator):  # type: ignore[misc]
        """The client without its request to the public service in the constructor."""

        def _get_supported_languages(self) -> dict[str, str]:
            return {name: name for name in _MICROSOFT.split()}

        translate = MicrosoftTranslator.translate

    return Client


def make_google(model: str, settings: Settings) -> Google:
    """Return the Google backend; it has no models."""
    _no_model("google", model)
    address = check_address(settings.url) if settings.url else None
    return Google("google", "web", GOOGLE_LIMITS, google_code, Web(settings.timeout), address)


def make_mymemory(model: str, settings: Settings) -> MyMemory:
    """Return the MyMemory backend."""
    _no_model("mymemory", model)
    address = check_address(settings.url) if settings.url else "https://api.mymemory.translated.net/get"
    return MyMemory("mymemory", "api", MYMEMORY_LIMITS, mymemory_code, Web(settings.timeout), address)


def make_libre(model: str, settings: Settings) -> Libre:
    """Return the LibreTranslate backend; the public server wants a key, one's own may not."""
    _no_model("libre", model)
    key = environment_key(LIBRE_KEY, "libre", optional=settings.url is not None or not settings.asks)
    address = check_address(settings.url or "https://libretranslate.com/").rstrip("/") + "/"
    web = Web(settings.timeout, LIBRE_KEY)
    return Libre("libre", "api", LIBRE_LIMITS, libre_code, web, address, key=key)


def make_microsoft(model: str, settings: Settings) -> Microsoft:
    """Return the Microsoft backend."""
    _no_model("microsoft", model)
    key = environment_key(MICROSOFT_KEY, "microsoft", optional=not settings.asks) or ""
    region = environment_key(MICROSOFT_REGION, "microsoft", optional=True)
    address = check_address(settings.url) if settings.url else None
    if address is not None and "api-version=" not in address:
        address += ("&" if "?" in address else "?") + "api-version=3.0"
    web = Web(settings.timeout, MICROSOFT_KEY)
    return Microsoft(
        "microsoft", "api-3.0", MICROSOFT_LIMITS, microsoft_code, web, address, key=key, region=region
    )


def _no_model(name: str, model: str) -> None:
    if model:
        raise TranslatorError(f"translator '{name}:{model}': {name} has no models; expected '{name}'")
