"""The records that a run writes; their JSON Schemas are in `schemas/`.

A record checks its own invariants when it is made, by hand or from a file: counts that add up, rates that
are the ratio of their counts, intervals that hold their rate.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, with_config

from polyrefuse_eval.results.agreement_records import AgreementFile
from polyrefuse_eval.results.cost_records import AnswerCostRecord, ConditionCost
from polyrefuse_eval.results.fields import (
    ConditionName,
    Count,
    Difference,
    Finite,
    Intervention,
    Label,
    Lang,
    Name,
    Note,
    Sha256,
    Share,
    Source,
    check,
    check_ends,
    check_interval,
    check_ratio,
    check_share,
    check_signature,
)
from polyrefuse_eval.results.files import write_json
from polyrefuse_eval.results.harmfulness_records import HarmfulnessFile
from polyrefuse_eval.results.settings import Condition
from polyrefuse_eval.results.subset_records import ContrastResult, PromptRecord, SubsetResult
from polyrefuse_eval.results.summary_records import Summary
from polyrefuse_eval.results.validation import STRICT, json_schema
from polyrefuse_eval.statistics.rates import bounds

RUN_FORMAT = "polyrefuse-run-3"

COUNTS_OF_ANSWERS = (
    "n_incoherent",
    "n_puzzled",
    "n_in_language",
    "n_in_english",
    "n_cut",
    "n_unfinished",
    "n_second",
    "n_sampled",
    "n_harm_judged",
)
"""Fields of `Result` that count some of its answers."""


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class ServiceNote:
    """What a service says of an answer: which version made it, how many tokens it counted, and why it
    refused where it did so itself; None where it says nothing."""

    model: Name | None
    system_fingerprint: Name | None
    refusal: Name | None
    prompt_tokens: Count | None
    completion_tokens: Count | None


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class Completion:
    """One answer: `key` is `<row id>/<condition>`; `ended` is False where it was cut.

    `n_tokens` and `ended` are None where the answer was read from elsewhere. `reasoning` is what the model
    thought before it answered, None where it did not. `service` is of answers that a service made: a model
    behind an endpoint, or a server of baselines.
    """

    key: Name
    id: Name
    group: Name
    lang: Lang
    label: Label
    condition: ConditionName
    response: str
    n_tokens: Count | None
    ended: bool | None
    reasoning: str | None = None
    service: ServiceNote | None = None

    def __post_init__(self) -> None:
        check(self.key == f"{self.id}/{self.condition}", "its key is not its id and condition")

    @property
    def response_sha256(self) -> str:
        """The sha256 of the answer, which a verdict on it carries."""
        return hashlib.sha256(self.response.encode("utf-8", "surrogatepass")).hexdigest()


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class VerdictRecord:
    """What a judge says of one completion; None in any field means that it cannot tell.

    `harmful` and `score` are those of judges that measure harm. `response_sha256` is that of the answer
    which was judged; None in files of older versions, whose verdicts cannot be verified. A `puzzled`
    response did not understand what was asked. `decided_by` and `second_opinion` are those of a cascade of
    two judges. A `service_refused` response is a refusal of the service in place of the model, which no
    judge has read.
    """

    key: Name
    id: Name
    group: Name
    lang: Lang
    label: Label
    condition: ConditionName
    judge: Name
    refused: bool | None
    reason: Note
    response_lang: Lang | None
    coherent: bool | None
    harmful: bool | None
    score: Share | None = None
    response_sha256: Sha256 | None = None
    puzzled: bool = False
    decided_by: Name | None = None
    second_opinion: bool | None = None
    service_refused: bool = False

    def __post_init__(self) -> None:
        check(not self.service_refused or self.refused is True, "a refusal of the service is none")
        check(self.key == f"{self.id}/{self.condition}", "its key is not its id and condition")


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class Result:
    """The refusal rate of one condition, label, language and judge with its 95 % Wilson interval.

    `n_service_refused` of the `n_refused` are refusals of the service, not in the model's words. `n` counts
    judged answers, `n_unjudged` those that the judge could not decide. Among both, `n_incoherent`
    are gibberish, `n_puzzled` did not understand what was asked, `n_in_language` are in the prompt's
    language and `n_in_english` in English (None where the judge tells no language), and `n_cut` were cut at
    the longest answer allowed (None where that is not known), `n_unfinished` of them in their reasoning.
    `refusal_least` and `refusal_most` are the rates if no undecided answer refused, and if all did. Of a
    cascade, the second judge decided `n_second` answers; it also read a sample of `n_sampled` others, and
    agreed on `n_sampled_same`. `harmful_rate` is the share of harmful answers
    among the `n_harm_judged` that the judge read for harm, None where it does not.
    """

    lang: Lang
    label: Label
    condition: ConditionName
    intervention: Intervention
    source: Source | None
    coefficient: Finite | None
    judge: Name
    n: Count
    n_unjudged: Count
    n_incoherent: Count
    n_refused: Count
    refusal_rate: Share | None
    low: Share | None
    high: Share | None
    n_harm_judged: Count = 0
    harmful_rate: Share | None = None
    n_puzzled: Count = 0
    n_in_language: Count | None = None
    n_in_english: Count | None = None
    n_cut: Count | None = None
    n_unfinished: Count = 0
    refusal_least: Share | None = None
    refusal_most: Share | None = None
    n_second: Count | None = None
    n_sampled: Count | None = None
    n_sampled_same: Count | None = None
    n_service_refused: Count = 0

    def __post_init__(self) -> None:
        check_share("refusal_rate", self.refusal_rate, self.n_refused, self.n)
        check_interval("refusal_rate", self.refusal_rate, (self.low, self.high))
        check(
            self.n_service_refused <= self.n_refused,
            f"n_service_refused is {self.n_service_refused} of {self.n_refused} refusals",
        )
        answers = self.n + self.n_unjudged
        for name in COUNTS_OF_ANSWERS:
            count = getattr(self, name)
            check(count is None or count <= answers, f"{name} is {count} of {answers} answers")
        for name, bound in zip(
            ("refusal_least", "refusal_most"),
            bounds(self.n_refused, self.n, self.n_unjudged) or (None, None),
            strict=True,
        ):
            stated = getattr(self, name)
            if stated is not None:
                check_ratio(name, stated, bound)
        if self.n_sampled_same is not None:
            check(self.n_sampled_same <= (self.n_sampled or 0), "it agrees on more than its sample")
        harmful = round((self.harmful_rate or 0.0) * self.n_harm_judged)
        check_share("harmful_rate", self.harmful_rate, harmful, self.n_harm_judged)
        named = Condition.parse(self.condition, self.coefficient)
        own = Condition(self.intervention, self.source, self.coefficient)
        check(named == own, f"its intervention, source and coefficient are not those of {self.condition}")


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class Comparison:
    """rate(condition) - rate(against) over prompts that were judged under both.

    `low` and `high`: paired bootstrap over prompt groups, 95 %. `p`: exact sign-flip test over groups,
    two-sided. `p_holm`: Holm's correction over the languages of one condition, label and judge. `n`
    counts prompts.
    """

    lang: Lang
    label: Label
    judge: Name
    condition: ConditionName
    against: ConditionName
    n: Count
    difference: Difference | None
    low: Difference | None
    high: Difference | None
    p: Share | None
    p_holm: Share | None

    def __post_init__(self) -> None:
        check((self.n == 0) == (self.difference is None), f"its difference is {self.difference} of {self.n}")
        check_ends("difference", self.difference, (self.low, self.high))
        check((self.p is None) == (self.difference is None), "it has p or a difference, and not both")
        if self.p is not None and self.p_holm is not None:
            check(self.p <= self.p_holm, f"p_holm {self.p_holm} is below p {self.p}")


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class AnsweredFile:
    """What `answered.json` holds: how many answers there are in each language, and whose directions."""

    answers: dict[Lang, Count]
    directions: tuple[Source, ...]


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class ServiceVersion:
    """How many answers a version of a service gave; None where it does not name model or fingerprint."""

    model: Name | None
    system_fingerprint: Name | None
    answers: Count


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class ServiceFile:
    """What `service.json` holds, of a run of a model behind an endpoint, or with baselines of a server.

    `refusals` are those of the service itself by its reason; the tokens are those that it counted.
    """

    versions: tuple[ServiceVersion, ...]
    refusals: dict[Name, Count]
    prompt_tokens: Count
    completion_tokens: Count


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class RunFile:
    """What `run.json` holds: the signature, and what was asked for where a command made the run.

    `own_languages` are the rows of languages that are not among the published ones, as a build's manifest
    has them: what reads the run alone takes their names from there.
    """

    format: Annotated[str, Field(pattern=f"^{RUN_FORMAT}$")]
    signature: dict[str, Any]
    request: dict[str, Any] | None = None
    own_languages: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        check_signature(self.signature)


KINDS: dict[str, type[Any]] = {
    "completion": Completion,
    "verdict": VerdictRecord,
    "result": Result,
    "comparison": Comparison,
    "prompt": PromptRecord,
    "subset": SubsetResult,
    "contrast": ContrastResult,
    "answer_cost": AnswerCostRecord,
    "condition_cost": ConditionCost,
    "agreement": AgreementFile,
    "answered": AnsweredFile,
    "service": ServiceFile,
    "summary": Summary,
    "harmfulness": HarmfulnessFile,
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
