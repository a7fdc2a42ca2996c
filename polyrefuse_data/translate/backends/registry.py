"""The registry of backends, and chains of them such as `google,hf:MODEL@REVISION`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from polyrefuse_data.core.errors import unknown_name
from polyrefuse_data.core.languages import LANGUAGES, SOURCE_LANGUAGE, Language
from polyrefuse_data.http.client import check_address
from polyrefuse_data.http.faults import TranslatorError
from polyrefuse_data.translate.backends import deepl, local, openai
from polyrefuse_data.translate.backends.base import Backend, BackendRow, Settings, covered
from polyrefuse_data.translate.backends.remote import RemoteModel
from polyrefuse_data.translate.backends.web_services import (
    LIBRE_KEY,
    MICROSOFT_KEY,
    MICROSOFT_REGION,
    Google,
    Libre,
    Microsoft,
    MyMemory,
    WebService,
    service_code,
)

_TOKEN = "a token sent along as a text of its own"  # noqa: S105 (no password)


def _make_model(model: str, settings: Settings) -> Backend:
    """Return the backend for `hf:MODEL@REVISION`: loaded here, or on the workers of a cluster."""
    spec = local.local_spec(model, settings.threads)
    return spec.load() if settings.cluster is None else RemoteModel(spec, settings.cluster)


def _web_service(service: type[WebService], title: str, needs: str, proof: str) -> BackendRow:
    return BackendRow(
        name=service.name,
        title=title,
        make=service,
        code=partial(service_code, service.name),
        limits=service.limits,
        needs=needs,
        proof=proof,
    )


_ROWS = (
    _web_service(Google, "Google Translate, the mobile page", "nothing", "the page holds the text"),
    _web_service(MyMemory, "MyMemory", "nothing", "a match holds the text; else asked twice"),
    _web_service(Libre, "LibreTranslate", f"{LIBRE_KEY}, or your own server with --translator-url", _TOKEN),
    _web_service(
        Microsoft,
        "Microsoft Translator",
        f"{MICROSOFT_KEY} (and {MICROSOFT_REGION} for a regional resource)",
        _TOKEN,
    ),
    BackendRow(
        name="deepl",
        title="DeepL",
        make=deepl.make_deepl,
        code=deepl.deepl_code,
        limits=deepl.LIMITS,
        needs=f"pip install 'polyrefuse[deepl]' and {deepl.KEY}",
        proof=_TOKEN,
    ),
    BackendRow(
        name="openai",
        title="any OpenAI-compatible endpoint",
        make=openai.make_openai,
        code=openai.language_name,
        limits=openai.LIMITS,
        needs=f"{openai.KEY}, or your own server with --translator-url; a model: openai:MODEL",
        proof="a tag before the answer; else asked twice",
    ),
    BackendRow(
        name="hf",
        title="a local model through transformers",
        make=_make_model,
        code=local.nllb_code,
        limits=local.LIMITS,
        needs="pip install 'polyrefuse[local]'; a model: hf:MODEL@REVISION (coverage here: NLLB-200)",
        proof="local, so answers cannot be mixed up",
    ),
)

BACKENDS: dict[str, BackendRow] = {row.name: row for row in _ROWS}
"""Backends by name."""


@dataclass(frozen=True)
class Link:
    """A link of a chain: the backend's row, and the name of its model."""

    row: BackendRow
    model: str


def parse_chain(text: str) -> list[Link]:
    """Return the links of `google,hf:MODEL@REVISION`; raises `UnknownNameError` or `TranslatorError`."""
    links = []
    for item in text.split(","):
        name, _, model = item.strip().partition(":")
        if name not in BACKENDS:
            raise unknown_name("translator", name, [*BACKENDS, "replay"])
        links.append(Link(BACKENDS[name], model.strip()))
    if len({(link.row.name, link.model) for link in links}) != len(links):
        raise TranslatorError(f"translator '{text}' names a backend twice; expected each once")
    return links


def addresses(text: str | None, links: Sequence[Link]) -> dict[str, str]:
    """Return backend -> address from `URL`, for a chain with one HTTP backend, or lines of `NAME=URL`."""
    if text is None:
        return {}
    http = [link.row.name for link in links if link.row.name != "hf"]
    own: dict[str, str] = {}
    for item in text.splitlines() or [""]:
        name, sign, address = item.partition("=")
        if not sign or name not in BACKENDS:
            if len(http) != 1:
                raise TranslatorError(
                    f"--translator-url points an HTTP backend at another address; the chain has {len(http)}: "
                    "name one, as in libre=http://localhost:5000/"
                )
            name, address = http[0], item
        if name not in http:
            raise TranslatorError(
                f"--translator-url {name}=...: --translator names no '{name}' with an address"
            )
        if name in own:
            raise TranslatorError(f"--translator-url names '{name}' twice; expected each once")
        own[name] = check_address(address)
    return own


def make_chain(links: Sequence[Link], settings: Settings) -> list[Backend]:
    """Make the backends of a chain.

    A backend at an address of the user's has 16 connections and none of the public service's rates.
    """
    own = addresses(settings.url, links)
    backends = []
    for link in links:
        backend = link.row.make(link.model, replace(settings, url=own.get(link.row.name)))
        if link.row.name in own:
            backend.limits = replace(
                backend.limits, requests_per_second=None, characters_per_second=None, connections=16
            )
        backends.append(backend)
    return backends


def check_coverage(backends: Sequence[Backend], langs: Sequence[str], back: bool = False) -> None:
    """Raise `TranslatorError` if no backend of the chain covers a language; ask nobody.

    With `back`, a backend must also translate from each language into English.
    """
    wanted = [LANGUAGES[code] for code in langs if code != SOURCE_LANGUAGE]
    for language in wanted:
        if not any(covers(backend, language) for backend in backends):
            names = ", ".join(backend.name for backend in backends)
            others = [row.name for row in BACKENDS.values() if language.code in covered(row)]
            raise TranslatorError(
                f"translator '{names}' does not cover {language.name} ({language.code}); "
                f"leave it out with --langs, or add one that does: {', '.join(others) or 'none known'}"
            )
        if back and not any(covers(backend, language, back=True) for backend in backends):
            names = ", ".join(backend.name for backend in backends)
            raise TranslatorError(
                f"translator '{names}' does not translate from {language.name} ({language.code}) "
                "into English; add one that does to --translator, or leave out --back-translate and "
                "--candidates"
            )


def covers(backend: Backend, language: Language, back: bool = False) -> bool:
    """Return whether `backend` translates from English into `language`, or `back` from it into English."""
    source, target = LANGUAGES[SOURCE_LANGUAGE], language
    if back:
        source, target = target, source
    if backend.code(source) is None or backend.code(target) is None:
        return False
    translates = getattr(backend, "translates", None)
    return translates is None or bool(translates(source, target))
