"""The options of a model and of its directions, which the command line, a grid file and Python share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import StrictBool

from polyrefuse_eval.endpoint.spec import NO_ACTIVATIONS, is_endpoint
from polyrefuse_eval.errors import EndpointError, RunFolderError
from polyrefuse_eval.runs.option_fields import (
    Folder,
    OptionalText,
    Options,
    Positive,
    Text,
    option,
)

if TYPE_CHECKING:
    from polyrefuse_eval.models.spec import ModelSpec
    from polyrefuse_eval.results.data import DataFolder
    from polyrefuse_eval.results.settings import RunSettings
    from polyrefuse_eval.runs.direction_source import DirectionSource

IDENTITY = ("dtype", "quantization", "attention", "system", "thinking", "max_thinking_tokens", "structure")
"""Options of the model that change its numbers."""


class ModelOptions(Options):
    """Which chat model, and how it is loaded."""

    model: Text = option(
        "organism",
        "Hub name or folder, either with @REVISION; 'organism', 'organism-per-language' and "
        "'organism-harmfulness' are tiny models trained here; openai:NAME is a model behind --url, for "
        "`eval run` alone.",
    )
    dtype: Text = option("auto", "auto, float32, bfloat16 or float16.")
    device: OptionalText = option(None, "cpu, cuda, cuda:1, mps.  [default: a GPU if there is one]")
    device_map: OptionalText = option(None, "How to spread a large model, e.g. 'auto' (needs accelerate).")
    quantization: OptionalText = option(None, "8bit or 4bit (needs bitsandbytes).")
    attention: OptionalText = option(None, "Attention implementation: sdpa, eager, flash_attention_2.")
    system: OptionalText = option(None, "System prompt.  [default: none]")
    thinking: StrictBool = option(False, "Enable thinking mode, if the model has one.")
    max_thinking_tokens: Positive = option(
        2048, "With --thinking: longest reasoning, in tokens; longer reasoning is cut off."
    )
    structure: Text = option("", "Where the decoder layers are, if they are not found: layers=PATH.")
    trust_remote_code: StrictBool = option(False, "Run code that is part of the model's repository.")

    def spec(self, **more: Any) -> ModelSpec:
        """Return what loads the model."""
        from polyrefuse_eval.models.spec import ModelSpec

        if is_endpoint(self.model):
            raise EndpointError(NO_ACTIVATIONS.format(model=self.model))
        names = [name for name in ModelOptions.model_fields if name != "model"]
        return ModelSpec(self.model, {**{name: getattr(self, name) for name in names}, **more})


class DirectionOptions(ModelOptions):
    """How the directions of a model are fitted and selected."""

    data: Folder = option(Path("builds/sample"), "A build.")
    rule: Text = option("robust", "robust, mediating, arditi2024 or wang2025.")
    train: Positive = option(128, "Training prompts per label.")
    validation: Positive = option(32, "Validation prompts.")
    no_filter: StrictBool = option(
        False,
        "Also use training and validation prompts on which the model acts against their label: harmful "
        "ones that it answers, harmless ones that it refuses.",
    )
    refusal_tokens: OptionalText = option(
        None,
        "First tokens of the model's refusals: words or token ids.  [default: found]",
    )
    all_candidates: StrictBool = option(
        False, "Measure every score of every candidate, even those that cannot change the choice."
    )
    kl: Text = option(
        "first-token",
        "KL divergence that limits a candidate's side effects: of the first token (first-token), or with "
        "tokens=16 the mean over the first 16 tokens of the model's own answers.",
    )
    final_punctuation: Text = option(
        "kept",
        "Find directions on prompts with their final punctuation (kept) or without it (removed). The "
        "prompts that are answered stay unchanged.",
        json_schema_extra={"metavar": "[kept|removed]"},
    )
    seed: int = option(0, "Seed of the controls.")

    def settings(
        self, langs: str, directions: str | None, elsewhere: DirectionSource | None = None, **more: Any
    ) -> tuple[DataFolder, RunSettings]:
        """Return data and settings for these languages; raises `PolyRefuseError` for what is not there.

        `directions` are None for a model that gives none; they come from `elsewhere` where it is given.
        """
        from polyrefuse_eval.directions.selection import rule_steps
        from polyrefuse_eval.results.data import open_data
        from polyrefuse_eval.results.final_punctuation import KEPT, prompt_reader
        from polyrefuse_eval.results.prompt_draw import SEED, is_limited
        from polyrefuse_eval.results.settings import RunSettings, parse_kl
        from polyrefuse_eval.results.sources import parse_sources

        data = open_data(self.data)
        wanted = data.select(langs)
        if directions is None:
            sources = []
        elif elsewhere is not None:
            sources = elsewhere.select(directions, wanted)
        else:
            sources = parse_sources(directions, wanted, data.select)
        rule_steps(self.rule)
        prompt_reader(self.final_punctuation)
        if self.final_punctuation != KEPT and (elsewhere is not None and elsewhere.run is not None):
            raise RunFolderError(
                f"--final-punctuation {self.final_punctuation} sets how directions are found, and "
                "--directions-from RUN uses directions that were found already; leave one out, or "
                "give a build"
            )
        if self.final_punctuation != KEPT and not sources:
            raise RunFolderError(
                f"--final-punctuation {self.final_punctuation} sets how directions are found, and this run "
                "finds none; leave it out"
            )
        settings = RunSettings(
            langs=tuple(wanted),
            direction_langs=tuple(sources),
            rule=self.rule,
            n_train=self.train,
            n_validation=self.validation,
            filter_prompts=not self.no_filter,
            refusal_tokens=self.refusal_tokens,
            all_candidates=self.all_candidates,
            kl_tokens=parse_kl(self.kl),
            final_punctuation=self.final_punctuation,
            seed=self.seed,
            directions_from=None if elsewhere is None else elsewhere.identity,
            **{"test_seed": SEED, **more},
        )
        return data, settings if is_limited(data, settings) else replace(settings, test_seed=None)


def check_refusal_tokens(settings: RunSettings) -> None:
    """Raise `JudgeError` where refusal tokens of `settings` would be found by a judge that reads no answer
    of their language."""
    from polyrefuse_eval.judging.native.judge import NativeJudge
    from polyrefuse_eval.results.sources import languages_of

    if settings.refusal_tokens is None:
        langs = {lang for source in settings.fitted_sources for lang in languages_of(source, settings.langs)}
        NativeJudge().check_languages(
            langs,
            "refusal tokens are found without --phrases, so name them with --refusal-tokens, or take "
            "directions from other languages",
        )
