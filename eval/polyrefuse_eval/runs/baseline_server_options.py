"""The options of a run whose baselines a server makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polyrefuse_eval.endpoint.completions import BaselineServer
from polyrefuse_eval.endpoint.spec import check_url
from polyrefuse_eval.errors import EndpointError
from polyrefuse_eval.model_source import split_revision
from polyrefuse_eval.runs.endpoint_options import key_variable, pace
from polyrefuse_eval.runs.option_fields import OptionalText, Options, option, option_name

if TYPE_CHECKING:
    from polyrefuse_eval.runs.options import RunOptions

ONE_PROCESS = ("thinking", "tensor_parallel")
"""Options with which no server makes the baselines: its answers would have other limits, or many askers."""


class BaselineServerOptions(Options):
    """Where a server has the model that is loaded here, to make its baselines."""

    baseline_url: OptionalText = option(
        None,
        "Address of a server (vLLM) that has the same unedited model and makes its baselines; checked on 8 "
        "prompts first. --connections, --requests-per-minute, --tokens-per-minute, --deadline and "
        "--key-variable apply to it.",
        json_schema_extra={"metavar": "URL"},
    )
    baseline_model: OptionalText = option(
        None, "With --baseline-url: name of the model there.  [default: that of --model]"
    )


def baseline_server(options: RunOptions) -> BaselineServer | None:
    """Return the server that makes the baselines; None where the model itself does.

    Raises `EndpointError` for an address or options that cannot be used with it.
    """
    if options.baseline_url is None:
        if options.baseline_model is not None:
            raise EndpointError("--baseline-model names a model of --baseline-url, which is missing")
        return None
    for name in ONE_PROCESS:
        if getattr(options, name):
            raise EndpointError(
                "--baseline-url makes answers without thoughts for a model in one process; leave out "
                f"--{option_name(name)}"
            )
    return BaselineServer(
        url=check_url(options.baseline_url, "--baseline-url"),
        model=options.baseline_model or split_revision(options.model)[0],
        key_variable=key_variable(options),
        pace=pace(options),
    )
