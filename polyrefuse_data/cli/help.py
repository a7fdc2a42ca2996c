"""Group the options and commands that `--help` shows, so that a reader finds one among forty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

MANY_OPTIONS = 12
"""A command with fewer options shows them in one list."""

SECTIONS = {
    "Model": """
        model url dtype device device_map quantization attention system thinking max_thinking_tokens structure
        trust_remote_code guard direction transfer other_weights""",
    "Data": """
        data recipe langs split label limit train n_train validation n_validation test n_test sources size
        seed extra jailbreaks languages_file lang only english back calibrate over_refusal directions_from
        prompt_sets""",
    "What to measure": """
        rule no_filter refusal_tokens all_candidates directions strengths coefficient crossed controls
        max_new_tokens behaviour n_steered n_inverted layers layer scope pooled threshold thresholds against
        action temperature position scores similarity similarity_of quality intent model_langs all_votes
        kl addition_strengths interventions tokens examples draws final_punctuation""",
    "Judges": """
        judge judges names models judge_model judge_batch_size judge_request phrases check_phrases
        reference agreement""",
    "Translation": """
        memory memory_file translator translator_url candidates back_translate""",
    "Services": """
        baseline_url baseline_model connections requests_per_second requests_per_minute characters_per_second
        tokens_per_minute timeout deadline key_variable request prices budget""",
    "Where to run": """
        executor scheduler slurm workers gpus_per_worker retries threads tensor_parallel batch_size""",
    "Output": "out html form show_texts plots allow_gaps log dry_run replace worst quiet",
}
"""Section to the names of its options; an option that stands in none is shown under `Other`."""

OTHER = "Other"


def section_of(option: click.Option) -> str:
    """Return the title of the section in which `option` is shown."""
    name = "quiet" if "--help" in option.opts else option.name
    return next((title for title, names in SECTIONS.items() if name in names.split()), OTHER)


class SectionedCommand(click.Command):
    """A command whose `--help` groups its options: model, data, what to measure, where to run."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, in sections if there are many."""
        records = [
            (section_of(parameter), record)
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)) is not None
        ]
        if len(records) < MANY_OPTIONS:
            super().format_options(ctx, formatter)
            return
        for title in (*SECTIONS, OTHER):
            rows = [record for section, record in records if section == title]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class SectionedGroup(click.Group):
    """A group whose `--help` shows its commands in `sections` and their first sentence in full."""

    command_class = SectionedCommand

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, those in no section last."""
        for title, names in self._titled(self.list_commands(ctx)):
            commands = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(name, command.get_short_help_str(limit=200)) for name, command in commands if command]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def _titled(self, names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
        """Yield each section with those of `names` that stand in it, then the others."""
        for title, members in self.sections.items():
            yield title, [name for name in members if name in names]
        shown = {name for members in self.sections.values() for name in members}
        yield OTHER, [name for name in names if name not in shown]
