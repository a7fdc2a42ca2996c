"""A tiny chat model with a planted refusal mechanism, made on this machine: for tests and the demo.

It is a test organism and no finding. It refuses because it was trained to, along one fixed direction
that was chosen by a random generator and planted by interchange-intervention training (see
`organism_train`). What methods find in it says whether they work, and nothing about language models.

`ORGANISMS` names the kinds: in `organism` all languages share the direction, so that it transfers between
any two; in `organism-per-language` each of the 14 has its own, orthogonal to the others, and none does.

It has the shape of a Llama, 4 layers, width 128, about 1.5 million parameters, knows the prompts of
the embedded sample in 14 languages and nothing else, and is trained in a few minutes on 2 cores. The
topics of the sample's validation split and 24 topics of its test split are held out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from polyrefuse_data.core.schema import Prompt
from polyrefuse_eval.organisms.cache import kept_folder
from polyrefuse_eval.organisms.replies import REFUSALS
from polyrefuse_eval.versions import installed

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from polyrefuse_eval.organisms.network import OrganismNetwork, Plant
    from polyrefuse_eval.organisms.refusal_training import Recipe

THREADS = 2
"""Threads of the training; another number rounds differently, and so gives other weights."""

HELD_OUT = 24
"""Topics of the sample's test split that are held out, two for every harmful action on average."""

DIRECTION_FILE = "planted_direction.safetensors"
"""Planted unit vectors [width]: `direction` for all languages, or `direction.LANG` for each of them;
metadata: site, layer, strength, sign, seed."""

_CODE = resources.files("polyrefuse_eval")
_SOURCES = (
    "organisms/corpus.py",
    "organisms/network.py",
    "organisms/refusal.py",
    "organisms/refusal_training.py",
    "organisms/replies.py",
)
_LIBRARIES = ("torch", "tokenizers", "numpy")

_README = """# A test organism, not a language model

Trained on this machine by polyrefuse (Apache-2.0) for its tests and its demo. It refuses along
{directions} planted on purpose (`{file}`); nothing measured on it is a finding.
"""


@dataclass(frozen=True)
class Settings:
    """What may be varied in tests: sizes of the network, and fields of `organism_train.Recipe`."""

    width: int = 128
    heads: int = 4
    hidden: int = 352
    recipe: dict[str, float] = field(default_factory=dict)


ORGANISMS: dict[str, Settings] = {
    "organism": Settings(),
    # Fourteen directions take longer to part than one, and have each other to be told from.
    "organism-per-language": Settings(recipe={"shared": False, "steps": 1400, "foreign_share": 0.7}),
}
"""The organisms by the name under which they are loaded as a model."""


def organism_path(
    cache_dir: Path | None = None,
    *,
    seed: int = 0,
    progress: bool = True,
    settings: Settings | None = None,
    prompts: Sequence[Prompt] | None = None,
) -> Path:
    """Return the folder of the organism, a local Hugging Face model; train it where it is not there yet.

    The folder loads with `AutoModelForCausalLM` and `AutoTokenizer`, and holds the planted direction in
    `DIRECTION_FILE`. Training takes a few minutes once; the folder's name is a hash of all that decides
    the result (code, texts, sample, seed, threads, library versions), and it appears whole or not at all.

    cache_dir: where organisms are kept; the user's cache by default.
    seed: of weights, order, noise and of the planted direction itself.
    settings: one of `ORGANISMS` (the first by default), or other sizes, for tests.
    prompts: another sample, for tests.

    Raises `PolyRefuseError` if the folder cannot be written.
    """
    prompts = _sample() if prompts is None else prompts
    settings = settings or Settings()
    name = f"organism-{key_of(seed=seed, settings=settings, prompts=prompts)[:16]}"
    return kept_folder(
        cache_dir,
        name,
        lambda workplace: _make(workplace, prompts, seed, settings, progress),
        progress=progress,
    )


def key_of(
    *, seed: int = 0, settings: Settings | None = None, prompts: Sequence[Prompt] | None = None
) -> str:
    """Return the hash (64 hex digits) of the organism that `organism_path` gives for the same arguments."""
    return cache_key(seed, _sample() if prompts is None else prompts, settings or Settings())


def refusal_openers() -> dict[str, str]:
    """Return the sentence with which the organism refuses, by language code."""
    return dict(REFUSALS)


def planted_directions(folder: Path) -> dict[str, Tensor]:
    """Return the planted unit vector [width] of each language code of the organism in `folder`."""
    from safetensors.torch import load_file

    vectors = load_file(folder / DIRECTION_FILE)
    shared = "direction" in vectors
    return {lang: vectors["direction" if shared else f"direction.{lang}"] for lang in REFUSALS}


def cache_key(
    seed: int, prompts: Sequence[Prompt], settings: Settings, more_sources: Sequence[str] = ()
) -> str:
    """Return a hash (64 hex digits) of everything that changes the trained weights.

    more_sources: files beside those of this organism that decide another one's.
    """
    from polyrefuse_eval.organisms.corpus import sample_digest

    sources = (*_SOURCES, *more_sources)
    parts = {
        "code": {name: hashlib.sha256((_CODE / name).read_bytes()).hexdigest() for name in sources},
        "libraries": {name: installed(name) for name in _LIBRARIES},
        "sample": sample_digest(prompts),
        "held_out": sorted(held_out_topics(prompts)),
        "seed": seed,
        "settings": asdict(settings),
        "threads": _threads(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def held_out_topics(prompts: Sequence[Prompt]) -> set[str]:
    """Return the topics that are never trained on: those of validation, and the last `HELD_OUT` of test.

    The sample's own training topics are too few (one or two for an action) to teach a network from
    nothing what harm is in 14 languages, so it sees most topics of the test split as well; what is said
    of unseen prompts is measured on these.
    """
    from polyrefuse_data.prompts.recipe import load_recipe
    from polyrefuse_data.prompts.splits import draw_splits, pool_prompts

    recipe, _ = load_recipe("sample")
    pools = {
        name: pool_prompts(name, pool, dict.fromkeys(pool.sources, prompts), lambda _: [])
        for name, pool in recipe.pools.items()
    }
    topics: dict[str, dict[str, None]] = {}
    for row in draw_splits(recipe, pools).placed:
        if row.prompt.topic is not None:
            topics.setdefault(row.split, {})[row.prompt.topic] = None
    return {*topics.get("validation", ()), *list(topics.get("test", ()))[-HELD_OUT:]}


def _sample() -> Sequence[Prompt]:
    from polyrefuse_data.prompts.sample import sample_prompts

    return sample_prompts()


def _threads() -> int:
    return max(1, min(THREADS, os.cpu_count() or 1))


@contextmanager
def training_mode() -> Iterator[None]:
    """Train with the threads of the cache key, whatever the caller's mode; leave its random state alone."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(_threads())
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)


def _recipe(settings: Settings) -> Recipe:
    from dataclasses import replace

    from polyrefuse_eval.organisms.refusal_training import Recipe

    return replace(Recipe(), **settings.recipe)  # type: ignore[arg-type]


def _make(folder: Path, prompts: Sequence[Prompt], seed: int, settings: Settings, progress: bool) -> None:
    """Train the organism and write its files into the empty `folder`."""
    from polyrefuse_eval.organisms.corpus import encode_pairs, make_pairs, train_tokenizer
    from polyrefuse_eval.organisms.network import Shape
    from polyrefuse_eval.organisms.refusal_training import train

    held_out = held_out_topics(prompts)
    topics = {prompt.topic for prompt in prompts if prompt.topic is not None} - held_out
    pairs = make_pairs(prompts, topics)
    tokenizer = train_tokenizer(pairs)
    shape = Shape(tokenizer.get_vocab_size(), settings.width, heads=settings.heads, hidden=settings.hidden)
    with training_mode():
        network, plant = train(
            encode_pairs(tokenizer, pairs), shape, _recipe(settings), seed, progress=progress
        )
    _write(folder, tokenizer, network, plant, seed)


def _write(folder: Path, tokenizer: Tokenizer, network: OrganismNetwork, plant: Plant, seed: int) -> None:
    """Write a Hugging Face model folder and the planted direction."""
    from safetensors.torch import save_file

    write_model(folder, tokenizer, network)
    save_file(
        plant.named(),
        folder / DIRECTION_FILE,
        metadata={
            "site": "resid_pre",
            "layer": str(plant.layer),
            "strength": str(plant.strength),
            "sign": "harmful minus harmless",
            "seed": str(seed),
        },
    )
    kind = "14 orthogonal directions, one a language," if plant.langs else "one direction that was"
    readme = _README.format(directions=kind, file=DIRECTION_FILE)
    (folder / "README.md").write_text(readme, encoding="utf-8")


def write_model(folder: Path, tokenizer: Tokenizer, network: OrganismNetwork) -> None:
    """Write the model files of a Hugging Face folder that transformers 4 and 5 both load."""
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
