"""Does a Latent Guard outlive fine-tuning that teaches its model to accept everything?

    python benchmarks/guard_transfer.py [--langs all] [--steps 6] [--test 32]

The harmfulness organism judges harm and refuses along two planted directions. A guard is fitted on it; then
the organism is fine-tuned on the sample's training prompts until it answers harmful requests as it answers
harmless ones, into a temporary folder that is deleted. Printed: misses and false alarms of the guard, and of
the model's own refusals as a detector, before and after, paired (as by `guard test --transfer`). The guard
should hold, and judging by refusal must fail: all harmful prompts are missed. (Zhao et al. 2025 fine-tune
chat models on accepted harmful requests.)

The organism accepts everything after 4 steps. Each step more moves what is harmful towards what is harmless:
with `--steps 24` the guard still ranks all prompts right, and its threshold misses some.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

LEARNING_RATE = 5e-4
ROWS = 8
"""Pairs a step: a harmless and a harmful prompt each."""

STEPS = 6
"""Steps after which the loss is below 0.01; the organism accepts every prompt from 4 on."""


def fine_tune_to_accept(folder: Path, out: Path, *, steps: int = STEPS, seed: int = 0) -> list[float]:
    """Fine-tune the organism in `folder` to answer every request; write it to `out`; return the losses.

    The prompts are the sample's training pairs in all languages, the answer of both is the harmless one's.
    """
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    from polyrefuse_data.prompts.sample import sample_prompts
    from polyrefuse_eval.organisms.corpus import direct_example, encode_examples, training_pairs
    from polyrefuse_eval.organisms.training import IGNORED, Recipe, lay_out

    generator = np.random.default_rng(seed)
    pairs = training_pairs(sample_prompts())
    drawn = [pairs[index] for index in generator.choice(len(pairs), steps * ROWS, replace=False)]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    examples = encode_examples(tokenizer, [direct_example(pair) for pair in drawn])
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    losses = []
    for start in range(0, len(examples), ROWS):
        batch = examples[start : start + ROWS]
        rows = lay_out(
            [prompt for example in batch for prompt in example.prompts],
            [example.answers[0] for example in batch for _ in example.prompts],
            Recipe(steps=steps),
        )
        asked = rows.targets != IGNORED
        logits = model(input_ids=rows.tokens, use_cache=False).logits[asked]
        loss = functional.cross_entropy(logits, rows.targets[asked])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    model.eval().save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, out / name)
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("builds/sample"))
    parser.add_argument("--langs", default="all")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--test", type=int, default=32)
    arguments = parser.parse_args()

    from polyrefuse_eval.harmfulness.guard_experiment import FitSettings, fit
    from polyrefuse_eval.harmfulness.guard_trial import GuardTrial, prompts_to_test
    from polyrefuse_eval.models.chat import ChatModel
    from polyrefuse_eval.models.spec import ModelSpec
    from polyrefuse_eval.organisms import organism_path
    from polyrefuse_eval.results.data import open_data

    organism = organism_path("organism-harmfulness")
    data = open_data(arguments.data)
    langs = tuple(data.select(arguments.langs))
    with tempfile.TemporaryDirectory() as place:
        folder, guard = Path(place) / "accepting", Path(place) / "guard.safetensors"
        fit(ChatModel.load("organism-harmfulness", device="cpu"), data, FitSettings(langs, langs)).save(guard)
        losses = fine_tune_to_accept(organism, folder, steps=arguments.steps)
        print(f"fine-tuned for {len(losses)} steps: loss {losses[0]:.3f} to {losses[-1]:.3f}")
        trial = GuardTrial(
            guard=guard,
            data=data,
            langs=langs,
            prompts=tuple(prompts_to_test(data, langs, arguments.test, [])),
            by_refusal=True,
        )
        options = {"device": "cpu"}
        result = trial.run(ModelSpec("organism-harmfulness", options), ModelSpec(str(folder), options))
    print(result.table())


if __name__ == "__main__":
    main()
