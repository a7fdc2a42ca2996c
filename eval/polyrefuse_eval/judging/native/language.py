"""Which language is a response in? By the script of its letters, else by its commonest words."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from collections.abc import Mapping

from polyrefuse_eval.judging.native.folding import folded

READ = 280
"""Characters that are looked at."""

STEP = 5
"""Every so many characters one is looked at for its script."""

FEWEST = 12
"""Letters of different words below which common words tell no language."""

LATIN_BYTES = 1.25
"""Bytes a character (UTF-8) up to which a text is taken as in Latin letters without a look at them."""

KANA = 0.08
"""Share of kana among letters from which on a text is Japanese."""

_SCRIPTS = {"HIRAGANA": "KANA", "KATAKANA": "KANA", "HALFWIDTH": "KANA", "FULLWIDTH": "LATIN"}


@functools.cache
def script_of(character: str) -> str | None:
    """Return the script of a letter by its Unicode name (LATIN, CJK, HANGUL), None of other characters."""
    if not character.isalpha():
        return None
    name = unicodedata.name(character, "").split(" ")[0].split("-")[0]
    return _SCRIPTS.get(name, name)


def main_script(text: str) -> str | None:
    """Return the script of most letters of `text`; KANA where a few of them are kana."""
    if len(text.encode("utf-8", "surrogatepass")) < LATIN_BYTES * len(text):
        return "LATIN"
    counts = Counter(map(script_of, text[::STEP] if len(text) > 20 * STEP else text))
    del counts[None]
    if not counts:
        return None
    if counts["KANA"] > KANA * counts.total():
        return "KANA"
    return counts.most_common(1)[0][0]


class LanguageGuess:
    """Tells languages apart by their scripts and common words.

    `common` are the folded common words of each language and `scripts` its script, both by code.
    """

    def __init__(self, common: Mapping[str, frozenset[str]], scripts: Mapping[str, str]) -> None:
        self.common = common
        self.by_script: dict[str, list[str]] = {}
        for code in sorted(scripts, reverse=True):  # of two as likely, the later code is taken
            self.by_script.setdefault(scripts[code], []).append(code)
        self.known = {
            script: frozenset().union(*(common[code] for code in codes))
            for script, codes in self.by_script.items()
        }

    def __call__(self, response: str, lang: str) -> str | None:
        """Return the language of `response`, None if unknown; `lang` is the prompt's, which breaks ties."""
        text = response[:READ]
        script = main_script(text) or ""
        codes = self.by_script.get(script, ())
        if len(codes) < 2:
            return codes[0] if codes else None
        words = set(folded(text, lang if lang in codes else codes[-1], True).split())
        hits = words & self.known[script]
        if lang in codes and hits <= self.common[lang]:
            likeliest, most = lang, len(hits)
        else:
            counts = {code: len(hits & self.common[code]) for code in codes}
            most = max(counts.values())
            likeliest = lang if counts.get(lang) == most else max(counts, key=counts.__getitem__)
        if most < max(1, len(words) // 12) or (len(words) < FEWEST and sum(map(len, words)) < FEWEST):
            return None
        return likeliest
