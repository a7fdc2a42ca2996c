"""Load models of quality estimation: a source and its translation in, a score out, no reference needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from polyrefuse_data.core.errors import PolyRefuseError, unknown_name


class QualityError(PolyRefuseError):
    """A model of quality estimation that cannot be used: not there, damaged, or a missing extra."""


class Estimator(Protocol):
    """A loaded model; `identity` is its kind, name and revision, as `comet:NAME@REVISION`."""

    identity: str

    def scores(self, english: Sequence[str], texts: Sequence[str]) -> list[float]:
        """Return one score for each translation of `texts` with its English, lists of equal length."""


@dataclass(frozen=True, kw_only=True)
class EstimatorSpec:
    """What `--quality KIND:MODEL[@REVISION]` names; `model` may be a folder, which has no revision."""

    kind: str
    model: str
    revision: str | None


Loader = Callable[[EstimatorSpec], Estimator]


def _comet(spec: EstimatorSpec) -> Estimator:
    from polyrefuse_data.quality.comet import CometEstimator

    return CometEstimator(spec)


def _metricx(spec: EstimatorSpec) -> Estimator:
    from polyrefuse_data.quality.metricx import MetricXEstimator

    return MetricXEstimator(spec)


KINDS: Mapping[str, Loader] = {"comet": _comet, "metricx": _metricx}
"""How each kind is loaded."""

HIGHER_IS_BETTER: Mapping[str, bool] = {"comet": True, "metricx": False}
"""COMET scores quality, most models from 0 to 1; MetricX predicts errors, 0 (none) to 25."""


def parse_estimator(text: str) -> EstimatorSpec:
    """Return what `KIND:MODEL[@REVISION]` names; raises `QualityError` for anything else."""
    kind, _, name = text.partition(":")
    if kind not in KINDS:
        raise QualityError(f"--quality {text}: {unknown_name('kind of model', kind, KINDS)}")
    folder = Path(name).is_dir()
    model, _, revision = (name, "", "") if folder else name.partition("@")
    if not model:
        raise QualityError(f"--quality {text} names no model; expected {kind}:MODEL@REVISION or a folder")
    if not folder and not revision:
        raise QualityError(
            f"--quality {text} names no revision; pin one: {kind}:{model}@REVISION (a commit of the model)"
        )
    return EstimatorSpec(kind=kind, model=model, revision=revision or None)


def load_estimator(text: str) -> Estimator:
    """Load the model of `KIND:MODEL[@REVISION]`; raises `QualityError` with what to do."""
    spec = parse_estimator(text)
    try:
        return KINDS[spec.kind](spec)
    except QualityError:
        raise
    except ImportError as error:
        extra = "comet" if spec.kind == "comet" else "local"
        raise QualityError(
            f"--quality {text} needs {error.name}, which is not installed: pip install 'polyrefuse[{extra}]'"
        ) from None
    except Exception as error:  # the libraries raise what each kind of model does
        raise QualityError(f"--quality {text} cannot be loaded: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    message = str(error).strip()
    return message.splitlines()[0][:200] if message else type(error).__name__


def best_device() -> Any:
    """Return the GPU where there is one, else the processor."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
