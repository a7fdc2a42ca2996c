"""The lm-eval export does what ours does or is refused; plots say what their numbers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from run_records import finished_run
from tiny import FAMILIES, chat_model

from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.directions.plots import (
    cosine_matrix,
    pca,
    plot_activations,
    plot_cosines,
    plot_scores,
    silhouette,
)
from polyrefuse_eval.directions.selection import CandidateScore
from polyrefuse_eval.errors import InterventionError
from polyrefuse_eval.integrations.lm_eval_steering import (
    export_steered,
    largest_difference,
    steer_config,
    steered,
)
from polyrefuse_eval.models.intervene import Ablation, Addition, Edit, applied


def vector(width: int = 32) -> torch.Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("edit", [Ablation(vector()), Addition(2 * vector(), 2, -1.5), Addition(vector(), 0)])
def test_the_exported_file_gives_our_logits(family: str, edit: Edit, tmp_path: Path) -> None:
    chat = chat_model(family)
    if isinstance(edit, Addition) and edit.layer == 0 and family in ("gemma", "gemma2"):
        # Some releases scale the embeddings after their module, where lm-eval cannot add.
        config = steer_config(chat, edit)
        if largest_difference(chat, edit, config) > 0.01:
            with pytest.raises(InterventionError, match="would differ"):
                export_steered(chat, edit, tmp_path / "steer.pt")
            return
    path = export_steered(chat, edit, tmp_path / "steer.pt")
    config = torch.load(path, weights_only=True)
    names = dict(chat.model.base_model.named_modules())
    assert all(point in names for point in config)
    ids = torch.tensor([chat.encode(["Why does rain fall?"])[0].ids])
    with torch.inference_mode():
        plain = chat.model(input_ids=ids).logits
        with applied(chat, edit):
            ours = chat.model(input_ids=ids).logits
        with steered(chat, config):
            theirs = chat.model(input_ids=ids).logits
        after = chat.model(input_ids=ids).logits
    assert (ours - plain).abs().max() > 1e-2
    torch.testing.assert_close(theirs, ours, atol=1e-3, rtol=1e-3)
    assert torch.equal(plain, after)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Ablation(vector(), tokens="prompt"), "all tokens"),
        (Ablation(vector(), coefficient=0.5), "one direction to 0 in full"),
        (Ablation(torch.stack([vector(), vector().flip(0)])), "given 2 directions"),
    ],
)
def test_what_lm_eval_cannot_do_is_refused(edit: Edit, message: str, tmp_path: Path) -> None:
    with pytest.raises(InterventionError, match=message):
        export_steered(chat_model(), edit, tmp_path / "steer.pt")
    with pytest.raises(InterventionError, match="ending"):
        export_steered(chat_model(), Ablation(vector()), tmp_path / "steer.safetensors")


def test_an_export_that_would_do_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import polyrefuse_eval.integrations.lm_eval_steering as module

    chat = chat_model()
    honest = steer_config(chat, Ablation(vector()))
    partial = dict(list(honest.items())[:2])
    assert largest_difference(chat, Ablation(vector()), partial) > 0.01
    monkeypatch.setattr(module, "steer_config", lambda *_arguments: partial)
    path = tmp_path / "steer.pt"
    with pytest.raises(InterventionError, match="would differ"):
        export_steered(chat, Ablation(vector()), path)
    assert not path.exists()


def test_the_silhouette_tells_parted_groups_from_mixed_ones() -> None:
    generator = np.random.default_rng(0)
    near = generator.normal(size=(40, 5))
    apart = np.concatenate([near[:20], near[20:] + 20])
    labels = [0] * 20 + [1] * 20
    assert silhouette(apart, labels) > 0.8
    assert abs(silhouette(near, labels)) < 0.15
    assert silhouette(apart * 3 + 7, labels) == pytest.approx(silhouette(apart, labels), abs=1e-6)
    by_hand = np.array([[0.0], [1.0], [10.0], [12.0]])
    inside, outside = np.array([1, 1, 2, 2]), np.array([11, 10, 9.5, 11.5])
    expected = float(np.mean((outside - inside) / outside))
    assert silhouette(by_hand, [0, 0, 1, 1]) == pytest.approx(expected)
    with pytest.raises(ValueError, match="two points"):
        silhouette(by_hand, [0, 0, 0, 1])


def test_principal_components_hold_the_most_variance() -> None:
    points = np.random.default_rng(1).normal(size=(50, 4)) * np.array([9, 3, 0.1, 0.1])
    projected = pca(points)
    variances = projected.var(0)
    assert variances[0] > variances[1]
    assert variances.sum() == pytest.approx(points.var(0)[:2].sum(), rel=0.01)


def test_plots_are_files_and_leave_out_what_is_unknown(tmp_path: Path) -> None:
    scores = [
        CandidateScore(position, layer, layer - 1.0, None if layer else 2.0, 0.1 * layer)
        for position in (-2, -1, "t_inst")
        for layer in range(4)
    ]
    first = plot_scores(scores, tmp_path / "a.png", chosen=scores[1], title="t").read_bytes()
    assert plot_scores(scores, tmp_path / "b.png", chosen=scores[1], title="t").read_bytes() == first
    directions = {"en": np.array([1.0, 0.0]), "de": np.array([2.0, 2.0]), "yo": np.array([0.0, -3.0])}
    cosines = cosine_matrix(directions)
    assert cosines[0, 1] == pytest.approx(0.7071, abs=1e-3)
    assert cosines[1, 2] == pytest.approx(-0.7071, abs=1e-3)
    assert plot_cosines(directions, tmp_path / "c.png").stat().st_size > 1000
    generator = np.random.default_rng(0)
    activations = {
        lang: (
            generator.normal(size=(10, 3, 6)) + np.array([0, 0, 9])[None, :, None],
            generator.normal(size=(10, 3, 6)),
        )
        for lang in ("en", "yo")
    }
    found = plot_activations(activations, [1, 2, 3], tmp_path / "d.png")
    assert all(values[2] > 0.5 > values[0] for values in found.values())


def test_nothing_is_drawn_through_a_link(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", rows=2).path
    (tmp_path / "outside").mkdir()
    (run / "plots").symlink_to(tmp_path / "outside")
    result = CliRunner().invoke(eval_group, ["plot", str(run)])
    assert "is a link to a folder" in str(result.exception)
    assert not list((tmp_path / "outside").iterdir())
