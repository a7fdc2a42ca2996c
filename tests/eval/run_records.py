"""One record of each kind that a run writes."""

from __future__ import annotations

from polyrefuse_eval.results.records import (
    Completion,
    VerdictRecord,
)

SIGNATURE = {"model": {"model": "m", "revision": "1"}, "judges": ["native-1"], "settings": {"seed": 0}}


COMPLETION = Completion("a/baseline", "a", "g", "de", "harmful", "baseline", "Nein.", 2, True)


VERDICT = VerdictRecord(
    "a/baseline", "a", "g", "de", "harmful", "baseline", "native-1", None, "empty", None, False, None
)
