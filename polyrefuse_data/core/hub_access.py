"""Whether the Hugging Face Hub can be reached, in seconds: its client tries again for half a minute."""

from __future__ import annotations

import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

CONNECT_SECONDS = 3.0
"""For one connection: a round trip around the world takes 0.3 s."""

_PORTS = {"http": 80, "https": 443}


def hub_is_reachable(endpoint: str | None = None) -> bool:
    """Return whether a connection to the Hub can be opened, or to the proxy in front of it.

    `endpoint` is the Hub's address, by default that of the client.
    """
    from huggingface_hub import constants

    address = urlsplit(endpoint or constants.ENDPOINT)
    proxy = urllib.request.getproxies().get(address.scheme)
    if proxy and not urllib.request.proxy_bypass(address.hostname or ""):
        address = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    try:
        port = address.port or _PORTS.get(address.scheme)
    except ValueError:
        port = None
    if not address.hostname or port is None:
        return True  # a proxy of another kind: the client finds out
    try:
        socket.create_connection((address.hostname, port), CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Where the Hub cannot be reached, let its client take the cache alone, as with HF_HUB_OFFLINE=1.

    What is not in the cache is then an error at once. Its settings are back after the block.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or hub_is_reachable():
        yield
        return
    switches = [(constants, "HF_HUB_OFFLINE")]
    if "transformers.utils.hub" in sys.modules:
        switches.append(
            (sys.modules["transformers.utils.hub"], "_is_offline_mode")
        )  # transformers 4 copies it
    before = [(module, name, getattr(module, name)) for module, name in switches if hasattr(module, name)]
    for module, name, _ in before:
        setattr(module, name, True)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
