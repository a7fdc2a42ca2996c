"""The options of a run that concern a model behind an endpoint, and what they ask for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from polyrefuse_eval.endpoint.prices import DEFAULT_URL, price_of
from polyrefuse_eval.endpoint.spec import (
    KEY_VARIABLE,
    EndpointSpec,
    Pace,
    check_url,
    is_endpoint,
    public_place,
    read_fields,
)
from polyrefuse_eval.errors import EndpointError
from polyrefuse_eval.results.sources import NO_DIRECTIONS
from polyrefuse_eval.runs.option_fields import (
    OptionalPositive,
    OptionalText,
    Options,
    Positive,
    option,
    option_name,
)
from polyrefuse_eval.served_names import PREFIX

if TYPE_CHECKING:
    from polyrefuse_eval.runs.options import RunOptions

PACE = Pace()
NO_KEY = ""
"""The name of the variable with the key, where no key is to be sent."""

NEEDS_ACTIVATIONS = (
    "baseline_url",
    "baseline_model",
    "dtype",
    "device_map",
    "quantization",
    "attention",
    "structure",
    "trust_remote_code",
    "rule",
    "train",
    "validation",
    "no_filter",
    "refusal_tokens",
    "all_candidates",
    "kl",
    "directions",
    "coefficient",
    "strengths",
    "addition_strengths",
    "interventions",
    "crossed",
    "batch_size",
    "tensor_parallel",
)
"""Options that mean nothing without the weights of the model."""

ASKS_FOR_NOTHING = {"directions": NO_DIRECTIONS, "strengths": "none", "crossed": "0"}
"""Values of these that may stand beside a model behind an endpoint."""

OF_A_BASELINE_SERVER = (
    "key_variable",
    "connections",
    "requests_per_minute",
    "tokens_per_minute",
    "deadline",
)
"""Options that also say how a server is asked which makes the baselines of a loaded model."""

IDENTITY = ("system", "thinking", "max_thinking_tokens", "temperature", "request")
"""Options of a model behind an endpoint that change its answers."""


class EndpointOptions(Options):
    """Where a model behind an OpenAI-compatible service is, and how it is asked."""

    url: OptionalText = option(
        None, f"With --model {PREFIX}NAME: address of the service.  [default: {DEFAULT_URL}]"
    )
    key_variable: OptionalText = option(
        None, f"Environment variable with the key of the service.  [default: {KEY_VARIABLE}]"
    )
    temperature: Annotated[float, Field(ge=0)] = option(0.0, "Sampling temperature of the service.")
    request: OptionalText = option(
        None, "JSON object with fields to add to each request to the service; null removes a field."
    )
    connections: Positive = option(PACE.connections, "Concurrent requests to the service.")
    requests_per_minute: OptionalPositive = option(None, "Maximum requests per minute.")
    tokens_per_minute: OptionalPositive = option(None, "Maximum tokens per minute.")
    deadline: Positive = option(int(PACE.deadline), "Seconds to wait for one request to the service.")
    prices: OptionalText = option(
        None,
        "YAML file with prices, NAME: {input: 0.15, output: 0.60}, in US$ per million tokens.",
        json_schema_extra={"metavar": "FILE"},
    )
    budget: Annotated[float | None, Field(gt=0)] = option(
        None, "Largest cost of a run's answers, in US$; the run stops before it exceeds it."
    )


def check_without_endpoint(options: RunOptions) -> None:
    """Raise `EndpointError` for options of an endpoint beside a model that is loaded here."""
    given = [
        name
        for name, field in EndpointOptions.model_fields.items()
        if getattr(options, name) != field.default
        and (options.baseline_url is None or name not in OF_A_BASELINE_SERVER)
    ]
    if given:
        otherwise = ", or a server at --baseline-url" if given[0] in OF_A_BASELINE_SERVER else ""
        raise EndpointError(
            f"--{option_name(given[0])} is for a model behind an endpoint, --model {PREFIX}NAME{otherwise}; "
            f"'{options.model}' is loaded here"
        )


def endpoint_spec(options: RunOptions) -> EndpointSpec:
    """Return the model behind an endpoint that `options` name, and how it is asked.

    Raises `EndpointError` for options that need its activations, an address or further fields that cannot be
    used, and a budget for a model without a price.
    """
    name = options.model.removeprefix(PREFIX)
    if not name:
        raise EndpointError(f"--model {PREFIX} names no model; expected {PREFIX}NAME")
    _refuse_activations(options)
    url = DEFAULT_URL if options.url is None else check_url(options.url)
    price = price_of(name, url, None if options.prices is None else Path(options.prices))
    if options.budget is not None and price is None:
        raise EndpointError(
            f"--budget needs the price of '{name}', which no table holds; give --prices FILE with a line "
            f"{name}: {{input: US$ per million tokens sent, output: US$ per million back}}"
        )
    thoughts = options.max_thinking_tokens if options.thinking else 0
    return EndpointSpec(
        name=name,
        url=url,
        key_variable=key_variable(options),
        max_tokens=options.max_new_tokens + thoughts,
        system=options.system,
        temperature=options.temperature,
        seed=options.seed,
        fields=read_fields(options.request),
        pace=pace(options),
        price=price,
        budget=options.budget,
    )


def key_variable(options: RunOptions) -> str | None:
    """Return the environment variable with the key of the service; None where no key is to be sent."""
    return (KEY_VARIABLE if options.key_variable is None else options.key_variable) or None


def pace(options: RunOptions) -> Pace:
    """Return how fast the service is asked, and for how long."""
    return replace(
        PACE,
        connections=options.connections,
        requests_per_minute=options.requests_per_minute,
        tokens_per_minute=options.tokens_per_minute,
        deadline=options.deadline,
    )


def endpoint_identity(options: RunOptions, spec: EndpointSpec) -> dict[str, Any]:
    """Return what of `options` tells the answers of the service apart from others, as plain JSON."""
    return {
        **{name: getattr(options, name) for name in IDENTITY},
        "endpoint": public_place(spec.url),
    }


def endpoint_fields(fields: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the options of one model of a grid file, with what stands on the command line.

    Options of endpoints are for models behind one, and some for a server that makes baselines. An address
    from the file gets no key, unless the command line names the variable that holds it.
    """
    address = "url" if is_endpoint(str(fields.get("model"))) else "baseline_url"
    if address == "baseline_url":
        accepted = OF_A_BASELINE_SERVER if address in fields else ()
        foreign = set(EndpointOptions.model_fields) - set(accepted)
        given = {name: value for name, value in given.items() if name not in foreign}
    if address in fields and address not in given and "key_variable" not in given:
        fields = {**fields, "key_variable": NO_KEY}
    return {**fields, **given}


def _refuse_activations(options: RunOptions) -> None:
    fields = type(options).model_fields
    for name in NEEDS_ACTIVATIONS:
        value = getattr(options, name)
        if value not in (fields[name].default, ASKS_FOR_NOTHING.get(name)):
            raise EndpointError(
                f"--{option_name(name)} needs the weights of '{options.model}', and an endpoint gives "
                "answers alone; leave it out: baselines are measured"
            )
