"""A local translation model through transformers: NLLB-200, M2M-100, MADLAD-400, Opus-MT, mBART-50.

`hf:MODEL@REVISION` names a model on the Hub or a folder. The runner sorts batches by length. Answers are
greedy or beam search, never sampled. torch and transformers are imported when a model is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from polyrefuse_data.core.hub_access import offline_if_unreachable
from polyrefuse_data.core.languages import Language
from polyrefuse_data.core.weights import load_weights
from polyrefuse_data.http.faults import TranslatorError
from polyrefuse_data.translate.backends.base import Answer, Limits
from polyrefuse_data.translate.memory.store import Translator

BEAMS = 4
BATCH = 16
LIMITS = Limits(maximum=1_000, connections=1, batch=BATCH, keeps_lines=False)
"""These models were trained on sentences of up to some hundred tokens."""

NEW_TOKENS = 3
"""Tokens of an answer per token of the text, at most, and ten times as many besides."""

_NLLB = {
    "ar": "arb_Arab", "de": "deu_Latn", "en": "eng_Latn", "es": "spa_Latn", "fr": "fra_Latn",
    "it": "ita_Latn", "ja": "jpn_Jpan", "ko": "kor_Hang", "nl": "nld_Latn", "pl": "pol_Latn",
    "ru": "rus_Cyrl", "th": "tha_Thai", "yo": "yor_Latn", "zh": "zho_Hans", "sw": "swh_Latn",
    "hi": "hin_Deva", "am": "amh_Ethi", "bn": "ben_Beng", "cs": "ces_Latn", "el": "ell_Grek",
    "fa": "pes_Arab", "ha": "hau_Latn", "he": "heb_Hebr", "id": "ind_Latn", "ig": "ibo_Latn",
    "pt": "por_Latn", "ro": "ron_Latn", "sv": "swe_Latn", "ta": "tam_Taml", "te": "tel_Telu",
    "tr": "tur_Latn", "uk": "ukr_Cyrl", "ur": "urd_Arab", "vi": "vie_Latn", "zu": "zul_Latn",
}  # fmt: skip
"""FLORES-200's names of languages; a languages file adds others under `codes: {nllb: ...}`."""


def nllb_code(language: Language) -> str | None:
    """Return NLLB-200's name for `language`."""
    return language.codes.get("nllb", _NLLB.get(language.code))


class LocalModel:
    """A sequence-to-sequence model with its tokenizer. One request at a time; every answer is proven."""

    name = "hf"

    def __init__(
        self, model: Any, tokenizer: Any, identity: str, beams: int = BEAMS, batch: int = BATCH
    ) -> None:
        from dataclasses import replace

        self._model, self._tokenizer = model, tokenizer
        self._beams = beams
        self._family = _family(model.config.model_type, tokenizer)
        self.limits = replace(LIMITS, batch=batch)
        self.translator = Translator("hf", identity, f"beams:{beams}")

    def code(self, language: Language) -> str | None:
        """Return the model's name for `language`, None where its vocabulary has no token for it."""
        name = self._family.name(language)
        return name if name is not None and self._family.knows(self._tokenizer, name) else None

    def translates(self, source: Language, target: Language) -> bool:
        """Return whether the model translates in this direction: a model of Opus-MT may have just one."""
        names = self.code(source), self.code(target)
        return None not in names and self._family.has_direction(str(names[0]), str(names[1]))

    def translate(self, texts: Sequence[str], source: Language, target: Language) -> list[Answer]:
        import torch

        inputs, options = self._family.prepare(
            self._tokenizer, list(texts), str(self.code(source)), str(self.code(target))
        )
        inputs = inputs.to(self._model.device)
        longest = int(inputs["input_ids"].shape[1])
        with torch.inference_mode():
            tokens = self._model.generate(
                **inputs,
                **options,
                num_beams=self._beams,
                do_sample=False,
                max_new_tokens=NEW_TOKENS * longest + 10 * NEW_TOKENS,
            )
        return [
            Answer(text.strip(), True)
            for text in self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        ]


class _Family:
    """The way in which a family of models takes the two languages."""

    def __init__(
        self,
        name: Callable[[Language], str | None],
        knows: Callable[[Any, str], bool],
        prepare: Callable[[Any, list[str], str, str], tuple[Any, dict[str, Any]]],
        has_direction: Callable[[str, str], bool] = lambda source, target: True,
    ) -> None:
        self.name, self.knows, self.prepare, self.has_direction = name, knows, prepare, has_direction


def _own_or(service: str, names: Callable[[str], str | None]) -> Callable[[Language], str | None]:
    return lambda language: language.codes[service] if service in language.codes else names(language.code)


def _token_id(tokenizer: Any, token: str) -> int | None:
    number = tokenizer.convert_tokens_to_ids(token)
    return None if number is None or number == tokenizer.unk_token_id else int(number)


def _encode(tokenizer: Any, texts: list[str]) -> Any:
    return tokenizer(texts, return_tensors="pt", padding=True, truncation=False)


def _with_source(tokenizer: Any, texts: list[str], source: str, token: str) -> tuple[Any, dict[str, Any]]:
    tokenizer.src_lang = source
    return _encode(tokenizer, texts), {"forced_bos_token_id": _token_id(tokenizer, token)}


def _family(model_type: str, tokenizer: Any) -> _Family:
    kind = type(tokenizer).__name__.lower()
    if "nllb" in kind:
        return _Family(
            _own_or("nllb", _NLLB.get),
            lambda tokens, name: _token_id(tokens, name) is not None,
            lambda tokens, texts, source, target: _with_source(tokens, texts, source, target),
        )
    if "mbart50" in kind:
        return _Family(
            _own_or(
                "mbart50",
                lambda code: next((name for name in tokenizer.lang_code_to_id if name[:2] == code), None),
            ),
            lambda tokens, name: name in tokens.lang_code_to_id,
            lambda tokens, texts, source, target: _with_source(tokens, texts, source, target),
        )
    if model_type == "m2m_100":
        return _Family(
            _own_or("m2m100", lambda code: code),
            lambda tokens, name: _token_id(tokens, f"__{name}__") is not None,
            lambda tokens, texts, source, target: _with_source(tokens, texts, source, f"__{target}__"),
        )
    if model_type in ("t5", "mt5"):
        return _Family(
            _own_or("madlad", lambda code: code),
            lambda tokens, name: name == "en" or _token_id(tokens, f"<2{name}>") is not None,
            lambda tokens, texts, source, target: (
                _encode(tokens, [f"<2{target}> {text}" for text in texts]),
                {},
            ),
        )
    if model_type == "marian":
        return _marian(tokenizer)
    raise TranslatorError(
        f"a model of type '{model_type}' is not a translation model known here; "
        "expected NLLB-200, M2M-100, mBART-50, MADLAD-400 or Opus-MT"
    )


_OPUS = {"ar": ("ara",), "zh": ("cmn_Hans", "cmn")}
"""Opus-MT's names of languages besides the code and the ISO 639-3 letters of `_NLLB`."""


def _marian(tokenizer: Any) -> _Family:
    """Return Opus-MT's family: a pair, or a source and several targets, with `>>target<<` before a text."""
    targets: set[str] = {
        token[2:-2] for token in tokenizer.get_vocab() if token.startswith(">>") and token.endswith("<<")
    }
    source_lang, target_lang = str(tokenizer.source_lang or ""), str(tokenizer.target_lang or "")

    def name(code: str) -> str | None:
        letters = _NLLB.get(code, "").partition("_")[0]
        wanted: list[str] = [known for known in (code, letters, *_OPUS.get(code, ())) if known]
        for own in (source_lang, target_lang, *sorted(targets)):
            if own in wanted or own.partition("_")[0] in wanted:
                return own
        return None if source_lang or target_lang else code

    def has_direction(source: str, target: str) -> bool:
        return source_lang in (source, "") and (target in targets if targets else target_lang in (target, ""))

    def prepare(tokens: Any, texts: list[str], source: str, target: str) -> tuple[Any, dict[str, Any]]:
        return _encode(tokens, [f">>{target}<< {text}" for text in texts] if target in targets else texts), {}

    return _Family(_own_or("opus", name), lambda tokens, own: True, prepare, has_direction)


@dataclass(frozen=True)
class LocalSpec:
    """The specification of a local model, which any process can load.

    `place` is a name on the Hub at `revision`, or a folder (revision None) with weights of `digest`.
    `identity` is the version of its translations.
    """

    place: str
    revision: str | None
    identity: str
    digest: str | None = None
    threads: int | None = None
    """Threads of torch, on which an answer depends where two tokens are close; None takes torch's default."""

    def load(self) -> LocalModel:
        """Load the model, on a GPU where there is one.

        Weights are read from safetensors only, and no code from the Hub is run. Raise `TranslatorError` for a
        model that cannot be loaded, or whose files lack weights.
        """
        try:
            import torch
            from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
            from transformers.utils import logging
        except ImportError as error:
            raise TranslatorError(
                f"translator 'hf' needs {error.name}, which is not installed: pip install 'polyrefuse[local]'"
            ) from None
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self.set_threads()
        try:
            options: dict[str, Any] = {} if self.revision is None else {"revision": self.revision}
            with offline_if_unreachable():
                tokenizer = AutoTokenizer.from_pretrained(self.place, **options)
                loaded = load_weights(AutoModelForSeq2SeqLM, self.place, **options)
        except (OSError, ValueError, ImportError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise TranslatorError(
                f"translator 'hf:{self.identity}' cannot be loaded: {first[:200]}"
            ) from None
        loaded.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        return LocalModel(loaded, tokenizer, self.identity)

    def set_threads(self) -> None:
        """Set the threads of torch if they are specified; call it in the thread that computes."""
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)


@dataclass(frozen=True)
class LocalHardware:
    """The GPUs and threads that torch uses on this machine."""

    gpus: int
    threads: int | None


def local_hardware() -> LocalHardware:
    """Return what torch uses on this machine; nothing where it is not installed, as only workers need it."""
    try:
        import torch
    except ImportError:
        return LocalHardware(0, None)
    return LocalHardware(torch.cuda.device_count(), torch.get_num_threads())


def local_spec(model: str, threads: int | None = None) -> LocalSpec:
    """Return the specification of `hf:MODEL@REVISION`; raise `TranslatorError` without model or revision."""
    name, _, revision = model.partition("@")
    if not name:
        raise TranslatorError(
            "translator 'hf' needs a model: hf:MODEL@REVISION (a name on the Hub, or a folder)"
        )
    folder = os.path.isdir(name)  # noqa: PTH112 (a name on the Hub is no path)
    if not revision and not folder:
        raise TranslatorError(
            f"translator 'hf:{name}' names no revision; pin one: hf:{name}@REVISION (a commit of the model)"
        )
    if folder:
        digest = None if revision else folder_digest(name)
        identity = model if digest is None else f"{name}@{digest}"
        return LocalSpec(os.path.abspath(name), None, identity, digest, threads)  # noqa: PTH100
    return LocalSpec(name, revision, model, None, threads)


def folder_digest(folder: str) -> str:
    """Return 12 hex digits of a folder's weights: the revision of a model without another."""
    import hashlib
    from pathlib import Path

    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]
