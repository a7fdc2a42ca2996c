"""Models of quality estimation score what their own formula gives, and their faults are one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_scorers import save_comet, save_metricx

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.quality.estimators import QualityError, load_estimator, parse_estimator
from polyrefuse_data.quality.known_languages import KNOWN, languages_of
from polyrefuse_data.quality.metricx import ERROR_TOKEN
from polyrefuse_data.quality.sentences import SimilarityError, check_modules

ENGLISH = ["how to clean a bike", "how to paint a door", "write a poem"]
TEXTS = ["wie man ein rad putzt", "wie man eine tür streicht", "schreibe ein gedicht"]
WORDS = " ".join(["source: candidate:", *ENGLISH, *TEXTS]).split()


@pytest.fixture(scope="module")
def metricx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    return save_metricx(tmp_path_factory.mktemp("scorers") / "metricx-24", WORDS)


def by_hand(folder: Path, text: str) -> float:
    import torch
    from transformers import AutoTokenizer, MT5ForConditionalGeneration

    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    model = MT5ForConditionalGeneration.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = model(input_ids=ids[:, :-1], decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).logits
    return float(logits[0, 0, ERROR_TOKEN].clamp(0, 25))


def test_metricx_reads_source_and_candidate_without_an_end_and_clamps_one_logit(metricx: Path) -> None:
    estimator = load_estimator(f"metricx:{metricx}")
    scores = estimator.scores(ENGLISH, TEXTS)
    inputs = [f"source: {source} candidate: {text}" for source, text in zip(ENGLISH, TEXTS, strict=True)]
    assert scores == pytest.approx([by_hand(metricx, text) for text in inputs], abs=1e-4)
    assert len(set(scores)) > 1
    assert estimator.identity.startswith(f"metricx:{metricx}@")
    # the order and the company of rows do not matter
    assert estimator.scores(ENGLISH[::-1], TEXTS[::-1]) == pytest.approx(scores[::-1], abs=1e-4)


def test_metricx_of_2023_reads_the_candidate_first(metricx: Path) -> None:
    folder = metricx.parent / "metricx-23"
    folder.symlink_to(metricx)
    scores = load_estimator(f"metricx:{folder}").scores(ENGLISH[:1], TEXTS[:1])
    assert scores == pytest.approx(
        [by_hand(metricx, f"candidate: {TEXTS[0]} source: {ENGLISH[0]}")], abs=1e-4
    )


def test_a_model_of_another_vocabulary_is_no_metricx(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = save_metricx(tmp_path / "small", WORDS, vocabulary=64)
    with pytest.raises(QualityError, match="vocabulary of 64 tokens; expected an mT5"):
        load_estimator(f"metricx:{folder}")
    (folder / "model.safetensors").unlink()
    with pytest.raises(QualityError, match="cannot be loaded"):
        load_estimator(f"metricx:{folder}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("komet:a/b@1", "unknown kind of model 'komet'; did you mean 'comet'"),
        ("comet:", "names no model"),
        ("metricx:google/metricx-24-hybrid-large-v2p6", "pin one"),
    ],
)
def test_names_that_are_no_model(text: str, message: str) -> None:
    with pytest.raises(QualityError, match=message):
        parse_estimator(text)


def test_the_table_says_which_model_knows_yoruba() -> None:
    none = frozenset[str]()
    assert "yo" not in languages_of("Unbabel/wmt22-cometkiwi-da", none)
    assert "yo" in languages_of("masakhane/africomet-qe-stl", none)
    assert all(langs >= {"en", "fr"} or "fr" in langs for langs in KNOWN.values())
    assert languages_of("folder", frozenset({"yo"})) == {"yo"}
    with pytest.raises(PolyRefuseError, match="name them with --model-langs"):
        languages_of("folder", none)


def test_comet_scores_as_its_own_client_does(tmp_path: Path) -> None:
    comet = pytest.importorskip("comet.models", reason="needs the extra 'comet'")
    import transformers

    if transformers.__version__ >= "5":
        pytest.skip("unbabel-comet runs with transformers 4")
    folder = save_comet(tmp_path / "kiwi", WORDS)
    estimator = load_estimator(f"comet:{folder}")
    scores = estimator.scores(ENGLISH, TEXTS)
    own = comet.load_from_checkpoint(str(_client_folder(folder) / "checkpoints" / "model.ckpt"))
    samples = [{"src": source, "mt": text} for source, text in zip(ENGLISH, TEXTS, strict=True)]
    expected = own.predict(samples, gpus=0, progress_bar=False, num_workers=0)["scores"]
    assert scores == pytest.approx(expected, abs=1e-5)
    assert len(set(scores)) > 1
    assert estimator.identity.startswith(f"comet:{folder}@")


def _client_folder(folder: Path) -> Path:
    """Return a copy of the checkpoint as Lightning writes it, which COMET's own loader reads."""
    import shutil

    import torch

    copy = folder.parent / "client"
    shutil.copytree(folder, copy)
    path = copy / "checkpoints" / "model.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"]["pretrained_model"] = str(folder / "encoder")
    torch.save({**checkpoint, "pytorch-lightning_version": "2.0.0"}, path)
    return copy


def test_a_checkpoint_that_holds_more_than_tensors_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("comet.models", reason="needs the extra 'comet'")
    import torch

    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "hparams.yaml").write_text("class_identifier: unified_metric\n", "utf-8")
    torch.save({"hyper_parameters": Path("x"), "state_dict": {}}, tmp_path / "checkpoints" / "model.ckpt")
    with pytest.raises(QualityError, match="cannot be read as weights alone"):
        load_estimator(f"comet:{tmp_path}")
    (tmp_path / "hparams.yaml").write_text("class_identifier: other\n", "utf-8")
    with pytest.raises(QualityError, match="is of kind 'other'"):
        load_estimator(f"comet:{tmp_path}")


def test_an_estimator_that_is_not_installed_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "comet", None)
    monkeypatch.setitem(sys.modules, "comet.models", None)
    with pytest.raises(QualityError, match=r"pip install 'polyrefuse\[comet\]'"):
        load_estimator(f"comet:{tmp_path}")


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ('[{"type": "sentence_transformers.models.Transformer"}, {"type": "evil.Module"}]', "evil.Module"),
        ('[{"type": ["x"]}]', "names code"),
        ('{"type": 1}', "is not a list of modules"),
        ("[" * 1000, "is not a list of modules"),
    ],
)
def test_code_in_the_folder_of_a_sentence_model_is_refused(
    tmp_path: Path, modules: str, message: str
) -> None:
    (tmp_path / "modules.json").write_text(modules)
    with pytest.raises(SimilarityError, match=message):
        check_modules(tmp_path, "folder")
