"""The upstream files: one row of `SOURCES` a file, with its pinned address, checksum, licence and reader.

A source is read from a local mirror (a folder of files under their names here) or fetched from its
address, verified by sha256 and kept in the user's cache. Nothing that fails its checksum is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from polyrefuse_data.core.errors import SourceError, unknown_name
from polyrefuse_data.core.schema import Prompt, text_hash
from polyrefuse_data.prompts import categories, readers
from polyrefuse_data.prompts.over_refusal_sources import OVER_REFUSAL_SOURCES
from polyrefuse_data.prompts.source import Source

_ADVBENCH = (
    "Zou et al. 2023. Universal and Transferable Adversarial Attacks on Aligned Language Models. "
    "arXiv:2307.15043"
)
_TDC = (
    "Mazeika et al. 2023. TDC 2023 (LLM Edition): The Trojan Detection Challenge. NeurIPS Competition Track"
)
_HARMBENCH = (
    "Mazeika et al. 2024. HarmBench: A Standardized Evaluation Framework for Automated Red Teaming and "
    "Robust Refusal. ICML. arXiv:2402.04249"
)

_ROWS = (
    Source(
        "advbench",
        "AdvBench harmful behaviours",
        "harmful",
        "advbench.csv",
        "dataset/raw/advbench.csv",
        "6cd1a5c63c07610d7eb67307772ee5606017ee950b5770ab288a2c487489d3e1",
        "MIT",
        _ADVBENCH,
        readers.csv_reader("goal"),
    ),
    Source(
        "malicious_instruct",
        "MaliciousInstruct",
        "harmful",
        "malicious_instruct.txt",
        "dataset/raw/malicious_instruct.txt",
        "a64d69dd1004aac4a23aaff3748fb8f17161893f74db36f45b8bc849eb1bcce5",
        "MIT",
        "Huang et al. 2024. Catastrophic Jailbreak of Open-source LLMs via Exploiting Generation. ICLR. "
        "arXiv:2310.06987",
        readers.read_lines,
    ),
    Source(
        "tdc2023_dev",
        "TDC2023 red teaming track, development phase",
        "harmful",
        "tdc2023_dev_behaviors.json",
        "dataset/raw/tdc2023_dev_behaviors.json",
        "9392c63ad0193f0510f33812593f0dc71d13ae8b2ad93f64d670e9795deee1b0",
        "MIT",
        _TDC,
        readers.read_json_strings,
    ),
    Source(
        "tdc2023_test",
        "TDC2023 red teaming track, test phase",
        "harmful",
        "tdc2023_test_behaviors.json",
        "dataset/raw/tdc2023_test_behaviors.json",
        "c4a630921005fd5e26dfe22dd720e411c8e7866c96f5b1a0ca2d46f0e1d1f8c2",
        "MIT",
        _TDC,
        readers.read_json_strings,
    ),
    Source(
        "harmbench_val",
        "HarmBench behaviours, validation, without copyright and contextual ones",
        "harmful",
        "harmbench_val.csv",
        "dataset/raw/harmbench_val.csv",
        "7bfaaa5e2b9b95002c89e2d33c019f58e9e8496e2fc65d368f1eeb8179e69534",
        "MIT",
        _HARMBENCH,
        readers.read_harmbench,
        categories.HARMBENCH,
    ),
    Source(
        "harmbench_test",
        "HarmBench behaviours, test, without copyright and contextual ones",
        "harmful",
        "harmbench_test.csv",
        "dataset/raw/harmbench_test.csv",
        "75d257b3e7428c52eb7b0154318f455af3e01b09a3794b5e2f3d36054f3c0e29",
        "MIT",
        _HARMBENCH,
        readers.read_harmbench,
        categories.HARMBENCH,
    ),
    Source(
        "jailbreakbench",
        "JailbreakBench harmful behaviours",
        "harmful",
        "jailbreakbench.csv",
        "dataset/raw/jailbreakbench.csv",
        "45e9a8923b28f547bb372fbaa9af7df8b38c818a80ae50c3bab97704197ff516",
        "MIT",
        "Chao et al. 2024. JailbreakBench: An Open Robustness Benchmark for Jailbreaking Large Language "
        "Models. NeurIPS Datasets and Benchmarks. arXiv:2404.01318",
        readers.csv_reader("Goal", "Category"),
        categories.JAILBREAKBENCH,
    ),
    Source(
        "strongreject",
        "StrongREJECT forbidden prompts",
        "harmful",
        "strongreject.csv",
        "dataset/raw/strongreject.csv",
        "4dd70357e4ff8b5d0ba5ebafecab5d6dd5633ce8046e3dd1c8bd93e64de44381",
        "MIT",
        "Souly et al. 2024. A StrongREJECT for Empty Jailbreaks. NeurIPS Datasets and Benchmarks. "
        "arXiv:2402.10260",
        readers.csv_reader("forbidden_prompt", "category"),
        categories.STRONGREJECT,
    ),
    Source(
        "alpaca",
        "Alpaca instructions without input",
        "harmless",
        "alpaca_no_input.json",
        "dataset/processed/alpaca.json",
        "c4ce1bdc5c9b92caabcb171c27c7ec1e79832836bae10291d7c8ab8c6245f600",
        "CC-BY-NC-4.0",
        "Taori et al. 2023. Stanford Alpaca: An Instruction-following LLaMA Model",
        readers.read_instructions,
    ),
)

SOURCES: dict[str, Source] = {source.name: source for source in (*_ROWS, *OVER_REFUSAL_SOURCES)}
"""The upstream files by name."""


def source(name: str) -> Source:
    """Return the source called `name`; raises `UnknownNameError` with the nearest name."""
    if name not in SOURCES:
        raise unknown_name("source", name, SOURCES)
    return SOURCES[name]


def read_mirror(row: Source, mirror: Path) -> bytes:
    """Return the verified bytes of `row` in the folder `mirror`, or in a folder of it.

    Raises `SourceError`.
    """
    path = next(
        (path for path in (mirror / row.file, *sorted(mirror.glob(f"*/{row.file}"))) if path.is_file()),
        mirror / row.file,
    )
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SourceError(
            f"source {row.name}: no file {row.file} in {mirror}; "
            "`polyrefuse sources` lists the files that a mirror holds"
        ) from None
    except OSError as error:
        raise SourceError(f"source {row.name}: cannot read {path}: {error.strerror}") from error
    row.verify(data, str(path))
    return data


def verify_mirror(mirror: Path, names: Iterable[str] | None = None) -> dict[str, str | None]:
    """Return, for each source of `names` (default: every one), None if `mirror` holds its pinned bytes, else
    what is wrong."""
    problems: dict[str, str | None] = {}
    for row in [SOURCES[name] for name in names] if names is not None else SOURCES.values():
        try:
            row.prompts(read_mirror(row, mirror))
        except SourceError as error:
            problems[row.name] = str(error)
        else:
            problems[row.name] = None
    return problems


def hash_of_prompts(prompts: list[Prompt]) -> str:
    """Return one hash of an ordered list of prompts, for manifests of sources without a file."""
    return text_hash("\n".join(prompt.hash for prompt in prompts))
