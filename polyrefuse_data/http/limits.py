"""Limits of requests: token buckets for requests and characters a second, and a circuit breaker."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from polyrefuse_data.http.faults import Fault, TranslatorError

Clock = Callable[[], float]


class TokenBucket:
    """Give out `rate` tokens a second, with at most `burst` saved; None is no limit. Safe between threads."""

    def __init__(self, rate: float | None, burst: float | None = None, clock: Clock = time.monotonic) -> None:
        if rate is not None and rate <= 0:
            raise ValueError(f"rate is {rate}, expected more than 0")
        self.rate = rate
        self.burst = max(1.0, rate or 1.0) if burst is None else burst
        self._clock = clock
        self._tokens = self.burst
        self._updated = clock()
        self._lock = threading.Lock()

    def take(self, tokens: float = 1.0) -> float:
        """Take `tokens` and return the seconds to wait before using them.

        Tokens are lent, not refused: a text larger than the burst waits for as long as it costs.
        """
        if self.rate is None:
            return 0.0
        with self._lock:
            now = self._clock()
            self._tokens = min(self.burst, self._tokens + (now - self._updated) * self.rate)
            self._updated = now
            self._tokens -= tokens
            return max(0.0, -self._tokens / self.rate)


@dataclass
class BreakerSettings:
    """When a circuit breaker pauses, and when it gives a backend up.

    After `failures` in a row no request goes out for `pause` seconds, doubled each time; then a single probe
    does. After `pauses` pauses without a good answer the backend is given up.
    """

    failures: int = 24
    pause: float = 15.0
    pauses: int = 4
    unreached: int = 6
    """Failed connections before any answer, from which no server is there."""
    patience: float = 600.0
    """The longest Retry-After, in seconds, that is waited for."""
    sent_away: int = 6
    """Longer ones in a row from which the service takes no more requests today."""


class Breaker:
    """Count failures in a row and pause requests. Safe to share between threads."""

    def __init__(self, name: str, settings: BreakerSettings, clock: Clock = time.monotonic) -> None:
        self.name = name
        self.settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._pauses = 0
        self._sent_away = 0
        self._open_until: float | None = None
        self._probing = False
        self._reached = False
        self.given_up: TranslatorError | None = None

    def wait(self) -> float:
        """Return 0 if a request may go out now, else the seconds after which to call again.

        Raise `TranslatorError` once the backend is given up.
        """
        with self._lock:
            if self.given_up is not None:
                raise self.given_up
            if self._open_until is None:
                return 0.0
            left = self._open_until - self._clock()
            if left > 0:
                return left
            if self._probing:
                return 0.05
            self._probing = True
            return 0.0

    def success(self) -> None:
        """Note a good answer and close the circuit."""
        with self._lock:
            self._failures = self._pauses = self._sent_away = 0
            self._reached = True
            self._open_until = None
            self._probing = False

    def failure(self, fault: Fault) -> float | None:
        """Note a failed try; after too many in a row, pause or give the backend up.

        Return the seconds of the pause that this failure begins, None if it begins none.
        """
        with self._lock:
            self._failures += 1
            self._reached = self._reached or fault.reason != "connection"
            asked = fault.retry_after or 0.0
            self._sent_away = self._sent_away + 1 if asked > self.settings.patience else 0
            if self._sent_away >= self.settings.sent_away:
                self.given_up = TranslatorError(
                    f"{self.name} allows no more requests for {_duration(asked)} (Retry-After). "
                    "Answers so far are kept; run the same command then, or with another service"
                )
                return None
            if not self._reached and self._failures >= self.settings.unreached:
                self.given_up = TranslatorError(
                    f"{self.name}: no connection {fault.detail}; check the address and the network"
                )
                return None
            if self._open_until is not None and not self._probing:
                return None
            if self._probing or self._failures >= self.settings.failures:
                self._probing = False
                self._failures = 0
                if self._pauses >= self.settings.pauses:
                    self.given_up = TranslatorError(
                        f"{self.name} gives no usable answer (last: {fault}); "
                        f"stopped after {self._pauses} pauses. Answers so far are kept; "
                        "run the same command later, or with another service",
                        sample=fault.sample,
                    )
                    return None
                pause: float = max(self.settings.pause * 2**self._pauses, min(asked, self.settings.patience))
                self._open_until = self._clock() + pause
                self._pauses += 1
                return pause
            return None


def _duration(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{math.ceil(minutes / 60)} hours"
