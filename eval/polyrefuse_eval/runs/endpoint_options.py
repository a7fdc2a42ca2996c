"""The options of a run that concern a model behind an endpoint."""

from __future__ import annotations

NEEDS_ACTIVATIONS = (
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
    "directions",
    "coefficient",
    "strengths",
    "crossed",
    "batch_size",
    "tensor_parallel",
)
"""Options of a run that mean nothing without the weights of the model."""

LEFT_OUT = {"directions": "none", "strengths": "none", "crossed": "0"}
"""Values that ask for nothing, and may stand beside an endpoint."""
