"""Measure a small real model as docs/results.md shows them, and write its tables anew.

    python benchmarks/results.py measure --models DIR --material DIR --work DIR [STEP ...]
    python benchmarks/results.py write --work DIR

`measure` runs the steps below one after another, each as the command that the page prints; a step that was
killed goes on, and one that is done costs seconds. `--models` holds the folders
`qwen2.5-coder-0.5b-instruct` and `smollm2-135m-instruct`; `--material` holds the upstream files, the release
in `published/`, and XSTest in `overrefusal/`. `write` copies rates and figures, never a prompt or an answer,
into the sections whose runs lie in `--work`; others stay as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from results_beside import templates, without_over_refusal

from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_eval.report.markdown import comprehension_tables, table
from polyrefuse_eval.report.over_refusal import type_table
from polyrefuse_eval.results.folder import RunFolder
from polyrefuse_eval.results.records import Comparison, Result
from polyrefuse_eval.results.subset_records import SubsetResult
from polyrefuse_eval.results.validation import read_records

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
TIMES = "seconds.json"
FIGURES = ("clusters", "steering")
"""Figures of `eval harmfulness` that the page shows."""

QWEN = "--model MODELS/qwen2.5-coder-0.5b-instruct"
SMOLLM = "--model MODELS/smollm2-135m-instruct"
SIZES = "--test first:24 --crossed 24 --strengths none --max-new-tokens 40"

GUARD_TEST = (
    "--data paper --langs en,es,th --test first:96 "
    "--prompt-set xstest=MATERIAL/overrefusal/xstest_prompts.csv"
)

COLUMNS = (
    ("harmful", "baseline"),
    ("harmful", "ablation:en"),
    ("harmful", "ablation:random"),
    ("harmless", "baseline"),
    ("harmless", "addition:en"),
    ("harmless", "addition:random"),
)
"""Label and condition of the columns of a table of rates."""

XSTEST = """\
name: xstest
title: XSTest
description: The safe prompts of XSTest and their unsafe contrasts.
seed: 1
pools:
  harmless: {label: harmless, sources: [xstest_safe]}
  harmful: {label: harmful, sources: [xstest_unsafe]}
draws:
  - {pool: harmless, split: test, size: 250, method: first}
  - {pool: harmful, split: test, size: 200, method: first}
duplicates: mark
"""

SEEDS = 300
"""Prompts drawn of the 1,250 in `seed2/human-seed-50-adv.json`, harmful ones inside jailbreak templates."""

STEPS = {
    "memory": "polyrefuse memory import MATERIAL/published --memory memory.sqlite",
    "paper": "polyrefuse build --recipe paper --langs all --sources MATERIAL "
    "--memory memory.sqlite --translator replay --allow-gaps --out paper",
    "xstest": "polyrefuse build --recipe xstest.yaml --langs en --sources MATERIAL --out xstest",
    "qwen": f"polyrefuse eval run {QWEN} --data paper --langs en,de,ja {SIZES} --out runs/qwen",
    "languages": f"polyrefuse eval run {QWEN} --data paper --langs all --no-controls "
    f"{SIZES.replace('--crossed 24', '--crossed 0')} --out runs/languages",
    "transfer": f"polyrefuse eval run {QWEN} --data paper --langs en,de,ja,ko --directions en,de,ja,ko "
    f"--no-controls {SIZES} --out runs/transfer",
    "smollm": f"polyrefuse eval run {SMOLLM} --data paper --langs en,de,ja --directions none --test first:24 "
    "--max-new-tokens 40 --out runs/smollm",
    "cost": f"polyrefuse eval cost runs/qwen {QWEN} --data paper",
    "over-refusal": f"polyrefuse eval run {QWEN} --data xstest --directions-from runs/qwen --no-controls "
    "--crossed 0 --strengths none --max-new-tokens 40 --out runs/xstest",
    "without-over-refusal": f"polyrefuse eval run {QWEN} --data paper --langs en --directions "
    "en,en-over-refusal --over-refusal xstest --interventions ablation --no-controls --test first:32 "
    "--crossed 0 --strengths none --max-new-tokens 40 --out runs/without-over-refusal",
    "harmfulness": f"polyrefuse eval harmfulness {QWEN} --data paper --langs en --test first:48 --steered 16 "
    "--inverted 16 --out runs/harmfulness",
    "bare-harmfulness": f"polyrefuse eval harmfulness {QWEN} --data paper --langs en --test first:48 "
    "--steered 1 --inverted 1 --layers 12 --final-punctuation removed --out runs/bare-harmfulness",
    "guard": f"polyrefuse eval guard fit {QWEN} --data paper --langs en --out guard.safetensors",
    "guard-test": f"polyrefuse eval guard test {QWEN} --guard guard.safetensors --data paper "
    "--langs ar,de,en,es,fr,it,ja,ko,nl,pl,ru,th,yo --test first:24 "
    "--prompt-set xstest=MATERIAL/overrefusal/xstest_prompts.csv --out runs/guard",
    "kept-guard-test": f"polyrefuse eval guard test {QWEN} --guard guard.safetensors {GUARD_TEST} "
    "--out runs/kept-guard",
    "bare-guard": f"polyrefuse eval guard fit {QWEN} --data paper --langs en --final-punctuation removed "
    "--out bare.safetensors",
    "bare-guard-test": f"polyrefuse eval guard test {QWEN} --guard bare.safetensors {GUARD_TEST} "
    "--out runs/bare-guard",
    "seeds": f"polyrefuse eval guard score {QWEN} --guard guard.safetensors --out seeds-kept.jsonl "
    "seeds.jsonl",
    "bare-seeds": f"polyrefuse eval guard score {QWEN} --guard bare.safetensors --out seeds-removed.jsonl "
    "seeds.jsonl",
}
"""Commands by the name of their step, in order; `MODELS` and `MATERIAL` are folders of the caller."""


def measure(steps: Sequence[str], models: Path, material: Path, work: Path) -> None:
    """Run the commands of `steps` in `work`, and add the seconds that each took to those noted there."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "xstest.yaml").write_text(XSTEST, encoding="utf-8")
    draw_seeds(material, work)
    times = work / TIMES
    program = str(Path(sys.executable).with_name("polyrefuse"))
    for step in steps:
        line = STEPS[step].replace("MODELS", str(models)).replace("MATERIAL", str(material))
        print(f"{step}: {line}", flush=True)
        start = time.monotonic()
        subprocess.run([program, *shlex.split(line)[1:]], cwd=work, check=True)
        seconds = json.loads(times.read_text(encoding="utf-8")) if times.is_file() else {}
        seconds[step] = round(seconds.get(step, 0.0) + time.monotonic() - start, 1)
        times.write_text(json.dumps(seconds, indent=1), encoding="utf-8")


def draw_seeds(material: Path, work: Path) -> None:
    """Write the drawn prompts inside jailbreak templates to `work`, where the material holds them."""
    source = material / "seed2" / "human-seed-50-adv.json"
    if source.is_file():
        lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
        drawn = random.Random(0).sample(lines, SEEDS)
        (work / "seeds.jsonl").write_text("".join(drawn), encoding="utf-8")


def signature_hash(run: Path) -> str:
    """Return the first 16 digits of the sha256 of a run's signature; versions and data are part of it."""
    signature = RunFolder.existing(run).signature
    return hashlib.sha256(json.dumps(signature, sort_keys=True).encode()).hexdigest()[:16]


def commands(work: Path, *steps: str) -> str:
    """Return the commands of `steps` as a block, and the signature of the last one's run below it."""
    block = "".join(f"{STEPS[step]}\n" for step in steps)
    folder = work / STEPS[steps[-1]].rpartition("--out ")[2]
    signed = f"Signature `{signature_hash(folder)}`.\n" if (folder / "run.json").is_file() else ""
    return f"```text\n{block}```\n\n{signed}"


def rates(run: Path) -> str:
    """Return a table of a run: refusal rates in the conditions of its English direction, by language."""
    folder = RunFolder.existing(run)
    results = {(row.lang, row.label, row.condition): row for row in folder.results()}
    langs = list(dict.fromkeys(row.lang for row in results.values()))
    columns = [
        (label, condition)
        for label, condition in COLUMNS
        if any((lang, label, condition) in results for lang in langs)
    ]
    header = ["language", *(f"{label}, {condition}" for label, condition in columns)]
    rows = [
        [LANGUAGES[lang].name, *(rate(results.get((lang, *column))) for column in columns)] for lang in langs
    ]
    return table(header, rows)


def changes(run: Path) -> str:
    """Return a table of what the English direction changes, paired by prompt, by language."""
    comparisons = RunFolder.existing(run).comparisons()
    rows = {(row.lang, row.label, row.condition): row for row in comparisons if row.against == "baseline"}
    header = ["language", "ablated, harmful: points", "p, Holm", "added, harmless: points", "p, Holm"]
    edits = (("harmful", "ablation:en"), ("harmless", "addition:en"))
    return table(
        header,
        [
            [LANGUAGES[lang].name, *(cell for edit in edits for cell in change(rows.get((lang, *edit))))]
            for lang in dict.fromkeys(row.lang for row in comparisons)
        ],
    )


def change(row: Comparison | None) -> tuple[str, str]:
    """Return a paired difference in points with its 95 % interval, and its corrected p."""
    if row is None or row.difference is None or row.low is None or row.high is None or row.p_holm is None:
        return "–", "–"
    points = [100 * value for value in (row.difference, row.low, row.high)]
    return "{:+.0f} [{:+.0f}, {:+.0f}]".format(*points), f"{row.p_holm:.2g}"


def rate(result: Result | None) -> str:
    """Return refusals of judged answers and the 95 % interval of their share, such as 15/24 [43, 79]."""
    if result is None or result.low is None or result.high is None:
        return "–"
    return f"{result.n_refused}/{result.n} [{100 * result.low:.0f}, {100 * result.high:.0f}]"


def transfer(run: Path) -> str:
    """Return a table of a run with directions from several languages: edits by languages."""
    results = RunFolder.existing(run).results()
    cells = {(row.label, row.condition, row.lang): row for row in results}
    langs = list(dict.fromkeys(row.lang for row in results))
    sources = list(dict.fromkeys(row.source for row in results if row.source))
    edits = [
        (label, condition)
        for label, edit in (("harmful", "ablation"), ("harmless", "addition"))
        for condition in ("baseline", *(f"{edit}:{source}" for source in sources))
    ]
    return table(
        ["prompts, edit", *(LANGUAGES[lang].name for lang in langs)],
        [
            [f"{label}, {condition}", *(rate(cells.get((label, condition, lang))) for lang in langs)]
            for label, condition in edits
        ],
    )


def understood(run: Path) -> str:
    """Return the table that tells whether the model understood each language."""
    summary = RunFolder.existing(run).summary()
    if summary is None:
        raise SystemExit(f"{run} is not complete")
    return comprehension_tables(summary)


def tables(file: Path) -> str:
    """Return the tables of a report, one level of headings below the page's, without rows that pool kinds."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(f"#{line}" if line.startswith("## ") else line for line in lines if "| all |" not in line)


def detection_rates(file: Path) -> str:
    """Return the first table of a guard's report, without rows that pool kinds or hold a category."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line[0] == "|"]
    return "".join(line for line in lines if "| all |" not in line and " / " not in line)


def blocks(work: Path) -> dict[str, str]:
    """Return what stands between the marks of the page, by the name of the mark; none without its run."""
    runs = work / "runs"
    sections: dict[str, tuple[str, Callable[[], str]]] = {
        "refusal": (
            "qwen/results.jsonl",
            lambda: commands(work, "memory", "paper", "qwen") + "\n" + rates(runs / "qwen"),
        ),
        "transfer": (
            "transfer/results.jsonl",
            lambda: commands(work, "transfer") + "\n" + transfer(runs / "transfer"),
        ),
        "smollm": (
            "smollm/results.jsonl",
            lambda: commands(work, "smollm") + "\n" + rates(runs / "smollm"),
        ),
        "languages": (
            "languages/results.jsonl",
            lambda: commands(work, "languages") + "\n" + rates(runs / "languages"),
        ),
        "changes": ("languages/results.jsonl", lambda: changes(runs / "languages")),
        "comprehension": ("languages/results.jsonl", lambda: understood(runs / "languages")),
        "cost": (
            "qwen/costs.md",
            lambda: commands(work, "cost") + "\n" + (runs / "qwen" / "costs.md").read_text(encoding="utf-8"),
        ),
        "over-refusal": (
            "xstest/subsets.jsonl",
            lambda: (
                commands(work, "xstest", "over-refusal")
                + "\n"
                + rates(runs / "xstest")
                + "\n"
                + type_table(read_records(SubsetResult, runs / "xstest" / "subsets.jsonl"))
            ),
        ),
        "without-over-refusal": (
            "without-over-refusal/over_refusal/subsets.jsonl",
            lambda: (
                commands(work, "without-over-refusal")
                + "\n"
                + without_over_refusal(runs / "without-over-refusal", rate, change)
            ),
        ),
        "harmfulness": (
            "harmfulness/harmfulness.md",
            lambda: commands(work, "harmfulness") + "\n" + tables(runs / "harmfulness" / "harmfulness.md"),
        ),
        "guard": (
            "guard/table.md",
            lambda: commands(work, "guard", "guard-test") + "\n" + tables(runs / "guard" / "table.md"),
        ),
        "punctuation": (
            "bare-guard/table.md",
            lambda: (
                commands(work, "kept-guard-test", "bare-guard", "bare-guard-test")
                + "".join(
                    f"\nFinal punctuation {how}:\n\n{detection_rates(runs / name / 'table.md')}"
                    for how, name in (("kept", "kept-guard"), ("removed", "bare-guard"))
                )
            ),
        ),
    }
    sections["templates"] = (
        "../seeds-removed.jsonl",
        lambda: (
            commands(work, "seeds", "bare-seeds")
            + templates([(f"punctuation {how}", work / f"seeds-{how}.jsonl") for how in ("kept", "removed")])
        ),
    )
    return {name: text() for name, (needed, text) in sections.items() if (runs / needed).is_file()}


def write(work: Path) -> None:
    """Put the tables and figures of the runs in `work` into the page; its prose stays."""
    page = PAGE.read_text(encoding="utf-8")
    for name, text in blocks(work).items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", flags=re.DOTALL)
        if not mark.search(page):
            raise SystemExit(f"{PAGE} has no mark <!-- {name} -->")
        page = mark.sub(lambda found, text=text: f"{found[1]}{text.strip()}\n{found[2]}", page, count=1)
    PAGE.write_text(page, encoding="utf-8")
    for figure in FIGURES:
        plot = work / "runs" / "harmfulness" / "harmfulness" / "plots" / f"{figure}.svg"
        if plot.is_file():
            shutil.copyfile(plot, PAGE.parent / "images" / f"results-{figure}.svg")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("measure", "write"))
    parser.add_argument("steps", nargs="*", choices=(*STEPS, []), help="what to measure, else all")
    parser.add_argument("--models", type=Path)
    parser.add_argument("--material", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_intermixed_args()
    if arguments.what == "write":
        write(arguments.work)
        return
    if arguments.models is None or arguments.material is None:
        parser.error("measure needs --models and --material")
    measure(
        arguments.steps or list(STEPS),
        arguments.models.resolve(),
        arguments.material.resolve(),
        arguments.work,
    )


if __name__ == "__main__":
    main()
