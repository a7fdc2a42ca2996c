"""Runs a judge's language model here: pinned revision, batches by length, left padding, memory given back."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from polyrefuse_data.core.hub_access import offline_if_unreachable
from polyrefuse_data.core.parsing import parse_json
from polyrefuse_data.core.weights import load_weights
from polyrefuse_eval.errors import JudgeError, OutOfMemoryError, require
from polyrefuse_eval.judging.base import Advance
from polyrefuse_eval.model_source import explain, folder_revision, split_revision, with_adapter

BATCH_SIZE = {"cpu": 8, "cuda": 32}
DTYPES = ("auto", "float32", "bfloat16", "float16")
ADAPTER_FILE = "adapter_config.json"

_LOADING = (OSError, ValueError, KeyError, ImportError, RuntimeError, AssertionError)
"""What transformers raises where a model cannot be loaded."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class JudgeOptions:
    """Where and how judges' models run: `device` None takes a GPU if there is one.

    `request`: further fields of each request to a judge behind an endpoint; None leaves a field out.
    """

    device: str | None = None
    dtype: str = "auto"
    batch_size: int | None = None
    request: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class ModelSource:
    """A repository at a revision, or a folder (revision None); `base` is what an adapter sits on."""

    place: str
    revision: str | None
    base: ModelSource | None = None

    @classmethod
    def parse(cls, text: str, published: ModelSource) -> ModelSource:
        """Return the source that `PATH` or `REPOSITORY@REVISION` names, in place of `published`.

        Raises `JudgeError` for a folder that holds no model, and for a repository without a revision.
        """
        place, revision = split_revision(text)
        folder = Path(place).expanduser()
        if folder.is_dir():
            if not (folder / "config.json").is_file() and not (folder / ADAPTER_FILE).is_file():
                raise JudgeError(f"'{text}' holds neither config.json nor {ADAPTER_FILE}: no model folder")
            return cls(str(folder), None, _folder_base(folder, published.base))
        if place.startswith((".", "/", "~")):
            raise JudgeError(f"no folder '{place}'; give a model folder, or REPOSITORY@REVISION on the Hub")
        if revision is None:
            raise JudgeError(
                f"'{text}' names no revision, so its verdicts could not be reproduced; "
                "give REPOSITORY@COMMIT, or a folder"
            )
        return cls(place, revision, published.base)

    def cited(self, published: ModelSource) -> str:
        """Return what follows a judge's name in signatures: the commit, or a folder's hash."""
        if self.revision is None:
            base = f"+{self.base.cited(self.base)}" if self.base else ""
            return f"folder:{folder_revision(Path(self.place))}{base}"
        return self.revision[:12] if self.place == published.place else f"{self.place}@{self.revision[:12]}"


def _folder_base(folder: Path, published: ModelSource | None) -> ModelSource | None:
    if not (folder / ADAPTER_FILE).is_file():
        return None
    try:
        config = parse_json((folder / ADAPTER_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JudgeError(f"'{folder / ADAPTER_FILE}' cannot be read: {error}") from None
    place = str(config.get("base_model_name_or_path") or "") if isinstance(config, dict) else ""
    if place and Path(place).is_dir():
        return ModelSource(place, None)
    if published is not None and place == published.place:
        return published
    raise JudgeError(
        f"the adapter in '{folder}' is for the base model '{place}', which is not a folder here; put the "
        f"base model's folder into its {ADAPTER_FILE}"
    )


class LocalModel:
    """A causal language model and its tokenizer, held between `load` and `close`."""

    def __init__(self, source: ModelSource, options: JudgeOptions) -> None:
        if options.dtype not in DTYPES:
            raise JudgeError(f"unknown dtype '{options.dtype}'; available: {', '.join(DTYPES)}")
        self.source = source
        self.options = options
        self.tokenizer: Any = None
        self._model: Any = None

    def load(self) -> None:
        """Load model and tokenizer; raises `JudgeError` or `MissingExtraError` in one line."""
        if self._model is not None:
            return
        torch = require("torch", "eval")
        transformers = require("transformers", "eval")
        if self.source.base:
            require("peft", "judges")
        transformers.utils.logging.disable_progress_bar()
        device = self.options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        place = {"revision": self.source.revision}
        under = self.source.base or self.source
        dtype = self.options.dtype if self.options.dtype == "auto" else getattr(torch, self.options.dtype)
        try:
            with offline_if_unreachable():
                tokenizer = transformers.AutoTokenizer.from_pretrained(self.source.place, **place)
                model = load_weights(
                    transformers.AutoModelForCausalLM, under.place, revision=under.revision, dtype=dtype
                )
                if self.source.base:
                    model = with_adapter(model, self.source.place, self.source.revision, extra="judges")
            self._model = model.to(device).eval()
        except torch.OutOfMemoryError:
            self.close()
            raise OutOfMemoryError(
                f"the judge '{self.source.place}' does not fit into the memory of {device}; "
                "try --dtype bfloat16 or --device cpu"
            ) from None
        except _LOADING as error:
            self.close()
            raise JudgeError(explain(self.source.place, error)) from None
        self.tokenizer = tokenizer

    def check(self) -> None:
        """Load the tokenizer alone and forget it: a model that is not at hand is known at once.

        Raises as `load` does.
        """
        tokenizers = require("transformers", "eval").AutoTokenizer
        try:
            with offline_if_unreachable():
                tokenizers.from_pretrained(self.source.place, revision=self.source.revision)
        except _LOADING as error:
            raise JudgeError(explain(self.source.place, error)) from None

    def close(self) -> None:
        """Forget the model, and give its memory back to the device."""
        self._model = self.tokenizer = None
        gc.collect()
        torch = require("torch", "eval")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def context(self) -> int:
        """How many tokens the model reads at most."""
        return int(getattr(self._model.config, "max_position_embeddings", None) or 2**31)

    def answers(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, advance: Advance | None = None
    ) -> list[str]:
        """Return what the model writes after each of `prompts` (token ids), greedily."""
        generation_config = require("transformers", "eval").GenerationConfig

        def batch(arguments: dict[str, Any]) -> list[str]:
            stop = self._model.generation_config.eos_token_id
            config = generation_config(
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=self.tokenizer.eos_token_id if stop is None else stop,
                pad_token_id=self._padding,
            )
            written = self._model.generate(**arguments, generation_config=config)
            new = written[:, arguments["input_ids"].shape[1] :]
            found: list[str] = self.tokenizer.batch_decode(new, skip_special_tokens=True)
            return found

        return self._batched(prompts, batch, advance)

    def next_token_probabilities(
        self, prompts: Sequence[Sequence[int]], tokens: Sequence[int], advance: Advance | None = None
    ) -> list[list[float]]:
        """Return, for each of `prompts`, the probability of each of `tokens` to come next."""

        def batch(arguments: dict[str, Any]) -> list[list[float]]:
            logits = self._model(**arguments, logits_to_keep=1).logits[:, -1]
            found: list[list[float]] = logits.float().softmax(-1)[:, list(tokens)].tolist()
            return found

        return self._batched(prompts, batch, advance)

    @property
    def _padding(self) -> int:
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0

    def _batched(
        self,
        prompts: Sequence[Sequence[int]],
        run: Callable[[dict[str, Any]], list[Result]],
        advance: Advance | None,
    ) -> list[Result]:
        """Return `run`'s results in the order of `prompts`; batches hold prompts of like length, longest
        first, so that memory that suffices once suffices to the end. A batch is halved where it does not.
        """
        import torch

        results: dict[int, Result] = {}
        order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
        size = self.options.batch_size or BATCH_SIZE.get(self._model.device.type, 8)
        while order:
            part = order[:size]
            found: list[Result] | None = None
            try:
                with torch.inference_mode():
                    found = run(self._padded([prompts[index] for index in part]))
            except (torch.OutOfMemoryError, RuntimeError) as error:
                no_room = isinstance(error, torch.OutOfMemoryError) or "can't allocate" in str(error)
                if not no_room:
                    raise
                if len(part) == 1:
                    raise OutOfMemoryError(
                        f"{self._model.device} has no room for one completion of {len(prompts[part[0]])} "
                        f"tokens in the judge '{self.source.place}'; try --dtype bfloat16 or --device cpu"
                    ) from None
            if found is None:
                # Outside of the handler, whose traceback would keep the batch's memory alive.
                size = max(1, len(part) // 2)
                if self._model.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            results.update(zip(part, found, strict=True))
            order = order[len(part) :]
            if advance is not None:
                advance(len(part))
        return [results[index] for index in range(len(prompts))]

    def _padded(self, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        import torch

        width = max(map(len, prompts))
        ids = [[self._padding] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        device = self._model.device
        return {
            "input_ids": torch.tensor(ids, device=device),
            "attention_mask": torch.tensor(mask, device=device),
        }
