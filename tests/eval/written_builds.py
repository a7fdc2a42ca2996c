"""A build whose translations were chosen among candidates and judged for intent, for the mutations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from polyrefuse_data.build.pipeline import BuildRequest, build
from polyrefuse_data.prompts.sample import sample_prompts
from polyrefuse_data.publish.local_release import build_release
from polyrefuse_data.quality import measure
from polyrefuse_data.quality.measure import ModelRequest
from polyrefuse_data.translate.memory.store import BACK, Entry, TranslationMemory, Translator
from polyrefuse_eval.results.data import open_data

Read = Callable[[], Any]
TRANSLATORS = (Translator("first", "1"), Translator("second", "1"))


class _EveryOther:
    """Stands for a guard: every other prompt asks for harm."""

    identity = "every-other@1"

    def harmfulness(self, prompts: Sequence[str]) -> list[float | None]:
        return [float(len(text) % 2) for text in prompts]


def write_candidates(root: Path) -> None:
    """Write `root`/chosen: a build in English and German, with its memory and file of scores beside it."""
    german = {prompt.text: prompt.translations["de"] for prompt in sample_prompts()}
    with TranslationMemory(root / "chosen.sqlite", create=True) as memory:
        for number, translator in enumerate(TRANSLATORS):
            texts = {english: text + " Danke." * number for english, text in german.items()}
            memory.add([Entry(english, "de", translator, text) for english, text in texts.items()])
            memory.add(
                [
                    Entry(english, "de", translator, f"{english}!", direction=BACK, given=text)
                    for english, text in texts.items()
                ]
            )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "load_harm_judge", lambda text: _EveryOther())
        for prompt in sample_prompts():
            patch.delitem(prompt.translations, "de")  # type: ignore[arg-type]
        build(
            BuildRequest(
                "sample",
                langs=("en", "de"),
                size={"train": 4, "validation": 4, "test": 4},
                out=root / "chosen",
                memory=root / "chosen.sqlite",
                translator="replay:first,replay:second",
                candidates=2,
                scores=root / "chosen.jsonl",
                models=ModelRequest(intent="every-other"),
            )
        )


def candidate_readers(root: Path, out: Path, call: Callable[..., None]) -> Mapping[str, Mapping[str, Read]]:
    """Return who reads the files of `write_candidates`, by pattern of their names and command."""
    folder, memory, scores = root / "chosen", root / "chosen.sqlite", root / "chosen.jsonl"

    def exported(form: Sequence[str]) -> Read:
        def run() -> None:
            name = f"review-{len(list(out.iterdir()))}"
            call("review", "export", folder, "--memory", memory, "--out", out / f"{name}{form[0]}", *form[1:])

        return run

    page, argilla = exported([".html"]), exported(["", "--format", "argilla"])
    return {
        "chosen/manifest.json": {
            "audit": lambda: call("audit", folder, "--memory", memory, "--scores", scores, "-q"),
            "diff": lambda: call("diff", root / "build", folder),
            "publish": lambda: build_release(folder, allow_gaps=False),
            "open_data": lambda: open_data(folder),
            "review page": page,
            "review argilla": argilla,
        },
        "chosen/de/test.parquet": {"audit": lambda: call("audit", folder, "--scores", scores, "-q")},
        "chosen.sqlite": {
            "memory choices": lambda: call("memory", "choices", out / "chosen.jsonl", "--memory", memory),
            "review argilla": argilla,
        },
        "chosen.jsonl": {
            "audit": lambda: call("audit", folder, "--memory", memory, "--scores", scores, "-q"),
            "calibrate": lambda: call("calibrate", folder, "--scores", scores),
        },
    }
