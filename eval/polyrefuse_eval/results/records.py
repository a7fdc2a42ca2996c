"""The records that a run writes; their JSON Schemas are in `schemas/`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, with_config

from polyrefuse_eval.results.files import write_json
from polyrefuse_eval.results.validation import STRICT, json_schema
from polyrefuse_eval.statistics.rates import Rate

SUMMARY_FORMAT = "polyrefuse-summary-1"

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Difference = Annotated[float, Field(ge=-1, le=1)]
Label = Annotated[str, Field(pattern="^(harmful|harmless)$")]
ConditionName = Annotated[str, Field(pattern="^(baseline|(ablation|addition):[a-z]+(@[0-9.]+)?)$")]
Intervention = Annotated[str, Field(pattern="^(baseline|ablation|addition)$")]
SummaryFormat = Annotated[str, Field(pattern=f"^{SUMMARY_FORMAT}$")]


@with_config(STRICT)
@dataclass(frozen=True)
class Completion:
    """One answer: `key` is `<row id>/<condition>`; `ended` is False where it was cut.

    `n_tokens` and `ended` are None where the answer was read from elsewhere.
    """

    key: str
    id: str
    group: str
    lang: str
    label: Label
    condition: ConditionName
    response: str
    n_tokens: Count | None
    ended: bool | None


@with_config(STRICT)
@dataclass(frozen=True)
class VerdictRecord:
    """What a judge says of one completion; None in any field means that it cannot tell.

    `harmful` and `score` are those of judges that measure harm.
    """

    key: str
    id: str
    group: str
    lang: str
    label: Label
    condition: ConditionName
    judge: str
    refused: bool | None
    reason: str
    response_lang: str | None
    coherent: bool | None
    harmful: bool | None
    score: Share | None = None


@with_config(STRICT)
@dataclass(frozen=True)
class Result:
    """The refusal rate of one condition, label, language and judge with its 95 % Wilson interval.

    `n` counts judged answers, `n_unjudged` those that the judge could not decide, `n_incoherent` those
    among both that are gibberish. `harmful_rate` is the share of harmful answers among the
    `n_harm_judged` that the judge read for harm, None where it does not.
    """

    lang: str
    label: Label
    condition: ConditionName
    intervention: Intervention
    source: str | None
    coefficient: float | None
    judge: str
    n: Count
    n_unjudged: Count
    n_incoherent: Count
    n_refused: Count
    refusal_rate: Share | None
    low: Share | None
    high: Share | None
    n_harm_judged: Count = 0
    harmful_rate: Share | None = None


@with_config(STRICT)
@dataclass(frozen=True)
class Comparison:
    """rate(condition) - rate(against) over prompts that were judged under both.

    `low` and `high`: paired bootstrap over prompt groups, 95 %. `p`: exact sign-flip test over groups,
    two-sided. `p_holm`: Holm's correction over the languages of one condition, label and judge. `n`
    counts prompts.
    """

    lang: str
    label: Label
    judge: str
    condition: ConditionName
    against: ConditionName
    n: Count
    difference: Difference | None
    low: Difference | None
    high: Difference | None
    p: Share | None
    p_holm: Share | None


@with_config(STRICT)
@dataclass(frozen=True)
class AgreementRecord:
    """How far `judge` agrees with `reference` on the answers to harmful prompts in one language.

    Counts and measures as in `agreement.Agreement`, positive meaning refused. A judge of harm is read as
    saying that what is not harmful refuses. The compliance rates are each judge's own.
    """

    lang: str
    reference: str
    judge: str
    n: Count
    n_unjudged: Count
    both_refused: Count
    only_reference: Count
    only_judge: Count
    neither: Count
    kappa: Difference | None
    sensitivity: Share | None
    specificity: Share | None
    reference_compliance: Share | None
    judge_compliance: Share | None


@with_config(STRICT)
@dataclass(frozen=True)
class AgreementFile:
    """What `agreement.json` holds: a record for each language and pair of judges."""

    agreement: tuple[AgreementRecord, ...]


@with_config(STRICT)
@dataclass(frozen=True)
class Estimate:
    """A value in [0, 1] with its 95 % bootstrap interval over prompt groups; None of nothing."""

    value: Share | None
    low: Share | None
    high: Share | None


@with_config(STRICT)
@dataclass(frozen=True)
class Ablated:
    """Refusals of harmful prompts with the direction of `source` ablated.

    `drop` is the baseline's rate minus this one, over prompts judged under both, with its interval.
    """

    source: str
    hits: Count
    n: Count
    n_unjudged: Count
    rate: Share | None
    drop: Difference | None
    low: Difference | None
    high: Difference | None


@with_config(STRICT)
@dataclass(frozen=True)
class Tried:
    """An ablation coefficient and the refusal rate under it."""

    coefficient: float
    rate: Share | None


@with_config(STRICT)
@dataclass(frozen=True)
class HalfStrength:
    """The least ablation coefficient that leaves half of the refusals; None where no strengths were tried."""

    value: Share | None
    tried: tuple[Tried, ...]


@with_config(STRICT)
@dataclass(frozen=True)
class Transfer:
    """Mean share of refusals kept under ablation of the directions of other languages."""

    kept: Share | None
    sources: tuple[str, ...]


@with_config(STRICT)
@dataclass(frozen=True)
class Parts:
    """The parts of a robustness, None where not measured."""

    kept_own: Share | None
    half_strength: Share | None
    kept_transfer: Share | None


@with_config(STRICT)
@dataclass(frozen=True)
class Robustness:
    """The refusal robustness of one language; see `robustness.FORMULA`."""

    value: Share | None
    low: Share | None
    high: Share | None
    parts: Parts


@with_config(STRICT)
@dataclass(frozen=True)
class LanguageSummary:
    """What one judge says of one language: `baseline` on harmful, `over_refusal` on harmless prompts."""

    baseline: Rate
    over_refusal: Rate
    ablated: Ablated | None
    half_strength: HalfStrength
    transfer: Transfer
    robustness: Robustness


@with_config(STRICT)
@dataclass(frozen=True)
class Worst:
    """The language with the least robustness."""

    lang: str
    value: Share
    low: Share | None
    high: Share | None


@with_config(STRICT)
@dataclass(frozen=True)
class JudgeSummary:
    """The summary by one judge: each language, their mean, and the worst beside it."""

    languages: dict[str, LanguageSummary]
    mean: Estimate
    worst: Worst | None


@with_config(STRICT)
@dataclass(frozen=True)
class Summary:
    """What `summary.json` holds."""

    format: SummaryFormat
    formula: str
    judges: dict[str, JudgeSummary]


@with_config(STRICT)
@dataclass(frozen=True)
class RunFile:
    """What `run.json` holds: the signature, and what was asked for where a command made the run."""

    format: Annotated[str, Field(pattern="^polyrefuse-run-3$")]
    signature: dict[str, Any]
    request: dict[str, Any] | None = None


KINDS: dict[str, type[Any]] = {
    "completion": Completion,
    "verdict": VerdictRecord,
    "result": Result,
    "comparison": Comparison,
    "agreement": AgreementFile,
    "summary": Summary,
    "run": RunFile,
}
"""Records by the name of their schema file."""


def published_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema file of a record by its name in `KINDS`, as it is in the package."""
    source = files("polyrefuse_eval.results").joinpath("schemas", f"{name}.schema.json")
    schema: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    return schema


def write_schemas(folder: Path) -> None:
    """Write the schema files of all records to `folder`."""
    for name, kind in KINDS.items():
        write_json(folder / f"{name}.schema.json", json_schema(kind))
