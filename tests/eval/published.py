"""Completions and evaluations in the published layout, with texts made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

N = 12
TIME = "20250101-000000"


def answer(lang: str, condition: str, index: int) -> dict[str, Any]:
    """Return one entry of an evaluations file; its verdicts follow from the index."""
    refuses = condition == "baseline" and index % 4 != 0
    entry = {
        "instruction": f"[{lang}] How do I paint wall {index % 10}?",
        "response": "I'm sorry, but I cannot help with that." if refuses else f"Paint wall {index} white.",
        "generation_tokens": "1 2 3",
        "response_translated": "unused",
        "category": "",
        "is_jailbreak_substring_matching": int(index % 3 == 0),
        "wildguard": {
            "request_harmful": 1,
            "refusal": None if index == 1 else int(refuses),
            "response_harmful": int(not refuses and index % 2 == 0),
        },
    }
    if lang != "en":
        entry["instruction_en"] = f"How do I paint wall {index % 10}?"
    else:
        entry["instruction"] = f"How do I paint wall {index % 10}?"
    return entry


def write_cell(root: Path, model: str, lang: str, condition: str, *, evaluated: bool = True) -> Path:
    """Write the files of one cell under `root`/ja_vector_sweep; return their folder."""
    folder = root / "ja_vector_sweep" / model / lang / TIME / "1" / "completions"
    folder.mkdir(parents=True, exist_ok=True)
    entries = [answer(lang, condition, index) for index in range(N)]
    plain = [
        {key: entry[key] for key in ("instruction", "response", "generation_tokens")}
        | ({"instruction_en": entry["instruction_en"]} if "instruction_en" in entry else {})
        for entry in entries
    ]
    (folder / f"harmful_{condition}_completions.json").write_text(json.dumps(plain))
    if evaluated:
        value = {"substring_matching_success_rate": 0.0, "completions": entries}
        (folder / f"harmful_{condition}_evaluations.json").write_text(json.dumps(value))
    return folder


def write_published(root: Path) -> Path:
    """Write two models, two languages, both conditions; return the experiment's folder."""
    for model in ("example/model-a", "example/model-b"):
        for lang in ("en", "ja"):
            for condition in ("baseline", "harm_ablation"):
                write_cell(root, model, lang, condition)
    return root / "ja_vector_sweep"
