"""Local models on the workers of a cluster: the memory and the build are what they are here."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="local models need the extra 'local'")
pytest.importorskip("transformers", reason="local models need the extra 'local'")
pytest.importorskip("sentencepiece", reason="local models need the extra 'local'")
pytest.importorskip("distributed", reason="the dask extra is not installed")

from click.testing import CliRunner
from tiny_translator import tiny_m2m100

from polyrefuse_data.cli.command import cli
from polyrefuse_data.cluster.connect import ClusterOptions
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.core.schema import text_hash
from polyrefuse_data.http.faults import TranslatorError
from polyrefuse_data.prompts.sample import sample_prompts
from polyrefuse_data.translate.answers import Judge
from polyrefuse_data.translate.backends import local, remote
from polyrefuse_data.translate.deciding import RepeatedAnswers
from polyrefuse_data.translate.fill import Chain, LiveRequest, fill_memory
from polyrefuse_data.translate.memory.store import TranslationMemory
from polyrefuse_data.translate.progress import Tally

WORDS = sorted({word.strip(".,?") for prompt in sample_prompts()[:60] for word in prompt.text.split()})
ENGLISH = {text_hash(text): text for text in (f"Name {word}." for word in WORDS[:20])}
"""Two batches of short texts: random weights end an answer where its length must end."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("m2m")
    tiny_m2m100(folder, [prompt.text for prompt in sample_prompts()[:60]])
    return folder


def rows(memory: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that a memory holds, table by table, in the order of the file."""
    with sqlite3.connect(memory) as database:
        return {
            table: database.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
            for table in ("source_text", "translation", "answer")
        }


def filled(memory: Path, model: Path, **more: Any) -> tuple[dict[str, list[tuple[Any, ...]]], Any]:
    """Fill a memory; return its rows, and what could not be translated."""
    chain = Chain(LiveRequest(f"hf:{model}", back_translate=True, threads=1, **more))
    try:
        with TranslationMemory(memory, create=True) as opened:
            reasons = fill_memory(ENGLISH, ["de"], chain, opened, Tally())
    finally:
        chain.close()
    return rows(memory), reasons


def test_a_cluster_fills_the_memory_as_a_model_here_does(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Random weights write nothing that a judge would let pass, and the same for different texts.
    monkeypatch.setattr(Judge, "judge", lambda *_unused: [])
    monkeypatch.setattr(RepeatedAnswers, "add", lambda *_unused: False)
    here = filled(tmp_path / "here.sqlite", model)
    there = filled(tmp_path / "there.sqlite", model, cluster=ClusterOptions(workers=2))
    assert there == here
    assert (tmp_path / "here.sqlite").read_bytes() == (tmp_path / "there.sqlite").read_bytes()
    assert len(here[0]["translation"]) == 2 * len(ENGLISH)
    assert not here[1]


def test_what_workers_cannot_do_is_one_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TranslatorError, match="--translator names none"):
        Chain(LiveRequest("google", cluster=ClusterOptions()))
    chain = Chain(LiveRequest(f"hf:{model}", cluster=ClusterOptions(scheduler="nonsense")))
    with pytest.raises(TranslatorError, match="no Dask scheduler answers at 'nonsense'"):
        chain.backends[0].code(LANGUAGES["de"])
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "distributed", None)
        with pytest.raises(TranslatorError, match=r"pip install 'polyrefuse\[dask\]'"):
            chain.backends[0].code(LANGUAGES["de"])


def test_the_command_builds_on_a_cluster_only_where_that_is_asked_for() -> None:
    for arguments, told in {
        ("--scheduler", "tcp://127.0.0.1:9"): "--scheduler need --executor dask",
        ("--executor", "dask", "--workers", "2", "--scheduler", "x"): "name different clusters",
        ("--executor", "dask", "--translator", "replay"): "--translator names none",
    }.items():
        result = CliRunner().invoke(cli, ["build", "--recipe", "sample", *arguments])
        assert isinstance(result.exception, PolyRefuseError)
        assert told in str(result.exception)


def test_a_worker_with_other_weights_is_refused(model: Path) -> None:
    from polyrefuse_data.cluster.tasks import ModelSlot

    spec = local.local_spec(str(model), threads=1)
    slot = ModelSlot()
    work = remote.ModelCall(spec, "code", (LANGUAGES["de"],))
    assert work(slot) == "de"
    other = replace(work, spec=local.LocalSpec(spec.place, None, spec.identity, "0" * 12))
    with pytest.raises(TranslatorError, match="differ from those here"):
        other(slot)
    assert slot.key is None


def test_a_worker_says_which_way_its_model_goes(model: Path) -> None:
    from polyrefuse_data.cluster.tasks import ModelSlot

    spec, slot = local.local_spec(str(model), threads=1), ModelSlot()
    unknown = replace(LANGUAGES["de"], code="tlh", codes={})
    assert remote.ModelCall(spec, "translates", (LANGUAGES["en"], LANGUAGES["de"]))(slot)
    assert not remote.ModelCall(spec, "translates", (LANGUAGES["en"], unknown))(slot)


def test_a_slot_unloads_a_model_before_it_loads_another() -> None:
    from polyrefuse_data.cluster.tasks import ModelSlot

    events: list[str] = []
    slot = ModelSlot()

    def loader(name: str) -> Iterator[str]:
        events.append(f"load {name}")
        return iter(name)

    for name in ("a", "a", "b", "a"):
        slot.get(name, lambda name=name: loader(name), lambda _model: events.append("unload"))
    slot.clear()
    assert events == ["load a", "unload", "load b", "unload", "load a", "unload"]
