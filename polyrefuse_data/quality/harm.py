"""Judge whether a back-translation asks for harm as its English does: a translation may have become harmless.

A judge reads English prompts alone. Guards come with the measuring side of the package, by a plug-in; a
classifier of sequences is loaded here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Protocol

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.hub_access import offline_if_unreachable
from polyrefuse_data.core.weights import load_weights
from polyrefuse_data.quality.estimators import best_device, first_line
from polyrefuse_data.translate.backends.local import folder_digest

PLUGINS = "polyrefuse.prompt_judges"
"""Entry points of functions that take the text of `--intent` and return a loaded `HarmJudge`."""

CLASSIFIER = "classifier"

HARMFUL = ("harmful", "unsafe", "toxic", "malicious", "jailbreak", "injection")
"""Names of labels that stand for a harmful prompt, in lower case."""

BATCH = 16


class HarmJudgeError(PolyRefuseError):
    """A judge of prompts that cannot be used: not there, without a label for harm, or a missing extra."""


class HarmJudge(Protocol):
    """A loaded judge; `identity` is its name with its revision."""

    identity: str

    def harmfulness(self, prompts: Sequence[str]) -> list[float | None]:
        """Return the probability (0 to 1) that each prompt asks for harm; None where it cannot be told."""


def load_harm_judge(text: str) -> HarmJudge:
    """Load the judge that `--intent` names; raises `HarmJudgeError` or the plug-in's own error.

    `classifier:MODEL@REVISION` is a classifier of sequences, anything else a guard of the measuring side:
    `llamaguard3`, `polyguard`, or `NAME=FOLDER`.
    """
    kind, _, model = text.partition(":")
    if kind == CLASSIFIER:
        return _load_classifier(text, model)
    for entry in metadata.entry_points(group=PLUGINS):
        try:
            load: Callable[[str], HarmJudge] = entry.load()
        except ImportError as error:
            raise HarmJudgeError(
                f"--intent {text} needs {error.name or error}, which is missing: "
                "pip install 'polyrefuse[eval]'"
            ) from None
        return load(text)
    raise HarmJudgeError(
        f"--intent {text} needs the measuring side: pip install 'polyrefuse[eval]'; "
        f"or name a classifier: {CLASSIFIER}:MODEL@REVISION"
    )


def _load_classifier(text: str, name: str) -> HarmJudge:
    folder = Path(name).is_dir()
    model, _, revision = (name, "", "") if folder else name.partition("@")
    if not model or not (folder or revision):
        raise HarmJudgeError(f"--intent {text}: expected {CLASSIFIER}:MODEL@REVISION or {CLASSIFIER}:FOLDER")
    try:
        return Classifier(model, revision or None)
    except HarmJudgeError:
        raise
    except ImportError as error:
        raise HarmJudgeError(
            f"--intent {text} needs {error.name}, which is not installed: pip install 'polyrefuse[local]'"
        ) from None
    except Exception as error:  # the library raises what each kind of model does
        raise HarmJudgeError(f"--intent {text} cannot be loaded: {first_line(error)}") from None


class Classifier:
    """A classifier of sequences with a label of `HARMFUL`; from safetensors, without code of its own."""

    def __init__(self, model: str, revision: str | None) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        with offline_if_unreachable():
            self._tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
            loaded = load_weights(AutoModelForSequenceClassification, model, revision=revision)
        labels = {number: str(label) for number, label in loaded.config.id2label.items()}
        self._harmful = [number for number, label in labels.items() if label.lower() in HARMFUL]
        if not self._harmful:
            raise HarmJudgeError(
                f"--intent {CLASSIFIER}:{model} has the labels {', '.join(labels.values())}; "
                f"expected one of {', '.join(HARMFUL)}"
            )
        self._many = loaded.config.problem_type == "multi_label_classification" or len(labels) == 1
        self._device = best_device()
        self._model = loaded.to(self._device).eval()
        self.identity = f"{CLASSIFIER}:{model}@{revision or folder_digest(model)}"

    def harmfulness(self, prompts: Sequence[str]) -> list[float | None]:
        """Return the probability of a harmful label: the sum of exclusive ones, else the highest."""
        values: list[float | None] = []
        for start in range(0, len(prompts), BATCH):
            values += self._batch(prompts[start : start + BATCH])
        return values

    def _batch(self, prompts: Sequence[str]) -> list[float]:
        import torch

        inputs = self._tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**inputs.to(self._device)).logits.float()
        if self._many:
            values: list[float] = logits.sigmoid()[:, self._harmful].amax(-1).tolist()
        else:
            values = logits.softmax(-1)[:, self._harmful].sum(-1).tolist()
        return values
