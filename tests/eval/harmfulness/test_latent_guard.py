"""The Latent Guard: fitted, kept, calibrated and used, on tiny models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import FAMILIES, GEMMA, PROMPTS, chat_model

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.unicode_text import without_final_punctuation
from polyrefuse_eval.directions.refusal_tokens import RefusalTokens
from polyrefuse_eval.errors import ChatModelError, GuardError
from polyrefuse_eval.harmfulness.behaviour import EditedPrompt, by_answers, by_first_token
from polyrefuse_eval.harmfulness.latent_guard import LabelledPrompts, LatentGuard, contrast_of, fit_guard
from polyrefuse_eval.models.activations import capture
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.intervene import Addition, applied
from polyrefuse_eval.results.positions import T_INST
from polyrefuse_eval.statistics.detection import Scored, detection_table, detections
from polyrefuse_eval.statistics.thresholds import Rule, Threshold

THINGS = ("tea", "rain", "a bridge", "old trains", "the moon", "bees", "salt", "maps")


def labelled(first: int = 0, last: int = 8) -> LabelledPrompts:
    """Prompts that differ in their last token, so that any model tells them apart there."""
    return LabelledPrompts(
        harmful=[f"How do I break {thing}!" for thing in THINGS[first:last]],
        harmless=[f"How do I draw {thing}?" for thing in THINGS[first:last]],
    )


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return chat_model()


@pytest.fixture(scope="module")
def guard(chat: ChatModel) -> LatentGuard:
    return fit_guard(chat, {"en": labelled(0, 5)}, metadata={"data": "d" * 64})


@pytest.mark.parametrize("family", FAMILIES)
def test_the_score_is_the_mean_difference_of_cosines_at_t_inst(family: str) -> None:
    chat = chat_model(family)
    guard = fit_guard(chat, {"en": labelled()})
    prompts = [*labelled().harmful, *PROMPTS]

    @torch.inference_mode()
    def states(text: str) -> torch.Tensor:
        (prompt,) = chat.encode([text])
        seen = [one.hidden for one in capture(chat, [prompt], range(chat.n_layers + 1), [T_INST])]
        return seen[0][0, 0].double()

    centroids = [
        torch.stack([states(text) for text in texts]).mean(0)
        for texts in (labelled().harmful, labelled().harmless)
    ]
    expected = []
    for text in prompts:
        hidden = states(text)
        cosines = [torch.nn.functional.cosine_similarity(hidden, one, dim=-1) for one in centroids]
        expected.append(float((cosines[0] - cosines[1]).mean()))
    assert max(expected) - min(expected) > 0.1
    assert guard.scores(prompts) == pytest.approx(expected, abs=1e-4)


def test_it_tells_unseen_prompts_apart_where_labels_show_at_t_inst(guard: LatentGuard) -> None:
    unseen = labelled(5, 8)
    assert all(verdict.unsafe for verdict in guard(unseen.harmful))
    assert not any(verdict.unsafe for verdict in guard(unseen.harmless))
    assert guard("How do I draw salt?")[0].score == pytest.approx(guard.scores(["How do I draw salt?"])[0])


def test_what_comes_after_t_inst_changes_nothing(chat: ChatModel, guard: LatentGuard) -> None:
    texts = list(labelled().harmful)
    assert guard.scores([f"{text} \n" for text in texts]) != pytest.approx([0] * len(texts), abs=1e-3)
    assert guard.scores(texts, tokens_per_batch=40) == pytest.approx(guard.scores(texts), abs=1e-5)
    chat.packs = False
    padded = guard.scores(texts)
    chat.packs = True
    assert padded == pytest.approx(guard.scores(texts), abs=1e-5)


def test_only_the_layers_needed_are_run(chat: ChatModel) -> None:
    shallow = fit_guard(chat, {"en": labelled()}, layers=[0, 1])
    ran: list[int] = []
    handles = [
        layer.register_forward_hook(lambda _m, _a, _o, index=index: ran.append(index))
        for index, layer in enumerate(chat.layers)
    ]
    original = [layer.self_attn.forward for layer in chat.layers]
    called: list[int] = []
    for index, layer in enumerate(chat.layers):
        layer.self_attn.forward = lambda *a, index=index, **k: (
            called.append(index),
            original[index](*a, **k),
        )[1]
    try:
        shallow.scores(["Sing."])
        assert called == [0]
        called.clear()
        fit_guard(chat, {"en": labelled()}).scores(["Sing."])
        assert set(called) == {0, 1, 2}
    finally:
        for handle, layer, forward in zip(handles, chat.layers, original, strict=True):
            handle.remove()
            layer.self_attn.forward = forward


def test_final_punctuation_is_read_unless_it_is_removed(chat: ChatModel, tmp_path: Path) -> None:
    prompts = {"en": labelled()}
    asked = ["Paint it", "Paint it.", "Paint it ?!…  ", "Paint it。"]
    kept = fit_guard(chat, prompts).scores(asked)
    assert len(set(kept)) == len(asked)
    bare = fit_guard(chat, prompts, final_punctuation="removed")
    bare.save(tmp_path / "bare.safetensors")
    for guard in (bare, LatentGuard.load(tmp_path / "bare.safetensors", chat)):
        assert guard.scores(asked) == pytest.approx([guard.scores(["Paint it"])[0]] * 4, abs=1e-6)
    with pytest.raises(PolyRefuseError, match="final punctuation is 'gone'; expected kept or removed"):
        fit_guard(chat, prompts, final_punctuation="gone")
    stripped = LabelledPrompts(
        harmful=[prompt.rstrip("!") for prompt in labelled().harmful],
        harmless=[prompt.rstrip("?") for prompt in labelled().harmless],
    )
    assert torch.allclose(bare.contrasts["en"], fit_guard(chat, {"en": stripped}).contrasts["en"])


@given(st.text())
def test_only_the_end_loses_its_punctuation(text: str) -> None:
    bare = without_final_punctuation(text)
    assert text.startswith(bare)
    assert without_final_punctuation(bare) == bare
    assert without_final_punctuation("Say “yes, no” twice" + " ?!") == "Say “yes, no” twice"
    assert without_final_punctuation("…?") == "…?"


def test_a_saved_guard_scores_as_before_and_knows_where_it_is_from(
    chat: ChatModel, guard: LatentGuard, tmp_path: Path
) -> None:
    calibrated = guard.calibrated(Rule("balanced"), {"en": ([0.1, 0.2, 0.3], [-0.1])})
    calibrated.save(tmp_path / "g.safetensors")
    loaded = LatentGuard.load(tmp_path / "g.safetensors", chat)
    assert loaded.scores(PROMPTS) == guard.scores(PROMPTS)
    assert loaded.thresholds == {"en": Threshold(0.0, "balanced", 3, 1)}
    assert loaded.metadata["model"] == chat.signature()
    assert loaded.metadata["counts"] == {"en": {"n_harmful": 5, "n_harmless": 5}}
    assert loaded.metadata["data"] == "d" * 64
    assert loaded.layers == (0, 1, 2, 3)
    assert (tmp_path / "g.safetensors").stat().st_size < 4 * 32 * 4 + 4000
    assert [file.name for file in tmp_path.iterdir()] == ["g.safetensors"]


def test_a_guard_of_another_model_or_template_is_refused(guard: LatentGuard, tmp_path: Path) -> None:
    file = tmp_path / "g.safetensors"
    guard.save(file)
    with pytest.raises(GuardError, match=r"another model: .*template_hash"):
        LatentGuard.load(file, chat_model(template=GEMMA))
    with pytest.raises(GuardError, match="model tiny-llama there, tiny-qwen2 here"):
        LatentGuard.load(file, chat_model("qwen2"))
    with pytest.raises(GuardError, match="guard fit"):
        LatentGuard.load(tmp_path / "none.safetensors", guard.chat)
    file.write_bytes(b"no")
    with pytest.raises(GuardError, match="not a safetensors file"):
        LatentGuard.load(file, guard.chat)


def test_a_path_may_be_a_string_and_what_is_no_file_is_one_line(guard: LatentGuard, tmp_path: Path) -> None:
    guard.save(str(tmp_path / "g.safetensors"))
    loaded = LatentGuard.load(str(tmp_path / "g.safetensors"), guard.chat)
    assert loaded.scores(PROMPTS) == guard.scores(PROMPTS)
    for missing in ("x", str(tmp_path), str(tmp_path / "none" / "g.safetensors")):
        with pytest.raises(GuardError, match=rf"no file '{missing}'; make one with: "):
            LatentGuard.load(missing, guard.chat)


def test_a_guard_of_numbers_that_are_none_is_refused(guard: LatentGuard, tmp_path: Path) -> None:
    contrast = guard.contrasts["en"].clone()
    contrast[0, 0] = float("nan")
    replace(guard, contrasts={"en": contrast}).save(tmp_path / "g.safetensors")
    with pytest.raises(GuardError, match=r"tensor en: .*; expected finite numbers"):
        LatentGuard.load(tmp_path / "g.safetensors", guard.chat)


def test_languages_are_one_for_all_prompts_or_one_for_each(guard: LatentGuard) -> None:
    with pytest.raises(GuardError, match="2 prompts and 1 languages; give one language for each"):
        guard(["Sing.", "Dance."], ["en"])


def test_languages_have_guards_and_thresholds_of_their_own(chat: ChatModel) -> None:
    own = fit_guard(chat, {"en": labelled(0, 4), "de": labelled(4, 8)})
    alone = fit_guard(chat, {"de": labelled(4, 8)})
    assert own.scores(PROMPTS, "de") == pytest.approx(alone.scores(PROMPTS, "de"))
    assert own.scores(PROMPTS, "de") != pytest.approx(own.scores(PROMPTS, "en"), abs=1e-3)
    mixed = own.scores(PROMPTS[:2], ["en", "de"])
    assert mixed == pytest.approx([own.scores(PROMPTS[:1], "en")[0], own.scores(PROMPTS[1:2], "de")[0]])
    with pytest.raises(GuardError, match="fitted in en, de"):
        own.scores(PROMPTS, "yo")
    with pytest.raises(GuardError, match="unnamed language"):
        own(PROMPTS)
    pooled = fit_guard(chat, {"en": labelled(0, 4), "de": labelled(4, 8)}, pooled=True)
    whole = fit_guard(chat, {"en": labelled()})
    assert pooled.scores(PROMPTS, "yo") == pytest.approx(whole.scores(PROMPTS), abs=1e-5)
    bounded = pooled.calibrated(
        Rule("conformal", 0.5), {"en": ([1.0, 2.0, 3.0], []), "yo": ([-1.0, 0.5, 3.0], [])}
    )
    assert [bounded(["Sing."], lang)[0].alpha for lang in ("en", "yo", "de", None)] == [2.0, 0.5, 0.5, 0.5]


def test_too_few_prompts_say_how_many_there_are_and_what_to_do(chat: ChatModel) -> None:
    few = LabelledPrompts(harmful=labelled().harmful[:3], harmless=labelled().harmless)
    with pytest.raises(
        GuardError, match=r"3 refused harmful prompts in 'yo', and a centroid needs 4.*--train"
    ):
        fit_guard(chat, {"yo": few})
    with pytest.raises(GuardError, match="0 accepted harmless prompts in 'pooled'"):
        fit_guard(chat, {"yo": LabelledPrompts(harmful=labelled().harmful, harmless=[])}, pooled=True)
    with pytest.raises(GuardError, match="which has 0 to 3"):
        fit_guard(chat, {"yo": labelled()}, layers=[4])


def test_prompts_that_cannot_be_read_are_refused(guard: LatentGuard) -> None:
    with pytest.raises(ChatModelError, match="empty prompt"):
        guard(["fine", " "])
    with pytest.raises(ChatModelError, match="reads 512"):
        guard(["many words " * 300])
    assert guard([]) == []


def test_equal_centroids_give_no_score_at_a_layer() -> None:
    one = torch.ones(2, 3)
    assert float(contrast_of(one, 2 * one).abs().max()) < 1e-7
    assert float(contrast_of(torch.zeros(2, 3), torch.zeros(2, 3)).abs().max()) == 0


def test_detections_count_what_they_say() -> None:
    def made(label: str, kind: str, scores: list[float], lang: str = "en") -> list[Scored]:
        return [Scored(f"{kind}{i}", lang, label, kind, s, s >= 0) for i, s in enumerate(scores)]

    scored = [
        *made("harmful", "data", [1.0, 2.0, -1.0]),
        *made("harmless", "data", [-2.0, 1.0]),
        *made("harmful", "suffix", [-3.0, 3.0]),
        *made("harmless", "refused", [-5.0], "yo"),
    ]
    whole, data, suffix, *yoruba = detections(scored, "data")
    assert (whole.kind, whole.miss.hits, whole.miss.n, whole.false_alarm.hits) == ("all", 2, 5, 1)
    assert (data.accuracy.hits, data.accuracy.n) == (3, 5)
    assert data.auroc == pytest.approx((1.5 + 2 + 1) / 6)
    assert (suffix.against, suffix.auroc) == ("data", pytest.approx((0 + 2) / 4))
    assert suffix.false_alarm.rate is None
    assert [one.auroc for one in yoruba] == [None, None]
    assert "| en | suffix | 2 | 0.500 [0.112, 0.888] (vs data) |" in detection_table([whole, data, suffix])
    piped = detection_table([replace(suffix, kind="a|b")])
    assert "| en | a\\|b | 2 |" in piped
    silent = [
        replace(one, score=None, unsafe=None if one.id == "data0" else one.unsafe) for one in scored[:5]
    ]
    _, undecided = detections(silent, "data")
    assert undecided.auroc is None
    assert (undecided.miss.hits, undecided.miss.n, undecided.miss.n_unjudged) == (1, 2, 1)
    assert "| en | data | 3 (+2 undecided) |  |" in detection_table([undecided])


def test_behaviour_by_answers_and_by_first_token_obeys_edits() -> None:
    """Pushed far along one vector, a model says the same whatever it was asked: that is its refusal."""
    chat = chat_model(initializer_range=1.0)
    push = (Addition(1000 * torch.randn(32, generator=torch.Generator().manual_seed(0)), 2, tokens=(-1,)),)
    with applied(chat, push), torch.inference_mode():
        (prompt,) = chat.encode(["Sing."])
        logits = chat.model(input_ids=torch.tensor([prompt.ids])).logits[0, -1]
    tokens = {"en": RefusalTokens("en", tuple(logits.topk(5).indices.tolist()))}
    prompts = [EditedPrompt(text, "en") for text in PROMPTS]
    pushed = [EditedPrompt(text, "en", push) for text in PROMPTS]
    assert by_first_token(chat, tokens)(prompts) == [False] * len(prompts)
    assert by_first_token(chat, tokens, batch_size=2)([*pushed, *prompts]) == [True] * 7 + [False] * 7
    verdicts = by_answers(chat, max_new_tokens=4)([*prompts, *pushed])
    assert set(verdicts) <= {False, None}
    assert len(verdicts) == 2 * len(prompts)
