"""Batched answers are those of one prompt and one edit at a time, whatever the batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import FAMILIES, PROMPTS, assert_mostly_equal, chat_model

from polyrefuse_eval.directions.refusal_tokens import (
    parse_refusal_tokens,
    stored_refusal_tokens,
    tokens_from_answers,
)
from polyrefuse_eval.errors import DirectionError, OutOfMemoryError
from polyrefuse_eval.models.batch_size import BATCH_SIZE, default_batch_size
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.decoding import Decoding, can_join
from polyrefuse_eval.models.generate import ROUND, Answer, Request, Sampling, generate
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
    monkeypatch.setattr("polyrefuse_eval.models.batch_size.BATCH_BYTES", 5 * (answers + prompt) + 1)
    assert default_batch_size(chat, prompts, 512) == 5
    assert default_batch_size(chat, prompts) > 5, "without answers there is no cache"
    assert default_batch_size(chat, prompts, 10**9) == 1, "one row is tried in any case"


def varied(chat: ChatModel, count: int = 16) -> list[Request]:
    """Requests of every edit whose answers end after 1 to 11 tokens, long and short ones in turn."""
    return [
        Request(f"{kind} {index}", PROMPTS[index % len(PROMPTS)], edit, 1 + (5 * index + 3 * kind) % 11)
        for kind, edit in enumerate(edits(chat))
        for index in range(count // 4)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_join_a_batch_are_answered_as_alone_whatever_the_order(family: str) -> None:
    chat = chat_model(family)
    assert can_join(chat)
    wanted = varied(chat)
    alone = run(chat, wanted, batch_size=1)
    assert [len(alone[request.key].ids) for request in wanted if not alone[request.key].ended] == [
        request.max_new_tokens for request in wanted if not alone[request.key].ended
    ]
    assert_mostly_equal(run(chat, wanted, batch_size=3), alone)
    assert_mostly_equal(run(chat, wanted[::-1], batch_size=5), alone)


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_rows_join_where_layers_see_a_window_only(family: str) -> None:
    window = 96
    chat = chat_model(family, sliding_window=window)
    assert can_join(chat)
    wanted = varied(chat)
    wanted += [replace(request, key=f"{request.key} long", prompt=2 * PROMPTS[2]) for request in wanted[:6]]
    assert sorted(map(len, chat.encode([request.prompt for request in wanted])))[-6] > window
    assert_mostly_equal(run(chat, wanted, batch_size=3), run(chat, wanted, batch_size=1))


def test_a_batch_stays_full_and_as_narrow_as_its_rows_until_the_work_runs_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chat = chat_model()
    chat.model.generation_config.eos_token_id = None
    size, wanted = 4, varied(chat, 64)
    n_tokens = sum(request.max_new_tokens or 0 for request in wanted)
    monkeypatch.setattr("polyrefuse_eval.models.generate.ROUND", 16)
    steps: list[tuple[int, int]] = []
    step = Decoding.step

    def counted(self: Decoding, tokens: torch.Tensor) -> torch.Tensor:
        steps.append((self.n_slots, self.width))
        return step(self, tokens)

    monkeypatch.setattr(Decoding, "step", counted)
    run(chat, wanted, batch_size=size)
    # The first token of an answer comes with its prompt.
    least = (n_tokens - len(wanted)) / size
    assert least <= len(steps) <= 1.2 * least
    longest = max(map(len, chat.encode(PROMPTS)))
    assert max(width for _, width in steps) <= longest + 11, "columns of rows that ended are given up"
    assert max(slots for slots, _ in steps) == size


def test_fewer_rows_are_at_once_where_their_keys_and_values_would_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chat, slots = chat_model(), []
    step = Decoding.step

    def counted(self: Decoding, tokens: torch.Tensor) -> torch.Tensor:
        slots.append(self.n_slots)
        return step(self, tokens)

    monkeypatch.setattr(Decoding, "step", counted)
    wanted = varied(chat)
    expected = run(chat, wanted)
    assert max(slots) > 5
    longest = max(map(len, chat.encode(PROMPTS)))
    monkeypatch.setattr("polyrefuse_eval.models.generate.cache_columns", lambda _chat: 5 * (longest + 6))
    slots.clear()
    assert_mostly_equal(run(chat, wanted), expected)
    assert max(slots) == 5


def test_prompts_of_one_pass_have_no_more_tokens_than_may_stand_beside_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chat, passes = chat_model(), []
    longest = max(map(len, chat.encode(PROMPTS)))
    most = 3 * longest
    begin = Decoding.begin

    def counted(self: Decoding, rows: list[list[int]], edits: list[int]) -> torch.Tensor:
        passes.append(len(rows) * max(map(len, rows)))
        return begin(self, rows, edits)

    monkeypatch.setattr(Decoding, "begin", counted)
    wanted = varied(chat)
    tokens = "polyrefuse_eval.models.generate.JOINING_TOKENS"
    monkeypatch.setattr(tokens, {"cpu": 10**6})
    expected = run(chat, wanted)
    assert max(passes) > most
    monkeypatch.setattr(tokens, {"cpu": most})
    passes.clear()
    assert_mostly_equal(run(chat, wanted), expected)
    assert max(passes) <= most


def test_rounds_that_are_done_are_left_out_and_others_made_whole() -> None:
    chat = chat_model()
    wanted = requests(chat)
    rounds = list(generate(chat, wanted, max_new_tokens=3, batch_size=2))
    assert [len(part) for part in rounds] == [2 * ROUND] * 2
    first = {answer.key for answer in rounds[0]}
    again = list(generate(chat, wanted, max_new_tokens=3, batch_size=2, done=first))
    assert again == rounds[1:]
    part = list(generate(chat, wanted, max_new_tokens=3, batch_size=2, done=sorted(first)[1:]))
    assert part == rounds


def test_a_remainder_of_less_than_half_a_round_joins_the_last_round() -> None:
    chat = chat_model()

    def lengths(count: int) -> list[int]:
        rounds = generate(chat, ["hello"] * count, max_new_tokens=1, batch_size=1)
        return [len(part) for part in rounds]

    assert lengths(0) == []
    assert lengths(1) == [1]
    assert lengths(2 * ROUND) == [ROUND, ROUND]
    assert lengths(2 * ROUND + ROUND // 2 - 1) == [ROUND, ROUND + ROUND // 2 - 1]
    assert lengths(2 * ROUND + ROUND // 2) == [ROUND, ROUND, ROUND // 2]


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
    honest, sizes = module._Round.run, []

    def limited(self: module._Round) -> list[Answer]:
        sizes.append(self._size)
        if self._size > limit:
            raise torch.OutOfMemoryError("no room")
        return honest(self)

    monkeypatch.setattr(module._Round, "run", limited)
    limit = 5
    assert_mostly_equal(run(chat, wanted, batch_size=16), expected)
    assert sizes[:3] == [16, 8, 4]
    limit = 0
    with pytest.raises(OutOfMemoryError, match="no room for one answer"):
        run(chat, wanted)


def test_an_error_that_is_not_of_memory_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    import polyrefuse_eval.models.generate as module

    def broken(*_arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(module._Round, "run", broken)
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
    for none in ("99999999", "9" * 5000, " , "):
        with pytest.raises(DirectionError, match="ids below"):
            parse_refusal_tokens(chat, none, "en")
    superscript = chat.tokenizer("²", add_special_tokens=False)["input_ids"][0]
    assert parse_refusal_tokens(chat, "²", "en").ids == (superscript,), "a digit that is no number"


@pytest.mark.parametrize("change", [{"ids": [10**6]}, {"ids": []}, {"lang": "de"}])
def test_stored_tokens_of_another_model_or_language_are_refused(change: dict[str, object]) -> None:
    chat = chat_model()
    record = parse_refusal_tokens(chat, "12,13", "en").to_json()
    assert stored_refusal_tokens(chat, record, "en").ids == (12, 13)
    with pytest.raises(DirectionError, match=r"these are not refusal tokens of .* in 'en'"):
        stored_refusal_tokens(chat, {**record, **change}, "en")


def test_the_last_token_of_a_model_is_known_and_the_next_is_not() -> None:
    chat = chat_model()
    last = chat.n_embeddings - 1
    record = parse_refusal_tokens(chat, [last], "en").to_json()
    assert stored_refusal_tokens(chat, record, "en").ids == (last,)
    with pytest.raises(DirectionError, match=f"ids below {last + 1}"):
        parse_refusal_tokens(chat, [last + 1], "en")
    with pytest.raises(DirectionError, match="not refusal tokens"):
        stored_refusal_tokens(chat, {**record, "ids": [last + 1]}, "en")
