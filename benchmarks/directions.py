"""How much faster than the published loops are extraction, selection and generation, and in how much memory?

    python benchmarks/directions.py [--shape 32k|152k|7b] [--device cpu|cuda] [--stage ...]

Both sides run on the same random model and prompts in this one run, each stage in a process of its
own, so that its peak memory is its own (resident set on a CPU, allocated bytes on a GPU; how much of it
was there before, libraries and weights, is in the output too: on a CPU it is most of ours). The
plain side is `plain_directions.py`. `extract` keeps the training prompts whose refusal score has the
sign of their label, as both papers do; `unfiltered` takes all. `generate` makes answers of one length;
`varied` draws their lengths from a geometric distribution with a cap of three times its mean, as real
answers end early or are cut, and neither side knows of them before an answer ends. Prompt lengths follow
those of the papers' validation prompts (log-normal); the template has 3 tokens before the instruction and
5 after it, as Qwen's in Arditi et al. Random weights give most candidates a small KL, so its filter helps
little here; how many candidates we scored in full is in the output.

`--plain-candidates N` lets the plain side score N candidates only and multiplies its time: said in
the output. It is the default for `7b`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, int]] = {
    "32k": {
        "vocab_size": 32000,
        "num_hidden_layers": 12,
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    },
    "152k": {
        "vocab_size": 152064,
        "num_hidden_layers": 8,
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    },
    "7b": {
        "vocab_size": 152064,
        "num_hidden_layers": 28,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
}
STAGES = ("extract", "unfiltered", "select", "generate", "varied")
"""`extract` takes the prompts that the model refuses or accepts, as is usual; `unfiltered` takes all."""
LENGTHS = {"harmful": (2.85, 0.34), "harmless": (2.47, 0.36)}
"""Mean and deviation of the logarithm of a prompt's tokens (1.25 a word) in the published lists."""

N_TRAIN, N_VALIDATION, N_GENERATE = 128, 32, 32
NEW_TOKENS = 48
N_VARIED, VARIED_CAP = 96, 96
"""Prompts of `varied` under each of three conditions, and the most tokens of an answer."""

TEMPLATE = (
    "{% for m in messages %}<|im_start|>user\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
REFUSAL_IDS = (100, 101)
PLAIN_CANDIDATES = {"7b": 3}
"""Where the whole plain sweep would take too long: so many candidates, multiplied."""


def make_tokenizer() -> Any:
    """Bytes, and 4,000 words of one token each: a prompt has as many tokens as words."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<pad>", "<|im_start|>", "<|im_end|>", "user", "assistant"])
    backend.add_tokens([AddedToken(f"w{index:04}", lstrip=True, normalized=False) for index in range(4000)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>")  # noqa: S106
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_chat(shape: str, device: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    from polyrefuse_eval.models.chat import ChatModel

    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    # Qwen2.5 ties its embeddings in models of this size, and does not at 7B.
    tied = shape != "7b"
    config = Qwen2Config(**SHAPES[shape], max_position_embeddings=4096, tie_word_embeddings=tied, dtype=dtype)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.generation_config.eos_token_id = None
    return ChatModel.from_parts(model.eval(), make_tokenizer(), name=f"random-{shape}")


def prompts(label: str, count: int, seed: int) -> list[str]:
    generator = random.Random(f"{label} {seed}")
    mean, deviation = LENGTHS[label]
    # Harmful and harmless draw from different words, so that their means differ.
    low, high = (0, 2500) if label == "harmful" else (1500, 4000)
    lengths = [max(3, round(math.exp(generator.gauss(mean, deviation)))) for _ in range(count)]
    return [" ".join(f"w{generator.randrange(low, high):04}" for _ in range(n)) for n in lengths]


def forget_peak() -> None:
    """Let Linux count the peak of the resident set from now on; elsewhere it counts from the start."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_resident_mib() -> float:
    """Return the peak since `forget_peak`, just behind which it is what is resident."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(device: str, work: Any) -> dict[str, Any]:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    # The model's construction has a peak of its own, which is not the work's.
    forget_peak()
    before = torch.cuda.memory_allocated() / 2**20 if device == "cuda" else peak_resident_mib()
    start, cpu = time.perf_counter(), time.process_time()
    result = work()
    if device == "cuda":
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        peak = peak_resident_mib()
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": peak,
        "before_mib": before,
        "result": result,
    }


def run_stage(
    side: str, stage: str, shape: str, device: str, threads: int, limit: int, n_varied: int, state: Path
) -> dict[str, Any]:
    """Run one stage of one side; the directions travel between processes as `state`/directions.pt."""
    import torch
    from safetensors.torch import load_file, save_file

    torch.set_num_threads(threads)
    chat = make_chat(shape, device)
    harmful, harmless = (prompts(label, N_VALIDATION, 1) for label in ("harmful", "harmless"))
    vectors_file = state / "vectors.safetensors"
    if stage in ("extract", "unfiltered"):
        train = [prompts(label, N_TRAIN, 0) for label in ("harmful", "harmless")]
        _warm_up(chat)
        ids = filter_ids(chat, train) if stage == "extract" else ()
        found = measure(device, lambda: _extract(side, chat, *train, ids))
        vectors = found.pop("result")
        save_file({"vectors": vectors.cpu().contiguous()}, state / f"{side}.safetensors")
        if side == "plain" and stage == "extract":
            save_file({"vectors": vectors.cpu().contiguous()}, vectors_file)
        return found
    if stage == "select":
        vectors = load_file(vectors_file)["vectors"].to(device)
        _warm_up(chat)
        return measure(device, lambda: _select(side, chat, vectors, harmful, harmless, limit))
    # What an edit costs does not depend on its direction.
    unit = 0.1 * torch.randn(chat.width, generator=torch.Generator().manual_seed(0)).to(device)
    _warm_up(chat)
    if stage == "varied":
        texts = prompts("harmful", n_varied, 2)
        return measure(device, lambda: _generate(side, chat, unit, texts, varied_lengths(n_varied)))
    lengths = [[NEW_TOKENS] * N_GENERATE] * 3
    return measure(device, lambda: _generate(side, chat, unit, prompts("harmful", N_GENERATE, 2), lengths))


def varied_lengths(n_prompts: int) -> list[list[int]]:
    """Return the tokens of each answer under each condition: geometric, cut at `VARIED_CAP`, a mean of about
    a third of it."""
    generator = random.Random("lengths")
    mean = VARIED_CAP * 0.355  # 0.33 of the cap behind the cut
    return [
        [min(VARIED_CAP, 1 + int(generator.expovariate(1 / mean))) for _ in range(n_prompts)]
        for _ in range(3)
    ]


def _warm_up(chat: Any) -> None:
    from polyrefuse_eval.models.batching import can_pack, forward, plan_batches

    can_pack(chat)
    for batch in plan_batches(chat, chat.encode(["w0001 w0002 w0003"])):
        forward(chat, batch)


def filter_ids(chat: Any, train: list[list[str]]) -> tuple[int, ...]:
    """Return the refusal tokens of `extract`: likelier after harmful prompts, and half of what is likely,
    so that the signs of the scores keep most prompts of a random model. Not measured."""
    import torch

    from polyrefuse_eval.models.batching import forward, plan_batches

    means = []
    for texts in train:
        batches = plan_batches(chat, chat.encode(texts))
        means.append(torch.cat([forward(chat, batch).float().softmax(-1) for batch in batches]).mean(0))
    order = (means[0] - means[1]).argsort(descending=True)
    total = (means[0] + means[1])[order].cumsum(0) / 2
    return tuple(order[: int((total < 0.5).sum())].tolist())


def _extract(
    side: str, chat: Any, harmful: list[str], harmless: list[str], refusal_ids: tuple[int, ...]
) -> Any:
    if side == "plain":
        import plain_directions as plain

        return plain.difference_in_means(chat, harmful, harmless, refusal_ids)
    from polyrefuse_eval.directions.fit import fit_directions
    from polyrefuse_eval.directions.refusal_tokens import RefusalTokens

    tokens = RefusalTokens("en", refusal_ids) if refusal_ids else None
    found = fit_directions(chat, harmful, harmless, refusal_tokens=tokens)
    return found.vectors[: len(chat.post_instruction)]


def _select(side: str, chat: Any, vectors: Any, harmful: list[str], harmless: list[str], limit: int) -> Any:
    from polyrefuse_eval.directions.fit import DirectionSet
    from polyrefuse_eval.directions.refusal_tokens import RefusalTokens
    from polyrefuse_eval.directions.scoring import CandidateScorer
    from polyrefuse_eval.directions.selection import CandidateScore, select
    from polyrefuse_eval.results.positions import Position

    n_post = len(chat.post_instruction)
    if side == "plain":
        import plain_directions as plain

        only = None
        if limit:
            every = [(p, layer) for p in range(-n_post, 0) for layer in range(1, chat.n_layers)]
            only = every[:: max(1, len(every) // limit)][:limit]
        scored = plain.candidate_scores(chat, vectors, harmful, harmless, REFUSAL_IDS, only)
        scores = [
            CandidateScore(p, layer, s["ablation_harmful"], s["addition_harmless"], s["ablation_kl"])
            for (p, layer), s in scored.items()
            if float(vectors[p, layer].norm()) > 1e-8
        ]
        chosen = select(scores, "robust", chat.n_layers)
    else:
        positions = tuple(Position(offset) for offset in range(-n_post, 0))
        directions = DirectionSet("en", vectors.cpu(), positions, tuple(range(chat.n_layers)))
        scorer = CandidateScorer(chat, directions, harmful, harmless, RefusalTokens("en", REFUSAL_IDS))
        chosen = scorer.select("robust")
        scores = scorer.all_scores()
    return {
        "choice": [chosen.score.position, chosen.score.layer],
        "step": chosen.step,
        "scores": {
            f"{s.position} {s.layer}": [s.refusal_score, s.steering_score, s.kl_div_score]
            for s in scores
            if s.refusal_score is not None
        },
    }


def _generate(side: str, chat: Any, vector: Any, texts: list[str], lengths: list[list[int]]) -> Any:
    """Return the tokens of the answers [condition][prompt], each of them ended after its given length."""
    middle = chat.n_layers // 2
    if side == "plain":
        import plain_directions as plain

        kinds: list[dict[str, Any]] = [{}, {"ablate": vector}, {"add": (middle, vector)}]
        return [
            plain.answers(chat, texts, of_kind, **kind) for of_kind, kind in zip(lengths, kinds, strict=True)
        ]
    from polyrefuse_eval.models.generate import Request, generate
    from polyrefuse_eval.models.intervene import Ablation, Addition

    edits = [(), (Ablation(vector),), (Addition(vector, middle),)]
    requests = [
        Request(f"{kind} {index}", text, edit, lengths[kind][index])
        for kind, edit in enumerate(edits)
        for index, text in enumerate(texts)
    ]
    limit = max(max(of_kind) for of_kind in lengths)
    answers = {a.key: list(a.ids) for batch in generate(chat, requests, max_new_tokens=limit) for a in batch}
    return [[answers[f"{kind} {index}"] for index in range(len(texts))] for kind in range(3)]


def in_process(
    arguments: argparse.Namespace, side: str, stage: str, limit: int, state: Path
) -> dict[str, Any]:
    target = state / f"{side}-{stage}.json"
    command = [
        sys.executable,
        __file__,
        "--shape",
        arguments.shape,
        "--device",
        arguments.device,
        "--threads",
        str(arguments.threads),
        "--varied-prompts",
        str(arguments.varied_prompts),
        "--worker",
        side,
        stage,
        str(limit),
        str(state),
        str(target),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    subprocess.run(command, check=True, env=environment)
    found: dict[str, Any] = json.loads(target.read_text())
    return found


def compare(stage: str, plain: dict[str, Any], ours: dict[str, Any], state: Path) -> str:
    if stage in ("extract", "unfiltered"):
        from safetensors.torch import load_file

        a, b = (load_file(state / f"{side}.safetensors")["vectors"].float() for side in ("plain", "ours"))
        return (
            f"largest difference {float((a - b).abs().max()):.1e} (largest value {float(a.abs().max()):.2f})"
        )
    a, b = plain["result"], ours["result"]
    if stage == "select":
        shared = sorted(set(a["scores"]) & set(b["scores"]))
        gaps = [
            abs(x - y)
            for key in shared
            for x, y in zip(a["scores"][key], b["scores"][key], strict=True)
            if x is not None and y is not None  # a race leaves out scores that decide nothing
        ]
        return (
            f"choice {a['choice']} and {b['choice']} (step '{b['step']}'), largest difference of scores "
            f"{max(gaps):.1e} over {len(shared)} candidates; "
            f"{len(a['scores'])} scored plainly, {len(b['scores'])} by us"
        )
    pairs = [pair for both in zip(a, b, strict=True) for pair in zip(*both, strict=True)]
    equal = sum(plainly == by_us for plainly, by_us in pairs)
    return f"{equal} of {len(pairs)} answers equal, {sum(len(answer) for answer, _ in pairs)} tokens"


def summary(plain: dict[str, Any], ours: dict[str, Any]) -> str:
    def cost(side: dict[str, Any]) -> str:
        return (
            f"{side['seconds']:.1f} s ({side['cpu_seconds']:.0f} CPU s), "
            f"{side['peak_mib']:.0f} MiB ({side['before_mib']:.0f} before)"
        )

    return (
        f"plain {cost(plain)}; ours {cost(ours)}; {plain['seconds'] / ours['seconds']:.1f} times faster "
        f"({plain['cpu_seconds'] / ours['cpu_seconds']:.1f} in CPU time), "
        f"memory {100 * ours['peak_mib'] / plain['peak_mib']:.0f} %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="32k")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--stage", choices=STAGES, action="append")
    parser.add_argument("--plain-candidates", type=int)
    parser.add_argument("--varied-prompts", type=int, default=N_VARIED, help="prompts under each condition")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        side, stage, limit, state, target = arguments.worker
        found = run_stage(
            side,
            stage,
            arguments.shape,
            arguments.device,
            arguments.threads,
            int(limit),
            arguments.varied_prompts,
            Path(state),
        )
        Path(target).write_text(json.dumps(found))
        return
    limit = (
        PLAIN_CANDIDATES.get(arguments.shape, 0)
        if arguments.plain_candidates is None
        else arguments.plain_candidates
    )
    table = {}
    wanted = arguments.stage or STAGES
    with tempfile.TemporaryDirectory() as folder:
        for stage in STAGES:
            needed = stage == "extract" and "select" in wanted
            if stage not in wanted and not needed:
                continue
            plain, ours = (
                in_process(arguments, side, stage, limit, Path(folder)) for side in ("plain", "ours")
            )
            note = compare(stage, plain, ours, Path(folder))
            if stage == "select" and limit:
                n_candidates = 5 * SHAPES[arguments.shape]["num_hidden_layers"]
                factor = n_candidates / limit
                note += f"; plain time EXTRAPOLATED from {limit} of {n_candidates} candidates"
                plain["seconds"] *= factor
                plain["cpu_seconds"] *= factor
            print(f"{arguments.shape} {stage}: {summary(plain, ours)}; {note}", flush=True)
            table[stage] = {"plain": plain, "ours": ours, "note": note}
            for side in table[stage].values():
                if isinstance(side, dict):
                    side.pop("result", None)
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
