"""The commands `publish` and `diff`: parse, call the Python API, print what comes back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from polyrefuse_data.cli.parts import folder_argument
from polyrefuse_data.cli.translators import languages_option
from polyrefuse_data.core.display import counted, visible_json
from polyrefuse_data.core.terminal import show, show_lines

if TYPE_CHECKING:
    from polyrefuse_data.publish.plan import Plan
    from polyrefuse_data.publish.publish import PublishResult


@click.command("publish")
@click.argument("folder", type=folder_argument)
@click.option(
    "--to",
    required=True,
    metavar="NAME/DATASET",
    help="The data set on the Hub, or the Space with --site; created private if absent.",
)
@click.option(
    "--gated",
    type=click.Choice(["manual", "auto"]),
    help="Who approves requests for access: you, or the Hub.",
)
@click.option(
    "--ungated", is_flag=True, help="Allow a public release without a gate; an existing gate is kept."
)
@click.option("--public", is_flag=True, help="Make it public, once every file is verified.")
@click.option(
    "--allow-gaps", is_flag=True, help="Publish a build with gaps or failed checks; its card names them."
)
@click.option("--version", help="Version to tag, as 1.2.0.  [default: the next one by what changed]")
@click.option("--results", is_flag=True, help="FOLDER holds results of `polyrefuse eval run`, not a build.")
@click.option(
    "--site", is_flag=True, help="FOLDER holds a page of `polyrefuse eval leaderboard`, for a static Space."
)
@click.option("--dry-run", is_flag=True, help="Show what would be sent and what changed; send nothing.")
@languages_option
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
def publish_command(quiet: bool, **options: Any) -> None:
    """Publish a complete build to the Hugging Face Hub: one commit, a tag, and everything read back.

    With --results, publish the numbers of runs; with --site, the page of a leaderboard as a static Space.

    The token is taken from HF_TOKEN or from `hf auth login`. If interrupted, the Hub shows the old version
    or the new one; run the same command again to finish. Once finished, it sends nothing.

    \b
    Examples:
      polyrefuse publish builds/paper --to acme/polyrefuse --gated manual --dry-run
      polyrefuse publish builds/paper --to acme/polyrefuse --gated manual
      polyrefuse publish --results runs/A --to acme/polyrefuse-results
      polyrefuse publish --site site --to acme/leaderboard --public
    """
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from polyrefuse_data.core.progress import StepProgress
    from polyrefuse_data.publish.plan import PublishRequest
    from polyrefuse_data.publish.publish import publish

    if quiet or not sys.stderr.isatty():
        disable_progress_bars()
    with StepProgress(quiet) as progress:
        result = publish(PublishRequest(**options), progress=progress)
    for note in result.plan.release.notes:
        show(note, err=True)
    if not quiet:
        for line in _result_lines(result, options["dry_run"]):
            show(line)


def _result_lines(result: PublishResult, dry_run: bool) -> list[str]:
    from huggingface_hub import constants

    from polyrefuse_data.publish.changelog import difference_lines

    plan = result.plan
    name = plan.name if plan.tag is None else f"{plan.name} {plan.tag}"
    lines = []
    if dry_run:
        lines += _plan_lines(plan)
    elif plan.nothing_to_do:
        kind = "page" if plan.tag is None else "build"
        lines.append(
            f"Nothing sent: {name} is this {kind} already ({counted(result.verified, 'file')} read back)"
        )
    else:
        lines.append(f"Published: {name}, commit {result.commit}")
        lines.append(
            f"Sent {counted(result.sent, 'file')} ({plan.bytes_to_send:,} bytes), "
            f"removed {len(plan.delete)}, {len(plan.same)} already there; {result.verified} read "
            "back, all identical"
            if result.sent or plan.delete
            else (
                f"Sent no file, all {len(plan.same)} already there; {result.verified} read back, "
                "all identical"
            )
        )
    if plan.differences is not None and not plan.nothing_to_do and plan.release.has_prompts:
        lines += ["", *difference_lines(plan.differences)]
    if not dry_run and plan.release.has_prompts:
        lang = list(plan.release.manifest["languages"])[-1]
        lines.append(
            f'Load:   datasets.load_dataset("{plan.name}", "{lang}", split="test", revision="{plan.tag}")'
        )
    if not dry_run and plan.tag is None:
        lines.append(f"Open:   {constants.ENDPOINT}/spaces/{plan.name}")
    return lines


def _plan_lines(plan: Plan) -> list[str]:
    state = plan.state
    visibility = "private" if state is None or state.private else "public"
    lines = [
        f"Dry run, nothing was sent. {plan.name}: "
        + ("would be created, private" if state is None else "is there")
    ]
    if state is not None:
        facts = [visibility, f"main at {state.head[:12]}"]
        if plan.tag is not None:
            facts[1:1] = [str(state.gated or "no gate")]
            facts.append(counted(len(state.tags), "tag"))
        lines.append(f"  {', '.join(facts)}")
    if plan.gate:
        lines.append(f"  gating would be turned to {plan.gate}")
    if plan.make_public:
        lines.append("  would be made public at the end")
    if plan.tag is not None:
        lines.append(f"  version {plan.tag}{', tagged already' if plan.tagged else ''}")
    lines.append(
        f"  send {counted(len(plan.send), 'file')}, {plan.bytes_to_send:,} bytes; "
        f"{len(plan.same)} are there already"
    )
    lines += [f"    {name}  {plan.sizes[name]:,}" for name in plan.send]
    lines += [f"    remove {name}" for name in plan.delete]
    lines += [f"    leave {name}, which was not published from here" for name in plan.kept]
    lines += [f"    not part of the release, stays here: {name}" for name in plan.release.left_out]
    return lines


@click.command("diff")
@click.argument("old")
@click.argument("new")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--texts", default=10, show_default=True, help="Changed translations to show with both texts.")
@click.option(
    "--quality",
    is_flag=True,
    help="Also compare the translations' scores, with intervals over prompts.",
)
def diff_command(old: str, new: str, form: str, texts: int, quality: bool) -> None:
    """Compare two versions: folders of builds, or revisions on the Hub as acme/polyrefuse@v1.0.0.

    Lists rows added, removed, renumbered and changed by language and split, translations that changed with
    both texts, checks that changed, and the number that the next version should have: major if rows or
    columns were removed or ids changed, minor if rows were added or translations changed, patch for
    anything else.

    \b
    Examples:
      polyrefuse diff builds/old builds/new
      polyrefuse diff hf://acme/polyrefuse@v1.0.0 builds/paper --format json
      polyrefuse diff builds/old builds/new --quality
    """
    from polyrefuse_data.publish.changelog import difference_lines
    from polyrefuse_data.publish.differences import compare
    from polyrefuse_data.publish.quality import compare_quality, quality_lines
    from polyrefuse_data.publish.snapshots import open_snapshot

    before, after = open_snapshot(old), open_snapshot(new)
    differences = compare(before, after)
    changes = compare_quality(before, after) if quality else []
    if form == "json":
        compared = {"quality": [change.to_dict() for change in changes]} if quality else {}
        show_lines(visible_json({**differences.to_dict(), **compared}))
        return
    for line in difference_lines(differences, texts):
        show(line)
    for line in ["", *quality_lines(changes)] if quality else []:
        show(line)
