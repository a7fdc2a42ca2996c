"""The registry of backends, and what a chain such as `google,hf:MODEL@REVISION` names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from polyrefuse_data.core.errors import unknown_name
from polyrefuse_data.core.languages import LANGUAGES, SOURCE_LANGUAGE, Language
from polyrefuse_data.http.client import check_address
from polyrefuse_data.http.faults import TranslatorError
from polyrefuse_data.translate.backends import deepl as deepl_client
from polyrefuse_data.translate.backends import local
from polyrefuse_data.translate.backends import openai as openai_compatible
from polyrefuse_data.translate.backends import web_services as deep
from polyrefuse_data.translate.backends.base import Backend, BackendRow, Settings, covered

_TOKEN = "a token sent along as a text of its own"  # noqa: S105 (no password)

_ROWS = (
    BackendRow(
        "google", "Google Translate, the mobile page", deep.make_google,
        lambda language: deep.google_code(language) is not None, deep.GOOGLE_LIMITS,
        "nothing", "the page holds the text",
    ),
    BackendRow(
        "mymemory", "MyMemory", deep.make_mymemory,
        lambda language: deep.mymemory_code(language) is not None, deep.MYMEMORY_LIMITS,
        "nothing", "a match holds the text; else asked twice",
    ),
    BackendRow(
        "libre", "LibreTranslate", deep.make_libre,
        lambda language: deep.libre_code(language) is not None, deep.LIBRE_LIMITS,
        f"{deep.LIBRE_KEY}, or a server of one's own with --translator-url", _TOKEN,
    ),
    BackendRow(
        "microsoft", "Microsoft Translator", deep.make_microsoft,
        lambda language: deep.microsoft_code(language) is not None, deep.MICROSOFT_LIMITS,
        f"{deep.MICROSOFT_KEY} (and {deep.MICROSOFT_REGION} for a regional resource)", _TOKEN,
    ),
    BackendRow(
        "deepl", "DeepL", deepl_client.make_deepl,
        lambda language: deepl_client.deepl_code(language) is not None, deepl_client.LIMITS,
        f"pip install 'polyrefuse[deepl]' and {deepl_client.KEY}", _TOKEN,
    ),
    BackendRow(
        "openai", "any OpenAI-compatible endpoint", openai_compatible.make_openai,
        lambda language: language.codes.get("openai", language.name) is not None, openai_compatible.LIMITS,
        f"{openai_compatible.KEY}, or a server of one's own with --translator-url; a model: openai:MODEL",
        "a tag before the answer; else asked twice",
    ),
    BackendRow(
        "hf", "a local model through transformers", local.make_local,
        lambda language: language.codes.get("nllb", local._NLLB.get(language.code)) is not None, local.LIMITS,
        "pip install 'polyrefuse[local]'; a model: hf:MODEL@REVISION (coverage here: NLLB-200)",
        "no connection to mix up",
    ),
)  # fmt: skip

BACKENDS: dict[str, BackendRow] = {row.name: row for row in _ROWS}
"""Backends by name."""


@dataclass(frozen=True)
class Link:
    """One link of a chain: the backend's row, and the model that was named."""

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
    found: dict[str, str] = {}
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
        if name in found:
            raise TranslatorError(f"--translator-url names '{name}' twice; expected each once")
        found[name] = check_address(address)
    return found


def make_chain(links: Sequence[Link], settings: Settings) -> list[Backend]:
    """Make the backends of a chain. One's own address has no public limits, and takes 16 connections."""
    own = addresses(settings.url, links)
    made = []
    for link in links:
        backend = link.row.make(link.model, replace(settings, url=own.get(link.row.name)))
        if link.row.name in own:
            backend.limits = replace(
                backend.limits, requests_per_second=None, characters_per_second=None, connections=16
            )
        made.append(backend)
    return made


def check_coverage(backends: Sequence[Backend], langs: Sequence[str], back: bool = False) -> None:
    """Raise `TranslatorError` if no backend of the chain covers a language: before the first request.

    With `back`, one must also go from each language to English.
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
