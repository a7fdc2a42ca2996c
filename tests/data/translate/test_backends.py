"""The real clients against services on loopback: answers, proofs, faults, keys."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from translator_server import Server, table, translation

from polyrefuse_data.core.errors import PolyRefuseError, UnknownNameError
from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.http.client import HttpClient, Response
from polyrefuse_data.http.faults import Fault, TranslatorError
from polyrefuse_data.translate.backends.base import Answer, Backend, Settings, covered
from polyrefuse_data.translate.backends.registry import BACKENDS, check_coverage, make_chain, parse_chain

KEY = "sk-very-secret-0123456789"
PATHS = {
    "google": "/m",
    "mymemory": "/get",
    "libre": "/",
    "microsoft": "/microsoft",
    "deepl": "/",
    "openai": "/v1",
}
HTTP = list(PATHS)
KEYED = ("libre", "microsoft", "deepl", "openai")
VARIABLES = ("LIBRE_API_KEY", "MICROSOFT_API_KEY", "DEEPL_API_KEY", "OPENAI_API_KEY")
EN, DE = LANGUAGES["en"], LANGUAGES["de"]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, KEY)


def made(name: str, url: str, timeout: float = 5.0) -> Backend:
    return make_chain(parse_chain(name), Settings(url + PATHS[name], timeout))[0]


def prompt() -> str:
    return next(iter(table()["en", "de"]))


@pytest.fixture(scope="module")
def healthy() -> Iterator[Server]:
    with Server(key=None) as server:
        yield server


@pytest.mark.parametrize("name", HTTP)
def test_every_client_translates_and_proves_it(name: str, healthy: Server) -> None:
    text = prompt()
    backend = made(name, healthy.url)
    assert backend.translate([text], EN, DE) == [Answer(translation(text, "en", "de"), proven=True)]
    back = backend.translate([translation(text, "en", "de")], DE, EN)
    assert back == [Answer(text, proven=True)]


@pytest.mark.parametrize("name", ["google", "mymemory", "microsoft", "openai"])
def test_an_answer_without_proof_is_said_to_have_none(name: str) -> None:
    with Server(proof=False) as server:
        answer = made(name, server.url).translate([prompt()], EN, DE)
    assert answer == [Answer(translation(prompt(), "en", "de"), proven=False)]


REASONS = {
    "429": {"throttled"},
    "429_retry_after": {"throttled"},
    "500": {"server_error"},
    "503": {"server_error"},
    "reset": {"connection"},
    "stall": {"timeout"},
    "half_body": {"truncated"},
    "empty": {"page", "truncated", "empty"},
    "captcha": {"page"},
}


@pytest.fixture(scope="module")
def faulty() -> Iterator[Server]:
    """Answers each of the first texts with a fault of its own."""
    with Server(always=dict(zip(table()["en", "de"], REASONS, strict=False)), retry_after=7) as server:
        yield server


@pytest.mark.parametrize("name", HTTP)
def test_every_fault_has_its_reason_in_every_client(name: str, faulty: Server) -> None:
    backend = made(name, faulty.url, timeout=0.5)
    for text, (fault, reasons) in zip(table()["en", "de"], REASONS.items(), strict=False):
        with pytest.raises(Fault) as caught:
            backend.translate([text], EN, DE)
        assert caught.value.reason in reasons
        assert caught.value.retry_after == (7.0 if fault == "429_retry_after" else None)


@pytest.mark.parametrize("name", HTTP)
def test_a_redirect_ends_the_work_of_every_client_at_once(name: str) -> None:
    with Server(always={"*": "redirect"}) as server:
        with pytest.raises(TranslatorError, match=r"redirects to another path \(status 301\)"):
            made(name, server.url).translate([prompt()], EN, DE)
        stats = server.stats()
    assert "followed" not in stats["done"]
    assert stats["requests"] == 1


@pytest.mark.parametrize("name", HTTP)
def test_the_answer_to_another_text_is_noticed(name: str) -> None:
    """Two requests whose answers change places: both clients see that theirs is another's."""
    texts = list(table()["en", "de"])[:2]
    with Server(always={"*": "swapped"}) as server:
        backend = made(name, server.url)
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(backend.translate, [text], EN, DE) for text in texts]
        if server.stats()["done"].get("really_swapped") != 2:
            pytest.skip("the two requests did not meet")
    for future in futures:
        if name == "mymemory":  # its matches can prove an answer, never refute it: it is asked for twice
            assert not future.result()[0].proven
        else:
            with pytest.raises(Fault, match="mismatch"):
                future.result()


@pytest.mark.parametrize("name", KEYED)
def test_a_wrong_key_is_one_line_without_the_key(name: str) -> None:
    with Server(key="another") as server, pytest.raises(TranslatorError) as caught:
        made(name, server.url).translate([prompt()], EN, DE)
    assert f"{name.upper()}_API_KEY" in str(caught.value)
    assert KEY not in str(caught.value) + repr(caught.value.__context__)


@pytest.mark.parametrize("name", HTTP)
def test_no_key_goes_into_an_address(name: str) -> None:
    with Server(key=KEY if name in KEYED else None) as server:
        made(name, server.url).translate([prompt()], EN, DE)
        addresses = server.stats()["addresses"]
    assert addresses
    assert not any(KEY in address for address in addresses)


@pytest.mark.parametrize(
    ("name", "variable"), [("microsoft", "MICROSOFT_API_KEY"), ("deepl", "DEEPL_API_KEY")]
)
def test_a_missing_key_is_named_before_any_request(
    name: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable)
    with pytest.raises(TranslatorError, match=variable):
        make_chain(parse_chain(name), Settings())


@pytest.mark.parametrize(
    ("name", "module", "extra"), [("deepl", "deepl", "deepl"), ("hf:x@main", "transformers", "local")]
)
def test_a_missing_extra_names_its_pip_command(
    name: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TranslatorError, match=rf"pip install 'polyrefuse\[{extra}\]'"):
        make_chain(parse_chain(name), Settings())


def test_one_shared_client_mixes_texts_up_and_ours_does_not() -> None:
    """Why each call gets a client of its own: first the effect, then its absence."""
    from deep_translator import GoogleTranslator

    texts = list(table()["en", "de"])[:120]
    right = [translation(text, "en", "de") for text in texts]
    with Server(delay=0.002) as server, ThreadPoolExecutor(16) as pool:
        shared = GoogleTranslator(source="en", target="de")
        shared._base_url = server.url + "/m"
        # another thread's text takes the place of ours between two lines of the client
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(20):
                mixed = list(pool.map(shared.translate, texts))
                if mixed != right:
                    break
        finally:
            sys.setswitchinterval(0.005)
        assert mixed != right
        backend = made("google", server.url)
        ours = list(pool.map(lambda text: backend.translate([text], EN, DE)[0].text, texts))
    assert ours == right


def test_an_endpoint_with_one_model_needs_no_name_and_no_key(
    monkeypatch: pytest.MonkeyPatch, healthy: Server
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    backend = made("openai", healthy.url)
    assert backend.translator.version == "tiny"
    assert backend.translate([prompt()], EN, DE)[0].proven


def test_chains_are_read_and_mistakes_named() -> None:
    assert [(link.row.name, link.model) for link in parse_chain("google, hf:org/m@r1")] == [
        ("google", ""),
        ("hf", "org/m@r1"),
    ]
    with pytest.raises(UnknownNameError, match="did you mean 'google'"):
        parse_chain("gogle")
    with pytest.raises(TranslatorError, match="twice"):
        parse_chain("google,google")
    with pytest.raises(TranslatorError, match="has no models"):
        make_chain(parse_chain("google:x"), Settings())
    with pytest.raises(TranslatorError, match="names no revision"):
        make_chain(parse_chain("hf:org/model"), Settings())


@pytest.mark.parametrize(
    ("chain", "url", "message"),
    [
        ("google,mymemory", "http://localhost:1/", "the chain has 2: name one"),
        ("hf:x@1", "http://localhost:1/", "the chain has 0"),
        ("google", "libre=http://localhost:1/", "names no 'libre'"),
        ("google", "google=http://localhost:1/\nhttp://localhost:2/", "'google' twice"),
        ("google", "http://local host/", "is not an address"),
        ("google", "google=localhost", "is not an address"),
        ("google", "", "is not an address"),  # an unset variable of a shell must not mean the public service
        ("google", "goggle=http://localhost:1/", "is not an address"),
    ],
)
def test_addresses_that_cannot_be_meant(chain: str, url: str, message: str) -> None:
    with pytest.raises(TranslatorError, match=message):
        make_chain(parse_chain(chain), Settings(url))


def test_each_backend_of_a_chain_has_an_address_of_its_own(healthy: Server) -> None:
    with Server(always={"*": "500"}) as broken:
        url = f"mymemory={healthy.url}/get?k=v\ngoogle={broken.url}/m"
        google, mymemory = make_chain(parse_chain("google,mymemory"), Settings(url))
        with pytest.raises(Fault, match="server_error"):
            google.translate([prompt()], EN, DE)
        assert mymemory.translate([prompt()], EN, DE)[0].text == translation(prompt(), "en", "de")


def test_what_each_backend_covers() -> None:
    lacking = {name: set(LANGUAGES) - set(covered(row)) for name, row in BACKENDS.items()}
    assert lacking == {
        "google": set(), "mymemory": set(), "libre": {"yo"}, "microsoft": set(), "deepl": {"yo"},
        "openai": set(), "hf": set(),
    }  # fmt: skip
    with pytest.raises(PolyRefuseError, match=r"does not cover Yoruba \(yo\).*google"):
        check_coverage(make_chain(parse_chain("deepl"), Settings()), ["de", "yo"])
    check_coverage(make_chain(parse_chain("deepl,google"), Settings()), ["de", "yo"])


RESULTS = (
    "Die Kinder lesen.", " \u00a0Die\r\nKinder\tlesen.\u3000", "子供は本を読む。",
    "Sie sagte &quot;ja&quot; &amp; ging.", "&lt;b&gt; ist ein Tag", "Die<br>Kinder <b>lesen</b>.",
    "a &unknown; b", "1 > 0", "&#39;&#x27;&#150;",
)  # fmt: skip


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("name", ["t0", "result-container"])
def test_a_result_is_read_as_the_client_reads_the_whole_page(
    result: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bare text is not parsed; what comes of it is the same, letter by letter."""
    from deep_translator import GoogleTranslator

    from polyrefuse_data.translate.backends.web_services import Google

    page = f'<html><body><form></form><div class="{name}">{result}</div><div>links</div></body></html>'
    answer = Response(200, {}, page.encode())
    monkeypatch.setattr("requests.get", lambda *_, **__: answer)
    plain = GoogleTranslator(source="en", target="de").translate("The children read.")
    backend = Google("", Settings())
    monkeypatch.setattr(HttpClient, "get", lambda *_, **__: answer)
    assert backend.translate(["The children read."], EN, DE)[0].text == plain


def test_a_quota_warning_is_no_translation(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"responseData": {"translatedText": "MYMEMORY WARNING: YOU USED ALL"}, "responseStatus": 429}
    response = Response(200, {}, json.dumps(value).encode())
    monkeypatch.setattr(HttpClient, "get", lambda *_, **__: response)
    (backend,) = make_chain(parse_chain("mymemory"), Settings())
    with pytest.raises(TranslatorError, match="quota"):
        backend.translate(["Hello there."], EN, DE)


def test_the_library_stays_as_it_is_for_everybody_else() -> None:
    import deep_translator.google
    import requests

    make_chain(parse_chain("google,mymemory"), Settings())
    assert deep_translator.google.requests is requests
