"""Compile the words and patterns of a language's file: see `lexicon` for what they mean."""

from __future__ import annotations

import bisect
import functools
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

import ahocorasick

from polyrefuse_eval.judging.native.folding import COMMA, END, folded
from polyrefuse_eval.judging.native.kinds import DENIAL, FIRST, KINDS
from polyrefuse_eval.judging.native.lexicon import (
    BEGIN,
    CLAUSE_COMMA,
    IDIOM,
    STOP,
    Entry,
    Letters,
    Lexicon,
    PatternError,
    Rule,
    RuleIndex,
    Words,
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
    builder = Builder(lang, spaced, words)
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
    rules = list(map(builder.rule, ruled))
    return Lexicon(
        lang,
        spaced,
        frozenset(folded(word, lang, True).strip() for word in common),
        entries,
        frozenset(denials),
        builder.phrase_automaton(),
        builder.word_letters(),
        RuleIndex(rule for rule in rules if not rule.hiding),
        RuleIndex(rule for rule in rules if rule.hiding),
    )


class Builder:
    """Collects the words and patterns of a language; each word that a pattern with classes names, or one of
    its classes, has a letter."""

    def __init__(self, lang: str, spaced: bool, words: Mapping[str, Sequence[str]]) -> None:
        self.lang, self.spaced = lang, spaced
        self.letters: dict[str, str] = {}
        self.phrases: dict[str, str] = {}
        self.classes = {
            name: [self.pieces(word) for member in members for word in expanded(member)]
            for name, members in words.items()
        }
        self.idioms = {word for member in self.classes.get(IDIOM, ()) for word in member}
        for mark, name in ((END, STOP), (COMMA, CLAUSE_COMMA)):
            self.letters[mark] = chr(_FIRST_LETTER + len(self.letters))
            self.classes.setdefault(name, []).append((mark,))
        self.classed = frozenset(self.letters)

    def pieces(self, words: str) -> tuple[str, ...]:
        """Return the folded words of `words`, each with a letter; one in a language without spaces."""
        text = folded(words.replace("*", "\x00"), self.lang, self.spaced)
        pieces = tuple(text.replace("\x00", "*").split())
        if not any(map(str.isalnum, text)) or "*" in pieces:
            raise PatternError(f"'{words}' holds no letters")
        for piece in pieces:
            self.letters.setdefault(piece, chr(_FIRST_LETTER + len(self.letters)))
        return pieces

    def parts(self, pattern: str) -> list[list[tuple[str, ...]]]:
        """Return the choices for each part of `pattern`: words, classes and gaps that follow each other.

        Without spaces, words that follow each other are one.
        """
        parts = []
        for token in _TOKEN.findall(pattern):
            choices = token[1:-1].split(",") if token[0] == "{" else [token]
            parts.append([tuple(self._joined(choice.split())) for choice in choices])
        return parts

    def _joined(self, tokens: Sequence[str]) -> list[str]:
        joined: list[str] = []
        for token in tokens:
            if joined and not (self.spaced or any(map(_is_class_or_gap, (token, joined[-1])))):
                joined[-1] += token
            else:
                joined.append(token)
        return joined

    def has_classes(self, pattern: str) -> bool:
        """Return whether `pattern` names a class or a gap; if so, its words get letters."""
        tokens = [token for part in self.parts(pattern) for choice in part for token in choice]
        if not any(map(_is_class_or_gap, tokens)):
            return False
        for token in tokens:
            if _CLASS.fullmatch(token):
                for name in token.removesuffix("?").split("|"):
                    if name not in self.classes:
                        raise PatternError(f"unknown class '{name}' in '{pattern}'")
            elif not _GAP.fullmatch(token):
                self.pieces(token)
        return True

    def spelled(self, choice: Sequence[str]) -> list[str]:
        """Return what `choice` of a part spells, with each member of its classes and nothing in its gaps."""
        between = " " if self.spaced else ""
        texts = [
            [""]
            if _GAP.fullmatch(token)
            else [between.join(member) for member in self._members(token)]
            if _CLASS.fullmatch(token)
            else [between.join(self.pieces(token))]
            for token in choice
        ]
        return [between.join(words).replace("*", "") for words in itertools.product(*texts)]

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
        parts, needed, hiding = [], set(), False
        for choices in self.parts(entry.written):
            parts.append(f"(?:{'|'.join(self._sequence(choice) for choice in choices if choice)})")
            firsts = [self._first(choice) for choice in choices]
            if None not in firsts:
                needed.add(frozenset("".join(map(str, firsts))))
            elif not all(choices):
                parts[-1] += "?"
            words = (word for choice in choices for word in choice if not _is_class_or_gap(word))
            hiding = hiding or not all(map(self.hiding.isdisjoint, map(self.pieces, words)))
        return Rule(tuple(needed), entry.kind, "".join(parts), hiding)

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

    def word_letters(self) -> Letters | Words:
        """Return what tells the letter of a word, or finds words where no spaces part them."""
        return Letters(self.letters) if self.spaced else Words(self.letters, self.hiding)

    @functools.cached_property
    def hiding(self) -> frozenset[str]:
        """The words without a class inside which, or at whose end, a word of a class may begin; none where
        spaces part words."""
        if self.spaced:
            return frozenset()
        begun = {word[:end] for word in self.classed for end in range(1, len(word) + 1)}

        def hides(word: str) -> bool:
            ends = range(1, len(word) + 1)
            return any(
                word[start:] in begun or any(word[start:end] in self.classed for end in ends[start:])
                for start in range(1, len(word))
            )

        return frozenset(filter(hides, self.letters.keys() - self.classed))


def _is_class_or_gap(token: str) -> bool:
    return bool(_CLASS.fullmatch(token) or _GAP.fullmatch(token))
