"""The options of a run: one typed object that the command line, a grid file and Python share.

Imports little, so that help is quick, and bad options are reported before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import StrictBool

from polyrefuse_eval.endpoint.spec import NO_ACTIVATIONS, is_endpoint, read_fields
from polyrefuse_eval.errors import EndpointError, RunFolderError, require
from polyrefuse_eval.processes import require_processes, world_size
from polyrefuse_eval.results.interventions import DEFAULT_INTERVENTIONS
from polyrefuse_eval.results.sources import NO_DIRECTIONS
from polyrefuse_eval.runs.baseline_server_options import BaselineServerOptions, baseline_server
from polyrefuse_eval.runs.direction_options import IDENTITY, DirectionOptions, check_refusal_tokens
from polyrefuse_eval.runs.endpoint_options import (
    EndpointOptions,
    check_without_endpoint,
    endpoint_identity,
    endpoint_spec,
)
from polyrefuse_eval.runs.gaps import say_gaps
from polyrefuse_eval.runs.option_fields import (
    OptionalFolder,
    OptionalPositive,
    OptionalText,
    Options,
    Positive,
    Text,
    option,
)

if TYPE_CHECKING:
    from polyrefuse_eval.results.data import DataFolder
    from polyrefuse_eval.results.settings import RunSettings
    from polyrefuse_eval.runs.direction_source import DirectionSource
    from polyrefuse_eval.runs.plan import RunPlan

COMMAND_LINE_ONLY = ("trust_remote_code", "tensor_parallel", "key_variable", "prices", "budget")
"""Options that run code of others, choose where to compute, send keys or spend money: a grid file may not
hold them."""


class ReadingOptions(Options):
    """How the models of judges are loaded and run."""

    judge_model: tuple[str, ...] = option(
        (),
        "Where to find a judge's model: a folder, or REPOSITORY@COMMIT.  [default: as published, pinned]",
        json_schema_extra={"metavar": "NAME=PLACE"},
    )
    judge_batch_size: OptionalPositive = option(None, "Batch size of a judge's model.")
    judge_request: OptionalText = option(
        None,
        "JSON object with fields to add to each request to a judge openai:MODEL; null removes a field.",
        json_schema_extra={"metavar": "JSON"},
    )
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
        "Languages whose directions are used; 'pooled' for one direction of all; de+ja+yo for the span "
        "of several, ablated together; 'span' for that of all of --langs, span4 for its 4 leading "
        "directions; en-over-refusal for one without its part along over-refusal; 'none' measures only "
        "answers without edits.",
    )
    directions_from: OptionalText = option(
        None,
        "A run of the same model whose directions are used, or a build to find them on; --data then "
        "needs only test prompts.",
        json_schema_extra={"metavar": "RUN|BUILD"},
    )
    judges: Text = option("native", "Judges that read the answers, separated by commas.")
    max_new_tokens: Positive = option(512, "Longest answer.")
    test: OptionalText = option(
        None,
        "Test prompts of each label and language: N drawn from all sources, or the first N.  [default: all]",
        json_schema_extra={"metavar": "[first:]N"},
    )
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
        "Prompts for cross-checks, ablation on harmless and addition on harmful ones: a number, 0, or 'all'.",
    )
    over_refusal: OptionalFolder = option(
        None,
        "A build with contrast pairs (recipe over-refusal): also measure its prompts under every "
        "condition. Directions such as en-over-refusal are fitted on half of the pairs, which is left out.",
    )
    extra: tuple[str, ...] = option(
        (),
        "Prompts of your own, with kinds: JSON, JSON Lines or CSV with a label, or harmful=FILE; also "
        "measured under every condition.",
        json_schema_extra={"metavar": "FILE"},
    )
    jailbreaks: tuple[str, ...] = option(
        (),
        "Published jailbreaks to measure as well: suffix, persuasion or template = CSV, JSON or JSON Lines.",
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
        from polyrefuse_eval.results.prompt_draw import parse_test
        from polyrefuse_eval.results.settings import (
            parse_addition_strengths,
            parse_crossed,
            parse_strengths,
        )
        from polyrefuse_eval.results.subset_files import OVER_REFUSAL, USER_PROMPTS
        from polyrefuse_eval.results.user_prompts import read_extra
        from polyrefuse_eval.runs.inner_plans import over_refusal_plan, pairs_to_fit, user_prompts_plan
        from polyrefuse_eval.runs.plan import RunPlan, request_of

        user_prompts = [prompt for source in self.extra for prompt in read_extra(source, say)]
        user_prompts += [prompt for source in self.jailbreaks for prompt in read_jailbreaks(source, say)]
        fields = read_fields(self.judge_request, "--judge-request")
        options = JudgeOptions(self.device, batch_size=self.judge_batch_size, request=fields)
        phrases = [Path(path) for path in self.phrases]
        specs = judge_specs(self.judges, models=self.judge_model, options=options, phrases=phrases)
        endpoint = endpoint_spec(self) if is_endpoint(self.model) else None
        server = baseline_server(self)
        if endpoint is None:
            check_without_endpoint(self)
        else:
            say(f"{self.model} gives no activations: its baselines are measured, without directions")
        edited = endpoint is None and self.directions.strip() != NO_DIRECTIONS
        elsewhere = self._direction_source()
        if elsewhere is not None and not edited:
            raise RunFolderError(
                "--directions none uses no directions, but --directions-from is given; leave one out"
            )
        n_test, test_seed = parse_test(self.test)
        data, settings = self.settings(
            self.langs,
            self.directions if edited else None,
            elsewhere,
            max_new_tokens=self.max_new_tokens,
            n_test=n_test,
            test_seed=test_seed,
            coefficient=self.coefficient,
            strengths=parse_strengths(self.strengths) if edited else (),
            addition_strengths=parse_addition_strengths(self.addition_strengths, self.coefficient),
            interventions=parse_interventions(self.interventions),
            crossed=parse_crossed(self.crossed) if edited else 0,
            batch_size=self.batch_size,
            controls=self.controls and edited,
            baseline_server=None if server is None else server.identity,
        )
        if elsewhere is None or elsewhere.run is None:
            check_refusal_tokens(settings)
        if elsewhere is not None and elsewhere.run is not None:
            pairs, identity_of_pairs = None, elsewhere.over_refusal_from(settings.fitted_sources)
        else:
            pairs = pairs_to_fit(settings, self.over_refusal)
            identity_of_pairs = None if pairs is None else pairs.identity
        settings = replace(settings, over_refusal_from=identity_of_pairs)
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
            fitted_pairs=pairs,
            baseline_server=server,
        )

        def asked(data: DataFolder, settings: RunSettings) -> dict[str, Any]:
            return request_of(self.model, identity, data, settings, names)

        inner = {}
        if self.over_refusal is not None:
            inner[OVER_REFUSAL] = over_refusal_plan(plan, self.over_refusal, test_seed, asked, say)
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
