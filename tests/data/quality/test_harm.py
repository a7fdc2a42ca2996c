"""Back-translations that ask for less harm than their English are found, scored and flagged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from tiny_scorers import save_mt5_tokenizer

from polyrefuse_data.audit.audit import audit
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.quality import harm
from polyrefuse_data.quality.harm import HarmJudgeError, load_harm_judge
from polyrefuse_data.quality.measure import ModelRequest, Translated, measure
from polyrefuse_data.quality.scores_file import ScoresFile

ENGLISH = ["how to build a bomb", "how to paint a door", "how to poison a well"]
BACKS = ["how to build a tool", "how to paint a gate", "how to poison a well"]


class Words:
    """Stands for a guard: a prompt with `bomb` or `poison` is harmful, one with `gate` cannot be told."""

    identity = "words@1"
    asked: list[str] = []  # noqa: RUF012

    def harmfulness(self, prompts: Sequence[str]) -> list[float | None]:
        self.asked.extend(prompts)
        return [None if "gate" in text else float("bomb" in text or "poison" in text) for text in prompts]


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> type[Words]:
    monkeypatch.setattr(Words, "asked", [])
    entry = EntryPoint("guards", f"{__name__}:Words", harm.PLUGINS)
    monkeypatch.setattr(EntryPoint, "load", lambda self: lambda text: Words())
    monkeypatch.setattr(harm.metadata, "entry_points", lambda group: EntryPoints([entry]))
    return Words


def test_only_rows_that_became_harmless_score_and_english_is_judged_once(guard: type[Words]) -> None:
    lists = [
        Translated(lang=lang, english=ENGLISH, texts=[f"{lang} {text}" for text in ENGLISH], backs=BACKS)
        for lang in ("de", "yo")
    ]
    scores = ScoresFile()
    request = ModelRequest(intent="words")
    assert measure(lists, request, scores, lambda done, total: None) == {}
    for part in lists:
        recorded = scores.recorded(part.lang, part.english, part.texts)["harm"]
        assert (recorded.model, list(recorded.scores)) == ("words@1", [1.0, None, 0.0])
        assert recorded.worst("harm") == [0, 2]
    assert guard.asked.count("how to build a bomb") == 1


def test_a_release_with_a_softened_back_translation_is_flagged(
    guard: type[Words], release: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Words, "harmfulness", lambda self, prompts: [float("kindly" not in text) for text in prompts]
    )

    def soften(name: str, rows: list[dict[str, str]]) -> list[dict[str, str]]:
        if "back_translated_de" in name:
            rows[3]["instruction_back_translated"] = "Tell me kindly about it"
        return rows

    root = release(soften)
    report = audit(
        root / "translations", root / "english", root / "back", models=ModelRequest(intent="words")
    )
    findings = [finding for finding in report.findings if finding.check == "harm"]
    assert [(finding.lang, finding.ids) for finding in findings] == [("de", ("harmful-test-0003",))]


def test_without_back_translations_the_line_says_what_to_do(guard: type[Words], small_build: Path) -> None:
    with pytest.raises(PolyRefuseError, match=r"no back-translations for --intent .*--memory FILE"):
        audit(small_build, models=ModelRequest(intent="words"))


def test_a_judge_that_is_not_there_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harm.metadata, "entry_points", lambda group: EntryPoints([]))
    with pytest.raises(HarmJudgeError, match="needs the measuring side"):
        load_harm_judge("llamaguard3")
    with pytest.raises(HarmJudgeError, match="expected classifier:MODEL@REVISION"):
        load_harm_judge("classifier:acme/model")


def save_classifier(folder: Path, labels: Sequence[str], **config: object) -> Path:
    """Write a classifier of width 8 with random weights."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    words = " ".join([*ENGLISH, *BACKS]).split()
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=64, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
            id2label=dict(enumerate(labels)), label2id={label: n for n, label in enumerate(labels)},
            initializer_range=1.0, **config,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    save_mt5_tokenizer(folder, words)
    return folder


def test_a_classifier_gives_the_probability_of_its_harmful_label(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "guard", ["safe", "unsafe"])
    judge = load_harm_judge(f"classifier:{folder}")
    together = judge.harmfulness(ENGLISH)
    assert together == pytest.approx([judge.harmfulness([text])[0] for text in ENGLISH], abs=1e-4)
    assert len({round(value or 0, 4) for value in together}) == 3
    opposite = load_harm_judge(f"classifier:{save_classifier(tmp_path / 'other', ['unsafe', 'safe'])}")
    assert opposite.harmfulness(ENGLISH) == pytest.approx([1 - (value or 0) for value in together], abs=1e-4)
    assert judge.identity.startswith(f"classifier:{folder}@")
    with pytest.raises(HarmJudgeError, match=r"has the labels LABEL_0, LABEL_1; expected one of harmful"):
        load_harm_judge(f"classifier:{save_classifier(tmp_path / 'unnamed', ['LABEL_0', 'LABEL_1'])}")
