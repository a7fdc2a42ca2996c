"""The options of a run: one typed object that the command line, a grid file and Python share.

Imports little, so that help is quick, and bad options are reported before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar

from annotated_types import Ge
from pydantic import StrictBool, ValidationError
from pydantic.fields import FieldInfo

from polyrefuse_eval.endpoint.spec import NO_ACTIVATIONS, is_endpoint
from polyrefuse_eval.errors import EndpointError, RunFolderError, require
from polyrefuse_eval.processes import require_processes, world_size
from polyrefuse_eval.results.interventions import DEFAULT_INTERVENTIONS
from polyrefuse_eval.runs.baseline_server_options import BaselineServerOptions, baseline_server
from polyrefuse_eval.runs.endpoint_options import (
    EndpointOptions,
    check_without_endpoint,
    endpoint_identity,
    endpoint_spec,
)
from polyrefuse_eval.runs.gaps import say_gaps
from polyrefuse_eval.runs.option_fields import (
    Folder,
    OptionalFolder,
    OptionalPositive,
    OptionalText,
    Options,
    Positive,
    Text,
    option,
    option_name,
)

if TYPE_CHECKING:
    from polyrefuse_eval.models.spec import ModelSpec
    from polyrefuse_eval.results.data import DataFolder
    from polyrefuse_eval.results.settings import RunSettings
    from polyrefuse_eval.runs.direction_source import DirectionSource
    from polyrefuse_eval.runs.plan import RunPlan

COMMAND_LINE_ONLY = ("trust_remote_code", "tensor_parallel", "key_variable", "prices", "budget")
"""Options that run code of others, choose where to compute, send keys or spend money: a grid file may not
hold them."""

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
        2048, "With --thinking: longest reasoning, in tokens; what is longer is cut off."
    )
    structure: Text = option("", "Where the decoder layers are, if they are not found: layers=PATH.")
    trust_remote_code: StrictBool = option(False, "Run code that comes with the model.")

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
    train: Positive = option(128, "Training prompts of each label.")
    validation: Positive = option(32, "Validation prompts.")
    no_filter: StrictBool = option(
        False,
        "Also use training and validation prompts that the model treats against their label: harmful ones "
        "that it answers, harmless ones that it refuses.",
    )
    refusal_tokens: OptionalText = option(
        None, "First tokens of the model's refusals: words or token ids.  [default: found]"
    )
    all_candidates: StrictBool = option(
        False, "Measure every score of every candidate, also those that cannot change the choice."
    )
    kl: Text = option(
        "first-token",
        "KL divergence that limits a candidate's side effects: of the first-token, or with tokens=16 the "
        "mean over the first 16 tokens of the model's own answers.",
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
            seed=self.seed,
            directions_from=None if elsewhere is None else elsewhere.identity,
            **more,
        )
        return data, settings


class ReadingOptions(Options):
    """How the models of judges are loaded and run."""

    judge_model: tuple[str, ...] = option(
        (),
        "Where to find a judge's model: a folder, or REPOSITORY@COMMIT.  [default: as published, pinned]",
        json_schema_extra={"metavar": "NAME=PLACE"},
    )
    judge_batch_size: OptionalPositive = option(None, "Batch size of a judge's model.")
    phrases: tuple[str, ...] = option(
        (),
        "Patterns of another language for the native judge, in a file named after its code: sw.yaml.",
        json_schema_extra={"metavar": "FILE"},
    )


class RunOptions(ReadingOptions, BaselineServerOptions, EndpointOptions, DirectionOptions):
    """What a run measures. Texts may be given as lists: `langs=["en", "de"]` is `langs="en,de"`."""

    langs: Text = option("all", "Languages to measure in.")
    directions: Text = option(
        "en",
        "Languages to take directions from; 'pooled' for one of all; de+ja+yo for the span of several, "
        "ablated together; 'span' for that of all of --langs, span4 for its 4 leading directions.",
    )
    directions_from: OptionalText = option(
        None,
        "A run of the same model whose directions are taken, or a build on which they are found; --data "
        "needs test prompts alone.",
        json_schema_extra={"metavar": "RUN|BUILD"},
    )
    judges: Text = option("native", "Judges of the answers, separated by commas.")
    max_new_tokens: Positive = option(512, "Longest answer.")
    test: OptionalPositive = option(None, "Test prompts of each label and language.  [default: all]")
    coefficient: float = option(1.0, "Strength of activation addition.")
    strengths: Text = option(
        "0.25,0.5,0.75",
        "Further strengths of ablating each language's own direction (else the first), or 'none'.",
    )
    addition_strengths: Text = option(
        "none", "Further strengths of addition, such as 0.5,2, besides --coefficient."
    )
    interventions: Text = option(
        ",".join(DEFAULT_INTERVENTIONS),
        "Interventions to measure; conditional-ablation and conditional-addition edit only prompts that the "
        "model represents as harmful.",
    )
    crossed: Text = option(
        "128",
        "Prompts for ablation on harmless and addition on harmful prompts: a number, 0, or 'all'.",
    )
    over_refusal: OptionalFolder = option(
        None,
        "A build with contrast pairs (recipe over-refusal): measure its prompts, too, under every condition.",
    )
    extra: tuple[str, ...] = option(
        (),
        "Prompts of your own, with kinds: JSON, JSON Lines or CSV with a label, or harmful=FILE; measured "
        "under every condition, too.",
        json_schema_extra={"metavar": "FILE"},
    )
    jailbreaks: tuple[str, ...] = option(
        (),
        "Published jailbreaks to measure, too: suffix, persuasion or template = CSV, JSON or JSON Lines.",
        json_schema_extra={"metavar": "KIND=FILE"},
    )
    batch_size: OptionalPositive = option(
        None, "Batch size of generation.  [default: up to 64 on a CPU, 256 on a GPU]"
    )
    controls: StrictBool = option(True, "Also measure a random and a shuffled-label direction.")
    tensor_parallel: StrictBool = option(False, "Spread the model over processes, under torchrun.")

    def plan(self, out: Path, say: Callable[[str], None] = lambda _line: None) -> RunPlan:
        """Return the plan of the run into `out`; raises `PolyRefuseError` before a model is loaded.

        `say` gets a line for each judge that was not made for a language.
        """
        from polyrefuse_eval.judging.local_model import JudgeOptions
        from polyrefuse_eval.judging.registry import check_languages, judge_specs
        from polyrefuse_eval.results.interventions import parse_interventions
        from polyrefuse_eval.results.jailbreaks import read_jailbreaks
        from polyrefuse_eval.results.settings import (
            parse_addition_strengths,
            parse_crossed,
            parse_strengths,
        )
        from polyrefuse_eval.results.subset_files import OVER_REFUSAL, USER_PROMPTS
        from polyrefuse_eval.results.user_prompts import read_extra
        from polyrefuse_eval.runs.inner_plans import over_refusal_plan, user_prompts_plan
        from polyrefuse_eval.runs.plan import RunPlan, request_of

        user_prompts = [prompt for source in self.extra for prompt in read_extra(source, say)]
        user_prompts += [prompt for source in self.jailbreaks for prompt in read_jailbreaks(source, say)]
        options = JudgeOptions(self.device, batch_size=self.judge_batch_size)
        phrases = [Path(path) for path in self.phrases]
        specs = judge_specs(self.judges, models=self.judge_model, options=options, phrases=phrases)
        endpoint = endpoint_spec(self) if is_endpoint(self.model) else None
        server = baseline_server(self)
        if endpoint is None:
            check_without_endpoint(self)
        else:
            say(f"{self.model} gives no activations: its baselines are measured, without directions")
        elsewhere = self._direction_source()
        data, settings = self.settings(
            self.langs,
            self.directions if endpoint is None else None,
            elsewhere,
            max_new_tokens=self.max_new_tokens,
            n_test=self.test,
            coefficient=self.coefficient,
            strengths=parse_strengths(self.strengths) if endpoint is None else (),
            addition_strengths=parse_addition_strengths(self.addition_strengths, self.coefficient),
            interventions=parse_interventions(self.interventions),
            crossed=parse_crossed(self.crossed) if endpoint is None else 0,
            batch_size=self.batch_size,
            controls=self.controls and endpoint is None,
            baseline_server=None if server is None else server.identity,
        )
        say_gaps(data, settings, say, elsewhere)
        judges = {spec: spec() for spec in specs}
        check_languages(list(judges.values()), settings.langs)
        for judge in judges.values():
            languages = judge.languages
            foreign = [lang for lang in settings.langs if languages is not None and lang not in languages]
            if foreign:
                say(f"{judge.name} was not made for {', '.join(foreign)}; read its verdicts there with care")
        names = [judge.name for judge in judges.values()]
        identity = self._identity() if endpoint is None else endpoint_identity(self, endpoint)
        request = request_of(self.model, identity, data, settings, names)
        if elsewhere is not None:
            elsewhere.check_request(request)
            elsewhere.check_files(settings)
        plan = RunPlan(
            direction_source=elsewhere,
            load=endpoint or self.spec(**({"tensor_parallel": True} if self.tensor_parallel else {})),
            data=data,
            settings=settings,
            judges=list(judges.values()),
            out=out,
            request=request,
            judge_specs={judge.name: spec for spec, judge in judges.items() if spec.is_model},
            baseline_server=server,
        )

        def asked(data: DataFolder, settings: RunSettings) -> dict[str, Any]:
            return request_of(self.model, identity, data, settings, names)

        inner = {}
        if self.over_refusal is not None:
            inner[OVER_REFUSAL] = over_refusal_plan(plan, self.over_refusal, asked, say)
        if user_prompts:
            inner[USER_PROMPTS] = user_prompts_plan(plan, user_prompts, asked)
        return replace(plan, inner=inner)

    def _direction_source(self) -> DirectionSource | None:
        from polyrefuse_eval.runs.direction_source import open_direction_source

        if self.directions_from is None:
            return None
        if is_endpoint(self.model):
            raise EndpointError(NO_ACTIVATIONS.format(model=self.model))
        return open_direction_source(Path(self.directions_from))

    def _identity(self) -> dict[str, Any]:
        """Return the options that change the numbers of a model that is loaded here."""
        identity = {name: getattr(self, name) for name in IDENTITY}
        if self.tensor_parallel:
            require("torch", "eval")
            require_processes()
            identity["tensor_parallel"] = world_size()
        return identity


AnyOptions = TypeVar("AnyOptions", bound=Options)


def read_options(kind: type[AnyOptions], values: Mapping[str, Any], where: str = "") -> AnyOptions:
    """Return the options `values`, by field name; raises `RunFolderError` that begins with `where`."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0])
        raise RunFolderError(
            f"{where}{option_name(name)} is {fault['input']!r}; expected {_expected(kind.model_fields[name])}"
        ) from None


def value_type(field: FieldInfo) -> Any:
    """Return the type of a field's value, without None."""
    if isinstance(field.annotation, UnionType):
        return next(kind for kind in field.annotation.__args__ if kind is not type(None))
    return field.annotation


def least(field: FieldInfo) -> int | None:
    """Return the least value of a field, None where it has none."""
    return next((int(str(bound.ge)) for bound in field.metadata if isinstance(bound, Ge)), None)


def _expected(field: FieldInfo) -> str:
    kind, minimum = value_type(field), least(field)
    words = {bool: "true or false", float: "a number", Path: "a folder here", str: "a word or a number"}
    if kind is int:
        return "a whole number" + (f" of {minimum} or more" if minimum is not None else "")
    return words.get(kind, "a list of words")
