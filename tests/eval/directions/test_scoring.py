"""The fast sweeps give the scores of the plain published loops, and leave out what decides nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import plain_directions as plain
import pytest
import torch
from directions import filter_ids
from tiny import CHATML, FAMILIES, MISTRAL, PROMPTS, chat_model
from torch import Tensor

from polyrefuse_eval.directions.answer_divergence import answer_batches
from polyrefuse_eval.directions.fit import (
    Direction,
    DirectionSet,
    direction_at,
    fit_directions,
    random_direction,
)
from polyrefuse_eval.directions.refusal_tokens import FirstTokenReference, RefusalTokens, refusal_scores
from polyrefuse_eval.directions.scoring import CandidateScorer, choose_direction, prompts_with_tendency
from polyrefuse_eval.directions.selection import read_scores, write_scores
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.models.activations import all_positions, capture
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.intervene import Ablation, applied
from polyrefuse_eval.results.positions import T_INST, Position

HARMFUL = PROMPTS[:4]
HARMLESS = PROMPTS[3:]
TOKENS = RefusalTokens("en", (40, 41, 77))


def scorer(chat: ChatModel, **more: object) -> CandidateScorer:
    directions = fit_directions(chat, HARMFUL, HARMLESS)
    return CandidateScorer(chat, directions, HARMFUL, HARMLESS, TOKENS, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "packs"), [*((family, True) for family in FAMILIES), ("llama", False), ("gemma2", False)]
)
def test_extraction_and_scores_equal_the_plain_loops(family: str, packs: bool) -> None:
    chat = chat_model(family, template=MISTRAL)
    chat.packs = packs
    mine = scorer(chat, tokens_per_batch=60)
    expected = plain.difference_in_means(chat, HARMFUL, HARMLESS)
    n_post = len(chat.post_instruction)
    torch.testing.assert_close(mine.directions.vectors[:n_post], expected, atol=1e-4, rtol=1e-4)
    assert expected.abs().max() > 0.1
    reference = plain.candidate_scores(chat, expected, HARMFUL, HARMLESS, TOKENS.ids)
    scores = mine.complete()
    assert len(scores) == len(reference) == n_post * chat.n_layers
    for score in scores:
        theirs = reference[int(score.position), score.layer]
        assert score.kl_div_score == pytest.approx(theirs["ablation_kl"], abs=1e-4, rel=1e-4)
        assert score.refusal_score == pytest.approx(theirs["ablation_harmful"], abs=1e-4, rel=1e-4)
        assert score.steering_score == pytest.approx(theirs["addition_harmless"], abs=1e-4, rel=1e-4)
    spread = {round(score.refusal_score or 0, 2) for score in scores}
    assert len(spread) > 2, "candidates must differ for this to say anything"


@torch.inference_mode()
def plain_answer_kl(chat: ChatModel, prompt: str, direction: Tensor, n_tokens: int) -> float:
    """Return the mean KL along the greedy unedited answer, with a whole pass for each of its tokens."""
    ids = list(chat.encode([prompt])[0].ids)
    ends = {chat.tokenizer.eos_token_id}
    divergences = []
    for _ in range(n_tokens):
        tokens = torch.tensor([ids])
        log_p = torch.log_softmax(chat.model(input_ids=tokens).logits[0, -1].double(), -1)
        with applied(chat, Ablation(direction)):
            log_q = torch.log_softmax(chat.model(input_ids=tokens).logits[0, -1].double(), -1)
        divergences.append(float((log_p.exp() * (log_p - log_q)).sum()))
        ids.append(int(log_p.argmax()))
        if ids[-1] in ends:
            break
    return sum(divergences) / len(divergences)


@pytest.mark.parametrize(("family", "packs"), [("llama", True), ("llama", False), ("gemma2", True)])
def test_kl_along_answers_equals_a_plain_loop_and_of_one_token_that_of_the_first(
    family: str, packs: bool
) -> None:
    chat = chat_model(family)
    chat.packs = packs
    longer = scorer(chat, kl_tokens=5, tokens_per_batch=90)
    first = {(score.position, score.layer): score for score in scorer(chat).complete()}
    scores = longer.complete()
    directions = {
        (score.position, score.layer): longer.directions.at(Position.parse(score.position), score.layer)
        for score in scores
    }
    compared = [score for score in scores if float(directions[score.position, score.layer].norm()) > 1e-6]
    for score in compared[:: len(compared) // 3]:
        direction = directions[score.position, score.layer]
        expected = [plain_answer_kl(chat, prompt, direction, 5) for prompt in HARMLESS]
        assert score.kl_div_score == pytest.approx(sum(expected) / len(expected), abs=2e-5, rel=2e-3)
        assert score.refusal_score == pytest.approx(
            first[score.position, score.layer].refusal_score, abs=1e-4
        )
    moved = [
        abs((score.kl_div_score or 0.0) - (first[score.position, score.layer].kl_div_score or 0.0))
        for score in scores
    ]
    assert max(moved) > 1e-3, "later tokens must matter for this to say anything"
    for batch in answer_batches(chat, HARMLESS, 1):
        assert batch.counts == (1,) * len(batch.batch.prompts)


def test_the_tokens_of_kl_are_recorded_with_the_direction_that_was_chosen() -> None:
    direction, _ = choose_direction(scorer(chat_model(), kl_tokens=3))
    assert direction.metadata["kl_tokens"] == 3
    assert "kl_tokens" not in choose_direction(scorer(chat_model()))[0].metadata


MORE = [
    [f"{prompt} {word}" for prompt in some for word in ["no", "yes", "now", "then", "ever"]]
    for some in (HARMFUL, HARMLESS)
]


@pytest.mark.parametrize("packs", [True, False])
def test_filtered_extraction_equals_the_plain_loops(packs: bool) -> None:
    chat = chat_model(layers=4)
    chat.packs = packs
    ids = filter_ids(chat, MORE)
    found = fit_directions(chat, *MORE, refusal_tokens=RefusalTokens("en", ids), tokens_per_batch=60)
    counts = found.metadata["counts"]
    assert counts["n_harmful_kept"] + counts["n_harmless_kept"] < sum(map(len, MORE))
    expected = plain.difference_in_means(chat, *MORE, ids)
    n_post = len(chat.post_instruction)
    torch.testing.assert_close(found.vectors[:n_post], expected, atol=1e-4, rtol=1e-4)
    assert (plain.difference_in_means(chat, *MORE) - expected).abs().max() > 1e-2


def test_each_prompt_is_scored_by_its_own_refusal_tokens() -> None:
    chat = chat_model(layers=4)
    ids = filter_ids(chat, MORE)
    harmful, harmless = MORE
    never = RefusalTokens("de", (0,))
    always = RefusalTokens("yo", tuple(range(1, chat.model.config.vocab_size)))
    tokens = [always if index % 2 else never for index in range(len(harmful))]
    tokens += [RefusalTokens("en", ids)] * len(harmless)
    mixed = fit_directions(chat, harmful, harmless, refusal_tokens=tokens).metadata["counts"]
    alone = fit_directions(chat, *MORE, refusal_tokens=RefusalTokens("en", ids)).metadata["counts"]
    assert mixed["n_harmful_kept"] == len(harmful) // 2
    assert mixed["n_harmless_kept"] == alone["n_harmless_kept"]


def test_several_candidates_in_one_pass_score_as_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import polyrefuse_eval.directions.scoring as module

    chat = chat_model(layers=4)
    one_by_one = scorer(chat).complete()
    monkeypatch.setitem(module.TOKENS_PER_PASS, "cpu", 2000)
    for together, alone in zip(scorer(chat).complete(), one_by_one, strict=True):
        assert together.refusal_score == pytest.approx(alone.refusal_score, abs=1e-4)
        assert together.steering_score == pytest.approx(alone.steering_score, abs=1e-4)
        assert together.kl_div_score == pytest.approx(alone.kl_div_score, abs=1e-4)


def test_selection_computes_what_decides_and_chooses_as_if_it_had_all() -> None:
    chat = chat_model(layers=5)
    for rule in ("robust", "wang2025"):
        lazy, full = scorer(chat), scorer(chat)
        full.complete()
        chosen = lazy.select(rule)
        assert chosen.score == pytest.approx(full.select(rule).score) or chosen.score.layer == (
            full.select(rule).score.layer
        )
        assert chosen.score.position == full.select(rule).score.position
        assert all(score.kl_div_score is None for score in lazy.all_scores() if score.layer >= 4)


def test_a_race_on_a_model_chooses_as_all_scores_do_and_records_what_it_dropped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import polyrefuse_eval.directions.racing as racing

    # Prompts of this model differ by hundredths of a nat; and there are only 20 of each label.
    monkeypatch.setattr(racing, "LEAST_DEVIATION", 0.0)
    monkeypatch.setattr(racing, "FIRST_PROMPTS", 5)
    chat = chat_model(layers=5)
    directions = fit_directions(chat, *MORE)
    race, full = (CandidateScorer(chat, directions, *MORE, TOKENS) for _ in range(2))
    scores = {(score.position, score.layer): score for score in full.complete()}
    direction, chosen = choose_direction(race)
    everything = full.select()
    assert (chosen.score.position, chosen.score.layer) == (everything.score.position, everything.score.layer)
    assert (chosen.step, chosen.relaxed) == (everything.step, everything.relaxed)
    for name, value in vars(scores[chosen.score.position, chosen.score.layer]).items():
        assert getattr(chosen.score, name) == pytest.approx(value, abs=1e-4)
    # Scores that are complete are those of all prompts; the others are missing, and the file says why.
    file = tmp_path / "scores.json"
    write_scores(file, race.all_scores(), race.dropped)
    records = json.loads(file.read_text())
    raced = [record for record in records if record["refusal_score"] is None and record["layer"] < 4]
    assert raced
    assert direction.metadata["measured"] < 0.8 < 1.0 == full.measured
    dropped = [record["dropped"][-1] for record in raced if "dropped" in record]
    assert len(dropped) == sum(record["layer"] > 0 for record in raced), "layer 0 has no direction here"
    assert {"step", "score", "prompts", "bound", "limit"} <= set(dropped[0])
    assert direction.metadata["dropped"][0]["prompts"] in (5, 10, 20)
    assert read_scores(file) == race.all_scores()


def test_the_chosen_direction_carries_its_story(tmp_path: object) -> None:
    chat = chat_model()
    direction, selection = choose_direction(scorer(chat))
    assert direction.metadata["selection"]["step"] == selection.step
    assert len(direction.metadata["scores"]) == len(chat.post_instruction) * chat.n_layers
    assert direction.metadata["refusal_tokens"]["ids"] == [40, 41, 77]
    assert float(direction.unit.norm()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_captured_activations_are_those_of_single_prompts(family: str) -> None:
    chat = chat_model(family)
    prompts = chat.encode(PROMPTS)
    positions = all_positions(chat)
    assert positions[-1] == T_INST
    layers = range(chat.n_layers + 1)
    got = torch.empty(len(prompts), len(positions), len(layers), chat.width)
    for part in capture(chat, prompts, layers, positions, tokens_per_batch=70):
        got[list(part.prompts)] = part.hidden
        assert part.logits is None
    for index, prompt in enumerate(prompts):
        with torch.inference_mode():
            states = chat.model(input_ids=torch.tensor([prompt.ids]), output_hidden_states=True).hidden_states
        columns = [*range(len(prompt) - prompt.n_post, len(prompt)), prompt.t_inst]
        for layer in range(chat.n_layers):
            torch.testing.assert_close(got[index, :, layer], states[layer][0, columns], atol=1e-4, rtol=1e-4)
    assert (got[:, -1] - got[:, -2]).abs().max() > 0.1, "t_inst is no post-instruction token"


def test_reading_only_some_layers_reads_the_same() -> None:
    chat = chat_model(layers=5)
    prompts = chat.encode(PROMPTS)
    (both,) = capture(chat, prompts, [1, 4], [T_INST], tokens_per_batch=10_000)
    (one,) = capture(chat, prompts, [1], [T_INST], tokens_per_batch=10_000)
    (with_logits,) = capture(chat, prompts, [1], [T_INST], tokens_per_batch=10_000, logits=True)
    # Passes of different shapes round differently.
    torch.testing.assert_close(both.hidden[:, :, :1], one.hidden, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(with_logits.hidden, one.hidden, atol=1e-5, rtol=1e-5)
    assert (both.hidden[:, :, 1:] - one.hidden).abs().max() > 1e-2, "layers differ"
    assert with_logits.logits is not None


def test_refusal_score_is_the_log_odds_of_the_summed_probability() -> None:
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(0)) * 3
    p = torch.softmax(logits.double(), -1)[:, [3, 9]].sum(-1)
    expected = torch.log(p + 1e-8) - torch.log(1 - p + 1e-8)
    torch.testing.assert_close(refusal_scores(logits, (3, 9)), expected, atol=1e-5, rtol=1e-5)
    certain = torch.zeros(1, 50)
    certain[0, 3] = 200.0
    assert torch.isfinite(refusal_scores(certain, (3,))).all()
    assert float(refusal_scores(certain, (3,))) > 15


def test_kl_is_zero_of_itself_and_grows() -> None:
    logits = torch.randn(4, 60, generator=torch.Generator().manual_seed(1))
    reference = FirstTokenReference(logits)
    assert reference.kl(logits).abs().max() < 1e-6
    near, far = (reference.kl(logits + scale * logits.flip(1)).mean() for scale in (0.1, 1.0))
    assert 0 < near < far


def test_many_prompts_are_scored_as_each_of_them_is() -> None:
    """More than are read at once, and a number of them that these do not divide."""
    generator = torch.Generator().manual_seed(5)
    base, edited = (3 * torch.randn(19, 50, generator=generator) for _ in range(2))
    p, q = base.double().softmax(-1), edited.double().softmax(-1)
    expected = (p * ((p + 1e-6).log() - (q + 1e-6).log())).sum(-1)
    torch.testing.assert_close(FirstTokenReference(base).kl(edited), expected, atol=1e-5, rtol=1e-4)
    refusing = p[:, [3, 9]].sum(-1)
    expected = (refusing + 1e-8).log() - (1 - refusing + 1e-8).log()
    torch.testing.assert_close(refusal_scores(base, (3, 9)), expected, atol=1e-5, rtol=1e-4)


def test_only_prompts_that_the_model_refuses_or_accepts_count() -> None:
    chat = chat_model()
    encoded = chat.encode(PROMPTS)
    (base,) = capture(chat, encoded, [0], [T_INST], logits=True, tokens_per_batch=10_000)
    assert base.logits is not None
    order = torch.tensor(base.prompts).argsort()
    best = int(base.logits[order][0].argmax())
    ids = tuple(torch.softmax(base.logits[order][0], -1).topk(40).indices.tolist())
    scores = refusal_scores(base.logits[order], ids)
    refused = [text for text, score in zip(PROMPTS, scores, strict=True) if score > 0]
    accepted = [text for text, score in zip(PROMPTS, scores, strict=True) if score < 0]
    assert refused, best
    tokens = RefusalTokens("en", ids)
    harmful = refused * 4
    harmless = [*refused, *(accepted or ["Sing."] * 4)] * 4
    if not accepted:
        with pytest.raises(DirectionError, match="harmless prompts"):
            fit_directions(chat, harmful, harmless[:2], refusal_tokens=tokens)
        return
    kept = fit_directions(chat, [*harmful, *accepted], harmless, refusal_tokens=tokens)
    assert kept.metadata["counts"]["n_harmful_kept"] == len(harmful)
    assert kept.metadata["counts"]["n_harmless_kept"] == 4 * len(accepted)
    expected = fit_directions(chat, harmful, accepted * 4)
    torch.testing.assert_close(kept.vectors, expected.vectors, atol=1e-4, rtol=1e-4)
    everything = fit_directions(chat, [*harmful, *accepted], harmless)
    assert (everything.vectors - kept.vectors).abs().max() > 1e-2


def test_a_direction_is_chosen_on_prompts_that_the_model_treats_as_they_are_labelled() -> None:
    chat = chat_model()
    (base,) = capture(chat, chat.encode(PROMPTS), [0], [T_INST], logits=True, tokens_per_batch=10_000)
    assert base.logits is not None
    logits = base.logits[torch.tensor(base.prompts).argsort()]
    # The likeliest tokens of all prompts, so many that about half of the prompts lean to them.
    order = logits.softmax(-1).mean(0).argsort(descending=True)
    count = next(n for n in range(1, len(order)) if (refusal_scores(logits, tuple(order[:n])) > 0).sum() >= 2)
    ids = tuple(order[:count].tolist())
    refused = [text for text, score in zip(PROMPTS, refusal_scores(logits, ids), strict=True) if score > 0]
    accepted = [text for text in PROMPTS if text not in refused]
    assert accepted
    tokens = RefusalTokens("en", ids)
    mixed = [*refused * 4, *accepted * 4]
    assert prompts_with_tendency(chat, mixed, tokens, refuse=True) == refused * 4
    assert prompts_with_tendency(chat, mixed, tokens, refuse=False) == accepted * 4
    few = [*refused[:1] * 3, *accepted * 4]
    assert prompts_with_tendency(chat, few, tokens, refuse=True) == few, "three are too few to choose by"


def test_too_few_prompts_left_say_how_many_and_the_way_out() -> None:
    chat = chat_model()
    with pytest.raises(DirectionError, match=r"0 of 4 harmful prompts in 'en' .*--no-filter"):
        fit_directions(chat, HARMFUL, HARMLESS, refusal_tokens=RefusalTokens("en", (3,)))
    with pytest.raises(DirectionError, match="give more prompts"):
        fit_directions(chat, HARMFUL[:2], HARMLESS)


def test_a_direction_comes_back_from_disk_as_it_was(tmp_path: object) -> None:
    from pathlib import Path

    chat = chat_model()
    path = Path(str(tmp_path)) / "direction.safetensors"
    direction, _ = choose_direction(scorer(chat))
    direction.save(path)
    again = Direction.load(path, chat)
    assert torch.equal(again.unit, direction.unit)
    assert (again.norm, again.layer, again.position, again.lang) == (
        direction.norm,
        direction.layer,
        direction.position,
        direction.lang,
    )
    assert again.metadata["model"] == chat.signature()
    assert again.metadata["counts"]["n_harmful_kept"] == 4
    bundle = Path(str(tmp_path)) / "set.safetensors"
    directions = fit_directions(chat, HARMFUL, HARMLESS, lang="yo")
    directions.save(bundle)
    loaded = DirectionSet.load(bundle)
    torch.testing.assert_close(loaded.vectors, directions.vectors, atol=1e-6, rtol=1e-6)
    assert (loaded.lang, loaded.positions, loaded.layers) == ("yo", directions.positions, directions.layers)


def test_a_direction_of_another_model_template_or_width_says_what_differs(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "direction.safetensors"
    choose_direction(scorer(chat_model()))[0].save(path)
    with pytest.raises(DirectionError, match="template_hash"):
        Direction.load(path, chat_model(template=MISTRAL))
    with pytest.raises(DirectionError, match="n_layers 3 there, 4 here"):
        Direction.load(path, chat_model(layers=4))
    with pytest.raises(DirectionError, match="model tiny-llama there, tiny-qwen2 here"):
        Direction.load(path, chat_model("qwen2"))
    with pytest.raises(DirectionError, match="no file"):
        Direction.load(path.with_name("none.safetensors"))
    path.write_bytes(b"rubbish")
    with pytest.raises(DirectionError, match="not a safetensors file"):
        Direction.load(path)


def test_controls_keep_the_norm_and_leave_the_direction() -> None:
    chat = chat_model()
    directions = fit_directions(chat, HARMFUL, HARMLESS)
    direction = direction_at(directions, Position(-1), 2)
    control = random_direction(direction, seed=3)
    assert float(control.vector.norm()) == pytest.approx(direction.norm, rel=1e-5)
    assert abs(float(control.unit @ direction.unit)) < 0.9
    assert torch.equal(control.unit, random_direction(direction, seed=3).unit)
    assert not torch.equal(control.unit, random_direction(direction, seed=4).unit)
    shuffled = fit_directions(chat, HARMFUL, HARMLESS, shuffle_labels=1)
    assert (shuffled.vectors - directions.vectors).abs().max() > 1e-3
    assert replace(direction).norm == direction.norm


def test_a_position_that_was_not_fitted_says_which_were() -> None:
    directions = fit_directions(chat_model(template=CHATML), HARMFUL, HARMLESS, positions=[Position(-1)])
    with pytest.raises(DirectionError, match="positions: -1, layers: 0-2"):
        directions.at(T_INST, 0)
