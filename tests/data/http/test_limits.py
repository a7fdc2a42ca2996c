"""Politeness: token buckets, the circuit breaker, Retry-After, and addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyrefuse_data.http.client import check_address, origin, retry_after
from polyrefuse_data.http.faults import Fault, TranslatorError
from polyrefuse_data.http.limits import Breaker, BreakerSettings, TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(
    rate=st.floats(0.1, 1000),
    burst=st.floats(1, 50),
    steps=st.lists(st.tuples(st.floats(0, 5), st.floats(0, 80)), min_size=1, max_size=60),
)
def test_no_window_holds_more_than_rate_and_burst_allow(
    rate: float, burst: float, steps: list[tuple[float, float]]
) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock)
    used: list[tuple[float, float]] = []
    for pause, tokens in steps:
        clock.now += pause
        used.append((clock.now + bucket.take(tokens), tokens))
    for start in range(len(used)):
        spent = 0.0
        for when, tokens in used[start:]:
            spent += tokens
            allowed = burst + rate * (when - used[start][0]) + used[start][1]
            assert spent <= allowed * (1 + 1e-6) + 1e-6


def test_a_bucket_without_a_rate_never_waits() -> None:
    bucket = TokenBucket(None)
    assert [bucket.take(10**9) for _ in range(3)] == [0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="more than 0"):
        TokenBucket(0)


def test_the_breaker_pauses_probes_and_closes_again() -> None:
    clock = Clock()
    breaker = Breaker("x", BreakerSettings(failures=3, pause=10, pauses=2), clock)
    for _ in range(2):
        breaker.failure(Fault("throttled"))
    assert breaker.wait() == 0
    breaker.failure(Fault("throttled", retry_after=25))
    assert breaker.wait() == 25  # what the service asked for, where that is longer
    clock.now += 25
    assert breaker.wait() == 0  # the probe
    assert breaker.wait() > 0  # and nobody else
    breaker.success()
    assert breaker.wait() == 0


def test_the_breaker_gives_up_rather_than_hammer() -> None:
    clock = Clock()
    breaker = Breaker("translator x", BreakerSettings(failures=3, pause=10, pauses=2), clock)
    waits = []
    with pytest.raises(TranslatorError, match=r"translator x gives no usable answer .*page"):  # noqa: PT012
        for _ in range(1000):
            waits.append(breaker.wait())
            clock.now += waits[-1]
            if not waits[-1]:
                breaker.failure(Fault("page"))
    assert [wait for wait in waits if wait] == [10, 20]
    assert len([wait for wait in waits if not wait]) == 3 + 1 + 1  # three in a row, then one probe a pause


def test_nobody_at_the_address_is_told_at_once_and_an_answer_once_heard_is_not_forgotten() -> None:
    breaker = Breaker("x", BreakerSettings(), Clock())
    for _ in range(6):
        breaker.failure(Fault("connection", "with http://localhost:9"))
    with pytest.raises(TranslatorError, match="no connection with http://localhost:9"):
        breaker.wait()
    reached = Breaker("x", BreakerSettings(), Clock())
    reached.success()
    for _ in range(12):
        reached.failure(Fault("connection"))
    assert reached.wait() == 0


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after("3") == 3.0
    assert retry_after("-3") == 0.0
    assert retry_after("1e9") == retry_after("inf") == 30 * 86400.0
    assert retry_after("Fri, 31 Dec 9999 23:59:59 GMT") == 30 * 86400.0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT", now=1445412999.0) == 0.0
    assert retry_after("nan") is None
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT", now=1445412470.0) == 10.0
    assert retry_after("soon") is None
    assert retry_after(None) is None


@given(st.text(max_size=30) | st.floats().map(str))
def test_no_retry_after_is_an_exception(value: str) -> None:
    wait = retry_after(value)
    assert wait is None or 0 <= wait <= 30 * 86400


def test_a_service_that_sends_everybody_away_for_hours_is_left_at_once() -> None:
    """Nobody sleeps for a day, or asks before the day is over; one such header alone is a mistake."""
    breaker = Breaker("translator x", BreakerSettings(), Clock())
    for _ in range(20):
        breaker.failure(Fault("throttled", retry_after=86_400))
        breaker.failure(Fault("server_error"))
        breaker.success()
    assert breaker.wait() == 0
    for _ in range(6):
        breaker.failure(Fault("throttled", retry_after=86_400))
    with pytest.raises(TranslatorError, match="translator x allows no more requests for 24 hours"):
        breaker.wait()


def test_a_pause_begins_once_and_is_no_longer_than_our_patience() -> None:
    breaker = Breaker("x", BreakerSettings(failures=3, pause=10, patience=60, sent_away=99), Clock())
    begun = [breaker.failure(Fault("throttled", retry_after=7_200)) for _ in range(9)]
    assert begun == [None, None, 60, *[None] * 6]


@pytest.mark.parametrize(
    "address", ["localhost:80", "ftp://x/", "http://", "", "http://x:99999/", "file:///etc"]
)
def test_addresses_that_cannot_be_asked(address: str) -> None:
    with pytest.raises(TranslatorError, match="expected one such as"):
        check_address(address)


def test_an_address_with_a_password_is_refused_without_saying_it() -> None:
    with pytest.raises(TranslatorError) as caught:
        check_address("http://me:s3cret@localhost:80/x")
    assert "s3cret" not in str(caught.value)
    assert origin("http://localhost:80/x?key=s3cret") == "http://localhost:80"
