"""Batched answers are those of one prompt and one edit at a time, whatever the batch."""

from __future__ import annotations

import pytest
import torch
from tiny import FAMILIES, PROMPTS, assert_mostly_equal, chat_model

from polyrefuse_eval.directions.refusal_tokens import parse_refusal_tokens, tokens_from_answers
from polyrefuse_eval.errors import DirectionError, OutOfMemoryError
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.generate import (
    BATCH_SIZE,
    Answer,
    Request,
    Sampling,
    default_batch_size,
    generate,
)
from polyrefuse_eval.models.intervene import Ablation, Addition, Edits
from polyrefuse_eval.models.kv_cache import bytes_per_token, cache_of

STEPS = 12


def edits(chat: ChatModel) -> list[Edits]:
    generator = torch.Generator().manual_seed(9)
    first, second = torch.randn(2, chat.width, generator=generator)
    return [(), (Ablation(first),), (Addition(4 * second, 1),), (Addition(4 * second, 1, tokens="decoding"),)]


def requests(chat: ChatModel) -> list[Request]:
    return [
        Request(f"{kind} {index}", prompt, edit)
        for kind, edit in enumerate(edits(chat))
        for index, prompt in enumerate(PROMPTS[:4])
    ]


def run(chat: ChatModel, wanted: list[Request], **more: object) -> dict[str, Answer]:
    more.setdefault("max_new_tokens", STEPS)
    return {answer.key: answer for batch in generate(chat, wanted, **more) for answer in batch}  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_batch_gives_the_answers_of_single_rows_and_of_transformers(family: str) -> None:
    chat = chat_model(family)
    wanted = requests(chat)
    together = run(chat, wanted, batch_size=16)
    alone = run(chat, wanted, batch_size=1)
    assert_mostly_equal(together, alone)
    assert len({together[f"{kind} 2"].ids for kind in range(4)}) > 1, "the edits must do something"
    ours, theirs = {}, {}
    for index, prompt in enumerate(chat.encode(PROMPTS[:4])):
        ids = torch.tensor([prompt.ids])
        made = chat.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=STEPS,
            do_sample=False,
            eos_token_id=sorted(chat.stop_ids),
            pad_token_id=0,
            repetition_penalty=1.0,
        )[0, len(prompt) :].tolist()
        answer = alone[f"0 {index}"]
        ours[index] = answer.ids
        theirs[index] = tuple(token for token in made if token not in chat.stop_ids)[: len(answer.ids)]
        assert answer.ended or len(answer.ids) == STEPS
    assert_mostly_equal(ours, theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_token_fills_as_many_bytes_of_the_cache_as_is_counted_on(family: str) -> None:
    chat = chat_model(family)
    ids = torch.tensor([chat.encode(PROMPTS[:1])[0].ids])
    layers = cache_of(chat.model(ids, use_cache=True)).layers
    filled = sum(
        tensor.numel() * tensor.itemsize for layer in layers for tensor in (layer.keys, layer.values)
    )
    config = chat.model.config.get_text_config()
    assert filled == bytes_per_token(config, chat.n_layers, chat.width, chat.dtype) * ids.shape[1]


def test_batches_are_smaller_where_many_rows_would_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = chat_model()
    prompts = chat.encode(PROMPTS[:4])
    assert default_batch_size(chat, prompts, 512) == BATCH_SIZE["cpu"]
    config = chat.model.config.get_text_config()
    longest = max(map(len, prompts))
    answers = bytes_per_token(config, chat.n_layers, chat.width, chat.dtype) * (longest + 512)
    prompt = (3 * config.intermediate_size + 4 * chat.width) * chat.dtype.itemsize * longest
    monkeypatch.setattr("polyrefuse_eval.models.generate.BATCH_BYTES", 5 * (answers + prompt) + 1)
    assert default_batch_size(chat, prompts, 512) == 5
    assert default_batch_size(chat, prompts) > 5, "without answers there is no cache"
    assert default_batch_size(chat, prompts, 10**9) == 1, "one row is tried in any case"
    wanted = requests(chat)
    assert [len(batch) for batch in generate(chat, wanted, max_new_tokens=512)][:2] == [5, 5]
    assert_mostly_equal(run(chat, wanted), run(chat, wanted, batch_size=16))


def test_rows_that_end_leave_the_batch_and_the_others_do_not_notice() -> None:
    chat = chat_model()
    wanted = requests(chat)
    long = run(chat, wanted, batch_size=16)
    every = [token for answer in long.values() for token in answer.ids[2:6]]
    chat.model.generation_config.eos_token_id = sorted(set(every))[:40]
    short = run(chat, wanted, batch_size=16)
    assert 0 < sum(answer.ended for answer in short.values()) <= len(wanted)
    begun = {key: long[key].ids[: len(answer.ids)] for key, answer in short.items()}
    assert_mostly_equal({key: answer.ids for key, answer in short.items()}, begun)
    for key, answer in short.items():
        if answer.ended and answer.ids == begun[key]:
            assert long[key].ids[len(answer.ids)] in chat.stop_ids
    assert_mostly_equal(run(chat, wanted, batch_size=1), short)


def test_sampling_is_seeded_by_request_and_greedy_is_the_default() -> None:
    chat = chat_model()
    wanted = requests(chat)
    one = run(chat, wanted, sampling=Sampling(1.0, seed=1))
    assert one == run(chat, wanted, sampling=Sampling(1.0, seed=1))
    assert_mostly_equal(one, run(chat, wanted, sampling=Sampling(1.0, seed=1), batch_size=3))
    assert one != run(chat, wanted, sampling=Sampling(1.0, seed=2))
    assert run(chat, wanted) == run(chat, wanted, sampling=Sampling())


def test_when_memory_runs_out_the_batch_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    import polyrefuse_eval.models.generate as module

    chat = chat_model()
    wanted = requests(chat)
    expected = run(chat, wanted)
    honest, sizes = module._generate_batch, []

    def limited(chat, requests, encoded, part, *rest):  # type: ignore[no-untyped-def]
        sizes.append(len(part))
        if len(part) > limit:
            raise torch.OutOfMemoryError("no room")
        return honest(chat, requests, encoded, part, *rest)

    monkeypatch.setattr(module, "_generate_batch", limited)
    limit = 5
    assert_mostly_equal(run(chat, wanted), expected)
    assert sizes[:3] == [16, 8, 4]
    limit = 0
    with pytest.raises(OutOfMemoryError, match="no room for one answer"):
        run(chat, wanted)


def test_an_error_that_is_not_of_memory_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    import polyrefuse_eval.models.generate as module

    def broken(*_arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "_generate_batch", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run(chat_model(), [Request("a", "Sing.")])


def answer(key: str, first: int, text: str) -> Answer:
    return Answer(key, text, (first, 7), True)


def refuses(text: str, _lang: str) -> bool | None:
    return None if not text else text == "no"


def test_refusal_tokens_begin_refusals_and_no_other_answers() -> None:
    chat = chat_model()
    answers = [
        *[answer(f"harmful {i}", 40, "no") for i in range(6)],
        *[answer(f"harmful {i}", 41, "no") for i in range(6, 9)],
        *[answer(f"harmful {i}", 42, "no") for i in range(9, 10)],
        answer("harmful 10", 50, "yes"),
        answer("harmless 0", 42, "yes"),
        answer("harmless 1", 41, "no"),
    ]
    tokens = tokens_from_answers(chat, answers, "en", refuses)
    assert tokens.ids == (40, 41)
    assert tokens.coverage == pytest.approx(0.9)
    assert (tokens.n_refusals, tokens.n_prompts) == (10, 11)


def test_no_refusal_or_no_token_of_its_own_is_an_error_with_the_way_out() -> None:
    chat = chat_model()
    with pytest.raises(DirectionError, match="refuses none of 1 harmful prompts in 'yo'"):
        tokens_from_answers(chat, [answer("harmful 0", 40, "yes")], "yo", refuses)
    both = [answer("harmful 0", 40, "no"), answer("harmless 0", 40, "yes")]
    with pytest.raises(DirectionError, match="--refusal-tokens"):
        tokens_from_answers(chat, both, "en", refuses)


def test_tokens_given_by_hand_are_ids_or_the_first_tokens_of_words() -> None:
    chat = chat_model()
    the = chat.tokenizer("the")["input_ids"][0]
    assert parse_refusal_tokens(chat, "12, the,12", "en").ids == (12, the)
    assert parse_refusal_tokens(chat, "12", "en").coverage is None
    with pytest.raises(DirectionError, match="ids below"):
        parse_refusal_tokens(chat, "99999999", "en")
