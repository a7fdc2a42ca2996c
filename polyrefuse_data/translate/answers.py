"""What comes back is judged before it is stored.

A fault says that the answer is wrong, and is tried again. A doubt says that it may be: such an answer
counts when it came three times. Lengths are judged against what the run has seen of the language so far;
before it has seen enough, against the calibrated thresholds of the language, and where there are none every
answer is doubted.
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
from polyrefuse_data.checks.thresholds import load_thresholds
from polyrefuse_data.checks.translator_talk import translator_talk
from polyrefuse_data.core.languages import SOURCE_LANGUAGE, Language
from polyrefuse_data.http.faults import Fault
from polyrefuse_data.translate.chunks import protected

ENOUGH_RATIOS = 24
"""So many length ratios make a median worth comparing with."""

EARLY = "early"
"""The doubt about an answer in a language of which too little was seen to judge its length."""

SHORT, LONG = math.log(0.72), math.log(1.5)
"""An answer this much shorter or longer than usual in the language is doubted; half an answer is at 0.5."""

FAR_TOO_LONG = 6.0
"""Characters per character of English from which a text is no translation of a longer prompt."""

SHORT_TEXT = 24
"""Characters below which lengths and detectors say little."""

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
"""What is left of bytes that were no UTF-8, half a sign, and signs that control a terminal."""

_LETTER = regex.compile(r"\p{L}")
_WORD = regex.compile(r"[\p{L}\p{N}]+")
_NO_FINAL_STOP = ("Thai",)
"""Scripts that write no stop at the end of a sentence."""


@dataclass
class Ratios:
    """Logarithms of the length ratios seen, in order, by (source, target) language.

    Safe to share between threads.
    """

    seen: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, source: str, target: str, text: str, answer: str) -> None:
        """Note the lengths of an answer that nothing but its being early speaks against."""
        if len(text) >= SHORT_TEXT and answer:
            with self._lock:
                kept = self.seen.setdefault((source, target), [])
                if len(kept) < 400:
                    bisect.insort(kept, math.log(len(answer) / len(text)))

    def median(self, source: str, target: str) -> float | None:
        """Return the median log ratio: of what was seen, else the middle of calibrated bounds, else None."""
        with self._lock:
            kept = self.seen.get((source, target), [])
            if len(kept) >= ENOUGH_RATIOS:
                return statistics.median(kept)
        lang = source if target == SOURCE_LANGUAGE else target
        bounds = load_thresholds().checks.get("length_ratio", {}).get(lang)
        if bounds is None or not bounds.low or not bounds.high:
            return None
        middle = (math.log(bounds.low) + math.log(bounds.high)) / 2
        return middle if lang == target else -middle


def tidy(text: str, answer: str) -> str:
    """Return `answer` without what services add around it: blanks, zero-width marks, entities, quotes.

    Entities that the text itself holds are left alone; others are resolved once.
    """
    answer = answer.replace("\r\n", "\n") if "\r" not in text else answer
    own = set(_ENTITY.findall(text))
    answer = _ENTITY.sub(
        lambda found: found.group() if found.group() in own else html.unescape(found.group()), answer
    )
    answer = answer.strip().strip(_EDGES).strip()
    wrapped = _WRAPPED.match(answer)
    if wrapped and not _QUOTE.search(text):
        answer = next(inner for inner in wrapped.groups() if inner is not None).strip()
    return answer


class Judge:
    """Judges answers. Safe to share between threads."""

    def __init__(self, ratios: Ratios | None = None) -> None:
        self.ratios = ratios or Ratios()
        self._votes, self._all_votes = LanguageVotes(), LanguageVotes(all_votes=True)

    def judge(self, text: str, answer: str, source: Language, target: Language) -> list[str]:
        """Return the doubts about a tidied answer; raises `Fault` for one that is wrong."""
        if not scores.has_visible(answer):
            raise Fault("empty")
        if set(_NO_TEXT.findall(answer)) - set(text):
            raise Fault("truncated", "signs that are no text")
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
        doubts = self._echo(text, answer)
        doubts += self._language(text, answer, target)
        doubts += self._length(text, answer, source, target)
        return doubts + _marks(text, answer, source, target)

    @staticmethod
    def _echo(text: str, answer: str) -> list[str]:
        text, answer = text.casefold(), answer.casefold()
        first, first_back = _WORD.search(text), _WORD.search(answer)
        if first and first_back and first.group() != first_back.group():
            return []  # nearly every answer
        words, back = _WORD.findall(text), _WORD.findall(answer)
        if words != back:
            return []
        if len(words) >= 3:
            raise Fault("echo")
        return ["echo"]

    def _language(self, text: str, answer: str, target: Language) -> list[str]:
        score = self._votes.scores([answer], target.code)[0]
        if score is None or score == 1.0:
            return []
        if len(_LETTER.findall(answer)) >= SHORT_TEXT // 2 and score == 0.0:
            score = self._all_votes.scores([answer], target.code)[0]
            share = scores.script_share(answer, target)
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


def _marks(text: str, answer: str, source: Language, target: Language) -> list[str]:
    """Return doubts about what a whole translation keeps: its end, its quotes, its digits, its lines."""
    doubts = []
    unmarked = any(script in _NO_FINAL_STOP for script in (*target.scripts, *source.scripts))
    if _FINAL.match(text.rstrip()[-1:]) and not _FINAL.match(answer.rstrip()[-1:]) and not unmarked:
        doubts.append("end")
    if _QUOTE.search(text) and not _QUOTE.search(answer):
        doubts.append("quotes")
    if source.code == "en" and scores.missing_digits(answer, text, target.code):
        doubts.append("digits")
    if len(answer.splitlines()) != len(text.splitlines()):
        doubts.append("lines")
    return doubts
