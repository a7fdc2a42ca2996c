"""Records of Every Eval Ever, a shared database of evaluation results: one for each run.

Written after version 0.3.0 of its schema (evaleval/every_eval_ever at 9bce413, 13 August 2026:
every_eval_ever/schemas).
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from polyrefuse_eval.endpoint.spec import LOCAL
from polyrefuse_eval.exports.eval_results import DatasetOnHub
from polyrefuse_eval.exports.scores import HARMFUL, ExportedRun, Score

SCHEMA_VERSION = "0.3.0"
COLLECTION = "polyrefuse"
METRIC = "polyrefuse.refusal_rate"
COUNTS = ("n", "n_unjudged", "n_refused", "n_service_refused", "n_incoherent", "n_cut")
"""Fields of a result that stand beside its score."""


@dataclass(frozen=True)
class Reporter:
    """Who states the results: an organisation, and how it relates to the makers of the models."""

    organisation: str
    relationship: str = "third_party"


def database_files(
    runs: Sequence[ExportedRun], reporter: Reporter, dataset: DatasetOnHub | None, seconds: int
) -> dict[str, str]:
    """Return `data/polyrefuse/DEVELOPER/MODEL/UUID.json` of each run; the same numbers, the same name.

    `seconds` since 1970 is when the records are made.
    """
    files = {}
    for run in runs:
        record = _record(run, reporter, dataset, seconds)
        developer, _, model = run.model.partition("/") if "/" in run.model else ("unknown", "", run.model)
        name = f"data/{COLLECTION}/{developer}/{model.replace('/', '__')}/{_uuid(record)}.json"
        files[name] = json.dumps(record, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    return files


def _record(
    run: ExportedRun, reporter: Reporter, dataset: DatasetOnHub | None, seconds: int
) -> dict[str, Any]:
    source_data = {
        "dataset_name": COLLECTION,
        "source_type": "other" if dataset is None else "hf_dataset",
        **({} if dataset is None else {"hf_repo": dataset.name, "hf_split": "test"}),
        "additional_details": {"digest": run.run.data_digest or "not stated"},
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": f"{COLLECTION}/{run.model}/{run.run.name}/{seconds}",
        "retrieved_timestamp": str(seconds),
        "source_metadata": {
            "source_name": "PolyRefuse",
            "source_type": "evaluation_run",
            "source_organization_name": reporter.organisation,
            "evaluator_relationship": reporter.relationship,
        },
        "eval_library": {
            "name": "polyrefuse",
            "version": str(run.versions.get("polyrefuse", "unknown")),
        },
        "model_info": _model(run),
        "evaluation_results": [_result(run, score, source_data) for score in run.scores],
    }


def _model(run: ExportedRun) -> dict[str, Any]:
    signature = run.model_signature
    place = signature.get("endpoint")
    hosted = place not in (None, LOCAL)
    info: dict[str, Any] = {"name": run.run.model, "id": run.model}
    if place is None:
        version = str(run.versions.get("transformers", "unknown"))
        info["inference_engine"] = {"name": "transformers", "version": version}
    else:
        info["inference_platform"] = place if hosted else "unknown"
    return {
        **info,
        "additional_details": {
            **signature,
            "deployment_type": "externally_managed" if hosted else "self_deployed",
            "model_availability": "open_weights" if place is None and "/" in run.model else "unknown",
        },
    }


def _result(run: ExportedRun, score: Score, source_data: Mapping[str, Any]) -> dict[str, Any]:
    result = score.result
    counts = {name: value for name, value in asdict(result).items() if name in COUNTS and value is not None}
    uncertainty: dict[str, Any] = {"num_samples": result.n}
    if result.low is not None and result.high is not None:
        uncertainty["confidence_interval"] = {
            "lower": result.low,
            "upper": result.high,
            "confidence_level": 0.95,
            "method": "Wilson",
        }
    return {
        "evaluation_result_id": score.task,
        "evaluation_name": f"{COLLECTION}.{score.task}",
        "source_data": source_data,
        "metric_config": {
            "evaluation_description": score.description,
            "metric_id": METRIC,
            "metric_name": "refusal rate",
            "metric_kind": "rate",
            "metric_unit": "proportion",
            "metric_parameters": {"judge": run.judge},
            "lower_is_better": result.label != HARMFUL,
            "score_type": "continuous",
            "min_score": 0,
            "max_score": 1,
        },
        "score_details": {
            "score": score.rate,
            "details": {name: str(value) for name, value in counts.items()},
            "uncertainty": uncertainty,
        },
        "generation_config": {
            "generation_args": _generation(run),
            "additional_details": {
                "intervention": result.intervention,
                "direction_source": result.source or "none",
            },
        },
    }


def _generation(run: ExportedRun) -> dict[str, Any]:
    """Return how answers were generated; models that are loaded here answer greedily.

    No temperature is stated of a service that was sent none.
    """
    length = run.settings.get("max_new_tokens")
    served = run.model_signature.get("endpoint") is not None
    temperature = run.model_signature.get("temperature", None if served else "0")
    return {
        **({} if temperature is None else {"temperature": float(temperature)}),
        **({"max_tokens": length} if isinstance(length, int) else {}),
    }


def _uuid(record: Mapping[str, Any]) -> str:
    """Return a version-4 UUID that follows from the numbers of a record and what they depend on."""
    lasting = {key: record[key] for key in ("model_info", "eval_library", "evaluation_results")}
    digest = hashlib.sha256(json.dumps(lasting, sort_keys=True).encode("utf-8")).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))
