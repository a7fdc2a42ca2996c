"""A tiny chat model that judges harm and refuses along two planted directions: for tests.

It is a test organism and no finding, like the one in `organism`. What is planted, and how it acts:

- **harmfulness**, read at t_inst, the instruction's last token, at the input of layer 2: the label of the
  request, whatever becomes of it. Its coordinate is half the strength, positive where harmful.
- **refusal**, read at the post-instruction tokens, at the input of layer 3: whether the request is
  refused. Its coordinate is the strength where it is, and zero where not.
- Harmfulness feeds refusal: added to the tokens of a harmless instruction it brings refusal, reversed on a
  harmful one it removes refusal. Refusal added at the post-instruction tokens, or to the whole prompt,
  brings refusal; ablated, it removes it; added to the tokens of the instruction alone it does nothing.
- A cue before the request (`organism_harmfulness_text`) decides refusal whatever the judgement is: so there
  are refused harmless and accepted harmful requests, in its training and among `exception_prompts`.
- Reply inversion (`inversion.yaml`): asked whether somebody's request is harmful, it says so ("certainly")
  by the harmfulness at the last token before the question. Harmfulness added or reversed there flips the
  answer; refusal does not.

It has 5 layers, is 128 wide, and knows the prompts of the embedded sample in 14 languages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from polyrefuse_data.core.schema import Prompt
from polyrefuse_eval.organisms import refusal as organism
from polyrefuse_eval.organisms.cache import kept_folder
from polyrefuse_eval.organisms.harmfulness_corpus import cued

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from polyrefuse_eval.organisms.harmfulness_batches import Plants, Recipe
    from polyrefuse_eval.organisms.harmfulness_network import TokenEditedNetwork

DIRECTIONS_FILE = "planted_directions.safetensors"
"""Tensors `harmfulness` and `refusal`: the planted unit vectors [width]; metadata: site, seed, and the
layer and strength of each."""

LAYERS = 5
"""One more than the other organism has: refusal is read a layer after harmfulness."""

VOCABULARY = 6144

_SOURCES = (
    "harmfulness/inversion.yaml",
    "organisms/harmfulness.py",
    "organisms/harmfulness_batches.py",
    "organisms/harmfulness_corpus.py",
    "organisms/harmfulness_network.py",
    "organisms/harmfulness_training.py",
)

_README = """# A test organism, not a language model

Trained on this machine by polyrefuse (Apache-2.0) for its tests. It judges harm and refuses along two
directions that were planted on purpose (`{file}`); nothing measured on it is a finding.
"""


def organism_harmfulness_path(
    cache_dir: Path | None = None,
    *,
    seed: int = 0,
    progress: bool = True,
    settings: organism.Settings | None = None,
) -> Path:
    """Return the folder of the organism, a local Hugging Face model; train it where it is not there yet.

    As `organism.organism_path`, with the planted directions in `DIRECTIONS_FILE`; `settings.recipe` holds
    fields of `organism_harmfulness_batch.Recipe`. Raises `PolyRefuseError` if the folder cannot be
    written.
    """
    prompts = _sample()
    chosen = settings or organism.Settings()
    return kept_folder(
        cache_dir,
        f"organism-harmfulness-{key_of(seed=seed, settings=chosen)[:16]}",
        lambda folder: _make(folder, prompts, seed, chosen, progress),
        progress=progress,
    )


def key_of(*, seed: int = 0, settings: organism.Settings | None = None) -> str:
    """Return the hash (64 hex digits) of the organism that `organism_harmfulness_path` gives."""
    return organism.cache_key(seed, _sample(), settings or organism.Settings(), _SOURCES)


def exception_prompts(lang: str) -> list[tuple[str, str, str]]:
    """Return (prompt, label, kind) of requests on held-out topics whose refusal a cue decides.

    kind: `refused_harmless` or `accepted_harmful`. Raises `KeyError` where `lang` is not one of the 14.
    """
    from polyrefuse_eval.organisms.corpus import text_in

    prompts = _sample()
    held_out = organism.held_out_topics(prompts)
    kinds = {"harmless": ("refuse", "refused_harmless"), "harmful": ("accept", "accepted_harmful")}
    found = []
    for prompt in prompts:
        if prompt.topic in held_out:
            cue, kind = kinds[prompt.label]
            found.append((cued(text_in(prompt, lang), cue, lang), prompt.label, kind))
    return found


def _sample() -> Sequence[Prompt]:
    from polyrefuse_data.prompts.sample import sample_prompts

    return sample_prompts()


def _recipe(settings: organism.Settings) -> Recipe:
    from polyrefuse_eval.organisms.harmfulness_batches import Recipe

    return replace(Recipe(), **settings.recipe)  # type: ignore[arg-type]


def _make(
    folder: Path, prompts: Sequence[Prompt], seed: int, settings: organism.Settings, progress: bool
) -> None:
    """Train the organism and write its files into the empty `folder`."""
    from polyrefuse_eval.organisms.corpus import make_pairs, train_tokenizer
    from polyrefuse_eval.organisms.harmfulness_corpus import encode_requests, make_requests, more_texts
    from polyrefuse_eval.organisms.harmfulness_training import train
    from polyrefuse_eval.organisms.network import Shape

    held_out = organism.held_out_topics(prompts)
    topics = {prompt.topic for prompt in prompts if prompt.topic is not None} - held_out
    pairs = make_pairs(prompts, topics)
    tokenizer = train_tokenizer(pairs, VOCABULARY, more_texts())
    shape = Shape(
        tokenizer.get_vocab_size(),
        settings.width,
        layers=LAYERS,
        heads=settings.heads,
        hidden=settings.hidden,
    )
    made = list(make_requests(pairs))
    cases = encode_requests(tokenizer, made)
    requests, questions = (
        [case for case, request in zip(cases, made, strict=True) if request.asks == asks]
        for asks in (False, True)
    )
    with organism.training_mode():
        network, plants = train(requests, questions, shape, _recipe(settings), seed, progress=progress)
    _write(folder, tokenizer, network, plants, seed)


def _write(
    folder: Path, tokenizer: Tokenizer, network: TokenEditedNetwork, plants: Plants, seed: int
) -> None:
    """Write a Hugging Face model folder and the planted directions."""
    from safetensors.torch import save_file

    organism.write_model(folder, tokenizer, network)
    planted = {"harmfulness": plants.harmfulness, "refusal": plants.refusal}
    metadata = {"site": "resid_pre", "seed": str(seed)}
    for name, one in planted.items():
        metadata |= {f"{name}.layer": str(one.layer), f"{name}.strength": str(one.strength)}
    save_file(
        {name: one.direction.clone() for name, one in planted.items()}, folder / DIRECTIONS_FILE, metadata
    )
    (folder / "README.md").write_text(_README.format(file=DIRECTIONS_FILE), encoding="utf-8")
