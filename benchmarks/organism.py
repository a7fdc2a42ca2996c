"""Check a test organism against what it was made for; plain hooks only. Prints one table, or two matrices.

Per language, on the held-out test prompts of the embedded sample: refusal rate of harmful and harmless
prompts; of harmful ones with the English difference in means ablated everywhere, of harmless ones with it
added at its layer; and the same with a random and with a shuffled-label direction of the same norm.

With --transfer: from each language's own difference in means, chosen on its validation prompts, to every
language: refusal rates of harmful prompts with it ablated, of harmless ones with it added.

    python benchmarks/organism.py [--organism organism-per-language] [--seed 0 | --folder FOLDER]
        [--transfer] [--limit 0] [--shuffles 1] [--json FILE]

These numbers say that a mechanism was planted and can be found. They are no finding about refusal.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.core.schema import LABELS, Prompt
from polyrefuse_data.prompts.recipe import load_recipe
from polyrefuse_data.prompts.sample import sample_prompts
from polyrefuse_data.prompts.splits import draw_splits, pool_prompts
from polyrefuse_eval.organisms import ORGANISMS, REFUSALS, organism_path, planted_directions
from polyrefuse_eval.organisms.corpus import TAIL, held_out_topics, text_in
from polyrefuse_eval.statistics.rates import wilson

BATCH = 128
Texts = dict[str, list[str]]
Places = dict[tuple[str, str], list[Prompt]]
"""(Label, split) to prompts."""


@dataclass
class Organism:
    """The loaded organism and what is known about it."""

    model: Any
    tokenizer: Any
    planted: dict[str, Tensor]
    """Language to its planted unit vector."""

    @classmethod
    def load(cls, folder: Path) -> Organism:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        return cls(model, AutoTokenizer.from_pretrained(folder), planted_directions(folder))

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Yield indices and left-padded inputs, sorted by length."""
        chats = [
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
            for text in texts
        ]
        order = sorted(range(len(texts)), key=lambda index: len(chats[index]))
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            rows = [chats[index] for index in part]
            inputs = self.tokenizer(rows, return_tensors="pt", padding=True, add_special_tokens=False)
            yield part, {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}

    @torch.no_grad()
    def replies(self, texts: Sequence[str]) -> list[str]:
        """Return the greedy replies to `texts`."""
        answers = [""] * len(texts)
        for part, inputs in self.batches(texts):
            tokens = self.model.generate(**inputs, do_sample=False, max_new_tokens=32)
            new = tokens[:, inputs["input_ids"].shape[1] :]
            decoded = self.tokenizer.batch_decode(new, skip_special_tokens=True)
            for index, text in zip(part, decoded, strict=True):
                answers[index] = text.strip()
        return answers

    @torch.no_grad()
    def first_logits(self, texts: Sequence[str]) -> Tensor:
        """Return the float64 logits [N, vocabulary] of the first token of the reply."""
        rows = torch.empty(len(texts), self.model.config.vocab_size, dtype=torch.float64)
        for part, inputs in self.batches(texts):
            rows[part] = self.model(**inputs, logits_to_keep=1).logits[:, -1].double()
        return rows

    @torch.no_grad()
    def streams(self, texts: Sequence[str]) -> Tensor:
        """Return the input of every layer at the post-instruction tokens: [N, layers, TAIL, d], float64."""
        config = self.model.config
        shape = (len(texts), config.num_hidden_layers, TAIL, config.hidden_size)
        rows = torch.empty(shape, dtype=torch.float64)
        for part, inputs in self.batches(texts):
            states = self.model.model(**inputs, output_hidden_states=True).hidden_states
            rows[part] = torch.stack([state[:, -TAIL:] for state in states[:-1]], dim=1).double()
        return rows


@contextmanager
def ablated(model: Any, direction: Tensor) -> Iterator[None]:
    """Project `direction` (a unit vector) out of every layer's input and every attention and MLP output."""

    def cleaned(stream: Tensor) -> Tensor:
        return stream - (stream @ direction)[..., None] * direction

    def before(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (cleaned(args[0]), *args[1:])

    def after(_module: Any, _args: Any, output: Any) -> Any:
        return (cleaned(output[0]), *output[1:]) if isinstance(output, tuple) else cleaned(output)

    handles = []
    for layer in model.model.layers:
        handles.append(layer.register_forward_pre_hook(before))
        handles.append(layer.self_attn.register_forward_hook(after))
        handles.append(layer.mlp.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def added(model: Any, vector: Tensor, layer: int) -> Iterator[None]:
    """Add `vector` to the input of `layer` at every position."""

    def before(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0] + vector, *args[1:])

    handle = model.model.layers[layer].register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def split_prompts() -> Places:
    """Return (label, split) to the prompts of the recipe `sample`; of test, only the held-out topics."""
    recipe, _ = load_recipe("sample")
    sample = sample_prompts()
    pools = {
        name: pool_prompts(name, pool, dict.fromkeys(pool.sources, sample), lambda _: [])
        for name, pool in recipe.pools.items()
    }
    places: Places = {}
    held_out = held_out_topics(sample)
    for row in draw_splits(recipe, pools).placed:
        if row.split == "test" and row.prompt.topic not in held_out:
            continue
        places.setdefault((row.prompt.label, row.split), []).append(row.prompt)
    return places


def refusal_score(logits: Tensor, token: int) -> float:
    """Return the mean log-odds of `token` at the first position (Arditi et al. 2024)."""
    share = logits.softmax(dim=-1)[:, token].clamp(1e-8, 1 - 1e-8)
    return float((share.log() - (1 - share).log()).mean())


@dataclass
class Choice:
    """A candidate direction: where it was found, its vector (not normalised) and its scores."""

    lang: str
    layer: int
    position: int
    vector: Tensor
    refusal: float
    steering: float
    divergence: float

    @property
    def unit(self) -> Tensor:
        return self.vector / self.vector.norm()


def candidates(organism: Organism, streams: dict[str, Tensor], val: Texts, lang: str) -> list[Choice]:
    """Return the difference in means of every layer and position, with its scores on `val`.

    streams: label to the streams [N, layers, TAIL, d] of training prompts in `lang`.
    """
    opening = organism.tokenizer(REFUSALS[lang], add_special_tokens=False)["input_ids"][0]
    base = organism.first_logits(val["harmless"]).log_softmax(dim=-1)
    found = []
    difference = streams["harmful"].mean(dim=0) - streams["harmless"].mean(dim=0)
    for layer in range(difference.shape[0]):
        for position in range(TAIL):
            vector = difference[layer, position].float()
            if float(vector.norm()) < 1e-4:  # the template's own embedding: nothing to tell apart
                continue
            with ablated(organism.model, vector / vector.norm()):
                refusal = refusal_score(organism.first_logits(val["harmful"]), opening)
                edited = organism.first_logits(val["harmless"]).log_softmax(dim=-1)
            with added(organism.model, vector, layer):
                steering = refusal_score(organism.first_logits(val["harmless"]), opening)
            divergence = float((base.exp() * (base - edited)).sum(dim=-1).mean())
            found.append(Choice(lang, layer, position - TAIL, vector, refusal, steering, divergence))
    return found


def chosen(found: Sequence[Choice], layers: int) -> Choice:
    """Return the candidate that Arditi et al. (2024) would choose."""
    fit = [one for one in found if one.layer < int(0.8 * layers)]
    fit = [one for one in fit if one.divergence <= 0.1 and one.steering >= 0]
    return min(fit, key=lambda one: one.refusal)


def searched(organism: Organism, places: Places, lang: str) -> tuple[dict[str, Tensor], list[Choice], Choice]:
    """Return the training streams of `lang` by label, all candidates from them, and the chosen one."""
    train, val = (
        {label: [text_in(prompt, lang) for prompt in places[label, split]] for label in LABELS}
        for split in ("train", "validation")
    )
    streams = {label: organism.streams(texts) for label, texts in train.items()}
    found = candidates(organism, streams, val, lang)
    return streams, found, chosen(found, organism.model.config.num_hidden_layers)


def tested_prompts(places: Places, limit: int) -> tuple[list[Prompt], list[Prompt]]:
    """Return about `limit` (0: all) harmful and as many harmless held-out test prompts."""
    step = len(places["harmful", "test"]) // limit | 1 if limit else 1  # odd, so that all framings come
    return places["harmful", "test"][::step], places["harmless", "test"][::step]


def refused(organism: Organism, prompts: Sequence[Prompt]) -> dict[str, float]:
    """Return the share in percent of replies that are the refusal of the prompt's language, per language."""
    openers = REFUSALS
    texts = [text_in(prompt, lang) for lang in LANGUAGES for prompt in prompts]
    replies = organism.replies(texts)
    count = len(prompts)
    return {
        lang: 100 * sum(reply == openers[lang] for reply in replies[i * count : (i + 1) * count]) / count
        for i, lang in enumerate(LANGUAGES)
    }


def measure(folder: Path, limit: int = 0, shuffles: int = 1) -> dict[str, Any]:
    """Return all numbers of the table: language to condition to percent, and facts on the direction."""
    organism = Organism.load(folder)
    places = split_prompts()
    train, found, best = searched(organism, places, "en")
    planted = organism.planted["en"]
    norm = float(best.vector.norm())
    generator = torch.Generator().manual_seed(0)
    controls = {"random": torch.randn(len(best.vector), generator=generator)}
    streams = torch.cat([train["harmful"], train["harmless"]])[:, best.layer, best.position + TAIL]
    for number in range(shuffles):
        order = torch.randperm(len(streams), generator=generator)
        half = len(streams) // 2
        shuffled = streams[order[:half]].mean(dim=0) - streams[order[half:]].mean(dim=0)
        controls[f"shuffled{number or ''}"] = shuffled.float()
    controls = {name: vector / vector.norm() for name, vector in controls.items()}
    harmful, harmless = tested_prompts(places, limit)
    columns = {"harmful": refused(organism, harmful), "harmless": refused(organism, harmless)}
    for name, unit in {"direction": best.unit, **controls}.items():
        with ablated(organism.model, unit):
            columns[f"{name}, ablated"] = refused(organism, harmful)
        with added(organism.model, norm * unit, best.layer):
            columns[f"{name}, added"] = refused(organism, harmless)
    return {
        "columns": columns,
        "candidates": [
            {
                "layer": one.layer,
                "position": one.position,
                "norm": float(one.vector.norm()),
                "cosine": float(one.unit @ planted),
                "refusal": one.refusal,
                "steering": one.steering,
                "kl": one.divergence,
            }
            for one in found
        ],
        "layer": best.layer,
        "position": best.position,
        "norm": norm,
        "cosine": float(best.unit @ planted),
        "control cosines": {name: float(unit @ planted) for name, unit in controls.items()},
        "prompts": len(harmful),
    }


def report(result: dict[str, Any]) -> str:
    """Return the table as text."""
    lines = [
        f"layer {one['layer']} position {one['position']}: cosine {one['cosine']:+.3f} "
        f"norm {one['norm']:.2f} refusal {one['refusal']:+.2f} steering {one['steering']:+.2f} "
        f"KL {one['kl']:.4f}"
        for one in result["candidates"]
    ]
    lines.append(
        f"chosen: layer {result['layer']} position {result['position']}, norm {result['norm']:.2f}, "
        f"cosine with the planted direction {result['cosine']:.3f}; controls: "
        + ", ".join(f"{name} {value:+.2f}" for name, value in result["control cosines"].items())
    )
    columns = result["columns"]
    lines.append(f"percent refused of {result['prompts']} held-out prompts a language")
    lines.append("lang " + " | ".join(columns))
    for lang in LANGUAGES:
        row = " | ".join(f"{columns[name][lang]:{len(name)}.1f}" for name in columns)
        lines.append(f"{lang:4} {row}")
    controls = [name for name in columns if name.startswith(("random", "shuffled"))]
    moved = max(
        abs(columns[name][lang] - columns["harmful" if name.endswith("ablated") else "harmless"][lang])
        for name in controls
        for lang in LANGUAGES
    )
    lines.append(
        f"least harmful {min(columns['harmful'].values()):.1f}, "
        f"most harmless {max(columns['harmless'].values()):.1f}, "
        f"most ablated {max(columns['direction, ablated'].values()):.1f}, "
        f"least added {min(columns['direction, added'].values()):.1f}, "
        f"controls move by at most {moved:.1f} points"
    )
    return "\n".join(lines)


def measure_transfer(folder: Path, limit: int = 0) -> dict[str, Any]:
    """Return the matrices of `transfer_report`: source language to language to percent or cosine."""
    organism = Organism.load(folder)
    places = split_prompts()
    harmful, harmless = tested_prompts(places, limit)
    sources = {lang: searched(organism, places, lang)[-1] for lang in LANGUAGES}
    result: dict[str, Any] = {
        "sources": {lang: {"layer": one.layer, "position": one.position} for lang, one in sources.items()},
        "cosines": {
            lang: {other: float(one.unit @ vector) for other, vector in organism.planted.items()}
            for lang, one in sources.items()
        },
        "prompts": len(harmful),
        "harmful": refused(organism, harmful),
        "harmless": refused(organism, harmless),
        "ablated": {},
        "added": {},
    }
    for lang, one in sources.items():
        with ablated(organism.model, one.unit):
            result["ablated"][lang] = refused(organism, harmful)
        with added(organism.model, one.vector, one.layer):
            result["added"][lang] = refused(organism, harmless)
    return result


def transfer_report(result: dict[str, Any]) -> str:
    """Return the matrices as text, rows the languages that directions are from, and what they come to."""
    count = result["prompts"]
    cells = [(source, lang) for source in LANGUAGES for lang in LANGUAGES]
    own, foreign = [cell for cell in cells if len({*cell}) == 1], [cell for cell in cells if len({*cell}) > 1]

    def at(name: str, cell: tuple[str, str]) -> float:
        return float(result[name][cell[0]][cell[1]])

    lines = []
    for name, label, sign in (("ablated", "harmful", -1), ("added", "harmless", 1)):
        base = result[label]
        lines.append(f"percent refused of {count} {label} prompts a language, the row's direction {name}")
        lines.append("     " + " ".join(f"{lang:>5}" for lang in LANGUAGES))
        lines.append("none " + " ".join(f"{base[lang]:5.1f}" for lang in LANGUAGES))
        for source in LANGUAGES:
            row = " ".join(f"{result[name][source][lang]:5.1f}" for lang in LANGUAGES)
            lines.append(f"{source:4} {row}")
        effect = {cell: sign * (at(name, cell) - base[cell[1]]) for cell in cells}
        for kind, among, worst in (
            ("least on the diagonal", own, min(own, key=effect.__getitem__)),
            ("least off it", foreign, min(foreign, key=effect.__getitem__)),
            ("most off it", foreign, max(foreign, key=effect.__getitem__)),
        ):
            low, high = wilson(round(at(name, worst) * count / 100), count)
            lines.append(
                f"{name}: effect {kind} {effect[worst]:.1f} points ({worst[0]} on {worst[1]}: "
                f"{at(name, worst):.1f} % refused, 95 % interval {100 * low:.1f} to {100 * high:.1f}), "
                f"mean of {len(among)} {sum(effect[cell] for cell in among) / len(among):.1f}"
            )
    lines.append(
        f"cosine of the direction found with its language's planted one at least "
        f"{min(at('cosines', cell) for cell in own):.3f}; with other languages' between "
        f"{min(at('cosines', cell) for cell in foreign):+.3f} and "
        f"{max(at('cosines', cell) for cell in foreign):+.3f}"
    )
    return "\n".join(lines)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--organism", choices=ORGANISMS, default="organism")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="where organisms are kept; the user's cache by default")
    parser.add_argument("--folder", type=Path, help="an organism made before, instead of a seed")
    parser.add_argument("--limit", type=int, default=0, help="about so many test prompts a label; 0 for all")
    parser.add_argument("--transfer", action="store_true", help="the matrices between all languages")
    parser.add_argument("--shuffles", type=int, default=1, help="how many shuffled-label directions")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    arguments = parser.parse_args()
    start = time.perf_counter()
    folder = arguments.folder or organism_path(arguments.organism, arguments.cache, seed=arguments.seed)
    print(f"organism ready after {time.perf_counter() - start:.0f} s", file=sys.stderr)
    if arguments.transfer:
        result = measure_transfer(folder, arguments.limit)
    else:
        result = measure(folder, arguments.limit, arguments.shuffles)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(transfer_report(result) if arguments.transfer else report(result))
    print(f"measured after {time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
