"""What a run of a model behind an endpoint would ask, by language, before the first request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from polyrefuse_eval.endpoint.prices import Tokens
from polyrefuse_eval.endpoint.spec import EndpointSpec
from polyrefuse_eval.report.markdown import table
from polyrefuse_eval.results.folder import RUN_FILE, RunFolder
from polyrefuse_eval.results.prompt_draw import limited
from polyrefuse_eval.results.settings import grid
from polyrefuse_eval.results.timings import read_timings, seconds_per_answer
from polyrefuse_eval.runs.plan import RunPlan

TOKENS_A_SECOND = 50
"""Assumed speed of one answer where nothing was timed yet; services of 2026 give from 20 to 200."""

HEADER = (
    *("language", "requests", "tokens sent, about", "tokens back, at most"),
    *("minutes, at most", "US$, at most"),
)


@dataclass(frozen=True, kw_only=True)
class PlannedRequests:
    """What is to be asked in a language: requests, their tokens, and how long they take at most."""

    lang: str
    requests: int
    tokens: Tokens
    minutes: float


def planned_requests(plan: RunPlan, endpoint: EndpointSpec) -> list[PlannedRequests]:
    """Return what `plan` would ask in each language, without the answers that are there."""
    begun = (plan.out / RUN_FILE).is_file()
    timed = seconds_per_answer(read_timings(plan.out)) if begun else None
    planned = []
    for lang in plan.settings.langs:
        there = {completion.key for completion in RunFolder(plan.out).completions(lang)} if begun else set()
        rows = plan.data.rows(lang, "test")
        prompts = [
            row.text
            for measurement in grid(lang, (), plan.settings)
            for row in limited(
                [row for row in rows if row.label == measurement.label],
                measurement.limit,
                plan.settings.test_seed,
            )
            if f"{row.id}/{measurement.condition.name}" not in there
        ]
        tokens = sum((endpoint.likely_tokens(prompt) for prompt in prompts), Tokens(0, 0))
        planned.append(
            PlannedRequests(
                lang=lang,
                requests=len(prompts),
                tokens=tokens,
                minutes=_minutes(endpoint, len(prompts), tokens, timed),
            )
        )
    return planned


def cost_lines(plan: RunPlan, endpoint: EndpointSpec) -> Iterator[str]:
    """Yield a table of requests, tokens, minutes and dollars by language, and where the numbers come from."""
    planned = planned_requests(plan, endpoint)
    total = PlannedRequests(
        lang="all",
        requests=sum(of_lang.requests for of_lang in planned),
        tokens=sum((of_lang.tokens for of_lang in planned), Tokens(0, 0)),
        minutes=sum(of_lang.minutes for of_lang in planned),
    )
    yield table(HEADER, [_cells(of_lang, endpoint) for of_lang in [*planned, total]]).rstrip("\n")
    if endpoint.price is None:
        yield f"the price of '{endpoint.name}' is not known; give a table of your own with --prices"
    else:
        yield f"{endpoint.label} costs {endpoint.price}; look at the provider's list before you spend money"


def _cells(planned: PlannedRequests, endpoint: EndpointSpec) -> Sequence[str]:
    price = endpoint.price
    return (
        planned.lang,
        f"{planned.requests:,}",
        f"{planned.tokens.prompt:,}",
        f"{planned.tokens.completion:,}",
        f"{planned.minutes:.1f}",
        "?" if price is None else f"{price.cost(planned.tokens):.2f}",
    )


def _minutes(endpoint: EndpointSpec, requests: int, tokens: Tokens, timed: float | None) -> float:
    """Return the longest of what limits and the answers themselves take; `timed` are seconds an answer."""
    pace = endpoint.pace
    seconds = endpoint.max_tokens / TOKENS_A_SECOND / pace.connections if timed is None else timed
    return max(
        requests * seconds / 60,
        requests / pace.requests_per_minute if pace.requests_per_minute else 0.0,
        tokens.total / pace.tokens_per_minute if pace.tokens_per_minute else 0.0,
    )
