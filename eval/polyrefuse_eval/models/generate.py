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
from polyrefuse_eval.models.batching import next_rows
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.decoding import Decoding, can_cache
from polyrefuse_eval.models.intervene import BASELINE, Edits, applied, as_edits
from polyrefuse_eval.models.kv_cache import bytes_per_token, largest
from polyrefuse_eval.models.template import EncodedPrompt
from polyrefuse_eval.models.thinking import RowProgress, split_thoughts

BATCH_SIZE = {"cpu": 128, "cuda": 256}
"""Rows made together: a step costs little more for many than for a few, as it reads all weights for any."""

BATCH_BYTES = 4 * 2**30
"""What a batch may fill on a CPU, where to ask for too much ends the process and raises nothing."""

MAX_NEW_TOKENS = 512
"""As in both papers."""


@dataclass(frozen=True, eq=False)
class Request:
    """One answer to make: `key` names it in the caller's books; one edit, or a list, becomes a tuple."""

    key: str
    prompt: str
    edits: Edits = BASELINE

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
    """Yield the answers to `requests`, batch by batch, longest prompts last.

    A prompt in place of a request is answered without edits; its key is its index.

    Batches follow from the requests and `batch_size` alone, so the same call makes the same batches,
    and with as many threads on the same kind of processor the same bytes. A batch whose keys are all in
    `done` is left out; another is made whole again, so that a resumed call ends with the bytes of an
    undisturbed one. `batch_size` (see `default_batch_size`) is halved when memory runs out; raises
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
    size = batch_size or default_batch_size(chat, encoded, limits.total)
    sampling = sampling or Sampling()
    start = 0
    with Progress(len(requests), "answers", progress) as shown:
        while start < len(order):
            part = next_rows(chat, encoded, order[start:], size)
            if all(requests[index].key in done for index in part):
                shown.advance(len(part))
                start += len(part)
                continue
            count = shown.count
            try:
                answers = _generate_batch(chat, requests, encoded, part, limits, sampling, shown)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                answers = None
            if answers is None:
                # Outside of the handler, whose traceback would keep the batch's memory alive.
                shown.advance(count - shown.count)
                size = _halved(len(part), chat)
                continue
            yield answers
            start += len(part)


def _as_requests(given: Sequence[Request | str]) -> list[Request]:
    listed = [given] if isinstance(given, (str, Request)) else given
    return [
        Request(str(index), request) if isinstance(request, str) else request
        for index, request in enumerate(listed)
    ]


def default_batch_size(chat: ChatModel, prompts: Sequence[EncodedPrompt], max_new_tokens: int = 0) -> int:
    """Return how many of `prompts` to answer at once: as `BATCH_SIZE` says, on a CPU less where keys, values
    and what the prompts' pass holds at a time would take more than `BATCH_BYTES`.

    It follows from the model's shape and the longest prompt, not from the machine's memory, so that
    batches are the same everywhere.
    """
    size = BATCH_SIZE.get(chat.device.type, BATCH_SIZE["cpu"])
    if chat.device.type != "cpu" or not prompts:
        return size
    longest = max(map(len, prompts))
    config = chat.model.config.get_text_config()
    token = bytes_per_token(config, chat.n_layers, chat.width, chat.dtype)
    cached = token * (longest + max_new_tokens) if max_new_tokens else 0
    hidden = largest(config, "intermediate_size") or 4 * chat.width
    # Two halves of a gated MLP and their product, beside a few copies of the stream.
    passing = (3 * hidden + 4 * chat.width) * chat.dtype.itemsize * longest
    return max(1, min(size, BATCH_BYTES // (cached + passing)))


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


@torch.inference_mode()
def _generate_batch(
    chat: ChatModel,
    requests: Sequence[Request],
    encoded: Sequence[EncodedPrompt],
    part: list[int],
    limits: Limits,
    sampling: Sampling,
    progress: Progress,
) -> list[Answer]:
    generators = [torch.Generator().manual_seed(sampling.seed * 1_000_003 + index) for index in part]
    template, stop_ids = chat.template, chat.stop_ids
    inside = limits.thoughts is not None and template.begins_inside_thoughts
    rows = [
        RowProgress(
            chat.tokenizer,
            template.marks,
            inside=inside,
            answer_tokens=limits.answer,
            thinking_tokens=limits.thoughts,
        )
        for _ in part
    ]
    edits = [requests[index].edits for index in part]
    cached = can_cache(chat)  # before the edits are there: it is tried on prompts of its own
    shared = all(row is edits[0] for row in edits)
    n_unfinished = len(part)
    with applied(chat, edits[0] if shared else edits) as state:
        alive = list(range(len(part)))
        decoding = Decoding(chat, [encoded[index].ids for index in part], cached=cached)
        for step in range(limits.total):
            chosen = _choose(decoding.logits(), sampling, [generators[row] for row in alive])
            for row, token in zip(alive, chosen.tolist(), strict=True):
                if not rows[row].finished:
                    rows[row].take(token, stop_ids)
            left = [slot for slot, row in enumerate(alive) if not rows[row].finished]
            n_unfinished, finished = len(left), n_unfinished - len(left)
            progress.advance(finished, f"token {step + 1} of {limits.total}")
            if not left:
                break
            decoding.append(chosen)
            # Leaving costs a copy of the cache: worth it for an eighth of the rows at once.
            if len(left) <= len(alive) * 7 // 8:
                state.select(decoding.keep(left))
                alive = [alive[slot] for slot in left]
    written = [split_thoughts(chat.tokenizer, template.marks, row.ids, inside) for row in rows]
    texts = chat.tokenizer.batch_decode(
        [list(parts.ids or ()) for parts in written], skip_special_tokens=True
    )
    return [
        Answer(
            key=requests[index].key,
            text=text,
            ids=parts.ids or (),
            ended=row.ended and parts.ids is not None,
            reasoning=parts.reasoning,
        )
        for index, text, row, parts in zip(part, texts, rows, written, strict=True)
    ]


def _choose(logits: Tensor, sampling: Sampling, generators: list[torch.Generator]) -> Tensor:
    if sampling.temperature <= 0:
        return logits.argmax(-1)
    weights = torch.softmax(logits.float() / sampling.temperature, -1).cpu()
    drawn = [
        torch.multinomial(row, 1, generator=generator)
        for row, generator in zip(weights, generators, strict=True)
    ]
    return torch.cat(drawn).to(logits.device)
