"""Tiny models without a network; one thread, since two on busy cores can be twenty times slower."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("MPLBACKEND", "Agg")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "benchmarks")]

torch = pytest.importorskip("torch", reason="the eval extra is not installed")
pytest.importorskip("transformers", reason="the eval extra is not installed")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYREFUSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with a chat template, as `from_pretrained` reads it."""
    from tiny import tiny_model, tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model("llama", layers=3).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build in English and German: 8 training, 4 validation, 5 test prompts of each label."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    from polyrefuse_data.core.schema import ROW_CHECKS, Row, arrow_schema, group_id, row_id, row_values

    folder = tmp_path_factory.mktemp("builds") / "tiny"
    words = {"en": ("How", "do", "I"), "de": ("Wie", "kann", "ich")}
    for lang, start in words.items():
        for split, count in (("train", 8), ("validation", 4), ("test", 5)):
            rows = []
            for label, verb in (("harmful", "break"), ("harmless", "paint")):
                for index in range(count):
                    english = f"How do I {verb} the {split} number {index * 7919 % 101}?"
                    text = english.replace("How do I", " ".join(start))
                    rows.append(
                        Row(
                            row_id(label, split, index),
                            group_id(english, label),
                            lang,
                            text,
                            english,
                            label,
                            split,
                            None,
                            None,
                            "tests",
                            "CC0-1.0",
                            "original",
                            None,
                            dict.fromkeys(ROW_CHECKS),
                            dict.fromkeys(ROW_CHECKS, False),
                        )
                    )
            (folder / lang).mkdir(parents=True, exist_ok=True)
            table = pa.Table.from_pylist([row_values(row) for row in rows], schema=arrow_schema())
            parquet.write_table(table, folder / lang / f"{split}.parquet")
    manifest = {
        "format": "polyrefuse-build-1",
        "digest": "d" * 64,
        "recipe": {"name": "tiny"},
        "complete": True,
    }
    (folder / "manifest.json").write_text(
        json.dumps({**manifest, "digest": "d" * 64, "files": {}, "languages": {}, "findings": []})
    )
    return folder
