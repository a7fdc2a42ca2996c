"""Round trips of lists: BLEU by hand, sentence similarity of a tiny model, and both in an audit."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from fractions import Fraction
from math import exp, prod
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from polyrefuse_data.audit.audit import audit
from polyrefuse_data.audit.report import render_html, report_lines
from polyrefuse_data.build.package import read_rows
from polyrefuse_data.checks.round_trips import bleu_signature, corpus_bleu, measure_round_trip
from polyrefuse_data.checks.text import round_trip
from polyrefuse_data.cli.command import cli
from polyrefuse_data.core.errors import DatasetFolderError, MemoryFileError, PolyRefuseError
from polyrefuse_data.quality.measure import ModelRequest
from polyrefuse_data.quality.sentences import (
    SOURCE,
    SentenceModel,
    SimilarityError,
    compared,
    load_sentence_model,
)
from polyrefuse_data.translate.memory.store import BACK, Entry, TranslationMemory, Translator

ReleaseWriter = Callable[..., Path]
CAT, CAT_BACK, BIKE = "the cat sat on a mat", "the cat sat on the mat", "clean the old bike now"


def by_hand(*matches: tuple[int, int]) -> float:
    return 100.0 * float(prod(Fraction(*pair) for pair in matches)) ** 0.25


def test_bleu_is_what_counting_by_hand_gives() -> None:
    # words the, cat, sat, on, mat are there: 5 of 6; of the pairs 3 of 5, the triples 2 of 4, fours 1 of 3
    assert corpus_bleu([CAT], [CAT_BACK]) == pytest.approx(by_hand((5, 6), (3, 5), (2, 4), (1, 3)))
    # over two texts the counts are added up before they are divided: 74.2, where the mean of both is 76.9
    both = corpus_bleu([CAT, BIKE], [CAT_BACK, BIKE])
    assert both == pytest.approx(by_hand((10, 11), (7, 9), (5, 7), (3, 5)))
    assert both == pytest.approx(74.19, abs=0.005)
    assert corpus_bleu([BIKE, BIKE], [BIKE, BIKE]) == pytest.approx(100)
    # all that is there is right, but 5 words for 7: the penalty for brevity, exp(1 - 7/5)
    assert corpus_bleu([f"{BIKE} and here"], [BIKE]) == pytest.approx(100 * exp(1 - 7 / 5))
    assert bleu_signature().startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_rows_without_a_back_translation_do_not_count() -> None:
    trip = measure_round_trip("de", "harmful", "test", [CAT, BIKE, None], [CAT_BACK, None, BIKE])
    assert trip is not None
    assert (trip.rows, trip.similarity) == (1, None)
    assert trip.chrf == round_trip(CAT, CAT_BACK)
    assert trip.bleu == corpus_bleu([CAT], [CAT_BACK])
    assert measure_round_trip("de", "harmful", "test", [CAT, None], [None, BIKE]) is None
    values = measure_round_trip("de", "harmful", "test", [CAT, BIKE], [BIKE, CAT], [30, None], [0.2, 0.6])
    assert values is not None
    assert values.chrf == pytest.approx((30 + round_trip(BIKE, CAT)) / 2)
    assert values.similarity == pytest.approx(0.4)


def test_an_audit_of_a_release_has_bleu_of_its_back_translations(
    release: ReleaseWriter, tmp_path: Path
) -> None:
    def change(name: str, rows: list[dict[str, str]]) -> list[dict[str, str]]:
        if name == "harmful_test_back_translated_yo.json":
            rows[0]["instruction_back_translated"] = "Something else came back from there"
        return rows

    report = audit(release(change))
    trips = {one.lang: one for one in report.round_trips}
    assert {(one.label, one.split, one.rows) for one in trips.values()} == {("harmful", "test", 60)}
    assert trips["de"].bleu == pytest.approx(100)
    assert trips["de"].chrf == pytest.approx(100)
    assert 90 < trips["yo"].bleu < 99.9
    said = json.loads(json.dumps(report.to_dict()))["round_trips"]
    assert said["bleu_signature"] == bleu_signature()
    assert said["similarity_model"] is None
    assert said["lists"][0] == {
        "lang": "de", "label": "harmful", "split": "test", "rows": 60,
        "chrf": pytest.approx(100), "bleu": pytest.approx(100), "similarity": None,
    }  # fmt: skip
    lines = "\n".join(report_lines(report))
    assert bleu_signature() in lines
    assert "de    harmful   test            60   100.0  100.0           -" in lines
    page = tmp_path / "audit.html"
    render_html(report, page, show_texts=False)
    assert "<th>de harmful test</th><td>60</td><td>100.0</td><td>100.0</td><td>·</td>" in page.read_text(
        "utf-8"
    )


def test_a_build_finds_its_back_translations_in_a_memory(small_build: Path, tmp_path: Path) -> None:
    rows = [row for row in read_rows(small_build, "ja", "test") if row.label == "harmful"]
    path = tmp_path / "memory.sqlite"
    google = Translator("google", "1")
    with TranslationMemory(path, create=True) as memory:
        memory.add(Entry(row.text_en, "ja", google, row.text_en, BACK, row.text) for row in rows[:5])
        # made from a text that the build does not hold: it says nothing about the build
        memory.add([Entry(rows[5].text_en, "ja", google, "nonsense", BACK, "another text")])
    assert audit(small_build).round_trips == ()
    assert "Round trips" not in "\n".join(report_lines(audit(small_build)))
    (trip,) = audit(small_build, memory=path).round_trips
    assert (trip.lang, trip.label, trip.split, trip.rows) == ("ja", "harmful", "test", 5)
    assert trip.bleu == pytest.approx(100)
    with pytest.raises(MemoryFileError, match="no translation memory"):
        audit(small_build, memory=tmp_path / "absent.sqlite")
    arguments = ["audit", str(small_build), "--format", "json", "--memory", str(path)]
    done = CliRunner().invoke(cli, arguments)
    assert json.loads(done.stdout)["round_trips"]["lists"][0]["rows"] == 5


def test_similarity_that_cannot_be_had(
    small_build: Path, release: ReleaseWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DatasetFolderError, match="no back-translations for --similarity"):
        audit(small_build, similarity="model")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(
        SimilarityError, match=r"needs sentence_transformers, .* pip install 'polyrefuse\[similarity\]'"
    ):
        audit(release(), similarity="model")
    with pytest.raises(SimilarityError, match="names no model"):
        load_sentence_model("@main")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SentenceModel]:
    """A BERT with random weights in a folder, made from a config, with a tokenizer of whole words."""
    pytest.importorskip("sentence_transformers", reason="needs the extra 'similarity'")
    import tokenizers
    import torch
    import transformers

    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bert")
    unknown = {"unk_token": "[UNK]"}
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", **unknown}
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted({*f"{CAT} {CAT_BACK} {BIKE}".split()})]
    core = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: number for number, word in enumerate(words)}, **unknown)
    )
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    core.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=core, **special).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=24,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder, load_sentence_model(str(folder))


def test_an_embedding_is_the_mean_over_a_texts_own_tokens(encoder: tuple[Path, SentenceModel]) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder, model = encoder
    tokenizer, bert = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        alone = bert(**tokenizer([BIKE], return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
    texts = [f"{CAT} {CAT_BACK}", BIKE, CAT]
    embedded = model.embed(texts)
    assert np.linalg.norm(embedded, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    # beside a longer text there is padding, which must not count
    assert embedded[1] == pytest.approx(alone / np.linalg.norm(alone), abs=1e-5)
    assert model.embed(texts[::-1]) == pytest.approx(embedded[::-1], abs=1e-5)


def test_similarity_is_one_for_the_same_text_and_less_for_another(
    encoder: tuple[Path, SentenceModel],
) -> None:
    _, model = encoder
    same, near, far = model.similarities([CAT, CAT, CAT], [CAT, CAT_BACK, BIKE])
    assert same == pytest.approx(1, abs=1e-5)
    assert same > near > far
    # longer than the model has positions: cut, no error
    assert model.similarities([CAT * 40], [CAT * 40]) == pytest.approx([1], abs=1e-5)


def test_an_audit_with_a_sentence_model(
    encoder: tuple[Path, SentenceModel], release: ReleaseWriter, tmp_path: Path
) -> None:
    folder, _ = encoder
    report = audit(release(), similarity=str(folder))
    assert [one.similarity for one in report.round_trips] == pytest.approx([1, 1, 1], abs=1e-4)
    assert report.similarity_model is not None
    assert report.similarity_model.startswith(f"{folder}@")
    assert "1.000" in "\n".join(report_lines(report))
    with pytest.raises(SimilarityError, match="cannot be loaded"):
        load_sentence_model(str(tmp_path))
    with pytest.raises(SimilarityError, match="has no revisions"):
        load_sentence_model(f"{folder}@main")


def test_a_model_without_weights_in_safetensors_is_one_line(
    tmp_path: Path, encoder: tuple[Path, SentenceModel]
) -> None:
    import shutil

    import torch
    from safetensors.torch import load_file

    folder, _ = encoder
    shutil.copytree(folder, tmp_path / "pickled")
    weights = tmp_path / "pickled" / "model.safetensors"
    torch.save(load_file(weights), tmp_path / "pickled" / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(SimilarityError, match=r"cannot be loaded: .*safetensors"):
        load_sentence_model(str(tmp_path / "pickled"))


def test_a_model_with_a_pooling_of_its_own_is_pooled_so(
    tmp_path: Path, encoder: tuple[Path, SentenceModel]
) -> None:
    """The first token instead of the mean: another embedding."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    folder, mean = encoder
    transformer = Transformer(str(folder))
    SentenceTransformer(modules=[transformer, Pooling(16, pooling_mode="cls")]).save(str(tmp_path / "cls"))
    first_token = load_sentence_model(str(tmp_path / "cls"))
    assert first_token.embed([BIKE]) != pytest.approx(mean.embed([BIKE]), abs=1e-3)
    assert first_token.similarities([BIKE], [BIKE]) == pytest.approx([1], abs=1e-5)


GERMAN = ["der alte hund", "die kleine katze", "das rote rad", "ein neues haus"]
ENGLISH = ["the old dog", "the small cat", "the red bike", "a new house"]


WORDS = dict(zip(" ".join(GERMAN).split(), " ".join(ENGLISH).split(), strict=True))


class Dictionary:
    """Stands for a multilingual model: a text is the vector of its words, the German ones translated."""

    def encode(self, texts: list[str], **_: object) -> np.ndarray:
        order = list(dict.fromkeys(WORDS.values()))
        translated = [[WORDS.get(word, word) for word in text.split()] for text in texts]
        counts = np.array([[row.count(word) for word in order] for row in translated], dtype=np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_a_multilingual_model_finds_rows_nearer_to_the_source_of_another_row() -> None:
    model = SentenceModel(Dictionary(), "dictionary@1", "sentence-transformers/LaBSE", SOURCE)
    similarity, nearest = model.similarity_and_nearest(ENGLISH, GERMAN)
    assert similarity == pytest.approx([1, 1, 1, 1])
    assert max(nearest) < 0
    shifted = [GERMAN[0], *GERMAN[2:], GERMAN[1]]
    similarity, nearest = model.similarity_and_nearest(ENGLISH, shifted)
    assert [value > 0 for value in nearest] == [False, True, True, True]
    assert model.identity == "dictionary@1 of the translation"
    # the same English twice is no other row
    assert model.similarity_and_nearest([ENGLISH[0]] * 2, [GERMAN[0]] * 2)[1] == [-2.0, -2.0]


def test_the_source_is_compared_where_the_table_knows_the_model_or_it_is_said(
    encoder: tuple[Path, SentenceModel], release: ReleaseWriter
) -> None:
    assert compared("sentence-transformers/LaBSE@main", "auto") == SOURCE
    assert compared("sentence-transformers/all-MiniLM-L6-v2", "auto") == "english"
    folder, _ = encoder
    request = ModelRequest(similarity=str(folder), similarity_of=SOURCE, langs=frozenset({"de", "zh"}))
    report = audit(release(), models=request)
    assert {(each.check, each.lang) for each in report.models} == {
        (check, lang) for check in ("similarity", "nearest") for lang in ("de", "zh")
    }
    assert report.unjudged == {"similarity": ["yo"]}
    assert {trip.similarity for trip in report.round_trips} == {None}
    with pytest.raises(PolyRefuseError, match="name them with --model-langs"):
        audit(release(), models=ModelRequest(similarity=str(folder), similarity_of=SOURCE))
