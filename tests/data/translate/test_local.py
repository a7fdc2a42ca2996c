"""Local models: tiny ones with random weights, made from a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="local models need the extra 'local'")
pytest.importorskip("transformers", reason="local models need the extra 'local'")
pytest.importorskip("sentencepiece", reason="local models need the extra 'local'")

from tiny_translator import tiny_m2m100

from polyrefuse_data.core.languages import LANGUAGES, Language
from polyrefuse_data.http.faults import TranslatorError
from polyrefuse_data.prompts.sample import sample_prompts
from polyrefuse_data.translate.backends.base import Settings
from polyrefuse_data.translate.backends.local import LocalModel
from polyrefuse_data.translate.backends.registry import check_coverage, covers, make_chain, parse_chain

EN, DE, YO = (LANGUAGES[code] for code in ("en", "de", "yo"))
TEXTS = [prompt.text for prompt in sample_prompts()[:60]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    import torch

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("m2m")
    return (folder, *tiny_m2m100(folder, TEXTS))


def test_a_model_in_a_folder_translates_and_says_which_it_is(
    tiny: tuple[Path, Any, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    folder, *_ = tiny
    capfd.readouterr()
    (backend,) = make_chain(parse_chain(f"hf:{folder}"), Settings())
    assert capfd.readouterr() == ("", "")  # a quiet build prints nothing
    assert backend.translator.backend == "hf"
    assert backend.translator.version.startswith(f"{folder}@")
    assert len(backend.translator.version.rpartition("@")[2]) == 12
    answers = backend.translate(TEXTS[:3], EN, DE)
    assert len(answers) == 3
    assert all(answer.proven for answer in answers)
    assert backend.translate(TEXTS[:3], EN, DE) == answers


def test_a_batch_says_what_its_texts_say_alone(tiny: tuple[Path, Any, Any]) -> None:
    _, model, tokenizer = tiny
    backend = LocalModel(model, tokenizer, "tiny", beams=1)
    together = [answer.text for answer in backend.translate(TEXTS[:8], EN, DE)]
    alone = [backend.translate([text], EN, DE)[0].text for text in TEXTS[:8]]
    # random weights never end an answer: its length is the most that its batch allows
    assert all(one[:40] == other[:40] for one, other in zip(together, alone, strict=True))
    assert len(set(alone)) > 1


def test_the_two_languages_reach_the_model(
    tiny: tuple[Path, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model, tokenizer = tiny
    seen = {}

    def generate(**options: Any) -> Any:
        seen.update(options)
        return options["input_ids"]

    monkeypatch.setattr(model, "generate", generate)
    LocalModel(model, tokenizer, "tiny").translate(["Hello."], EN, YO)
    assert seen["forced_bos_token_id"] == tokenizer.convert_tokens_to_ids("__yo__")
    assert seen["input_ids"][0, 0] == tokenizer.convert_tokens_to_ids("__en__")
    assert seen["do_sample"] is False


def test_a_language_that_the_vocabulary_lacks_is_an_error(tiny: tuple[Path, Any, Any]) -> None:
    _, model, tokenizer = tiny
    backend = LocalModel(model, tokenizer, "tiny")
    assert backend.code(Language("sw", "Swahili", "Kiswahili")) == "sw"
    assert backend.code(Language("qq", "Nonsense", "Nonsense")) is None
    check_coverage([backend], ["en", "de", "yo"])


def test_a_model_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(TranslatorError, match="cannot be loaded"):
        make_chain(parse_chain(f"hf:{tmp_path}"), Settings())
    with pytest.raises(TranslatorError, match="needs a model"):
        make_chain(parse_chain("hf"), Settings())


def test_a_model_whose_files_lack_weights_is_refused_by_their_names(
    tiny: tuple[Path, Any, Any], tmp_path: Path
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny[0], tmp_path / "cut")
    weights = load_file(tmp_path / "cut" / "model.safetensors")
    lost = sorted(name for name in weights if "decoder.layers.1.fc" in name)
    rest = {name: tensor for name, tensor in weights.items() if name not in lost}
    save_file(rest, tmp_path / "cut" / "model.safetensors", {"format": "pt"})
    with pytest.raises(TranslatorError, match=f"cannot be loaded: .* lack '{lost[0]}'"):
        make_chain(parse_chain(f"hf:{tmp_path / 'cut'}"), Settings())


class MarianNames:
    """As much of an Opus-MT tokenizer as says which languages it knows."""

    def __init__(self, source: str, target: str, signs: tuple[str, ...] = ()) -> None:
        self.source_lang, self.target_lang = source, target
        self._vocab = {f">>{sign}<<": number for number, sign in enumerate(signs)}

    def get_vocab(self) -> dict[str, int]:
        return self._vocab

    def __call__(self, texts: list[str], **options: object) -> list[str]:
        return texts


def opus(tokenizer: MarianNames) -> Any:
    class Config:
        model_type = "marian"

    class Model:
        config = Config

    return LocalModel(Model, tokenizer, "opus")


def test_a_model_of_one_direction_is_not_asked_the_other_way() -> None:
    """An English-German model given German would answer something, and score as a back-translation."""
    there, back = opus(MarianNames("en", "de")), opus(MarianNames("deu", "eng"))
    assert covers(there, DE)
    assert not covers(there, DE, back=True)
    assert covers(back, DE, back=True)
    assert not covers(back, DE)
    with pytest.raises(TranslatorError, match=r"does not cover German"):
        check_coverage([back], ["de"])
    with pytest.raises(TranslatorError, match=r"does not translate from German \(de\) into English"):
        check_coverage([there], ["de"], back=True)
    check_coverage([there, back], ["de"], back=True)


def test_a_model_of_many_targets_is_told_the_right_one() -> None:
    """Spanish is `spa`; `est`, which begins with its code, is Estonian."""
    model = opus(MarianNames("eng", "mul", ("est", "spa", "cmn_Hans", "cmn_Hant", "yor")))
    names = {code: model.code(LANGUAGES[code]) for code in ("es", "zh", "yo", "de")}
    assert names == {"es": "spa", "zh": "cmn_Hans", "yo": "yor", "de": None}
    assert model._family.prepare(model._tokenizer, ["Hi"], "eng", "spa")[0] == [">>spa<< Hi"]
    assert [covers(model, LANGUAGES[code]) for code in ("es", "de")] == [True, False]
