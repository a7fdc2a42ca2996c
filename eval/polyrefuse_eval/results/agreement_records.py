"""Records of how far judges agree on the answers of a run."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import with_config

from polyrefuse_eval.results.fields import Count, Difference, Lang, Name, Share, check, check_ratio
from polyrefuse_eval.results.validation import STRICT
from polyrefuse_eval.statistics.agreement import cohen_kappa


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class AgreementRecord:
    """How far `judge` agrees with `reference` on the answers to harmful prompts in one language.

    Counts and measures as in `agreement.Agreement`, positive meaning refused. A judge of harm is read as
    saying that what is not harmful refuses. The compliance rates are each judge's own.
    """

    lang: Lang
    reference: Name
    judge: Name
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

    def __post_init__(self) -> None:
        counts = (self.both_refused, self.only_reference, self.only_judge, self.neither)
        check(sum(counts) == self.n, f"n is {self.n}; its counts add up to {sum(counts)}")
        check_ratio("kappa", self.kappa, cohen_kappa(*counts))
        refused, complied = counts[0] + counts[1], counts[2] + counts[3]
        check_ratio("sensitivity", self.sensitivity, counts[0] / refused if refused else None)
        check_ratio("specificity", self.specificity, counts[3] / complied if complied else None)


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class AgreementFile:
    """What `agreement.json` holds: a record for each language and pair of judges."""

    agreement: tuple[AgreementRecord, ...]
