"""Whose words are they? What a response quotes, or lets others say, is not what it says itself.

Quotations in any marks, lines of a dialogue (a name and a colon, a dash, an actor's name in capitals), stage
directions, and letters from salutation to signature. What is left are the words of the response itself; where
next to nothing is left, all of it is.
"""

from __future__ import annotations

import re

LEAST = {True: 20, False: 8}
"""Characters of its own words, in languages with and without spaces, that make a response one who tells what
others say; one of fewer says the quoted words itself."""

_QUOTED = re.compile(
    r"„[^“”\"\n]{0,600}[“”\"]?|“[^”\"]{0,600}[”\"]?|«[^»]{0,600}»?|»[^«\n]{0,600}«?|「[^」]{0,600}」?|『[^』]{0,600}』?"
    r"|\"[^\"\n]{0,600}\"?|‘[^\n‘]{0,600}?’(?!\w)|(?<![\w'])'[^'\n]{1,600}?(?:'\w[^'\n]{0,200}?){0,4}'(?!\w)"
)
_QUOTE_MARKS, _SINGLE_QUOTE = '"“„‘«»「『', re.compile(r"(?:\A|[\s(])'")
_DASHED = re.compile(r"^[ \t]*(?:[—–]{1,3}|--)\s*([^\n—–]{1,400})([—–][^\n]*)?", re.MULTILINE)
_DASH_BEGINS = re.compile(r"\A\s*[—–]")
_LABEL = re.compile(
    r"^[ \t]*(?:\*\*|__)?([^\W\d_][^\n:：()（）*\[\]「]{0,38}?)(?:\*\*|__)?[ \t]*"
    r"(?:[(（][^)）\n]{1,60}[)）][ \t]*)?"
    r"(?:(?:\*\*)?[:：](?:\*\*)?|(?=「))[ \t]*(?=\S)[^\n]*$",
    re.MULTILINE,
)
_ACTOR = re.compile(
    r"^[ \t]*[A-ZÀ-ÞА-Я][A-ZÀ-ÞА-Я .'-]{1,24}(?:[ \t]*\([^)\n]{1,60}\))?[ \t]*\n(?=[^\n])[^\n]+", re.MULTILINE
)
_STAGE = re.compile(r"[\[【（(][^\]】）)\n]{1,80}[\]】）)]|\*[^*\n]{2,60}\*(?!\*)")
_OWN_LABELS = ("assistant", "ai", "model", "chatbot", "answer", "response", "user", "human")


def own_words(text: str, spaced: bool) -> tuple[str, bool]:
    """Return what `text` says itself, and whether it lets others speak.

    Linear in the length of `text`: every pattern is bounded.
    """
    told = text
    lines = "\n" in text
    if lines and _is_dialogue(text):
        told = _STAGE.sub(" ", _LABEL.sub(" ", told))
    if "—" in text or "–" in text:
        dashed = _DASHED.findall(told)
        if _DASH_BEGINS.match(text) or len(dashed) > 1:
            told = _DASHED.sub(" ", told)
    if (
        lines
        and sum(line.split("(")[0].isupper() for line in text.split("\n")) > 1
        and len(_ACTOR.findall(told)) > 1
    ):
        told = _ACTOR.sub(" ", told)
    dialogue = told != text
    if any(map(told.__contains__, _QUOTE_MARKS)) or ("'" in told and _SINGLE_QUOTE.search(told)):
        told = _QUOTED.sub(" ", told)
    if told == text:
        return text, False
    left = len("".join(told.split()))
    if not dialogue and left < LEAST[spaced]:
        return text, False
    return told, True


def _is_dialogue(text: str) -> bool:
    """Return whether two lines at least are somebody's, by a name before each, and one name comes again or
    stage directions stand there."""
    if text.count(":") + text.count("：") + text.count("「") < 2:
        return False
    labels = [match[1].split(",")[0].strip().lower() for match in _LABEL.finditer(text)]
    if not labels or labels[0] in _OWN_LABELS:
        return False
    again = len(labels) > len(set(labels)) or (len(labels) > 1 and _STAGE.search(text) is not None)
    return len(labels) > 1 and again and all(len(label.split()) < 4 for label in labels)
