"""A local translation model through transformers: NLLB-200, M2M-100, MADLAD-400, Opus-MT, mBART-50.

`hf:MODEL@REVISION` names a model on the Hub or a folder. Batches come sorted by length from the runner;
answers are greedy or beam search, never sampled. torch and transformers are imported when a model is made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from polyrefuse_data.core.languages import Language
from polyrefuse_data.http.faults import TranslatorError
from polyrefuse_data.translate.backends.base import Answer, Limits
from polyrefuse_data.translate.memory.store import Translator

BEAMS = 4
BATCH = 16
LIMITS = Limits(maximum=1_000, connections=1, batch=BATCH, keeps_lines=False)
"""These models were trained on sentences of up to some hundred tokens."""

NEW_TOKENS = 3
"""Tokens of an answer per token of the text, at most; and so many tens besides."""

_NLLB = {
    "ar": "arb_Arab", "de": "deu_Latn", "en": "eng_Latn", "es": "spa_Latn", "fr": "fra_Latn",
    "it": "ita_Latn", "ja": "jpn_Jpan", "ko": "kor_Hang", "nl": "nld_Latn", "pl": "pol_Latn",
    "ru": "rus_Cyrl", "th": "tha_Thai", "yo": "yor_Latn", "zh": "zho_Hans", "sw": "swh_Latn",
    "hi": "hin_Deva", "am": "amh_Ethi", "bn": "ben_Beng", "cs": "ces_Latn", "el": "ell_Grek",
    "fa": "pes_Arab", "ha": "hau_Latn", "he": "heb_Hebr", "id": "ind_Latn", "ig": "ibo_Latn",
    "pt": "por_Latn", "ro": "ron_Latn", "sv": "swe_Latn", "ta": "tam_Taml", "te": "tel_Telu",
    "tr": "tur_Latn", "uk": "ukr_Cyrl", "ur": "urd_Arab", "vi": "vie_Latn", "zu": "zul_Latn",
}  # fmt: skip
"""FLORES-200's names of languages; others stand in a languages file under `codes: {nllb: ...}`."""


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
        """Return the model's name for `language`, None where its vocabulary has no sign for it."""
        name = self._family.name(language)
        return name if name is not None and self._family.knows(self._tokenizer, name) else None

    def translates(self, source: Language, target: Language) -> bool:
        """Return whether the model goes this way: one of Opus-MT's goes from one language to another only."""
        names = self.code(source), self.code(target)
        return None not in names and self._family.one_way(str(names[0]), str(names[1]))

    def translate(self, texts: Sequence[str], source: Language, target: Language) -> list[Answer]:
        import torch

        inputs, options = self._family.prepare(
            self._tokenizer, list(texts), str(self.code(source)), str(self.code(target))
        )
        inputs = inputs.to(self._model.device)
        longest = int(inputs["input_ids"].shape[1])
        with torch.inference_mode():
            made = self._model.generate(
                **inputs,
                **options,
                num_beams=self._beams,
                do_sample=False,
                max_new_tokens=NEW_TOKENS * longest + 10 * NEW_TOKENS,
            )
        return [
            Answer(text.strip(), True)
            for text in self._tokenizer.batch_decode(made, skip_special_tokens=True)
        ]


class _Family:
    """How one family of models is told the two languages."""

    def __init__(
        self,
        name: Callable[[Language], str | None],
        knows: Callable[[Any, str], bool],
        prepare: Callable[[Any, list[str], str, str], tuple[Any, dict[str, Any]]],
        one_way: Callable[[str, str], bool] = lambda source, target: True,
    ) -> None:
        self.name, self.knows, self.prepare, self.one_way = name, knows, prepare, one_way


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
                lambda code: next((one for one in tokenizer.lang_code_to_id if one[:2] == code), None),
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
        f"a model of type '{model_type}' is no translation model known here; "
        "expected NLLB-200, M2M-100, mBART-50, MADLAD-400 or Opus-MT"
    )


_OPUS = {"ar": ("ara",), "zh": ("cmn_Hans", "cmn")}
"""Opus-MT's names of languages besides the code and the letters of `_NLLB`, which are ISO 639-3's."""


def _marian(tokenizer: Any) -> _Family:
    """Opus-MT: one pair, or one source and several targets, each with a sign `>>code<<` before the text."""
    signs: set[str] = {
        token[2:-2] for token in tokenizer.get_vocab() if token.startswith(">>") and token.endswith("<<")
    }
    source_lang, target_lang = str(tokenizer.source_lang or ""), str(tokenizer.target_lang or "")

    def name(code: str) -> str | None:
        letters = _NLLB.get(code, "").partition("_")[0]
        wanted: list[str] = [one for one in (code, letters, *_OPUS.get(code, ())) if one]
        for one in (source_lang, target_lang, *sorted(signs)):
            if one in wanted or one.partition("_")[0] in wanted:
                return one
        return None if source_lang or target_lang else code

    def one_way(source: str, target: str) -> bool:
        return source_lang in (source, "") and (target in signs if signs else target_lang in (target, ""))

    def prepare(tokens: Any, texts: list[str], source: str, target: str) -> tuple[Any, dict[str, Any]]:
        return _encode(tokens, [f">>{target}<< {text}" for text in texts] if target in signs else texts), {}

    return _Family(_own_or("opus", name), lambda tokens, one: True, prepare, one_way)


@dataclass(frozen=True)
class LocalSpec:
    """What it takes to load a local model, wherever that is: `place` is a name on the Hub at `revision`, or a
    folder (revision None) of weights with `digest`; `identity` is what its translations are known by."""

    place: str
    revision: str | None
    identity: str
    digest: str | None = None
    threads: int | None = None
    """Threads of torch, on which answers depend where two tokens come close; None takes torch's own."""

    def __call__(self) -> LocalModel:
        """Load it, on a GPU where there is one. Weights are read from safetensors only, and no code from the
        Hub is run. Raises `TranslatorError`."""
        try:
            import torch
            from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
            from transformers.utils import logging
        except ImportError as error:
            raise TranslatorError(
                f"translator 'hf' needs {error.name}, which is not installed: pip install 'polyrefuse[local]'"
            ) from None
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it knows no --quiet
        self.set_threads()
        try:
            options: dict[str, Any] = {} if self.revision is None else {"revision": self.revision}
            tokenizer = AutoTokenizer.from_pretrained(self.place, **options)
            loaded = AutoModelForSeq2SeqLM.from_pretrained(self.place, use_safetensors=True, **options)
        except (OSError, ValueError, ImportError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise TranslatorError(
                f"translator 'hf:{self.identity}' cannot be loaded: {first[:200]}"
            ) from None
        loaded.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        return LocalModel(loaded, tokenizer, self.identity)

    def set_threads(self) -> None:
        """Let torch take so many threads, where that is said: in the thread that computes."""
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)


@dataclass(frozen=True)
class Here:
    """What torch has here: GPUs, and the threads that it takes."""

    gpus: int
    threads: int | None


def here() -> Here:
    """Return what torch has here: nothing where it is not installed, and only workers need it."""
    try:
        import torch
    except ImportError:
        return Here(0, None)
    return Here(torch.cuda.device_count(), torch.get_num_threads())


def local_spec(model: str, threads: int | None = None) -> LocalSpec:
    """Return what loads `hf:MODEL@REVISION`; raises `TranslatorError` where it names no model or revision."""
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
    """Return 12 hex digits of a folder's weights: the revision of a model that has no other."""
    import hashlib
    from pathlib import Path

    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]
