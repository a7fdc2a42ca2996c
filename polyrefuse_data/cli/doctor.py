"""`polyrefuse doctor`: what is installed, where models run, where caches lie, what is missing for what."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path

import click

from polyrefuse_data.cli.parts import print_table
from polyrefuse_data.core.terminal import show
from polyrefuse_data.core.version import __version__

PURPOSES = {
    "": "build, check, translate by HTTP, publish",
    "eval": "measure models, judge completions",
    "endpoint": "measure a model behind an endpoint",
    "local": "translate with a model on this machine",
    "deepl": "translate with DeepL",
    "comet": "audit --quality comet:MODEL (in an environment of its own)",
    "similarity": "audit --similarity",
    "argilla": "load review export --format argilla into a server",
    "lora": "models that are LoRA adapters",
    "bnb": "--quantization 8bit and 4bit",
    "judges": "the judge strongreject",
    "dask": "--executor dask",
    "slurm": "--executor dask --slurm",
    "lm-eval": "the tasks in lm-evaluation-harness",
    "inspect": "the tasks in inspect-ai",
}
"""What each extra is for; the empty name is the package alone. Extras for developers are left out."""

KEYS = ("HF_TOKEN", "OPENAI_API_KEY", "DEEPL_API_KEY")
"""Variables that hold secrets: only whether they are set is shown."""

SWITCHES = ("HF_HUB_OFFLINE", "POLYREFUSE_DATA", "POLYREFUSE_CACHE", "POLYREFUSE_SOURCES_URL", "HF_HOME")
"""Variables that change where things are read or kept."""


@click.command()
def doctor() -> None:
    """Show what is installed, where models run, where caches lie, and what is missing for what."""
    show(f"polyrefuse {__version__}, Python {platform.python_version()}, {platform.platform()}")
    show()
    print_table(
        ["for", "extra", "state"], [[PURPOSES[extra], extra or "-", state(extra)] for extra in PURPOSES]
    )
    show()
    print_table(["what", "value"], [*devices(), *folders(), *variables()])


def state(extra: str) -> str:
    """Return `ready` with the versions that matter, or the pip command that installs what is missing."""
    missing = [f"{name} {problem}" for name, problem in problems(extra)]
    if not missing:
        return "ready"
    package = f"polyrefuse[{extra}]" if extra else "polyrefuse"
    return f"missing {', '.join(missing)}: pip install '{package}'"


def problems(extra: str) -> Iterator[tuple[str, str]]:
    """Yield each requirement of `extra` that this environment does not meet, with what there is instead."""
    from packaging.requirements import Requirement

    for line in metadata.requires("polyrefuse") or []:
        requirement = Requirement(line)
        belongs = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if not belongs or (extra and requirement.marker is None):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield requirement.name, "(not installed)"
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield requirement.name, f"{version} (needs {requirement.specifier})"


def devices() -> Iterator[tuple[str, str]]:
    """Yield where models run: the GPUs that torch sees, else the CPU with its threads."""
    try:
        torch = import_module("torch")
    except ImportError:
        yield "device", "none: torch is not installed"
        return
    yield "torch", torch.__version__
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            yield f"device cuda:{index}", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"
    elif torch.backends.mps.is_available():
        yield "device", "mps"
    else:
        yield "device", f"cpu, {torch.get_num_threads()} threads"


def folders() -> Iterator[tuple[str, str]]:
    """Yield where caches and data lie, and the space that is left there."""
    import platformdirs
    from huggingface_hub.constants import HF_HUB_CACHE

    from polyrefuse_data.build.translations import default_memory

    places = {
        "cache": Path(platformdirs.user_cache_dir("polyrefuse")),
        "translation memory": default_memory(),
        "models of the Hub": Path(HF_HUB_CACHE),
        "this folder": Path.cwd(),
    }
    for name, path in places.items():
        existing = next(place for place in (path, *path.parents) if place.exists())
        free = shutil.disk_usage(existing).free / 2**30
        note = "" if path.exists() else "not there yet, "
        yield name, f"{path} ({note}{free:.0f} GiB free)"


def variables() -> Iterator[tuple[str, str]]:
    """Yield the variables that matter and are set; of secrets only that they are."""
    for name in SWITCHES:
        if name in os.environ:
            yield f"${name}", os.environ[name]
    for name in KEYS:
        yield f"${name}", "set" if os.environ.get(name) else "not set"
