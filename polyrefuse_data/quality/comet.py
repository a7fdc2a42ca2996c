"""Estimate the quality of translations with COMET's own code (`unbabel-comet`), without pickled objects.

COMET (Rei et al. 2020, 2022) keeps its weights in a checkpoint of PyTorch; it is read with `weights_only`, so
that a checkpoint that holds anything but tensors and plain values is refused. The package needs transformers
below 5: where this environment has a newer one, score in one of its own and use its file of scores here.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyrefuse_data.core.hub_access import offline_if_unreachable
from polyrefuse_data.core.paths import file_sha256
from polyrefuse_data.quality.estimators import EstimatorSpec, QualityError

BATCH = 16


class CometEstimator:
    """A COMET model that needs no reference: CometKiwi, AfriCOMET-QE, COMET-QE."""

    def __init__(self, spec: EstimatorSpec) -> None:
        from comet.models import str2model

        name = f"--quality comet:{spec.model}"
        with offline_if_unreachable():
            folder = _folder(spec)
            identifier = _plain_yaml(folder / "hparams.yaml", name).get("class_identifier")
            if identifier not in str2model:
                raise QualityError(
                    f"{name} is of kind '{identifier}'; expected one of {', '.join(str2model)}"
                )
            checkpoint = _checkpoint(folder / "checkpoints" / "model.ckpt", name)
            kind = str2model[identifier]
            model = kind(**_arguments(kind, checkpoint["hyper_parameters"], folder))
        if model.requires_references():
            raise QualityError(f"{name} needs reference translations; use a reference-free model (QE, Kiwi)")
        lacking = model.load_state_dict(checkpoint["state_dict"], strict=False).missing_keys
        if any("position_ids" not in key for key in lacking):
            raise QualityError(
                f"{name} lacks the weights {', '.join(sorted(lacking)[:3])}; download it again"
            )
        self._model = model.eval()
        revision = spec.revision or file_sha256(folder / "checkpoints" / "model.ckpt")[:12]
        self.identity = f"comet:{spec.model}@{revision}"

    def scores(self, english: Sequence[str], texts: Sequence[str]) -> list[float]:
        """Return COMET's score of each translation, higher is better, as the model has it."""
        import torch

        samples = [{"src": source, "mt": text} for source, text in zip(english, texts, strict=True)]
        prediction = self._model.predict(
            samples,
            batch_size=BATCH,
            gpus=int(torch.cuda.is_available()),
            progress_bar=False,
            num_workers=0,
        )
        return [float(score) for score in prediction["scores"]]


def _folder(spec: EstimatorSpec) -> Path:
    if Path(spec.model).is_dir():
        return Path(spec.model)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(spec.model, revision=spec.revision))


def _plain_yaml(path: Path, name: str) -> Mapping[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise QualityError(f"{name}: {path.name} cannot be read ({type(error).__name__})") from None
    return values if isinstance(values, dict) else {}


def _checkpoint(path: Path, name: str) -> dict[str, Any]:
    """Return the checkpoint's tensors and plain values; anything else in it is refused."""
    import pickle

    import torch

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise QualityError(
            f"{name}: {path.name} cannot be read as weights alone ({type(error).__name__}); "
            "expected a checkpoint of COMET with tensors and plain values"
        ) from None
    if not isinstance(checkpoint, dict) or not {"hyper_parameters", "state_dict"} <= checkpoint.keys():
        raise QualityError(f"{name}: {path.name} is not a COMET checkpoint (state_dict, hyper_parameters)")
    return checkpoint


def _arguments(kind: Any, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the arguments of a model's class; an encoder inside the folder is taken from there."""
    known = inspect.signature(kind.__init__).parameters
    arguments = {name: value for name, value in values.items() if name in known}
    encoder = folder / str(arguments.get("pretrained_model", ""))
    if "pretrained_model" in arguments and encoder.is_dir():
        arguments["pretrained_model"] = str(encoder)
    return {**arguments, "load_pretrained_weights": False}
