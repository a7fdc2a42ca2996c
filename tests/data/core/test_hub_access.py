"""The Hub out of reach: known at once, with the cache in use and the client's settings back afterwards."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from polyrefuse_data.core.hub_access import hub_is_reachable, offline_if_unreachable

PROXIES = (
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def listening() -> Iterator[str]:
    """Yield the address of a port that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def closed() -> str:
    """Return the address of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_where_nobody_answers_the_client_is_offline_for_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", closed())
    with offline_if_unreachable():
        assert constants.HF_HUB_OFFLINE is True
    assert constants.HF_HUB_OFFLINE is False


def test_where_the_hub_answers_nothing_changes(monkeypatch: pytest.MonkeyPatch, listening: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", listening)
    with offline_if_unreachable():
        assert constants.HF_HUB_OFFLINE is False


def test_a_proxy_is_what_must_be_reached(monkeypatch: pytest.MonkeyPatch, listening: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    assert not hub_is_reachable()
    monkeypatch.setenv("http_proxy", listening)
    assert hub_is_reachable()
    monkeypatch.setenv("http_proxy", closed())
    assert not hub_is_reachable()
    monkeypatch.setenv("no_proxy", "hub.invalid")
    monkeypatch.setattr(constants, "ENDPOINT", listening.replace("127.0.0.1", "localhost"))
    monkeypatch.setenv("no_proxy", "localhost")
    assert hub_is_reachable()
