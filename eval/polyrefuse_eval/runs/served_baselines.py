"""Runs of a loaded model whose baselines come from a server that has the same weights.

The server is checked against the model before it answers. Directions, and all answers under edits, are made
by the model itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain

from polyrefuse_data.cluster.tasks import Computation, ModelSlot, Task
from polyrefuse_data.core.display import visible
from polyrefuse_data.core.schema import Row
from polyrefuse_data.http.faults import Fault
from polyrefuse_eval.endpoint.client import EndpointClient
from polyrefuse_eval.endpoint.completions import BaselineServer, TokenIds
from polyrefuse_eval.endpoint.reading import ServiceAnswer, split_reasoning
from polyrefuse_eval.endpoint.spec import ServiceSpec
from polyrefuse_eval.errors import EndpointError
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.models.generate import Answer, generate
from polyrefuse_eval.models.thinking import split_thoughts
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.records import Completion
from polyrefuse_eval.results.settings import BASELINE_CONDITION, LABELS, Measurement
from polyrefuse_eval.runs.measured_prompts import Identity, MeasuredPrompts
from polyrefuse_eval.runs.model_answers import ModelAnswerStage
from polyrefuse_eval.runs.plan import RunPlan
from polyrefuse_eval.runs.progress import GridProgress
from polyrefuse_eval.runs.service_versions import ServiceAnswerStage, ServiceVersions
from polyrefuse_eval.runs.tasks import ModelLoader

CHECKED_PROMPTS = 8
FIRST_TOKENS = 4
"""Tokens of each greedy answer that are compared. A server computes in other batches and kernels, so that
two tokens which are likeliest to within rounding may change places: the more are compared, the more often."""

SERVER_VERSION = "baseline_server"
"""What the server says of its version, among the versions of a signature."""


@dataclass(frozen=True)
class ServedIdentity(Identity):
    """The identity of a model, and what its server says of its version."""

    server_version: str


@dataclass(frozen=True, kw_only=True)
class CheckServer:
    """Check that `server` has the model of `loader`: same template, same first tokens."""

    loader: ModelLoader
    server: BaselineServer
    prompts: tuple[str, ...]

    def __call__(self, slot: ModelSlot) -> ServedIdentity:
        """Return the identity of the model and of the server; raises `EndpointError` where they differ."""
        chat, identity = self.loader.identified(slot)
        version = check_server(chat, self.server, self.prompts)
        return ServedIdentity(identity.signature, identity.versions, version)


@dataclass(frozen=True, eq=False, kw_only=True)
class ServedPrompts(MeasuredPrompts):
    """Let `server` answer the prompts of a measurement without an edit that are not done."""

    loader: ModelLoader
    server: BaselineServer
    max_new_tokens: int

    def __call__(self, slot: ModelSlot) -> Iterator[list[Completion]]:
        """Yield completions as they come; raises `EndpointError` where one cannot be had."""
        chat = self.loader.chat(slot)
        rows = [row for row in self.rows if self.key(row) not in self.done]
        prompts = [prompt.ids for prompt in chat.encode([row.text for row in rows])]
        with closing(EndpointClient(self.server.spec(chat.stop_ids, self.max_new_tokens))) as client:
            for answers in continuations(chat, client, prompts):
                yield [
                    self._completion(rows[index], served_answer(chat, answer), answer)
                    for index, answer in answers
                ]

    def _completion(self, row: Row, answer: ServedAnswer, received: ServiceAnswer) -> Completion:
        return self.completion(
            row, answer.text, answer.n_tokens, answer.ended, answer.reasoning, received.note
        )


class ServedBaselineStage(ServiceAnswerStage, ModelAnswerStage):
    """Make directions and completions of the run `plan`, the baselines by `server`.

    None of these comes from the cache of the model's own baselines, or goes into it.
    """

    def __init__(self, plan: RunPlan, server: BaselineServer, progress: GridProgress, threads: int) -> None:
        super().__init__(plan, progress, threads)
        self._server = server
        self._server_version = ""
        self._service = ServiceVersions(f"the model '{server.model}' of --baseline-url", progress.say)

    def _identifying(self) -> Computation:
        prompts = checked_prompts(self.plan.data, self.plan.settings.langs)
        return CheckServer(loader=self.loader, server=self._server, prompts=prompts)

    def _known_identity(self) -> Identity | None:
        """Return the identity of the model in a run that has begun; None where the server must be checked,
        since baselines are missing."""
        identity = super()._known_identity()
        if identity is None or any(row.measurement.condition == BASELINE_CONDITION for row in self._planned):
            return None
        self._server_version = identity.versions.get(SERVER_VERSION, "")
        return replace(identity, versions=_without_server(identity))

    def _open(self, identity: Identity) -> list[Task]:
        if isinstance(identity, ServedIdentity):
            self._server_version = identity.server_version
            identity = Identity(identity.signature, identity.versions)
        return super()._open(identity)

    def _open_folder(self, identity: Identity) -> None:
        versions = {**identity.versions, SERVER_VERSION: self._server_version}
        super()._open_folder(replace(identity, versions=versions))
        self._service.note(self._completions())

    def _baseline_cache(self, identity: Identity) -> None:
        return None

    def _answering(self, measurement: Measurement, rows: tuple[Row, ...]) -> MeasuredPrompts:
        if measurement.condition != BASELINE_CONDITION:
            return super()._answering(measurement, rows)
        return ServedPrompts(
            loader=self.loader,
            server=self._server,
            measurement=measurement,
            rows=rows,
            max_new_tokens=self.plan.settings.max_new_tokens,
        )


@dataclass(frozen=True, kw_only=True)
class ServedAnswer:
    """A server's answer, as an answer of the loaded model would be recorded.

    `ids` are None where the server gives none; `n_tokens` and `ended` where it does not say.
    """

    text: str
    ids: TokenIds | None
    n_tokens: int | None
    ended: bool | None
    reasoning: str | None


def checked_prompts(data: DataFolder, langs: Sequence[str]) -> tuple[str, ...]:
    """Return up to `CHECKED_PROMPTS` test prompts on which a server is checked, spread over languages and
    labels."""
    cells = [
        [row.text for row in data.rows(lang, "test") if row.label == label]
        for lang in langs
        for label in LABELS
    ]
    spread = [cells[number * len(cells) // CHECKED_PROMPTS] for number in range(CHECKED_PROMPTS)]
    return tuple(cell.pop(0) for cell in spread if cell)


def check_server(chat: ChatModel, server: BaselineServer, prompts: Sequence[str]) -> str:
    """Return what `server` says of its version.

    Raises `EndpointError` unless it reads as many tokens of each of `prompts` as `chat`, and begins its
    greedy answer with the same `FIRST_TOKENS`.
    """
    encoded = [prompt.ids for prompt in chat.encode(prompts)]
    own = {
        answer.key: answer
        for answers in generate(chat, prompts, max_new_tokens=FIRST_TOKENS)
        for answer in answers
    }
    with closing(EndpointClient(server.spec(chat.stop_ids, FIRST_TOKENS))) as client:
        received = dict(chain.from_iterable(continuations(chat, client, encoded)))
    for index in range(len(encoded)):
        answer, served = own[str(index)], served_answer(chat, received[index])
        same = (
            served.text.strip() == answer.text.strip()
            if served.ids is None
            else (served.ids, served.reasoning) == (answer.ids, answer.reasoning)
        )
        if not same:
            raise EndpointError(
                f"--baseline-url: '{server.model}' begins its answer to prompt {index + 1} of {len(encoded)} "
                f"with {_quoted(served)} and '{chat.name}' with {_quoted(answer)} ({FIRST_TOKENS} tokens "
                "compared); serve the same model, revision and precision, or leave --baseline-url out"
            )
    return _version(received[0]) if received else ""


def served_answer(chat: ChatModel, answer: ServiceAnswer) -> ServedAnswer:
    """Return what `answer` would be as one of `chat`; its text is that of its token ids, where it has any."""
    if answer.token_ids is None:
        reasoning, text = split_reasoning(answer.text)
        return ServedAnswer(
            text=text or "",
            ids=None,
            n_tokens=answer.n_tokens,
            ended=False if text is None else answer.ended,
            reasoning=reasoning,
        )
    stop = next((place for place, token in enumerate(answer.token_ids) if token in chat.stop_ids), None)
    parts = split_thoughts(chat.tokenizer, chat.template.marks, answer.token_ids[:stop], False)
    ids = parts.ids or ()
    return ServedAnswer(
        text=chat.tokenizer.decode(list(ids), skip_special_tokens=True),
        ids=ids,
        n_tokens=len(ids),
        ended=(stop is not None or bool(answer.ended)) and parts.ids is not None,
        reasoning=parts.reasoning,
    )


def continuations(
    chat: ChatModel, client: EndpointClient[TokenIds], prompts: Sequence[TokenIds]
) -> Iterator[list[tuple[int, ServiceAnswer]]]:
    """Yield the continuations of `prompts` as they come, each with the index of its prompt.

    As many prompts are on their way as the client has connections, and none is sent before the caller has
    taken what came: after a kill, no more than these are asked for again. Raises `EndpointError`, once the
    answers that came are taken, where a prompt has no answer after all tries, or one that `chat` cannot give.
    """
    waiting = deque(enumerate(prompts))
    asked: dict[Future[ServiceAnswer], int] = {}
    while waiting or asked:
        while waiting and len(asked) < client.spec.pace.connections:
            index, ids = waiting.popleft()
            asked[client.ask(ids)] = index
        done, _ = wait(asked, return_when=FIRST_COMPLETED)
        answers, errors = [], []
        for future in done:
            index, error = asked.pop(future), future.exception()
            error = error or _impossible(chat, client.spec, prompts[index], future.result())
            if error is None:
                answers.append((index, future.result()))
            else:
                errors.append(error)
        if answers:
            yield answers
        for error in errors:
            if isinstance(error, Fault):
                raise EndpointError(f"{client.spec.label} gave no answer ({error})")
            raise error


def _impossible(
    chat: ChatModel, spec: ServiceSpec[TokenIds], prompt: TokenIds, answer: ServiceAnswer
) -> EndpointError | None:
    """Return why `answer` is none that `chat` gives to `prompt` under the limit of `spec`, None if it may be.

    Looks at the tokens that the server says it read, at how many it sends, and at ids that the model lacks.
    """
    n_read, ids = answer.note.prompt_tokens, answer.token_ids
    if n_read not in (None, len(prompt)):
        return EndpointError(
            f"--baseline-url: '{spec.name}' reads {n_read} tokens of a prompt that has {len(prompt)} in the "
            f"template of '{chat.name}'; let the server take prompts as they are, or leave --baseline-url out"
        )
    n_sent = max(len(ids or ()), answer.n_tokens or 0)
    if n_sent > spec.max_tokens:
        return EndpointError(
            f"--baseline-url: '{spec.name}' sends {n_sent} tokens where at most {spec.max_tokens} are asked "
            "for; let the server keep to max_tokens, or leave --baseline-url out"
        )
    if max(ids or (0,)) >= chat.n_embeddings:
        return EndpointError(
            f"--baseline-url: '{spec.name}' sends token {max(ids or (0,))}, and '{chat.name}' has "
            f"{chat.n_embeddings}; serve the same model, or leave --baseline-url out"
        )
    return None


def _without_server(identity: Identity) -> dict[str, str]:
    return {name: version for name, version in identity.versions.items() if name != SERVER_VERSION}


def _version(answer: ServiceAnswer) -> str:
    """Return what a server says of its version, in words."""
    model, fingerprint = answer.note.model, answer.note.system_fingerprint
    return (
        f"{'model not stated' if model is None else model}, system_fingerprint {fingerprint or 'not stated'}"
    )


def _quoted(answer: ServedAnswer | Answer) -> str:
    return f"'{visible(answer.reasoning or answer.text)[:40]}'"
