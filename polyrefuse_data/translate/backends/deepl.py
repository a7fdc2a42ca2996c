"""DeepL through its official client (an extra), its requests sent by `HttpClient`: one try, a deadline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyrefuse_data.core.languages import Language
from polyrefuse_data.http.client import HttpClient, check_address
from polyrefuse_data.http.faults import Fault, TranslatorError
from polyrefuse_data.translate.backends.base import Answer, Limits, Settings, environment_key
from polyrefuse_data.translate.backends.web_services import tag_of
from polyrefuse_data.translate.memory.store import Translator

KEY = "DEEPL_API_KEY"
LIMITS = Limits(maximum=30_000, connections=4)
"""128 KiB a request."""

_CODES = (
    "af ar as az ba be bg bn bs ca cs cy da de el en eo es et eu fa fi fr ga gl gu ha he hi hr ht hu hy id "
    "ig is it ja ka kk ko ky la lb lt lv mg mk ml mn mr ms mt my nb ne nl pa pl ps pt ro ru sk sl sq sr sv "
    "sw ta te th tl tr uk ur uz vi xh zh zu"
)
_TARGETS = {"en": "EN-US", "pt": "PT-PT", "zh": "ZH-HANS"}


def deepl_code(language: Language) -> str | None:
    """Return DeepL's name for `language` as a source; it knows no Yoruba."""
    if "deepl" in language.codes:
        return language.codes["deepl"]
    return language.code.upper() if language.code in _CODES.split() else None


class DeepL:
    """DeepL's official client; a token is the second text of every request, and proves the answer."""

    name = "deepl"
    limits = LIMITS
    translator = Translator("deepl", "api-v2")

    def __init__(self, key: str | None, address: str | None, timeout: float) -> None:
        """Make the backend; without a key it can be planned with, and not asked."""
        if key is None:
            return
        try:
            import deepl
            from deepl import http_client
        except ImportError:
            raise TranslatorError(
                "translator 'deepl' needs DeepL's client: pip install 'polyrefuse[deepl]'"
            ) from None
        own_http = HttpClient(timeout, KEY)

        class Http(http_client.HttpClient):  # type: ignore[misc,unused-ignore]
            def request_with_backoff(
                self, method: str, url: str, data: Any = None, json: Any = None, headers: Any = None,
                stream: bool = False, **options: Any,
            ) -> tuple[int, str]:  # fmt: skip
                response = own_http.request(method, url, data=data or None, json=json, headers=headers)
                response.json()
                return response.status_code, response.text

        self._client = deepl.DeepLClient(key, server_url=address, send_platform_info=False)
        self._client._client = Http(send_platform_info=False)

    def code(self, language: Language) -> str | None:
        return deepl_code(language)

    def translate(self, texts: Sequence[str], source: Language, target: Language) -> list[Answer]:
        return [self._translate(text, source, target) for text in texts]

    def _translate(self, text: str, source: Language, target: Language) -> Answer:
        tag = tag_of(text)
        name = _TARGETS.get(target.code, str(self.code(target)))
        try:
            results = self._client.translate_text(
                [text, tag], source_lang=str(self.code(source)), target_lang=name, preserve_formatting=True
            )
        except (KeyError, TypeError, AttributeError, IndexError):
            raise Fault("page", "the answer is not in the service's format") from None
        answers = (
            [str(result.text) for result in results] if isinstance(results, list) else [str(results.text)]
        )
        if not answers or not answers[0].strip():
            raise Fault("empty")
        if len(answers) < 2:
            return Answer(answers[0])
        if "".join(answers[1].split()) != tag:
            raise Fault("mismatch", "the token of another text came back")
        return Answer(answers[0], proven=True)


def make_deepl(model: str, settings: Settings) -> DeepL:
    """Return the DeepL backend; the key says which of DeepL's two addresses is asked."""
    if model:
        raise TranslatorError(f"translator 'deepl:{model}': deepl has no models; expected 'deepl'")
    key = environment_key(KEY, "deepl") if settings.asks else None
    return DeepL(key, check_address(settings.url) if settings.url else None, settings.timeout)
