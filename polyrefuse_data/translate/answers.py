"""Judge answers before they are stored.

A fault means that the answer is wrong; the question is asked again. A doubt means that it may be wrong; such
an answer counts when it came three times. Lengths are compared with those that the run has seen of the
language; before it has seen enough, with the calibrated thresholds of the language; where there are none,
every answer is doubted.
"""

from __future__ import annotations

import bisect
import html
import math
import statistics
import threading
from dataclasses import dataclass, field

import regex

from polyrefuse_data.checks import text as scores
from polyrefuse_data.checks.language import LanguageVotes
from polyrefuse_data.checks.numbers import missing_digits
from polyrefuse_data.checks.thresholds import load_thresholds
from polyrefuse_data.checks.translator_talk import translator_talk
from polyrefuse_data.core.languages import SOURCE_LANGUAGE, Language
from polyrefuse_data.http.faults import Fault
from polyrefuse_data.translate.chunks import protected, translatable

ENOUGH_RATIOS = 24
"""Length ratios from which their median is compared with."""

MOST_RATIOS = 400
"""Length ratios that are kept of a language."""

EARLY = "early"
"""The doubt about an answer in a language of which the run has seen too little to judge lengths."""

SHORT, LONG = math.log(0.72), math.log(1.5)
"""Log ratios to the usual length beyond which an answer is doubted; half an answer has log 0.5."""

ECHO_WORDS = 3
"""Words to translate from which an unchanged text is an echo; fewer may be names."""

FAR_TOO_LONG = 6.0
"""Characters of an answer per character of the text beyond which it is no translation."""

SHORT_TEXT = 24
"""Characters below which lengths and detectors are unreliable."""

SHORTEST_COMPARED = 10
"""Characters below which a length is not compared at all."""

_ENTITY = regex.compile(r"&(?:[a-zA-Z]{2,8}|#\d{1,6}|#x[0-9a-fA-F]{1,5});")
_EDGES = "\u200b\u200c\u200d\u2060\ufeff"
_FINAL = regex.compile(r"\p{P}")
_QUESTION = regex.compile(r"[?？؟;]")
_QUOTE = regex.compile(r"""["“”„«»「」『』‟]""")
_WRAPPED = regex.compile(
    r"""\A(?:"([^"]*)"|“([^“”]*)”|„([^„“”]*)[“”]|«([^«»]*)»|「([^「」]*)」)\Z""", regex.S
)
_CAPTCHA = regex.compile(r"captcha|unusual traffic|<html|<!doctype|enable javascript|cloudflare", regex.I)
_NO_TEXT = regex.compile(r"[\ufffd\p{Cs}\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Replacement characters of bytes that were not UTF-8, lone surrogates, and control characters."""

_LETTER = regex.compile(r"\p{L}")
_WORD = regex.compile(r"[\p{L}\p{N}]+")
_NO_FINAL_STOP = ("Thai",)
"""Scripts without a mark at the end of a sentence."""


@dataclass
class Ratios:
    """Logarithms of the length ratios seen, in order, by (source, target) language.

    Safe to share between threads.
    """

    seen: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, source: str, target: str, text: str, answer: str) -> None:
        """Note the length ratio of an answer without doubts."""
        if len(text) >= SHORT_TEXT and answer:
            with self._lock:
                ratios = self.seen.setdefault((source, target), [])
                if len(ratios) < MOST_RATIOS:
                    bisect.insort(ratios, math.log(len(answer) / len(text)))

    def median(self, source: str, target: str) -> float | None:
        """Return the median log ratio seen, else the middle of the calibrated bounds, else None."""
        with self._lock:
            ratios = self.seen.get((source, target), [])
            if len(ratios) >= ENOUGH_RATIOS:
                return statistics.median(ratios)
        lang = source if target == SOURCE_LANGUAGE else target
        bounds = load_thresholds().checks.get("length_ratio", {}).get(lang)
        if bounds is None or not bounds.low or not bounds.high:
            return None
        middle = (math.log(bounds.low) + math.log(bounds.high)) / 2
        return middle if lang == target else -middle


def tidy(text: str, answer: str) -> str:
    """Return `answer` without what services add: outer blanks, zero-width marks, entities, outer quotes.

    Entities that the text itself holds are kept; others are resolved once.
    """
    answer = answer.replace("\r\n", "\n") if "\r" not in text else answer
    own = set(_ENTITY.findall(text))
    answer = _ENTITY.sub(
        lambda match: match.group() if match.group() in own else html.unescape(match.group()), answer
    )
    answer = answer.strip().strip(_EDGES).strip()
    wrapped = _WRAPPED.match(answer)
    if wrapped and not _QUOTE.search(text):
        answer = next(inner for inner in wrapped.groups() if inner is not None).strip()
    return answer


class Judge:
    """Judge answers. Safe to share between threads."""

    def __init__(self, ratios: Ratios | None = None) -> None:
        self.ratios = ratios or Ratios()
        self._votes, self._all_votes = LanguageVotes(), LanguageVotes(all_votes=True)

    def judge(self, text: str, answer: str, source: Language, target: Language) -> list[str]:
        """Return the doubts about a tidied answer; raise `Fault` for one that is wrong."""
        if not scores.has_visible(answer):
            raise Fault("empty")
        if set(_NO_TEXT.findall(answer)) - set(text):
            raise Fault("truncated", "symbols that are not text")
        if _CAPTCHA.search(answer) and not _CAPTCHA.search(text):
            raise Fault("page", "a captcha or an error page")
        if translator_talk(answer, text if source.code == "en" else "", target.code) and (
            source.code == "en" or not translator_talk(text, "", source.code)
        ):
            raise Fault("answer")
        lines = len(answer.splitlines()) - len(text.splitlines())
        if (len(text) >= SHORT_TEXT and len(answer) > FAR_TOO_LONG * len(text)) or lines > 3:
            raise Fault("length" if lines <= 3 else "answer", f"{len(answer)} characters for {len(text)}")
        if any(part not in answer for part in protected(text)):
            raise Fault("protected")
        doubts = []
        if _is_echo(text, answer):
            words = len(_WORD.findall(translatable(text)))
            if not words:
                return []  # nothing but code: unchanged, as it should be
            if words >= ECHO_WORDS:
                raise Fault("echo")
            doubts = ["echo"]
        doubts += self._language(answer, target)
        doubts += self._length(text, answer, source, target)
        return doubts + _marks(text, answer, source, target)

    def _language(self, answer: str, target: Language) -> list[str]:
        score = self._votes.scores([answer], target.code)[0]
        if score is None or score == 1.0:
            return []
        prose = translatable(answer)  # code is in no language
        if len(prose) < len(answer):
            score = self._votes.scores([prose], target.code)[0] if _LETTER.search(prose) else None
            if score is None or score == 1.0:
                return []
        if len(_LETTER.findall(prose)) >= SHORT_TEXT // 2 and score == 0.0:
            score = self._all_votes.scores([prose], target.code)[0]
            share = scores.script_share(prose, target)
            if score == 0.0 or (share is not None and share < 0.2):
                raise Fault("language")
        return ["language"]

    def _length(self, text: str, answer: str, source: Language, target: Language) -> list[str]:
        if len(text) < SHORTEST_COMPARED:
            return []
        usual = self.ratios.median(source.code, target.code)
        if usual is None:
            return [EARLY]
        off = math.log(len(answer) / len(text)) - usual
        return ["length"] if not SHORT <= off <= LONG else []


def _is_echo(text: str, answer: str) -> bool:
    """Return whether `answer` has the words of `text`, all of them in the same order."""
    text, answer = text.casefold(), answer.casefold()
    first, first_back = _WORD.search(text), _WORD.search(answer)
    if first and first_back and first.group() != first_back.group():
        return False  # nearly every answer
    return bool(_WORD.findall(text) == _WORD.findall(answer))


def _marks(text: str, answer: str, source: Language, target: Language) -> list[str]:
    """Return doubts about the marks that a translation keeps: its end, quotes, digits, lines."""
    doubts = []
    unmarked = any(script in _NO_FINAL_STOP for script in (*target.scripts, *source.scripts))
    if _FINAL.match(text.rstrip()[-1:]) and not _FINAL.match(answer.rstrip()[-1:]) and not unmarked:
        doubts.append("end")
    if _QUOTE.search(text) and not _QUOTE.search(answer):
        doubts.append("quotes")
    if source.code == SOURCE_LANGUAGE and missing_digits(answer, text, target.code):
        doubts.append("digits")
    if len(answer.splitlines()) != len(text.splitlines()):
        doubts.append("lines")
    return doubts
