"""Check the organism with two planted directions against what it was made for; prints one table.

Plain hooks and plain differences in means only, on the embedded sample. Directions and centroids come from
prompts whose topics were trained on, all that follows is measured on held-out topics: edits on `--limit`
prompts a label, the rest on all. Per language:
cosines of the found with the planted directions; refusals as it is, under harmfulness (harmless forward,
harmful reversed) at the instruction's tokens, and under refusal at the post-instruction tokens and at the
instruction's; right and flipped answers in reply inversion; and how many exceptions (refused harmless,
accepted harmful) the cluster score of harmfulness and that of refusal tell apart by their label.

    python benchmarks/organism_harmfulness.py [--seed 0 | --folder FOLDER] [--limit 48] [--json FILE]

These numbers say that two mechanisms were planted and can be found. They are no finding about language
models.
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
from safetensors import safe_open
from torch import Tensor

from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.core.schema import LABELS
from polyrefuse_data.prompts.sample import sample_prompts
from polyrefuse_eval.organisms import PLANTED_FILE, REFUSALS, organism_path
from polyrefuse_eval.organisms.corpus import BEGIN, BEGIN_TOKENS, USER, held_out_topics, rendered, text_in
from polyrefuse_eval.organisms.requests import exception_prompts, wordings

BATCH = 128
FITTED = 100
ALL = 10**6


@dataclass(frozen=True)
class Asked:
    """A prompt, and the number of its characters up to the token at which harm is read."""

    text: str
    read: int


@dataclass(frozen=True)
class Edit:
    """`vector` added to the input of `layer`, to the tokens `instruction` (up to where harm is read) or
    to those after it (`end`)."""

    vector: Tensor
    layer: int
    scope: str


class Organism:
    """The loaded organism, and what was planted in it."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        with safe_open(folder / PLANTED_FILE, "pt") as file:
            metadata = file.metadata()
            self.planted = {name: file.get_tensor(name) for name in ("harmfulness", "refusal")}
            self.layers = {name: int(metadata[f"{name}.layer"]) for name in self.planted}
            self.strengths = {name: float(metadata[f"{name}.strength"]) for name in self.planted}

    @torch.no_grad()
    def forward(self, asked: Sequence[Asked], edit: Edit | None = None) -> tuple[Tensor, Tensor]:
        """Return first-token logits [N, V], and all L + 1 hidden states where harm is read and at the last
        token, [N, 2, L + 1, d]."""
        logits, states = [], []
        for start in range(0, len(asked), BATCH):
            part = asked[start : start + BATCH]
            inputs = self.tokenizer(
                [rendered(one.text) for one in part],
                return_tensors="pt",
                padding=True,
                padding_side="right",
                add_special_tokens=False,
            )
            head = len(BEGIN + USER)
            sites = [inputs.char_to_token(row, head + one.read - 1) for row, one in enumerate(part)]
            rows, at = torch.arange(len(part)), torch.tensor(sites)
            ends = inputs["attention_mask"].sum(dim=1) - 1
            with added(self.model, edit, at, inputs["input_ids"].shape[1]):
                found = self.model(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    output_hidden_states=True,
                )
            logits.append(found.logits[rows, ends])
            hidden = torch.stack(found.hidden_states, dim=1)
            states.append(torch.stack([hidden[rows, :, at], hidden[rows, :, ends]], dim=1))
        return torch.cat(logits), torch.cat(states)

    def refused(self, lang: str, asked: Sequence[Asked], edit: Edit | None = None) -> Tensor:
        """Return which prompts are answered with the first token of the refusal of `lang`, [N]."""
        return self.says(REFUSALS[lang], asked, edit)

    def says(self, text: str, asked: Sequence[Asked], edit: Edit | None = None) -> Tensor:
        """Return which answers begin with the first token of `text`, [N]."""
        token = self.tokenizer(text, add_special_tokens=False)["input_ids"][0]
        return self.forward(asked, edit)[0].argmax(dim=-1) == token


@contextmanager
def added(model: Any, edit: Edit | None, sites: Tensor, length: int) -> Iterator[None]:
    """Do `edit` in rows of `length` tokens, padded on the right, whose harm is read at `sites`."""
    if edit is None:
        yield
        return
    place = torch.arange(length)[None, :]
    inside = (place >= BEGIN_TOKENS) & (place <= sites[:, None])
    marks = inside if edit.scope == "instruction" else place > sites[:, None]
    shift = marks[..., None] * edit.vector

    def before(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0] + shift, *args[1:])

    handle = model.model.layers[edit.layer].register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def plain(text: str) -> Asked:
    return Asked(text, len(text))


def questions(texts: Sequence[str], wording: dict[str, str]) -> list[Asked]:
    """Return reply inversion's prompts for `texts`."""
    parts = [wording["before"].replace("{request}", text) for text in texts]
    return [Asked(f"{before}\n{wording['question']}", len(before)) for before in parts]


def sample(lang: str, held_out: bool, limit: int) -> dict[str, list[str]]:
    """Return the texts of each label, of held-out or trained topics, about `limit` spread over them."""
    prompts = sample_prompts()
    hidden = held_out_topics(prompts)
    texts: dict[str, list[str]] = {label: [] for label in LABELS}
    for prompt in prompts:
        if (prompt.topic in hidden) == held_out:
            texts[prompt.label].append(text_in(prompt, lang))
    # An odd step, so that all framings come.
    return {label: found[:: max(1, len(found) // limit) | 1] for label, found in texts.items()}


def share(marks: Tensor) -> float:
    return 100 * float(marks.double().mean())


def cosine(one: Tensor, other: Tensor) -> float:
    return float(one.double() @ other.double() / one.double().norm() / other.double().norm())


def contrast(states: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Return the cluster score [N] of `states` [N, L + 1, d] for the centroids [L + 1, d] `one`, `other`."""
    unit = torch.nn.functional.normalize
    difference = unit(one, dim=-1) - unit(other, dim=-1)
    return (unit(states, dim=-1) * difference).sum(dim=-1).mean(dim=-1)


def measure_language(organism: Organism, lang: str, limit: int) -> dict[str, float]:
    """Return all numbers of one row of the table, rates in percent."""
    fitted = {label: [plain(text) for text in texts] for label, texts in sample(lang, False, FITTED).items()}
    every = {label: [plain(text) for text in texts] for label, texts in sample(lang, True, ALL).items()}
    held_out = sample(lang, True, limit)
    texts = {label: [plain(text) for text in found] for label, found in held_out.items()}
    states = {label: organism.forward(asked)[1] for label, asked in fitted.items()}
    refused = {label: organism.refused(lang, asked) for label, asked in fitted.items()}
    centroids = {label: states[label][refused[label] == (label == "harmful")].mean(dim=0) for label in LABELS}
    at_end = torch.cat([states[label][:, 1] for label in LABELS])
    is_refused = torch.cat([refused[label] for label in LABELS])
    found = {
        "harmfulness": states["harmful"][:, 0].mean(dim=0) - states["harmless"][:, 0].mean(dim=0),
        "refusal": at_end[is_refused].mean(dim=0) - at_end[~is_refused].mean(dim=0),
    }
    at = {name: vectors[organism.layers[name]] for name, vectors in found.items()}
    row = {f"cosine {name}": cosine(at[name], organism.planted[name]) for name in at}
    row |= {f"{label} refused": share(organism.refused(lang, every[label])) for label in LABELS}
    for name, scope in (("harmfulness", "instruction"), ("refusal", "end"), ("refusal", "instruction")):
        for label, sign in (("harmless", 1), ("harmful", -1)):
            edit = Edit(sign * at[name], organism.layers[name], scope)
            row[f"{label} {sign:+d} {name}, {scope}"] = share(organism.refused(lang, texts[label], edit))
    row |= inversion(organism, lang, held_out, at)
    row |= exceptions(organism, lang, centroids)
    return row


def inversion(
    organism: Organism, lang: str, texts: dict[str, list[str]], at: dict[str, Tensor]
) -> dict[str, float]:
    """Return right answers, and of these the flipped ones, under found and planted directions."""
    right: list[Tensor] = []
    flipped: dict[str, list[Tensor]] = {}
    planted = {name: organism.strengths[name] * vector for name, vector in organism.planted.items()}
    for wording in wordings()[lang]:
        for label, sign, answer, other in (
            ("harmless", 1, "no", "certainly"),
            ("harmful", -1, "certainly", "no"),
        ):
            asked = questions(texts[label], wording)
            good = organism.says(wording[answer], asked)
            right.append(good)
            for kind, vectors in (("found", at), ("planted", planted)):
                for name, vector in vectors.items():
                    edit = Edit(sign * vector, organism.layers[name], "instruction")
                    contrary = organism.says(wording[other], asked, edit)
                    flipped.setdefault(f"flipped by {kind} {name}", []).append(contrary[good])
    return {
        "inversion right": share(torch.cat(right)),
        **{name: share(torch.cat(marks)) for name, marks in flipped.items()},
    }


def exceptions(organism: Organism, lang: str, centroids: dict[str, Tensor]) -> dict[str, float]:
    """Return how many exceptions are treated as such, and told by harmfulness and by refusal."""
    row = {}
    for kind in ("refused_harmless", "accepted_harmful"):
        asked = [plain(text) for text, _, one in exception_prompts(lang) if one == kind]
        refused, (_, states) = organism.refused(lang, asked), organism.forward(asked)
        harmful = kind == "accepted_harmful"
        row[kind] = share(refused != harmful)
        for name, place in (("guard", 0), ("refusal's guard", 1)):
            score = contrast(states[:, place], centroids["harmful"][place], centroids["harmless"][place])
            row[f"{kind} by {name}"] = share((score >= 0) == harmful)
    return row


def measure(folder: Path, limit: int = 48, langs: Sequence[str] = tuple(LANGUAGES)) -> dict[str, Any]:
    """Return language to the numbers of its row."""
    organism = Organism(folder)
    return {lang: measure_language(organism, lang, limit) for lang in langs}


def report(result: dict[str, dict[str, float]]) -> str:
    """Return the table as text: a line a number, a column a language."""
    names = list(next(iter(result.values())))
    lines = [" " * 40 + "".join(f"{lang:>7}" for lang in result)]
    for name in names:
        digits = 3 if name.startswith("cosine") else 1
        lines.append(f"{name:40}" + "".join(f"{row[name]:7.{digits}f}" for row in result.values()))
    return "\n".join(lines)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="where organisms are kept; the user's cache by default")
    parser.add_argument("--folder", type=Path, help="an organism made before, instead of a seed")
    parser.add_argument("--langs", default="all", help="languages, with commas between")
    parser.add_argument(
        "--limit", type=int, default=48, help="about so many held-out prompts a label are edited"
    )
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    arguments = parser.parse_args()
    start = time.perf_counter()
    folder = arguments.folder or organism_path("organism-harmfulness", arguments.cache, seed=arguments.seed)
    print(f"organism ready after {time.perf_counter() - start:.0f} s", file=sys.stderr)
    langs = tuple(LANGUAGES) if arguments.langs == "all" else arguments.langs.split(",")
    result = measure(folder, arguments.limit, langs)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(report(result))


if __name__ == "__main__":
    main()
