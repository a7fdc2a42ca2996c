"""Check what `prompts.jsonl` states of the prompts: their sources, types and contrast pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from polyrefuse_eval.report.differing import different
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.subset_files import PROMPTS_FILE, prompt_record, read_prompts


def prompt_problems(folder: RunFolder, data: DataFolder | None) -> Iterator[str]:
    """Yield prompts of another group or label than their verdicts are, and pairs that are no pairs.

    With `data`, also prompts of another source, type or pair than there.
    """
    prompts = read_prompts(folder)
    if not prompts:
        return
    seen: set[str] = set()
    for judge in folder.judges():
        for lang in folder.judged_languages(judge):
            for verdict in folder.verdicts(judge, lang):
                prompt = prompts.get(verdict.id)
                if verdict.id in seen:
                    continue
                seen.add(verdict.id)
                if prompt is None:
                    yield f"{PROMPTS_FILE} lacks {verdict.id}, on which there are verdicts"
                elif (prompt.group, prompt.label) != (verdict.group, verdict.label):
                    yield f"{PROMPTS_FILE}: {verdict.id} is of another group or label than in its verdicts"
    labels: dict[str, list[str]] = {}
    for prompt in prompts.values():
        if prompt.pair is not None:
            labels.setdefault(prompt.pair, []).append(prompt.label)
    for pair, of_pair in labels.items():
        if len(of_pair) != len(set(of_pair)):
            yield f"{PROMPTS_FILE}: pair {pair} has {len(of_pair)} prompts; one of each label makes a pair"
    if data is None:
        return
    known = {row.id: prompt_record(row) for lang in data.languages for row in data.rows(lang, "test")}
    for name, prompt in prompts.items():
        if name in known:  # others are on prompts that `data` lacks, which verdicts tell
            yield from different(
                f"{PROMPTS_FILE}: {name}", asdict(prompt), asdict(known[name]), basis="the data set states"
            )
