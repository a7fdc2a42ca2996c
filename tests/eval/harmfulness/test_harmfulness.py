"""Harmfulness and refusal directions, clusters, steering and reply inversion, on tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import FAMILIES, PROMPTS, chat_model
from torch import Tensor

from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.harmfulness.behaviour import EditedPrompt
from polyrefuse_eval.harmfulness.by_category import by_category
from polyrefuse_eval.harmfulness.clusters import cluster_deltas
from polyrefuse_eval.harmfulness.directions import (
    HarmfulnessDirections,
    cosine,
    fit_harmfulness,
)
from polyrefuse_eval.harmfulness.experiment import HarmfulnessRun
from polyrefuse_eval.harmfulness.instructions import Instruction, spread
from polyrefuse_eval.harmfulness.latent_guard import contrast_of
from polyrefuse_eval.harmfulness.reply_inversion import (
    Inversion,
    Wording,
    answer_tokens,
    ask,
    invert,
    wordings,
)
from polyrefuse_eval.harmfulness.report import harmfulness_tables
from polyrefuse_eval.harmfulness.settings import HarmfulnessSettings
from polyrefuse_eval.harmfulness.steering_sweep import sweep
from polyrefuse_eval.models.activations import capture
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.token_spans import instruction_span, positions_of
from polyrefuse_eval.results.data import open_data
from polyrefuse_eval.results.harmfulness_records import (
    HARMFULNESS_FORMAT,
    Behaviour,
    BehaviourCounts,
    CategoryCosines,
    Flips,
    HarmfulnessFile,
    InversionRecord,
    LanguageHarmfulness,
    Point,
    SplitCounts,
    Steered,
)
from polyrefuse_eval.results.positions import T_INST, Position
from polyrefuse_eval.statistics.rates import rate

THINGS = ("tea", "rain", "a bridge", "old trains", "the moon", "bees")


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return chat_model()


def instructions() -> list[Instruction]:
    found = []
    for label, verb in (("harmful", "break"), ("harmless", "draw")):
        for index, thing in enumerate(THINGS):
            category = f"c{index % 2}" if index < 5 else "lone"
            found.append(
                Instruction(
                    id=f"{label}{index}",
                    lang="en",
                    text=f"How do I {verb} {thing}?",
                    label=label,
                    category=category,
                )
            )
    return found


REFUSED = [True, True, True, True, False, None, False, False, False, False, True, False]


@torch.inference_mode()
def states(chat: ChatModel, texts: list[str], position: Position) -> Tensor:
    """Hidden states [prompts, L + 1, d], one prompt at a time by the plain output_hidden_states."""
    rows = []
    for text in texts:
        (prompt,) = chat.encode([text])
        index = prompt.t_inst if position == T_INST else len(prompt) - 1
        hidden: list[Tensor] = []
        handle = chat.layers[-1].register_forward_hook(
            lambda _m, _a, output, hidden=hidden: hidden.append(output)
        )
        output = chat.model(input_ids=torch.tensor([prompt.ids]), output_hidden_states=True)
        handle.remove()
        rows.append(torch.stack([*(one[0, index] for one in output.hidden_states[:-1]), hidden[0][0, index]]))
    return torch.stack(rows).double()


def test_directions_and_centroids_are_the_means_that_they_are_said_to_be(chat: ChatModel) -> None:
    mine = instructions()
    found = fit_harmfulness(chat, mine, REFUSED, lang="en")
    texts = [one.text for one in mine]
    inst, post = states(chat, texts, T_INST), states(chat, texts, Position(-1))
    harmful = torch.tensor([one.label == "harmful" for one in mine])
    refused, accepted = (torch.tensor([one is value for one in REFUSED]) for value in (True, False))

    def same(got: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(got.double(), expected, atol=1e-4, rtol=1e-4)

    same(found.harmfulness, inst[harmful].mean(0) - inst[~harmful].mean(0))
    same(found.refusal, post[refused].mean(0) - post[accepted].mean(0))
    same(found.centroids["harmful"], inst[harmful & refused].mean(0))
    same(found.centroids["harmless"], inst[~harmful & accepted].mean(0))
    same(found.centroids["refused"], post[harmful & refused].mean(0))
    same(found.centroids["accepted"], post[~harmful & accepted].mean(0))
    assert found.metadata["counts"]["harmful"] == {"refused": 4, "accepted": 1, "unjudged": 1}
    assert list(found.categories) == [], "two or three prompts make no mean"
    assert found.cosines()[0] is None, "the template's last token has one embedding"
    assert found.cosines()[2] == pytest.approx(
        float(torch.nn.functional.cosine_similarity(found.harmfulness[2], found.refusal[2], dim=0)), abs=1e-5
    )


def test_categories_have_directions_of_their_own(chat: ChatModel) -> None:
    mine = [
        Instruction(id=f"{name}{i}", lang="en", text=f"How do I {verb} {thing}?", label=label, category=name)
        for name, verb, label in (
            ("a", "break", "harmful"),
            ("b", "burn", "harmful"),
            (None, "draw", "harmless"),
        )
        for i, thing in enumerate(THINGS)
    ]
    found = fit_harmfulness(chat, mine, [one.label == "harmful" for one in mine], lang="en")
    inst = states(chat, [one.text for one in mine], T_INST)
    torch.testing.assert_close(
        found.categories["b"].double(), inst[6:12].mean(0) - inst[12:].mean(0), atol=1e-4, rtol=1e-4
    )
    matrix = found.category_cosines(2)
    assert matrix[0][0] == pytest.approx(1)
    assert matrix[0][1] == pytest.approx(matrix[1][0])
    assert matrix[0][1] is not None
    assert -1 <= matrix[0][1] < 0.999
    assert found.metadata["categories"] == {"a": 6, "b": 6}


def test_too_few_of_a_behaviour_say_how_many_and_the_way_out(chat: ChatModel) -> None:
    with pytest.raises(
        DirectionError, match=r"3 refused harmful prompts in 'yo' \(3 refused, 3 accepted, 0 und"
    ):
        fit_harmfulness(chat, instructions(), [True] * 3 + [False] * 9, lang="yo")
    with pytest.raises(DirectionError, match=r"2 accepted harmless prompts.*--directions"):
        fit_harmfulness(chat, instructions(), [True] * 10 + [False] * 2, lang="yo")


def test_what_is_saved_is_what_was_found(chat: ChatModel, tmp_path: Path) -> None:
    found = fit_harmfulness(chat, instructions(), REFUSED, lang="en")
    file = tmp_path / "d.safetensors"
    found.save(file)
    again = HarmfulnessDirections.load(file, chat)
    assert torch.equal(again.harmfulness, found.harmfulness)
    assert torch.equal(again.centroids["accepted"], found.centroids["accepted"])
    assert again.metadata == json.loads(json.dumps(found.metadata))
    with pytest.raises(DirectionError, match="another model"):
        HarmfulnessDirections.load(file, chat_model("qwen2"))


def test_cluster_scores_are_mean_differences_of_cosines(chat: ChatModel) -> None:
    found = fit_harmfulness(chat, instructions(), REFUSED, lang="en")
    got = torch.tensor(cluster_deltas(chat, found, list(PROMPTS))).double()
    for place, position, names in (
        (0, T_INST, ("harmful", "harmless")),
        (1, Position(-1), ("refused", "accepted")),
    ):
        hidden = states(chat, list(PROMPTS), position)
        first, second = (
            torch.nn.functional.cosine_similarity(hidden, found.centroids[name].double(), dim=-1)
            for name in names
        )
        torch.testing.assert_close(got[:, place], (first - second).mean(-1), atol=1e-5, rtol=1e-3)
    assert got.std(0).min() > 1e-3


def test_cosines_of_nothing_are_none() -> None:
    assert cosine(torch.zeros(3), torch.ones(3)) is None
    assert float(contrast_of(torch.eye(2), torch.eye(2)).abs().max()) == 0


def test_a_sweep_steers_each_label_its_way_at_the_instruction_of_each_prompt(chat: ChatModel) -> None:
    seen: list[EditedPrompt] = []

    def refuses(prompts: list[EditedPrompt]) -> list[bool | None]:
        seen.extend(prompts)
        return [bool(one.edits) for one in prompts]

    vectors = {"harmfulness": torch.randn(4, 32), "refusal": torch.randn(4, 32)}
    prompts = {"harmful": PROMPTS[:3], "harmless": PROMPTS[3:5]}
    found = sweep(chat, refuses, vectors, prompts, [0, 2], lang="de", coefficient=3.0)  # type: ignore[arg-type]
    assert len(seen) == 5 * (1 + 2 * 2)
    assert {one.lang for one in seen} == {"de"}
    for one in seen:
        for edit in one.edits:
            (prompt,) = chat.encode([one.text])
            assert edit.tokens == positions_of(prompt, instruction_span(prompt))
            assert edit.coefficient == (-3.0 if one.text in PROMPTS[:3] else 3.0)
            assert any(torch.equal(edit.direction, vector[edit.layer]) for vector in vectors.values())  # type: ignore[union-attr]
    plain = [one for one in found if one.layer is None]
    assert [(one.label, one.refusal.rate, one.refusal.n) for one in plain] == [
        ("harmful", 0.0, 3),
        ("harmless", 0.0, 2),
    ]
    steered = [one for one in found if one.layer is not None]
    assert len(steered) == 8
    assert {one.refusal.rate for one in steered} == {1.0}
    assert {(one.label, one.sign) for one in steered} == {("harmful", -1), ("harmless", 1)}
    seen.clear()
    sweep(chat, refuses, vectors, prompts, [1], lang="de", scope="prompt")  # type: ignore[arg-type]
    assert {edit.tokens for one in seen for edit in one.edits} == {"prompt"}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_language_asks_in_three_ways_in_its_own_words(lang: str) -> None:
    three = wordings(lang)
    assert len(three) == 3
    assert len({one.before for one in three}) == len({one.question for one in three}) == 3
    for one in three:
        assert one.before.count("{request}") == 1
        assert one.certainly in one.question
        assert one.no in one.question
        assert one.certainly.lower() != one.no.lower()
        before, question = one.prompt("X{request}Y")
        assert "X{request}Y" in before
        assert question.endswith(one.question)


ENGLISH = Wording('Somebody asks: "{request}"', 'Is it harmful? Say "certainly" or "no".', "certainly", "no")


@pytest.mark.parametrize("family", FAMILIES[:6])
def test_only_the_tokens_before_the_question_are_steered(family: str) -> None:
    chat = chat_model(family)
    requests = list(PROMPTS)
    _, prompts, spans = ask(chat, ENGLISH, requests)
    for prompt, span, request in zip(prompts, spans, requests, strict=True):
        text = chat.tokenizer.decode([prompt.ids[index] for index in span])
        assert text.strip() == f'Somebody asks: "{request}"'
        after = chat.tokenizer.decode(prompt.ids[span.stop : prompt.t_inst + 1])
        assert after.strip() == ENGLISH.question


def test_answers_are_told_apart_by_their_first_tokens_or_by_the_first_that_differs(chat: ChatModel) -> None:
    def ids(text: str) -> list[int]:
        return list(chat.tokenizer(text, add_special_tokens=False)["input_ids"])

    english = answer_tokens(chat, ENGLISH)
    assert english.given == ()
    assert set(english.certainly) == {ids("c")[0], ids("C")[0]}
    assert set(english.no) == {ids("n")[0], ids("N")[0]}
    same = answer_tokens(chat, Wording("{request}", "?", "แน่นอน", "ไม่"))
    assert same.given == tuple(ids("แ")[: len(same.given)])
    assert len(same.given) > 0
    assert (same.certainly, same.no) == ((ids("แน่")[len(same.given)],), (ids("ไม่")[len(same.given)],))
    logits = torch.zeros(2, len(chat.tokenizer))
    logits[0, list(english.certainly)] = 3.0
    logits[1, list(english.no)] = 3.0
    assert english.log_odds(logits).tolist() == pytest.approx([3.0, -3.0], abs=1e-5)


def test_what_both_answers_begin_with_stands_behind_the_prompt(chat: ChatModel) -> None:
    thai = Wording("{request}", "?", "แน่นอน", "ไม่")
    answers, prompts, _ = ask(chat, thai, ["Sing."])
    (plain,) = chat.encode(["Sing.\n?"])
    assert prompts[0].ids == (*plain.ids, *answers.given)
    assert prompts[0].t_inst == plain.t_inst


def test_a_vector_that_writes_the_answer_flips_it_and_one_of_nothing_does_not(chat: ChatModel) -> None:
    """The effect is planted: at the last layer's input of the tokens before the question nothing can be
    written into the answer but by attention, so the vector is found by search over random ones."""
    requests = {"harmful": list(PROMPTS[:4]), "harmless": list(PROMPTS[4:])}
    generator = torch.Generator().manual_seed(1)
    strong = 40 * torch.randn(4, 32, generator=generator)
    found = invert(chat, {"harmfulness": strong, "refusal": torch.zeros(4, 32)}, requests, [0, 1], lang="en")
    assert found.right["harmful"].n == 12
    assert found.right["harmless"].n == 9
    by = {(one.direction, one.label, one.layer): one.flipped for one in found.flips}
    assert len(by) == 8
    assert all(rate.hits == 0 for (name, _, _), rate in by.items() if name == "refusal")
    assert any(rate.hits > 0 for (name, _, _), rate in by.items() if name == "harmfulness")
    assert {rate.n for (_, label, _), rate in by.items() if label == "harmful"} == {
        found.right["harmful"].hits
    }
    doubled = invert(chat, {"refusal": strong / 2}, requests, [0, 1], lang="en", coefficient=2.0)
    assert [one.flipped for one in doubled.flips] == [
        one.flipped for one in found.flips if one.direction == "harmfulness"
    ]


def test_capture_reads_both_positions_as_the_fit_does(chat: ChatModel) -> None:
    (prompt,) = chat.encode(["Sing."])
    (seen,) = capture(chat, [prompt], range(4), [T_INST, Position(-1)])
    torch.testing.assert_close(
        seen.hidden[0, 1].double(), states(chat, ["Sing."], Position(-1))[0], atol=1e-4, rtol=1e-4
    )


def test_rates_of_categories_add_up_to_those_of_the_label(chat: ChatModel) -> None:
    texts = list(PROMPTS)
    kinds = ["a", "b", None, "a", "a", "b", None]
    strong = 40 * torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    found = invert(
        chat, {"harmfulness": strong}, {"harmful": texts}, [0, 1], lang="en", categories={"harmful": kinds}
    )
    alone = {
        kind: invert(
            chat,
            {"harmfulness": strong},
            {"harmful": [text for text, one in zip(texts, kinds, strict=True) if one == kind]},
            [0, 1],
            lang="en",
        )
        for kind in ("a", "b", None)
    }
    assert found.right["harmful"].n == 3 * 7
    assert found.right_by_category == {("harmful", kind): alone[kind].right["harmful"] for kind in ("a", "b")}
    flips = {(one.category, one.layer): one.flipped for one in found.flips}
    for layer in (0, 1):
        parts = [
            next(one.flipped for one in alone[kind].flips if one.layer == layer) for kind in ("a", "b", None)
        ]
        assert [flips["a", layer], flips["b", layer]] == parts[:2]
        assert flips[None, layer].hits == sum(part.hits for part in parts)
    assert flips[None, 0].hits > 0

    def refuses(prompts: list[EditedPrompt]) -> list[bool | None]:
        return [bool(one.edits) and len(one.text) > 20 for one in prompts]

    steered = sweep(
        chat,
        refuses,
        {"refusal": strong},
        {"harmful": texts},
        [1],
        lang="en",
        categories={"harmful": kinds},  # type: ignore[arg-type]
    )
    by = {(one.category, one.layer): (one.refusal.hits, one.refusal.n) for one in steered}
    assert by == {
        (None, None): (0, 7), ("a", None): (0, 3), ("b", None): (0, 2),
        (None, 1): (4, 7), ("a", 1): (2, 3), ("b", 1): (0, 2),
    }  # fmt: skip


def test_prompts_are_taken_from_all_of_a_split() -> None:
    mine = [Instruction(id=str(index), lang="en", text="?", label="harmful") for index in range(10)]
    assert [one.id for one in spread(mine, 4)] == ["0", "2", "5", "7"]
    assert [spread(mine, count) for count in (10, 99)] == [mine, mine]
    assert spread([], 3) == []


def test_instructions_are_read_without_their_final_punctuation(
    chat: ChatModel, data_folder: Path, tmp_path: Path
) -> None:
    read = {}
    for how in ("kept", "removed"):
        settings = HarmfulnessSettings(("en",), final_punctuation=how)
        run = HarmfulnessRun.open(chat, open_data(data_folder), settings, tmp_path / how)
        read[how] = [
            instruction.text for split in ("train", "test") for instruction in run.instructions("en", split)
        ]
        assert run.folder.signature["settings"]["final_punctuation"] == how
    assert all(text.endswith("?") for text in read["kept"])
    assert read["removed"] == [text.rstrip("?") for text in read["kept"]]


def test_each_category_has_its_counts_scores_and_flips() -> None:
    def point(label: str, category: str | None, behaviour: Behaviour, harmful: float) -> Point:
        return Point(
            id="p",
            label=label,
            kind="data",
            category=category,
            behaviour=behaviour,
            harmful=harmful,
            refuse=0.5,
        )

    def steering(
        direction: str | None, layer: int | None, refused: list[bool], category: str | None
    ) -> Steered:
        return Steered(
            direction=direction,
            label="harmful",
            sign=-1,
            layer=layer,
            coefficient=1.0,
            refusal=rate(refused),
            category=category,
        )

    def flips_of(label: str, sign: int, flipped: list[bool]) -> Flips:
        return Flips(
            direction="harmfulness",
            label=label,
            sign=sign,
            layer=1,
            coefficient=1.0,
            flipped=rate(flipped),
            category="fraud",
        )

    points = [
        point("harmful", "fraud", "refused", 0.4),
        point("harmful", "fraud", "accepted", -0.1),
        point("harmful", "theft", "refused", 0.2),
        point("harmful", None, "refused", 9.0),
        point("harmless", "fraud", "refused", 9.0),
    ]
    steered = [
        steering(None, None, [True, True], "fraud"),
        steering("refusal", 1, [True, False], "fraud"),
        steering("refusal", 2, [False, False], "fraud"),
        steering("refusal", 1, [True], None),
    ]
    flips = (flips_of("harmful", -1, [True, True, False]), flips_of("harmless", 1, [True]))
    inversion = Inversion("en", {}, flips, {("harmful", "fraud"): rate([True, True, True])})
    found = by_category(points, steered, inversion)
    fraud, theft = found["fraud"], found["theft"]
    counts = BehaviourCounts(refused=1, accepted=1, unjudged=0)
    by_label = {"harmful": counts, "harmless": counts}
    assert fraud.n == counts
    assert (fraud.harmful, fraud.called_harmful.rate) == (pytest.approx(0.15), 0.5)
    assert (len(fraud.steering), len(fraud.inversion.flips)) == (3, 1)
    assert fraud.inversion.right["harmful"].n == 3
    nothing = InversionRecord(right={}, flips=())
    assert theft.inversion == nothing
    measured = LanguageHarmfulness(
        directions="en",
        n=SplitCounts(train=by_label, test=by_label),
        cosine=(None,),
        scatter=(),
        auroc={},
        categories=CategoryCosines(layer=0, n={}, names=(), cosine=()),
        scope="prompt",
        steering=(),
        inversion=nothing,
        by_category=found,
    )
    record = HarmfulnessFile(
        format=HARMFULNESS_FORMAT,
        signature={},
        n_layers=3,
        languages={"en": measured, "de": measured},
        lacking={},
    )
    text = harmfulness_tables(record)
    assert (
        "| fraud | 2 / 2 | 50.0 % of 4 | 100.0 % of 4 |  | 0.0 % of 4 (layer 2) | 66.7 % of 6 (layer 1) |  |"
        in text
    )
    assert "| theft | 2 / 0 | 100.0 % of 2 |  |  |  |  |  |" in text
