"""From a run or a model to its plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from polyrefuse_eval.activations import capture
from polyrefuse_eval.chat import ChatModel
from polyrefuse_eval.data import DataFolder
from polyrefuse_eval.direction import Direction, DirectionSet
from polyrefuse_eval.errors import DirectionError, RunFolderError
from polyrefuse_eval.plots import Array, plot_activations, plot_cosines, plot_scores
from polyrefuse_eval.positions import T_INST, Position
from polyrefuse_eval.results import RunFolder, write_json
from polyrefuse_eval.select import CandidateScore, read_scores


def draw_run(run: Path) -> list[Path]:
    """Draw what the run in `run` has; return the files, in its folder `plots`.

    Raises `RunFolderError` where it has neither scores nor directions.
    """
    folder = RunFolder.existing(run)
    drawn = []
    for file in sorted((run / "scores").glob("*.json")):
        chosen_file = run / "directions" / f"{file.stem}.safetensors"
        chosen = None
        if chosen_file.is_file():
            direction = Direction.load(chosen_file)
            chosen = CandidateScore(**direction.metadata["selection"]["score"])
        title = f"{folder.signature['model']['model']}, {file.stem}"
        drawn.append(
            plot_scores(
                read_scores(file), run / "plots" / f"scores_{file.stem}.png", chosen=chosen, title=title
            )
        )
    sets = [DirectionSet.load(file) for file in sorted((run / "directions").glob("*.all.safetensors"))]
    if len(sets) > 1:
        position, layer = _where(run, sets)
        vectors = {one.lang: one.at(position, layer).numpy() for one in sets}
        title = f"cosine between directions, position {position.label}, layer {layer}"
        drawn.append(plot_cosines(vectors, run / "plots" / "cosines.png", title=title))
    if not drawn:
        raise RunFolderError(f"'{run}' has no scores and no directions of two languages to draw")
    return drawn


def _where(run: Path, sets: Sequence[DirectionSet]) -> tuple[Position, int]:
    """Return the place chosen for the first language, else the last position in the middle."""
    for one in sets:
        file = run / "directions" / f"{one.lang}.safetensors"
        if file.is_file():
            chosen = Direction.load(file)
            return chosen.position, chosen.layer
    return Position(-1), sets[0].layers[len(sets[0].layers) // 2]


def draw_activations(
    chat: ChatModel,
    data: DataFolder,
    langs: Sequence[str],
    limit: int,
    position: str,
    out: Path,
    *,
    progress: bool = False,
) -> dict[str, list[float]]:
    """Draw activations at `position` of up to `limit` training prompts of each label and language.

    Returns the silhouette score by layer for each language; they are written beside the picture.
    """
    where = T_INST if position == "t_inst" else Position(_offset(position, len(chat.post_instruction)))
    layers = range(1, chat.n_layers + 1)
    found: dict[str, tuple[Array, Array]] = {}
    for lang in langs:
        parts = []
        for label in ("harmful", "harmless"):
            prompts = chat.encode([row.text for row in data.prompts(lang, "train", label, limit)])
            hidden = np.zeros((len(prompts), len(layers), chat.width))
            bar = f"activations {lang}" if progress else None
            for part in capture(chat, prompts, layers, [where], progress=bar):
                hidden[list(part.prompts)] = part.hidden[:, 0].double().cpu().numpy()
            parts.append(hidden)
        found[lang] = (parts[0], parts[1])
    scores = plot_activations(found, layers, out, title=f"{chat.name}, position {where.label}")
    write_json(
        out.with_suffix(".json"), {"position": where.label, "layers": list(layers), "silhouette": scores}
    )
    return scores


def _offset(position: str, n_post: int) -> int:
    try:
        offset = int(position)
    except ValueError:
        offset = 0
    if not -n_post <= offset < 0:
        raise DirectionError(f"unknown position '{position}'; expected t_inst or -{n_post} to -1")
    return offset
