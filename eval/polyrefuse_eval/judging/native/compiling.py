"""Compile the words and patterns of a language's file: see `lexicon` for what they mean."""

from __future__ import annotations

import bisect
import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import ahocorasick

from polyrefuse_eval.judging.native.folding import COMMA, END, folded
from polyrefuse_eval.judging.native.kinds import DENIAL, FIRST, KINDS
from polyrefuse_eval.judging.native.lexicon import (
    BEGIN,
    CLAUSE_COMMA,
    IDIOM,
    OTHER,
    STOP,
    Entry,
    Letters,
    Lexicon,
    PatternError,
    Rule,
    expanded,
)

_CLASS = re.compile(r"[A-Z][A-Z0-9]*(?:\|[A-Z][A-Z0-9]*)*\??")
_GAP = re.compile(r"~(\d{1,2})")
_TOKEN = re.compile(r"\{[^}]*\}|[^\s{}]+")
_FIRST_LETTER = 0x4E00
_BETWEEN = "\0"
"""Parts phrases that are folded together: folding leaves it as it is."""


def compile_lexicon(
    lang: str,
    *,
    spaced: bool,
    common: Iterable[str],
    words: Mapping[str, Sequence[str]],
    patterns: Mapping[str, Sequence[str]],
) -> Lexicon:
    """Return the lexicon of `lang`; raises `PatternError` for a pattern that cannot be read.

    `words` are the members of each class, `patterns` those of each kind, both with alternatives in braces.
    """
    builder = _Builder(lang, spaced, words)
    entries = tuple(Entry(kind, written) for kind in KINDS for written in patterns.get(kind, ()))
    denials: set[str] = set()
    ruled: list[Entry] = []
    for entry in entries:
        if entry.kind == DENIAL:
            denials.update(folded(text, lang, spaced).strip() for text in expanded(entry.written))
        elif builder.has_classes(entry.written):
            ruled.append(entry)
        else:
            builder.add_phrases(list(expanded(entry.written)), entry.kind)
    return Lexicon(
        lang,
        spaced,
        frozenset(folded(word, lang, True).strip() for word in common),
        entries,
        frozenset(denials),
        builder.phrase_automaton(),
        builder.word_letters(),
        tuple((rule.needed, rule) for rule in map(builder.rule, ruled)),
        {letter: builder.bits[letter] for letter in (OTHER, *builder.letters.values())},
    )


class _Builder:
    """Collects the words and patterns of a language; each word that a pattern with classes names, or one of
    its classes, has a letter."""

    def __init__(self, lang: str, spaced: bool, words: Mapping[str, Sequence[str]]) -> None:
        self.lang, self.spaced = lang, spaced
        self.letters: dict[str, str] = {}
        self.phrases: dict[str, str] = {}
        self.bits: Counter[str] = Counter()
        self.sets: dict[str, int] = {}
        self.classes = {
            name: [self.pieces(word) for member in members for word in expanded(member)]
            for name, members in words.items()
        }
        self.idioms = {word for member in self.classes.get(IDIOM, ()) for word in member}
        for mark, name in ((END, STOP), (COMMA, CLAUSE_COMMA)):
            self.letters[mark] = chr(_FIRST_LETTER + len(self.letters))
            self.classes.setdefault(name, []).append((mark,))

    def pieces(self, words: str) -> tuple[str, ...]:
        """Return the folded words of `words`, each with a letter; one in a language without spaces."""
        text = folded(words.replace("*", "\x00"), self.lang, self.spaced)
        pieces = tuple(text.replace("\x00", "*").split())
        if not any(map(str.isalnum, text)) or "*" in pieces:
            raise PatternError(f"'{words}' holds no letters")
        for piece in pieces:
            self.letters.setdefault(piece, chr(_FIRST_LETTER + len(self.letters)))
        return pieces

    def has_classes(self, pattern: str) -> bool:
        """Return whether `pattern` names a class or a gap; if so, its words get letters."""
        tokens = re.sub("[{},]", " ", pattern).split()
        if not any(_CLASS.fullmatch(token) or _GAP.fullmatch(token) for token in tokens):
            return False
        for token in tokens:
            if _CLASS.fullmatch(token):
                for name in token.removesuffix("?").split("|"):
                    if name not in self.classes:
                        raise PatternError(f"unknown class '{name}' in '{pattern}'")
            elif not _GAP.fullmatch(token):
                self.pieces(token)
        return True

    def add_phrases(self, phrases: Sequence[str], kind: str) -> None:
        """Make each of `phrases` say `kind`; of two kinds the first stays."""
        joined = f" {_BETWEEN} ".join(phrase.rstrip("*") for phrase in phrases)
        for phrase, text in zip(phrases, folded(joined, self.lang, self.spaced).split(_BETWEEN), strict=True):
            if not any(map(str.isalnum, text)):
                raise PatternError(f"'{phrase}' holds no letters")
            if self.spaced:
                text = f" {text.strip()}" if phrase.endswith("*") else f" {text.strip()} "
            self.phrases.setdefault((BEGIN if kind in FIRST else "") + text, kind)

    def rule(self, entry: Entry) -> Rule:
        """Return what finds a pattern with classes."""
        parts, needed = [], 0
        for token in _TOKEN.findall(entry.written):
            choices = [choice.split() for choice in token[1:-1].split(",")] if token[0] == "{" else [[token]]
            parts.append(f"(?:{'|'.join(self._sequence(choice) for choice in choices if choice)})")
            firsts = [self._first(tuple(choice)) for choice in choices]
            if None not in firsts:
                needed |= self._bit("".join(map(str, firsts)))
            elif not all(choices):
                parts[-1] += "?"
        return Rule(needed, entry.kind, "".join(parts))

    def _bit(self, letters: str) -> int:
        """Return the bit of a set of letters, of which one must be there."""
        if letters not in self.sets:
            self.sets[letters] = 1 << len(self.sets)
            for letter in set(letters):
                self.bits[letter] |= self.sets[letters]
        return self.sets[letters]

    def _sequence(self, tokens: Sequence[str]) -> str:
        """Return the regular expression of words, classes and gaps that follow each other."""
        parts = []
        for token in tokens:
            gap = _GAP.fullmatch(token)
            if gap:
                parts.append(f"[^{self._stops}]{{0,{gap[1]}}}?")
            elif _CLASS.fullmatch(token):
                parts.append(self._one_of_class(token))
            else:
                parts += map(self._one_of, self.pieces(token))
        return "".join(parts)

    @functools.cached_property
    def _stops(self) -> str:
        return "".join(self._letters_of(member[0]) for member in self.classes[STOP] if len(member) == 1)

    @functools.cache  # noqa: B019 (a builder is short-lived)
    def _one_of_class(self, token: str) -> str:
        """Return the regular expression of a class, or of one of several."""
        members = self._members(token)
        single = "".join(self._letters_of(member[0]) for member in members if len(member) == 1)
        choices = [f"[{single}]"] if single else []
        choices += ["".join(map(self._one_of, member)) for member in members if len(member) > 1]
        return f"(?:{'|'.join(choices)}){'?' if token[-1] == '?' else ''}"

    @functools.cache  # noqa: B019
    def _first(self, tokens: tuple[str, ...]) -> str | None:
        """Return the letters with which a sequence may begin, None where it may be empty."""
        if not tokens or tokens[0].endswith("?") or _GAP.fullmatch(tokens[0]):
            return None
        if _CLASS.fullmatch(tokens[0]):
            return "".join(self._letters_of(member[0]) for member in self._members(tokens[0]))
        return self._letters_of(self.pieces(tokens[0])[0])

    def _members(self, token: str) -> list[tuple[str, ...]]:
        return [member for name in token.removesuffix("?").split("|") for member in self.classes[name]]

    def _one_of(self, piece: str) -> str:
        return f"[{self._letters_of(piece)}]"

    def _letters_of(self, piece: str) -> str:
        """Return the letters of the words that `piece` stands for: of a stem, of all that begin with it.

        Without spaces every word is a stem, since the longest is found at each place; but no idiom is meant.
        """
        if self.spaced and not piece.endswith("*"):
            return self.letters[piece]
        stem = piece.removesuffix("*")
        idioms = () if piece in self.idioms else self.idioms
        first = bisect.bisect_left(self._sorted, stem)
        words = itertools.takewhile(lambda word: word.startswith(stem), self._sorted[first:])
        return "".join(self.letters[word] for word in words if word not in idioms)

    @functools.cached_property
    def _sorted(self) -> list[str]:
        """All words with letters; asked for when all are known."""
        return sorted(self.letters)

    def phrase_automaton(self) -> ahocorasick.Automaton:
        """Return what finds phrases: their length and kind."""
        automaton = ahocorasick.Automaton()
        automaton.add_word(2 * BEGIN, (0, ""))  # stands nowhere: an automaton of nothing cannot be made
        for spelled, kind in self.phrases.items():
            automaton.add_word(spelled, (len(spelled.lstrip(BEGIN)), kind))
        automaton.make_automaton()
        return automaton

    def word_letters(self) -> Letters | ahocorasick.Automaton:
        """Return what tells the letter of a word, or finds words where no spaces part them."""
        if self.spaced:
            return Letters(self.letters)
        automaton = ahocorasick.Automaton()
        for word, letter in self.letters.items():
            automaton.add_word(word.rstrip("*"), (len(word.rstrip("*")), letter))
        automaton.make_automaton()
        return automaton
