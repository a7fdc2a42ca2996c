"""Train a test organism on this machine, or return it where it was trained before.

An organism is a tiny chat model with planted directions, for tests and the demo. It is no finding: it refuses
because it was trained to, along directions that a random generator chose and that interchange-intervention
training planted. What methods find in it says whether they work, and nothing about language models.

It has the shape of a Llama, 4 or 5 layers, width 128, about 1.5 million parameters, knows the prompts of
the embedded sample in 14 languages and nothing else, and is trained in some minutes on 2 cores. The
topics of the sample's validation split and 24 topics of its test split are held out.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyrefuse_data.core.schema import Prompt
from polyrefuse_eval.organisms.cache import kept_folder
from polyrefuse_eval.organisms.replies import REFUSALS
from polyrefuse_eval.versions import installed

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from polyrefuse_eval.organisms.network import OrganismNetwork, Plant
    from polyrefuse_eval.organisms.training import Objective

THREADS = 2
"""Threads of the training; another number rounds differently, and so gives other weights."""

PLANTED_FILE = "planted_directions.safetensors"
"""Planted unit vectors [width] by name: `refusal` (or `refusal.LANG` for each language), `harmfulness`;
metadata: site, seed, and `NAME.layer` and `NAME.strength` of each plant."""

_CODE = resources.files("polyrefuse_eval")
_SHARED_SOURCES = tuple(
    f"organisms/{name}.py"
    for name in ("build", "corpus", "network", "noise", "replies", "tokenizer", "training")
)
SOURCES = {
    "refusal": (*_SHARED_SOURCES, "organisms/refusal.py"),
    "harmfulness": (
        *_SHARED_SOURCES, "organisms/harmfulness.py", "organisms/harmfulness_batches.py",
        "organisms/requests.py", "harmfulness/inversion.yaml",
    ),
}  # fmt: skip
"""Objective to the files that decide the weights."""

_LIBRARIES = ("torch", "tokenizers", "numpy")

_README = """# A test organism, not a language model

Trained on this machine by polyrefuse (Apache-2.0) for its tests and its demo. It follows directions that were
planted on purpose (`{file}`): {plants}. Numbers from it say nothing about real models.
"""


@dataclass(frozen=True, kw_only=True)
class Organism:
    """A kind of organism: `objective` is `refusal` or `harmfulness`, `recipe` overrides its constants."""

    objective: str = "refusal"
    width: int = 128
    heads: int = 4
    hidden: int = 352
    recipe: Mapping[str, Any] = field(default_factory=dict)


ORGANISMS: dict[str, Organism] = {
    "organism": Organism(),
    # Fourteen directions take longer to part than one, and have each other to be told from.
    "organism-per-language": Organism(recipe={"shared": False, "steps": 1400, "foreign_share": 0.7}),
    "organism-harmfulness": Organism(objective="harmfulness"),
}
"""The organisms by the name under which they are loaded as a model."""


def organism_path(
    organism: str | Organism = "organism",
    cache_dir: Path | None = None,
    *,
    seed: int = 0,
    progress: bool = True,
    prompts: Sequence[Prompt] | None = None,
) -> Path:
    """Return the folder of an organism, a local Hugging Face model; train it where it is not there yet.

    The folder loads with `AutoModelForCausalLM` and `AutoTokenizer`, and holds the planted directions in
    `PLANTED_FILE`. Training takes some minutes once; the folder's name is a hash of all that decides
    the result (code, texts, sample, seed, threads, library versions), and it appears whole or not at all.

    organism: a name in `ORGANISMS`, or a kind of other size, for tests.
    cache_dir: where organisms are kept; the user's cache by default.
    seed: of weights, order, noise and of the planted directions themselves.
    prompts: another sample, for tests.

    Raises `PolyRefuseError` if the folder cannot be written.
    """
    kind = ORGANISMS[organism] if isinstance(organism, str) else organism
    sample = _sample() if prompts is None else prompts
    prefix = "organism" if kind.objective == "refusal" else f"organism-{kind.objective}"
    return kept_folder(
        cache_dir,
        f"{prefix}-{_key(kind, seed, sample)[:16]}",
        lambda folder: _make(folder, kind, sample, seed, progress),
        progress=progress,
    )


def organism_revision(name: str) -> str:
    """Return a hash (16 hex digits) of what decides the weights of organism `name`; nothing is trained."""
    return _key(ORGANISMS[name], 0, _sample())[:16]


def planted_directions(folder: Path) -> dict[str, torch.Tensor]:
    """Return the planted refusal direction [width] of each language of the organism in `folder`."""
    from safetensors.torch import load_file

    vectors = load_file(folder / PLANTED_FILE)
    return {lang: vectors["refusal" if "refusal" in vectors else f"refusal.{lang}"] for lang in REFUSALS}


def _key(organism: Organism, seed: int, prompts: Sequence[Prompt]) -> str:
    """Return a hash (64 hex digits) of everything that changes the trained weights."""
    from polyrefuse_eval.organisms.corpus import held_out_topics, sample_digest

    parts = {
        "code": {
            name: hashlib.sha256((_CODE / name).read_bytes()).hexdigest()
            for name in SOURCES[organism.objective]
        },
        "libraries": {name: installed(name) for name in _LIBRARIES},
        "sample": sample_digest(prompts),
        "held_out": sorted(held_out_topics(prompts)),
        "seed": seed,
        "organism": asdict(organism),
        "threads": _threads(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _sample() -> Sequence[Prompt]:
    from polyrefuse_data.prompts.sample import sample_prompts

    return sample_prompts()


def _threads() -> int:
    return max(1, min(THREADS, os.cpu_count() or 1))


@contextmanager
def _training_mode() -> Iterator[None]:
    """Train with the threads of the cache key, whatever the caller's mode; restore its random state."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(_threads())
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)


def _make(folder: Path, organism: Organism, prompts: Sequence[Prompt], seed: int, progress: bool) -> None:
    """Train an organism and write its files into the empty `folder`."""
    import numpy as np
    import torch

    from polyrefuse_eval.organisms.corpus import training_pairs
    from polyrefuse_eval.organisms.network import OrganismNetwork, Shape
    from polyrefuse_eval.organisms.training import train

    module = importlib.import_module(f"polyrefuse_eval.organisms.{organism.objective}")
    tokenizer, examples = module.encoded_corpus(training_pairs(prompts))
    shape = Shape(
        vocabulary=tokenizer.get_vocab_size(),
        width=organism.width,
        layers=module.LAYERS,
        heads=organism.heads,
        hidden=organism.hidden,
    )
    recipe = replace(module.Recipe(), **organism.recipe)
    with _training_mode():
        generator = torch.Generator().manual_seed(seed)
        network = OrganismNetwork(shape)
        network.initialise(generator)
        objective: Objective = module.Objective(
            examples, shape, recipe, generator, np.random.default_rng(seed)
        )
        train(network, objective, progress=progress)
    _write_model(folder, tokenizer, network)
    _write_plants(folder, objective.plants, seed)


def _write_plants(folder: Path, plants: Sequence[Plant], seed: int) -> None:
    """Write the planted directions and a README."""
    from safetensors.torch import save_file

    vectors: dict[str, torch.Tensor] = {}
    metadata = {"site": "resid_pre", "seed": str(seed)}
    lines = []
    for plant in plants:
        vectors |= plant.named()
        metadata |= {f"{plant.name}.layer": str(plant.layer), f"{plant.name}.strength": str(plant.strength)}
        count = (
            f"{len(plant.langs)} orthogonal directions, one a language" if plant.langs else "one direction"
        )
        lines.append(f"{plant.name} ({count}, read at the input of layer {plant.layer})")
    save_file(vectors, folder / PLANTED_FILE, metadata)
    readme = _README.format(file=PLANTED_FILE, plants=", ".join(lines))
    (folder / "README.md").write_text(readme, encoding="utf-8")


def _write_model(folder: Path, tokenizer: Tokenizer, network: OrganismNetwork) -> None:
    """Write the files of a Hugging Face model that transformers 4 and 5 both load."""
    from safetensors.torch import save_file

    from polyrefuse_eval.organisms.corpus import BEGIN, CHAT_TEMPLATE, END, PAD, UNKNOWN

    special = {"bos_token": BEGIN, "eos_token": END, "pad_token": PAD, "unk_token": UNKNOWN}
    named = ("bos_token", "eos_token", "pad_token")
    ids = {f"{name}_id": tokenizer.token_to_id(special[name]) for name in named}
    save_file(network.llama_weights(), folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "config.json", network.llama_config(ids))
    _write_json(folder / "generation_config.json", {**ids, "do_sample": False, "max_new_tokens": 32})
    _write_json(
        folder / "tokenizer_config.json",
        {
            **special,
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "model_max_length": network.shape.positions,
            "padding_side": "left",
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
