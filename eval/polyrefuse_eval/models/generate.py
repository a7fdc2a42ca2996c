"""Answers to many prompts under many edits, sharing batches: a greedy loop of our own.

Rows of one batch may each have their own edits, so baseline, ablation and addition read the
weights once. Rows that have finished leave the batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyrefuse_data.core.progress import Progress
from polyrefuse_eval.errors import OutOfMemoryError
from polyrefuse_eval.models.batch_size import cache_columns, default_batch_size
from polyrefuse_eval.models.batching import next_rows
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.decoding import Decoding, can_cache, can_join
from polyrefuse_eval.models.intervene import BASELINE, Edits, applied, as_edits
from polyrefuse_eval.models.template import EncodedPrompt
from polyrefuse_eval.models.thinking import RowProgress, split_thoughts

ROUND = 4
"""Batches' worth of requests that are answered together: what an interrupted call may have to make again, and
more of them gain little, since a batch runs empty at the end of each round only."""

JOINING_TOKENS = {"cpu": 512, "cuda": 4096}
"""Tokens of the prompts that begin or join in one pass: what it holds stands in memory beside the cache."""

MAX_NEW_TOKENS = 512
"""As in both papers."""


@dataclass(frozen=True, eq=False)
class Request:
    """One answer to make: `key` names it in the caller's books; one edit, or a list, becomes a tuple."""

    key: str
    prompt: str
    edits: Edits = BASELINE
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "edits", as_edits(self.edits))


@dataclass(frozen=True)
class Answer:
    """A generated answer, without what the model thought before it: `reasoning`, None where it did not.

    `ended` is False where the answer was cut at its token limit, or the thoughts before it at theirs: there
    is no answer then, and `text` is empty.
    """

    key: str
    text: str
    ids: tuple[int, ...]
    ended: bool
    reasoning: str | None = None


@dataclass(frozen=True)
class Limits:
    """How many tokens an answer may have, and the thoughts before it; None where there are to be none."""

    answer: int
    thoughts: int | None = None

    @property
    def total(self) -> int:
        return self.answer + (self.thoughts or 0)


@dataclass(frozen=True)
class Sampling:
    """Greedy at temperature 0, which is the default; else seeded for each request by its place."""

    temperature: float = 0.0
    seed: int = 0


def generate(
    chat: ChatModel,
    requests: Sequence[Request | str],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int | None = None,
    sampling: Sampling | None = None,
    done: Collection[str] = (),
    progress: str | None = None,
    thoughts: bool = False,
) -> Iterator[list[Answer]]:
    """Yield the answers to `requests`, round by round, longest prompts last.

    A prompt in place of a request is answered without edits; its key is its index. At most `batch_size`
    answers are made at once (see `default_batch_size`), `ROUND` times as many in a round, the last of which
    takes what would not fill half of another. As answers end, the round's next prompts take their places.

    Rounds follow from the requests and `batch_size` alone, so the same call makes the same batches, and with
    as many threads on the same kind of processor the same bytes. An answer does not depend on the others of
    its batch: in float32 its tokens are those of the prompt alone, but for two that are likeliest to within
    rounding; in bfloat16 such a tie is wider (7 of 84 answers of tiny models differed). A
    round whose keys are all in `done` is left out; another is made whole again, so that a resumed call ends
    with the bytes of an undisturbed one. `batch_size` is halved when memory runs out; raises
    `OutOfMemoryError` where even one row does not fit.

    With `thoughts` a model that was loaded with `thinking` may think before it answers; else, and in any
    measurement of first tokens, prompts end where the answer begins.
    """
    requests = _as_requests(requests)
    thoughts = thoughts and chat.template.thinking
    texts = [request.prompt for request in requests]
    encoded = chat.encode_open(texts) if thoughts else chat.encode(texts)
    limits = Limits(max_new_tokens, chat.max_thinking_tokens if thoughts else None)
    order = sorted(range(len(requests)), key=lambda index: (len(encoded[index]), index))
    sampling = sampling or Sampling()
    size = batch_size or default_batch_size(chat, encoded, limits.total)
    with Progress(len(requests), "answers", progress) as shown:
        for part in _rounds(order, ROUND * size):
            if all(requests[index].key in done for index in part):
                shown.advance(len(part))
                continue
            answers = None
            while answers is None:
                count = shown.count
                try:
                    answers = _Round(chat, requests, encoded, part, size, limits, sampling, shown).run()
                except (torch.OutOfMemoryError, RuntimeError) as error:
                    if not _out_of_memory(error):
                        raise
                if answers is None:
                    # Outside of the handler, whose traceback would keep the batch's memory alive.
                    shown.advance(count - shown.count)
                    size = _halved(size, chat)
            yield answers


def _rounds(order: Sequence[int], length: int) -> Iterator[Sequence[int]]:
    """Yield `order` in rounds of `length`; what is less than half a round at the end joins the last one."""
    n_rounds = max(1, (2 * len(order) + length) // (2 * length)) if order else 0
    for index in range(n_rounds):
        yield order[index * length : (index + 1) * length if index + 1 < n_rounds else None]


def _as_requests(given: Sequence[Request | str]) -> list[Request]:
    listed = [given] if isinstance(given, (str, Request)) else given
    return [
        Request(str(index), request) if isinstance(request, str) else request
        for index, request in enumerate(listed)
    ]


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _halved(size: int, chat: ChatModel) -> int:
    if size <= 1:
        raise OutOfMemoryError(
            f"{chat.device} has no room for one answer of {chat.name}; try --dtype bfloat16, "
            "--quantization 8bit, --device-map auto or fewer --max-new-tokens"
        )
    if chat.device.type == "cuda":
        torch.cuda.empty_cache()
    return size // 2


class _Slots:
    """Which request stands in each slot of a batch: None where its answer is complete, or there is none."""

    def __init__(self) -> None:
        self.rows: list[int | None] = []

    @property
    def taken(self) -> list[int]:
        """The slots that hold a row."""
        return [slot for slot, row in enumerate(self.rows) if row is not None]

    def fill(self, rows: Sequence[int]) -> list[int]:
        """Put `rows` into free slots, and into new ones behind; return their slots."""
        free = [slot for slot, row in enumerate(self.rows) if row is None]
        slots = [*free, *range(len(self.rows), len(self.rows) + len(rows))][: len(rows)]
        self.rows += [None] * (max(slots) + 1 - len(self.rows))
        for slot, row in zip(slots, rows, strict=True):
            self.rows[slot] = row
        return slots

    def keep(self, slots: Sequence[int]) -> None:
        """Keep only `slots`, in this order."""
        self.rows = [self.rows[slot] for slot in slots]


class _Round:
    """The answers to some requests (`part`, indices), made in a batch that is filled up as its rows end."""

    def __init__(
        self,
        chat: ChatModel,
        requests: Sequence[Request],
        encoded: Sequence[EncodedPrompt],
        part: Sequence[int],
        size: int,
        limits: Limits,
        sampling: Sampling,
        progress: Progress,
    ) -> None:
        self._chat, self._requests, self._encoded = chat, requests, encoded
        self._part, self._size = part, size
        self._sampling, self._shown = sampling, progress
        self._generators = {
            index: torch.Generator().manual_seed(sampling.seed * 1_000_003 + index) for index in part
        }
        self._inside = limits.thoughts is not None and chat.template.begins_inside_thoughts
        self._answers = {
            index: RowProgress(
                chat.tokenizer,
                chat.template.marks,
                inside=self._inside,
                answer_tokens=requests[index].max_new_tokens or limits.answer,
                thinking_tokens=limits.thoughts,
            )
            for index in part
        }
        # Requests share edits as a rule: each is prepared once.
        distinct = {id(requests[index].edits): requests[index].edits for index in part}
        self._edits = list(distinct.values())
        places = {edits: place for place, edits in enumerate(distinct)}
        self._edit_of = {index: places[id(requests[index].edits)] for index in part}
        # Room is kept for answers half as long as they may be: few get longer, and rows leave before they do.
        self._likely_width = max(len(encoded[index]) for index in part) + limits.total // 2
        self._columns = cache_columns(chat)
        self._n_tokens = limits.total

    @torch.inference_mode()
    def run(self) -> list[Answer]:
        """Return the answers in the order of `part`."""
        chat = self._chat
        # Before the edits are there: what the model allows is tried on prompts of its own
        cached, joins = can_cache(chat), can_join(chat)
        edits = self._edits[0] if len(self._edits) == 1 else self._edits
        with applied(chat, edits) as state:
            decoding = Decoding(chat, cached=cached, joins=joins, state=state)
            slots, waiting = _Slots(), list(self._part)
            while waiting or slots.taken:
                # Rows join: into free slots where they may, else when the batch has run out
                while waiting and (n_joining := self._room(decoding, slots, joins)):
                    joining = self._next(waiting, n_joining, joins)
                    waiting = waiting[len(joining) :]
                    self._admit(decoding, slots, joining)
                # Rows leave: a copy of the cache, worth it for an eighth of them
                taken = slots.taken
                if not taken:
                    continue
                if len(taken) <= len(slots.rows) * 7 // 8:
                    decoding.keep(taken)
                    slots.keep(taken)
                    taken = slots.taken
                if joins:
                    decoding.trim(taken)
                # A token more for each row
                last = [chat.pad_id if row is None else self._answers[row].ids[-1] for row in slots.rows]
                logits = decoding.step(torch.tensor(last, device=chat.device))
                self._take(slots, taken, logits[taken] if len(taken) < len(logits) else logits)
        return self._finished()

    def _room(self, decoding: Decoding, slots: _Slots, joins: bool) -> int:
        """Return how many rows join now: none as long as too few have ended to be worth a pass."""
        n_taken = len(slots.taken)
        if not joins:
            return 0 if n_taken else self._size
        most = self._size
        if self._columns is not None:
            most = min(most, max(1, self._columns // max(self._likely_width, decoding.width + 1)))
        free = most - n_taken
        return free if free >= max(1, most // 8) else 0

    def _next(self, waiting: Sequence[int], count: int, joins: bool) -> list[int]:
        """Return the first of `waiting` that share a pass."""
        part = next_rows(self._chat, self._encoded, waiting, count)
        if not joins:
            return part
        budget = JOINING_TOKENS.get(self._chat.device.type, JOINING_TOKENS["cpu"])
        longest = max(len(self._encoded[index]) for index in part)
        return part[: max(1, budget // longest)]

    def _admit(self, decoding: Decoding, slots: _Slots, joining: Sequence[int]) -> None:
        rows = [self._encoded[index].ids for index in joining]
        edits = [self._edit_of[index] for index in joining]
        if slots.taken:
            places = slots.fill(joining)
            logits = decoding.join(places, rows, edits)
        else:
            slots.rows, places = list(joining), list(range(len(joining)))
            logits = decoding.begin(rows, edits)
        self._take(slots, places, logits)

    def _take(self, slots: _Slots, places: Sequence[int], logits: Tensor) -> None:
        """Choose a token for the row in each of `places`; the rows that it completes leave their slots."""
        rows = [row for slot in places if (row := slots.rows[slot]) is not None]
        chosen = _choose(logits, self._sampling, [self._generators[row] for row in rows]).tolist()
        n_finished = 0
        for slot, row, token in zip(places, rows, chosen, strict=True):
            self._answers[row].take(token, self._chat.stop_ids)
            if self._answers[row].finished:
                slots.rows[slot] = None
                n_finished += 1
        furthest = max(len(self._answers[row].ids) for row in rows)
        self._shown.advance(n_finished, f"{len(slots.taken)} at once, token {furthest} of {self._n_tokens}")

    def _finished(self) -> list[Answer]:
        marks, tokenizer = self._chat.template.marks, self._chat.tokenizer
        answers = [self._answers[index] for index in self._part]
        written = [split_thoughts(tokenizer, marks, answer.ids, self._inside) for answer in answers]
        texts = tokenizer.batch_decode([list(parts.ids or ()) for parts in written], skip_special_tokens=True)
        return [
            Answer(
                key=self._requests[index].key,
                text=text,
                ids=parts.ids or (),
                ended=answer.ended and parts.ids is not None,
                reasoning=parts.reasoning,
            )
            for index, text, answer, parts in zip(self._part, texts, answers, written, strict=True)
        ]


def _choose(logits: Tensor, sampling: Sampling, generators: list[torch.Generator]) -> Tensor:
    """Return the likeliest token of each row of `logits`, or one drawn with the row's generator."""
    if sampling.temperature <= 0:
        return logits.argmax(-1)
    weights = torch.softmax(logits.float() / sampling.temperature, -1).cpu()
    drawn = [
        torch.multinomial(row, 1, generator=generator)
        for row, generator in zip(weights, generators, strict=True)
    ]
    return torch.cat(drawn).to(logits.device)
