"""Google, MyMemory, LibreTranslate and Microsoft through deep-translator's clients.

The clients build requests and read answers. They set no deadline, follow redirects, drop Retry-After, and
keep the text of a call in an attribute. So every call makes a client of its own, and its requests go through
`HttpClient`, where each service also reads the proof of an answer: which text the service translated.
"""

from __future__ import annotations

import html
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec, module_from_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx

from polyrefuse_data.core.languages import Language
from polyrefuse_data.core.schema import text_hash
from polyrefuse_data.http.client import HttpClient, Response, check_address
from polyrefuse_data.http.faults import Fault, Rejected, TranslatorError, excerpt
from polyrefuse_data.translate.backends import google_page
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
"""The name that a service is asked for where it has several for a language."""

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


def _names(service: str) -> Sequence[str]:
    """Return the names that a service has for languages."""
    from deep_translator import constants

    names: dict[str, Sequence[str]] = {
        "google": list(constants.GOOGLE_LANGUAGES_TO_CODES.values()),
        "mymemory": list(constants.MY_MEMORY_LANGUAGES_TO_CODES.values()),
        "libre": _LIBRE.split(),
        "microsoft": _MICROSOFT.split(),
    }
    return names[service]


def service_code(service: str, language: Language) -> str | None:
    """Return the service's name for `language`: of the language's row, else the preferred, else the code."""
    if service in language.codes:
        return language.codes[service]
    names = _names(service)
    for name in (_PREFERRED.get(service, {}).get(language.code, language.code), language.code):
        if name in names:
            return name
    regional = [name for name in names if name.split("-")[0] == language.code]
    return regional[0] if len(regional) == 1 else None


def tag_of(text: str) -> str:
    """Return eight digits made from `text`: as a text of their own beside it, they come back unchanged."""
    return str(int(text_hash(text)[:12], 16) % 90_000_000 + 10_000_000)


class WebService:
    """A service of deep-translator: a `Backend`, and what its client takes for the library `requests`.

    A client sends with the name `requests` of its module. A private copy of the module, in which the name is
    bound to this object, leaves the library as it is for everything else in the process. `get` and `post`
    are called once for each answer, on its thread.
    """

    name: str
    version: str
    limits: Limits
    module: str
    client: str
    address: str | None = None
    """Where the service is asked unless a user names another address; None leaves it to the client."""
    key_variable: str | None = None

    exceptions = SimpleNamespace(RequestException=httpx.HTTPError)

    def __init__(self, model: str, settings: Settings) -> None:
        """Make the backend; raise `TranslatorError` for a `model`, which none of these services has."""
        if model:
            raise TranslatorError(
                f"translator '{self.name}:{model}': {self.name} has no models; expected '{self.name}'"
            )
        self.translator = Translator(self.name, self.version)
        if settings.url is not None:
            self.address = check_address(settings.url)
        self._http = HttpClient(settings.timeout, self.key_variable)
        self._module = _private_copy(self.module, self)
        self._call = threading.local()

    def code(self, language: Language) -> str | None:
        """Return the service's name for `language`, None where it does not know it."""
        return service_code(self.name, language)

    def translate(self, texts: Sequence[str], source: Language, target: Language) -> list[Answer]:
        """Translate `texts` one by one."""
        return [self._translate(text, source, target) for text in texts]

    def _translate(self, text: str, source: Language, target: Language) -> Answer:
        """Let a new client translate `text`; turn its exceptions into faults."""
        from deep_translator import exceptions as client_errors

        client = getattr(self._module, self.client)(source="auto", target="auto", **self._options())
        client.source, client.target = self.code(source), self.code(target)
        client._base_url = self.address or client._base_url
        self._call.proven, self._call.sample = False, ""
        try:
            answer = client.translate(text)
        except (Fault, TranslatorError):
            raise
        except client_errors.NotValidLength:
            raise Rejected("rejected", "too long for the service") from None
        except Exception:  # the exceptions of the clients for unexpected answers have no common base
            raise Fault("page", "no translation in the answer", sample=self._call.sample) from None
        if answer is None or not str(answer).strip():
            raise Fault("empty")
        if not isinstance(answer, str):
            raise Fault("page", "the translation in the answer is not text", sample=self._call.sample)
        return Answer(answer, proven=self._call.proven)

    def _options(self) -> dict[str, Any]:
        """Return what the client's constructor takes besides the languages."""
        return {}

    def _received(self, response: Response) -> Response:
        """Note the response as the sample to show if the client finds no translation in it."""
        self._call.sample = response.sample
        return response

    def _check_tag(self, sent: str, received: object) -> None:
        """Note the answer as proven; raise `Fault` for the tag of another text."""
        if "".join(str(received).split()) != sent:
            raise Fault("mismatch", "the token of another text came back")
        self._call.proven = True


def _private_copy(name: str, requests: object) -> ModuleType:
    """Return a new copy of the module `deep_translator.<name>` that sends through `requests`."""
    spec = find_spec(f"deep_translator.{name}")
    assert spec is not None  # noqa: S101
    assert spec.loader is not None  # noqa: S101
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.requests = requests  # type: ignore[attr-defined]
    return module


def _with_value(response: Response, value: Any) -> Response:
    """Return `response` with another JSON value."""
    return replace(response, content=json.dumps(value).encode(), charset="utf-8")


def _same(first: str, second: str) -> bool:
    return " ".join(first.split()) == " ".join(second.split())


_LONGEST_RESULT = 100_000
"""Characters of markup; a request holds some thousand characters of text. A parser of HTML takes minutes for
as many characters of tags that do not end."""


class Google(WebService):
    """The mobile page of Google Translate, which holds the text that it translated in its own form."""

    name, version, limits = "google", "web", GOOGLE_LIMITS
    module, client = "google", "GoogleTranslator"

    def get(self, address: str, params: dict[str, str], proxies: None = None) -> Response:
        """Return the part of the page with the translation: a hostile page takes a parser minutes."""
        response = self._received(self._http.get(address, params=params))
        page = response.text
        result = google_page.result(page)
        if result is None:
            raise Fault("page", "no translation in the answer", sample=self._call.sample)
        element, ends = result
        if not ends:
            raise Fault("truncated", "the page ends inside the translation")
        if len(element) > _LONGEST_RESULT or element.count("<") > google_page.MOST_TAGS:
            raise Fault("page", "far more than a translation in the answer")
        translated = google_page.translated_text(page)
        if translated is not None:
            if not _same(translated, params["q"]):
                raise Fault("mismatch", "the page translates another text")
            self._call.proven = True
        return replace(response, content=element.encode("utf-8", "replace"), charset="utf-8")


class MyMemory(WebService):
    """MyMemory's JSON interface; its warnings come in the place of a translation."""

    name, version, limits = "mymemory", "api", MYMEMORY_LIMITS
    module, client = "mymemory", "MyMemoryTranslator"
    address = "https://api.mymemory.translated.net/get"

    def get(self, address: str, params: dict[str, str], proxies: None = None) -> Response:
        """Send the request; a match that holds the text proves the answer."""
        response = self._received(self._http.get(address, params=params))
        value = response.json()
        if value.get("quotaFinished") or "MYMEMORY WARNING" in str(value.get("responseData")).upper():
            raise TranslatorError("mymemory: the day's quota is used up; wait, or use another backend")
        status = value.get("responseStatus")
        if status is not None and str(status) not in ("200", ""):
            reason = "throttled" if str(status) == "429" else "server_error"
            raise Fault(reason, f"status {excerpt(str(status))}", sample=self._call.sample)
        matches = value.get("matches")
        for match in matches if isinstance(matches, list) else ():
            if isinstance(match, dict) and _same(html.unescape(str(match.get("segment"))), params["q"]):
                self._call.proven = True
        return response


class Libre(WebService):
    """LibreTranslate: the key goes into the body, never into the address; a tag is the second text."""

    name, version, limits = "libre", "api", LIBRE_LIMITS
    module, client = "libre", "LibreTranslator"
    address, key_variable = "https://libretranslate.com/", LIBRE_KEY

    def __init__(self, model: str, settings: Settings) -> None:
        """Make the backend; the public server wants a key, a server of one's own may not."""
        super().__init__(model, settings)
        self.address = f"{str(self.address).rstrip('/')}/"
        own = settings.url is not None
        self._key = environment_key(LIBRE_KEY, "libre", optional=own or not settings.asks)

    def _options(self) -> dict[str, Any]:
        return {"api_key": "none"}  # the client insists on a key

    def post(self, address: str, params: dict[str, str]) -> Response:
        """Send the parameters as a JSON body, with the tag beside the text."""
        tag = tag_of(params["q"])
        body: dict[str, Any] = {**params, "q": [params["q"], tag], "api_key": self._key}
        if self._key is None:
            del body["api_key"]
        response = self._received(self._http.post(address, json=body))
        value = response.json()
        texts = value.get("translatedText")
        if not isinstance(texts, list) or len(texts) != 2:
            return response
        self._check_tag(tag, texts[1])
        return _with_value(response, {"translatedText": texts[0]})


class Microsoft(WebService):
    """Microsoft Translator, version 3; a tag is the second text of every request."""

    name, version, limits = "microsoft", "api-3.0", MICROSOFT_LIMITS
    module, client = "microsoft", "MicrosoftTranslator"
    key_variable = MICROSOFT_KEY

    def __init__(self, model: str, settings: Settings) -> None:
        super().__init__(model, settings)
        self._key = environment_key(MICROSOFT_KEY, "microsoft", optional=not settings.asks)
        self._region = environment_key(MICROSOFT_REGION, "microsoft", optional=True)
        if self.address is not None and "api-version=" not in self.address:
            self.address += ("&" if "?" in self.address else "?") + "api-version=3.0"

    def _options(self) -> dict[str, Any]:
        return {"api_key": self._key, "region": self._region}

    def get(self, address: str) -> Response:
        """Answer the client's constructor, which asks the public service for its languages, from here."""
        names = {name: {"name": name} for name in _MICROSOFT.split()}
        return Response(200, {}, json.dumps({"translation": names}).encode())

    def post(
        self, address: str, json: list[dict[str, str]], proxies: None = None, **options: Any
    ) -> Response:
        """Send the text with its tag beside it."""
        tag = tag_of(json[0]["text"])
        response = self._received(self._http.post(address, json=[*json, {"text": tag}], **options))
        value = response.json()
        if not isinstance(value, list) or len(value) != 2:
            return response
        self._check_tag(tag, value[1]["translations"][0]["text"])
        return _with_value(response, value[:1])
