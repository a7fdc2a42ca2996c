"""One record of each kind that a run writes."""

from __future__ import annotations

from typing import Any

from polyrefuse_eval.results.records import Completion, VerdictRecord

SIGNATURE = {"model": {"model": "m", "revision": "1"}, "judges": ["native-1"], "settings": {"seed": 0}}


COMPLETION = Completion(
    key="a/baseline",
    id="a",
    group="g",
    lang="de",
    label="harmful",
    condition="baseline",
    response="Nein.",
    n_tokens=2,
    ended=True,
)


def verdict_on(answer: Completion, judge: str, **said: Any) -> VerdictRecord:
    """Return what `judge` says of `answer`: undecided, but for what is given."""
    fields = {"refused": None, "reason": "", "response_lang": None, "coherent": None, "harmful": None, **said}
    return VerdictRecord(
        key=answer.key,
        id=answer.id,
        group=answer.group,
        lang=answer.lang,
        label=answer.label,
        condition=answer.condition,
        judge=judge,
        response_sha256=answer.response_sha256,
        **fields,
    )


VERDICT = verdict_on(COMPLETION, "native-1", reason="empty", coherent=False)
