"""Plot candidate scores, directions and activations to files; matplotlib is imported when a plot is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from polyrefuse_eval.directions.fit import Direction, DirectionSet
from polyrefuse_eval.directions.selection import CandidateScore, read_scores
from polyrefuse_eval.errors import DirectionError
from polyrefuse_eval.figures import BLUE, VERMILION, explain, new_figure, save_figure, shared_legend
from polyrefuse_eval.models.activations import capture
from polyrefuse_eval.models.chat import ChatModel
from polyrefuse_eval.results.data import DataFolder
from polyrefuse_eval.results.folder import RunFolder, write_json
from polyrefuse_eval.results.positions import T_INST, Position

Array = npt.NDArray[np.float64]

MARKS = (("-", "o"), ("--", "s"), ("-.", "^"), (":", "D"), ("-", "v"), ("--", "x"))
"""Line and marker of each position: told apart without colour."""

SCORE_NAMES = {
    "refusal_score": "refusal score under ablation, harmful prompts (lower is better)",
    "steering_score": "refusal score under addition, harmless prompts (higher is better)",
    "kl_div_score": "KL(unedited ‖ ablated), harmless prompts, nats (lower is better)",
}


def score_grid(scores: Sequence[CandidateScore], name: str) -> tuple[list[int | str], list[int], Array]:
    """Return positions, layers and the values of score `name` [positions, layers], NaN where absent."""
    positions = list(dict.fromkeys(score.position for score in scores))
    layers = sorted({score.layer for score in scores})
    grid = np.full((len(positions), len(layers)), np.nan)
    for score in scores:
        value = getattr(score, name)
        grid[positions.index(score.position), layers.index(score.layer)] = np.nan if value is None else value
    return positions, layers, grid


def plot_scores(
    scores: Sequence[CandidateScore],
    path: Path,
    *,
    chosen: CandidateScore | None = None,
    title: str = "",
    caption: str = "",
) -> Path:
    """Draw the three scores by layer, a line for each position, and as heat maps; a star: the chosen."""
    figure, axes = new_figure(2, 3, 15, 7.5)
    for column, (name, label) in enumerate(SCORE_NAMES.items()):
        positions, layers, grid = score_grid(scores, name)
        top, bottom = axes[0][column], axes[1][column]
        for position, values in zip(positions, grid, strict=True):
            style, marker = MARKS[positions.index(position) % len(MARKS)]
            top.plot(layers, values, style, marker=marker, markersize=4, label=f"position {position}")
        top.set(xlabel="layer", title=label, xlim=(layers[0] - 0.5, layers[-1] + 0.5))
        for axis in (top, bottom):
            axis.xaxis.get_major_locator().set_params(integer=True)
        top.title.set_fontsize(9)
        image = bottom.imshow(
            grid,
            aspect="auto",
            cmap="cividis",
            extent=(layers[0] - 0.5, layers[-1] + 0.5, len(positions) - 0.5, -0.5),
        )
        bottom.set(xlabel="layer", ylabel="position")
        bottom.set_yticks(range(len(positions)), [str(position) for position in positions])
        figure.colorbar(image, ax=bottom)
        if chosen is not None and chosen.position in positions:
            value = getattr(chosen, name)
            if value is not None:
                top.plot([chosen.layer], [value], "k*", markersize=13, label="chosen")
            bottom.plot(
                [chosen.layer],
                [positions.index(chosen.position)],
                "*",
                color="white",
                markeredgecolor="black",
                markersize=14,
            )
    shared_legend(figure, axes.flatten())
    explain(figure, title, caption)
    return save_figure(figure, path)


def cosine_matrix(vectors: Mapping[str, Array]) -> Array:
    """Return cosines [n, n] between `vectors`, each [d]."""
    stacked = np.stack([vector / np.linalg.norm(vector) for vector in vectors.values()])
    cosines: Array = stacked @ stacked.T
    return cosines


def plot_cosines(vectors: Mapping[str, Array], path: Path, *, title: str = "") -> Path:
    """Draw the cosines between the directions of several languages."""
    names = list(vectors)
    cosines = cosine_matrix(vectors)
    size = 2 + 0.5 * len(names)
    figure, axes = new_figure(1, 1, size + 1, size)
    image = axes[0][0].imshow(cosines, vmin=-1, vmax=1, cmap="PuOr")
    axes[0][0].set_xticks(range(len(names)), names)
    axes[0][0].set_yticks(range(len(names)), names)
    for row, column in np.ndindex(cosines.shape):
        dark = abs(cosines[row, column]) > 0.7
        axes[0][0].text(
            column,
            row,
            f"{cosines[row, column]:.2f}",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if dark else "black",
        )
    figure.colorbar(image, ax=axes[0][0], label="cosine")
    explain(figure, title, "1: the same direction in both languages; 0: unrelated")
    return save_figure(figure, path)


def pca(points: Array, components: int = 2) -> Array:
    """Return the first principal components [n, components] of `points` [n, d]."""
    centred = points - points.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    projected: Array = centred @ axes[:components].T
    return projected


def silhouette(points: Array, labels: Sequence[int]) -> float:
    """Return the mean silhouette score of two or more groups (Rousseeuw 1987), Euclidean, in [-1, 1].

    Raises `ValueError` unless each group has at least two points.
    """
    groups = np.asarray(labels)
    names, counts = np.unique(groups, return_counts=True)
    if len(names) < 2 or counts.min() < 2:
        raise ValueError("a silhouette needs two groups of two points each")
    squares = (points**2).sum(1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * points @ points.T, 0))
    np.fill_diagonal(distances, 0)
    sums = np.stack([distances[:, groups == name].sum(1) for name in names], 1)
    own = np.searchsorted(names, groups)
    rows = np.arange(len(points))
    inside = sums[rows, own] / (counts[own] - 1)
    means = sums / counts
    means[rows, own] = np.inf
    outside = means.min(1)
    scale = np.maximum(inside, outside)
    return float(np.mean(np.where(scale > 0, (outside - inside) / np.where(scale > 0, scale, 1), 0)))


def plot_activations(
    activations: Mapping[str, tuple[Array, Array]], layers: Sequence[int], path: Path, *, title: str = ""
) -> dict[str, list[float]]:
    """Draw, for each language, the two principal components of harmful and harmless activations at
    the layer that parts them best, and the silhouette score by layer; return these scores.

    `activations`: language to (harmful, harmless), each [prompts, layers, d].
    """
    scores: dict[str, list[float]] = {}
    columns = min(4, len(activations) + 1)
    rows = -(-(len(activations) + 1) // columns)
    figure, axes = new_figure(rows, columns, 4 * columns, 3.4 * rows)
    panels = [axis for row in axes for axis in row]
    for panel, (lang, (harmful, harmless)) in zip(panels, activations.items(), strict=False):
        labels = [1] * len(harmful) + [0] * len(harmless)
        both = np.concatenate([harmful, harmless])
        scores[lang] = [silhouette(both[:, index], labels) for index in range(len(layers))]
        best = int(np.argmax(scores[lang]))
        points = pca(both[:, best])
        for value, name, marker, colour in ((1, "harmful", "x", VERMILION), (0, "harmless", "o", BLUE)):
            chosen = points[np.asarray(labels) == value]
            panel.scatter(chosen[:, 0], chosen[:, 1], s=14, marker=marker, c=colour, alpha=0.7, label=name)
        panel.set_title(f"{lang}, layer {layers[best]}: silhouette {scores[lang][best]:.2f}", fontsize=9)
        style, mark = MARKS[len(scores) % len(MARKS)]
        panels[-1].plot(layers, scores[lang], style, marker=mark, markersize=4, label=lang)
    panels[0].legend(fontsize=8)
    panels[-1].set(xlabel="layer", title="silhouette score by layer")
    panels[-1].legend(fontsize=7, ncols=2)
    for panel in panels[len(activations) : -1]:
        panel.axis("off")
    explain(
        figure, "Do harmful and harmless prompts separate? Silhouette 1: two tight groups, 0: mixed", title
    )
    save_figure(figure, path)
    return scores


def draw_run(run: Path) -> list[Path]:
    """Draw scores and cosines between directions of a run into its folder `plots`; return the files."""
    folder = RunFolder.existing(run)
    drawn = []
    for file in sorted((run / "scores").glob("*.json")):
        chosen_file = run / "directions" / f"{file.stem}.safetensors"
        chosen = None
        if chosen_file.is_file():
            direction = Direction.load(chosen_file)
            chosen = CandidateScore(**direction.metadata["selection"]["score"])
        model, settings = folder.signature["model"], folder.signature["settings"]
        drawn.append(
            plot_scores(
                read_scores(file),
                run / "plots" / f"scores_{file.stem}.png",
                chosen=chosen,
                title=f"Candidate directions of {file.stem}: which layer and position mediates refusal",
                caption=f"{model['model']}; up to {settings['n_validation']} validation prompts of each "
                f"label; means without intervals; star: chosen (rule {settings['rule']})",
            )
        )
    sets = [DirectionSet.load(file) for file in sorted((run / "directions").glob("*.all.safetensors"))]
    if len(sets) > 1:
        position, layer = _where(run, sets)
        vectors = {directions.lang: directions.at(position, layer).numpy() for directions in sets}
        title = f"cosine between directions, position {position.label}, layer {layer}"
        drawn.append(plot_cosines(vectors, run / "plots" / "cosines.png", title=title))
    return drawn


def _where(run: Path, sets: Sequence[DirectionSet]) -> tuple[Position, int]:
    """Return the place of the first language's direction, else the last position of the middle layer."""
    for directions in sets:
        file = run / "directions" / f"{directions.lang}.safetensors"
        if file.is_file():
            direction = Direction.load(file)
            return direction.position, direction.layer
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

    Return the silhouette scores by layer of each language, which are also written beside the picture.
    """
    place = T_INST if position == "t_inst" else Position(_offset(position, len(chat.post_instruction)))
    layers = range(1, chat.n_layers + 1)
    activations: dict[str, tuple[Array, Array]] = {}
    for lang in langs:
        parts = []
        for label in ("harmful", "harmless"):
            prompts = chat.encode([row.text for row in data.prompts(lang, "train", label, limit)])
            hidden = np.zeros((len(prompts), len(layers), chat.width))
            bar = f"activations {lang}" if progress else None
            for part in capture(chat, prompts, layers, [place], progress=bar):
                hidden[list(part.prompts)] = part.hidden[:, 0].double().cpu().numpy()
            parts.append(hidden)
        activations[lang] = (parts[0], parts[1])
    scores = plot_activations(
        activations,
        layers,
        out,
        title=f"{chat.name}, position {place.label}, up to {limit} training prompts of each label",
    )
    write_json(
        out.with_suffix(".json"), {"position": place.label, "layers": list(layers), "silhouette": scores}
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
