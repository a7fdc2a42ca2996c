"""Ask a service for answers, several at a time, until it gives them or cannot be asked.

Built on the `openai` package and its transport on aiohttp, which takes half the processor time of its
default. The event loop runs in a thread of its own: callers, a notebook too, see futures alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Generic

from polyrefuse_data.http.bodies import Body, without_key
from polyrefuse_data.http.client import origin, retry_after
from polyrefuse_data.http.faults import Fault, Rejected, TranslatorError, excerpt
from polyrefuse_data.http.limits import Breaker, BreakerSettings, TokenBucket
from polyrefuse_eval.endpoint.prices import Budget, Price, counted_tokens
from polyrefuse_eval.endpoint.reading import ServiceAnswer, blocked_prompt
from polyrefuse_eval.endpoint.spec import PromptType, ServiceSpec
from polyrefuse_eval.errors import EndpointError, require

NO_CONNECTION = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol")
"""Names of the transport's errors before a request was sent."""

BROKEN_OFF = ("ServerDisconnectedError", "ClientOSError", "ClientConnectionResetError", "ClientPayloadError")
"""Names of aiohttp's errors after a request was sent; the transport calls some of them `ConnectTimeout`."""

UNPAID = ("connection", "server_error", "throttled")
"""Faults after which a service counts no tokens."""

UNSUPPORTED = ("unsupported_parameter", "unsupported_value")
"""Codes of errors of a field that a model does not take, whatever the prompt."""

BUDGET_SECONDS = 0.05
"""How long a request waits that the budget lets out only after others."""

KEPT_HEADERS = ("Retry-After",)
"""Headers of a response that are read; others say how to unpack or decode it, or keep state."""

NO_KEY = "none"
"""What stands for the key in a request to a service without keys; local servers take any."""


class EndpointClient(Generic[PromptType]):
    """Ask the model of `spec`, within its pace and budget. Safe to share between threads.

    Raises `MissingExtraError` without the openai package, and `EndpointError` for a missing key.
    """

    def __init__(self, spec: ServiceSpec[PromptType]) -> None:
        openai = require("openai", "endpoint")
        aiohttp = require("aiohttp", "endpoint")
        spec.check()
        self.spec = spec
        self._openai = openai
        self._transport_error = aiohttp.ClientError
        self._response = require("httpx2", "endpoint").Response
        self._price = spec.price or Price(input=0, output=0)
        self._budget = Budget(spec.budget, spec.spent)
        self._key = spec.key
        pace = spec.pace
        self._breaker = Breaker(f"{spec.label} at {origin(spec.url)}", BreakerSettings(pause=pace.pause))
        self._requests = _bucket(pace.requests_per_minute)
        self._tokens = _bucket(pace.tokens_per_minute)
        self._resume = 0.0  # the moment before which the service asked for no request
        self._client = openai.AsyncOpenAI(
            api_key=self._key or NO_KEY,
            base_url=spec.url,
            max_retries=0,
            timeout=pace.deadline,
            http_client=_http_client(openai, spec, self._response),
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()

    def ask(self, prompt: PromptType) -> Future[ServiceAnswer]:
        """Ask for an answer to `prompt`; the caller keeps at most `pace.connections` futures open.

        The future raises `Fault` where this prompt has no answer after all tries, and `EndpointError` where
        no further prompt will have one.
        """
        return asyncio.run_coroutine_threadsafe(self._ask(prompt), self._loop)

    def close(self) -> None:
        """End all requests, and the connections."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()

    async def _ask(self, prompt: PromptType) -> ServiceAnswer:
        pace = self.spec.pace
        for number in range(pace.tries):
            try:
                return await self._try(prompt)
            except Rejected:
                raise
            except Fault as fault:
                if number + 1 == pace.tries:
                    raise
                wait = min(pace.backoff * 2**number, pace.longest_wait) * random.uniform(0.5, 1.0)
                await asyncio.sleep(max(wait, min(fault.retry_after or 0.0, self._breaker.settings.patience)))
            except TranslatorError as error:
                raise EndpointError(str(error)) from None
        raise AssertionError("a prompt is tried at least once")

    async def _try(self, prompt: PromptType) -> ServiceAnswer:
        """Send one request, once the limits, the breaker and the budget let it out; raises `Fault`."""
        most = self.spec.most_tokens(prompt)
        cost = self._price.cost(most)
        await asyncio.sleep(max(self._requests.take(), self._tokens.take(most.total)))
        while (wait := max(self._breaker.wait(), self._resume - time.monotonic())) > 0:
            await asyncio.sleep(wait)
        while not self._budget.reserve(cost):
            await asyncio.sleep(BUDGET_SECONDS)
        spent = 0.0
        try:
            answer = await asyncio.wait_for(self._send(prompt), self.spec.pace.deadline)
            tokens = counted_tokens(answer.note)
            spent = cost if tokens is None else self._price.cost(tokens)
        except asyncio.TimeoutError:
            spent = cost  # the service may have made the answer, and count it
            raise self._failed(
                Fault("timeout", f"no whole answer within {self.spec.pace.deadline:g} s")
            ) from None
        except Rejected:
            raise
        except Fault as fault:
            spent = 0.0 if fault.reason in UNPAID else cost
            raise self._failed(fault) from None
        finally:
            self._budget.settle(cost, spent)
        self._breaker.success()
        if tokens is not None:
            self._tokens.take(tokens.total - most.total)
        return answer

    def _failed(self, fault: Fault) -> Fault:
        """Note a failed try for all requests, and return it."""
        if fault.retry_after is not None and fault.retry_after <= self._breaker.settings.patience:
            self._resume = max(self._resume, time.monotonic() + fault.retry_after)
        self._breaker.failure(fault)
        return fault

    async def _send(self, prompt: PromptType) -> ServiceAnswer:
        """Send one request, and read its reply; raises `Fault`, `Rejected` or `EndpointError`."""
        openai = self._openai
        try:
            # The method for chat completions would look at each field against its types: a third of the time.
            response = await self._client.post(
                self.spec.path,
                body=self.spec.request(prompt),
                cast_to=self._response,
                options={"headers": {"Accept-Encoding": "gzip, deflate"}},  # others unpack to gigabytes
            )
        except openai.APIConnectionError as error:
            raise self._connection_fault(error) from None
        except self._transport_error:  # some that neither httpx nor openai know: a reply that is no HTTP
            raise Fault("truncated", "a reply that is not HTTP") from None
        except openai.APIStatusError as error:
            blocked = blocked_prompt(error.body) if error.status_code in (400, 403, 422) else None
            if blocked is not None:
                return blocked
            raise self._status_fault(error.status_code, error.response.headers, error.body) from None
        return self.spec.read(response.content)

    def _connection_fault(self, error: Exception) -> Exception:
        """Return what an error without a whole reply means."""
        place, cause = origin(self.spec.url), error.__cause__
        if isinstance(cause, Fault):
            return cause
        if "CERTIFICATE_VERIFY_FAILED" in str(cause):
            return EndpointError(
                f"{place} has an untrusted certificate; set SSL_CERT_FILE to its authority's file"
            )
        if type(getattr(cause, "__cause__", None)).__name__ in BROKEN_OFF:
            return Fault("truncated", "the reply was interrupted")
        if type(cause).__name__ in NO_CONNECTION:
            return Fault("connection", f"with {place}")
        if isinstance(error, self._openai.APITimeoutError):
            return Fault("timeout", f"no answer from {place}")
        return Fault("truncated", "the reply was interrupted")

    def _status_fault(self, status: int, headers: Mapping[str, str], body: Any) -> Exception:
        """Return what a status other than 2xx means."""
        place, answer = origin(self.spec.url), f"status {status}"
        address, model = self.spec.options
        if 300 <= status < 400:
            return EndpointError(f"{place} redirects ({answer}), which is not followed; check {address}")
        if status in (401, 403):
            if self._key is None:
                variable = self.spec.key_variable or "--key-variable NAME"
                return EndpointError(f"{place} wants a key ({answer}); set {variable} in the environment")
            return EndpointError(
                f"{place} refuses the key ({answer}); check {self.spec.key_variable} in the environment"
            )
        if status == 402 or (isinstance(body, Mapping) and body.get("code") == "insufficient_quota"):
            return EndpointError(f"{place}: the account has no credit left ({answer})")
        if status in (404, 405, 410):
            return EndpointError(
                f"{place} has no such service or no model '{self.spec.name}' ({answer}); check {address} "
                f"and {model}"
            )
        wait = retry_after(headers.get("Retry-After"))
        if status == 429:
            return Fault("throttled", answer, wait)
        if status >= 500 or status in (408, 409, 425):
            return Fault("server_error", answer, wait)
        name = body.get("param") if isinstance(body, Mapping) else None
        if isinstance(name, str) and name in self.spec.removable and str(body.get("code")) in UNSUPPORTED:
            return EndpointError(
                f"{place} does not take {name} for '{self.spec.name}' ({answer}: {self._quoted(body)}); add "
                f"--request '{json.dumps(self.spec.removable[name])}'"
            )
        return Rejected("rejected", f"{answer}: {self._quoted(body)}")

    def _quoted(self, body: Any) -> str:
        """Return what the service says is wrong with a request, without the key."""
        message = body.get("message", body) if isinstance(body, Mapping) else body
        text = str(message or "no reason given")
        return excerpt(text.replace(self._key, "***") if self._key else text)


def _http_client(openai: Any, spec: ServiceSpec[Any], response_type: Any) -> Any:
    """Return the connections to the service of `spec`, which bound and clean whatever it sends.

    A response has at most `MAXIMUM_BYTES` when unpacked, no charset of its own (JSON is UTF-8), and asterisks
    for the key. A request to a service that gets no key has no header of the user's account either.
    """

    class BoundedClient(openai.DefaultAioHttpClient):  # type: ignore[misc]
        async def send(self, request: Any, **options: Any) -> Any:
            if spec.key_variable is None:
                for name in _account_headers():
                    request.headers.pop(name, None)
            response = await super().send(request, **{**options, "stream": True})
            try:
                received = Body(response.headers.get("Content-Encoding"))
                async for chunk in response.aiter_raw():
                    received.add(chunk)
            finally:
                await response.aclose()
            headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
            text = without_key(received.content().decode("utf-8", "surrogateescape"), spec.key)
            body = text.encode("utf-8", "surrogateescape")
            return response_type(response.status_code, headers=headers, content=body, request=request)

    return BoundedClient(follow_redirects=False)


def _account_headers() -> list[str]:
    """Return the names of headers that the openai package takes from the environment."""
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").splitlines()
    return ["OpenAI-Organization", "OpenAI-Project", *(line.partition(":")[0].strip() for line in lines)]


def _bucket(per_minute: int | None) -> TokenBucket:
    return TokenBucket(None if per_minute is None else per_minute / 60)
