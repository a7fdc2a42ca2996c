"""The translation memory: one SQLite file, the source of truth of translations.

A build asks the memory first; a backend only fills it. The key of an entry is the English text's hash, the
language, the direction (forward or back), the backend with its version and parameters, the text that was
given to the translator, and the occurrence: a release can hold the same English prompt twice with
different translations, and both are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass

from polyrefuse_data.core.errors import MemoryFileError, unknown_name
from polyrefuse_data.core.schema import text_hash
from polyrefuse_data.translate.memory.sqlite_file import CHOICE_TABLE, MemoryFile

HUMAN = "human"
"""The backend whose translations win over every machine's."""

FORWARD, BACK = "forward", "back"


@dataclass(frozen=True, order=True)
class Translator:
    """A translator: a backend, its version, and the parameters that change its answers."""

    backend: str
    version: str
    parameters: str = ""

    @property
    def signature(self) -> str:
        """The translator in one string, as rows carry it: `backend:published|version:985169d`."""
        parts = [f"backend:{self.backend}", f"version:{self.version}"]
        return "|".join([*parts, f"params:{self.parameters}"] if self.parameters else parts)


@dataclass(frozen=True)
class Entry:
    """A translation.

    `given` is the text that the translator got: the English (forward; None stands for it), or the translation
    that was translated back (back); `text` is its answer. `note` names the author of a person's correction.
    """

    english: str
    lang: str
    translator: Translator
    text: str
    direction: str = FORWARD
    given: str | None = None
    occurrence: int = 0
    note: str = ""


@dataclass(frozen=True)
class Question:
    """A text as a backend gets it: a prompt, or a piece of a prompt."""

    source: str
    target: str
    text: str

    @property
    def hash(self) -> str:
        return text_hash(self.text)


@dataclass(frozen=True)
class Reply:
    """An answer to a question: how often it came, whether it carried a proof, and the doubts about it."""

    text: str
    times: int
    proven: bool
    doubts: str


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A candidate of a choice: `place` 1 was taken; `reason` says why, or what spoke against it."""

    english: str
    lang: str
    occurrence: int
    place: int
    translator: Translator
    text: str
    reason: str


@dataclass(frozen=True)
class Added:
    """The number of added entries that are new, already there, or there with another text (which stays)."""

    new: int = 0
    same: int = 0
    different: int = 0


class TranslationMemory(MemoryFile):
    """An open translation memory; use it as a context manager, and from one thread at a time."""

    def add(self, entries: Iterable[Entry]) -> Added:
        """Add entries in one transaction, all or none.

        An entry whose key is there stays; the new one counts as same or different.
        """
        with self._errors(), self._transaction():
            return self._add(entries)

    def _add(self, entries: Iterable[Entry]) -> Added:
        new = same = different = 0
        run = self._connection.execute
        for entry in entries:
            english_hash = given_hash = text_hash(entry.english)
            run("INSERT OR IGNORE INTO source_text VALUES (?, ?)", (english_hash, entry.english))
            if entry.given is not None and entry.given != entry.english:
                given_hash = text_hash(entry.given)
                run("INSERT OR IGNORE INTO source_text VALUES (?, ?)", (given_hash, entry.given))
            key = (
                entry.lang,
                entry.direction,
                english_hash,
                given_hash,
                entry.occurrence,
                entry.translator.backend,
                entry.translator.version,
                entry.translator.parameters,
            )
            added = run(
                "INSERT INTO translation VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (*key, entry.text, entry.note),
            )
            if added.rowcount:
                new += 1
                continue
            there = run(
                "SELECT text FROM translation WHERE lang = ? AND direction = ? AND english_hash = ? AND "
                "input_hash = ? AND occurrence = ? AND backend = ? AND version = ? AND parameters = ?",
                key,
            ).fetchone()
            if there[0] == entry.text:
                same += 1
            else:
                different += 1
        return Added(new, same, different)

    def remove(self, backend: str, translations: Iterable[tuple[str, str, str]]) -> int:
        """Remove forward translations by `backend`, each as (English, language, text); return how many."""
        removed = 0
        with self._errors(), self._transaction():
            for english, lang, text in translations:
                removed += self._connection.execute(
                    "DELETE FROM translation WHERE lang = ? AND direction = 'forward' AND english_hash = ? "
                    "AND backend = ? AND text = ?",
                    (lang, text_hash(english), backend, text),
                ).rowcount
        return removed

    def replies(self, translator: Translator) -> dict[Question, list[Reply]]:
        """Return the answers of a translator to questions that are not settled, for a run to continue."""
        query = (
            "SELECT a.source, a.target, s.text, a.text, a.times, a.proven, a.doubts FROM answer a "
            "JOIN source_text s ON s.hash = a.asked_hash WHERE backend = ? AND version = ? "
            "AND parameters = ? ORDER BY a.source, a.target, a.asked_hash, a.text"
        )
        replies: dict[Question, list[Reply]] = {}
        key = (translator.backend, translator.version, translator.parameters)
        with self._errors():
            for source, target, asked, text, times, proven, doubts in self._connection.execute(query, key):
                reply = Reply(text, times, bool(proven), doubts)
                replies.setdefault(Question(source, target, asked), []).append(reply)
        return replies

    def keep(
        self,
        translator: Translator,
        replies: Iterable[tuple[Question, Reply]],
        settled: Iterable[Entry] = (),
        questions: Iterable[Question] = (),
    ) -> None:
        """Commit replies and settled translations; delete the replies to `questions`."""
        key = (translator.backend, translator.version, translator.parameters)
        with self._errors(), self._transaction():
            run = self._connection.execute
            for question, reply in replies:
                run("INSERT OR IGNORE INTO source_text VALUES (?, ?)", (question.hash, question.text))
                run(
                    "INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (question.source, question.target, question.hash, *key, reply.text, reply.times,
                     reply.proven, reply.doubts),
                )  # fmt: skip
            self._add(settled)
            for question in questions:
                run(
                    "DELETE FROM answer WHERE source = ? AND target = ? AND asked_hash = ? AND backend = ? "
                    "AND version = ? AND parameters = ?",
                    (question.source, question.target, question.hash, *key),
                )

    def withdraw(self, translator: Translator, prompts: Iterable[tuple[str, str, str]]) -> None:
        """Delete the translations of one translator for `prompts`: English text, language, direction."""
        with self._errors(), self._transaction():
            for english, lang, direction in prompts:
                self._connection.execute(
                    "DELETE FROM translation WHERE english_hash = ? AND lang = ? AND direction = ? "
                    "AND backend = ? AND version = ? AND parameters = ?",
                    (text_hash(english), lang, direction, translator.backend, translator.version,
                     translator.parameters),
                )  # fmt: skip

    def candidates(self, lang: str) -> dict[tuple[str, int], list[tuple[Translator, str]]]:
        """Return (English hash, occurrence) -> all translations into one language.

        People's corrections come first, the latest of them before the others; then machines' in the order
        of backend, version, parameters.
        """
        query = (
            "SELECT english_hash, occurrence, backend, version, parameters, text FROM translation "
            "WHERE lang = ? AND direction = 'forward' ORDER BY backend = ? DESC, "
            "CASE WHEN backend = ? THEN version END DESC, backend, version, parameters"
        )
        candidates: dict[tuple[str, int], list[tuple[Translator, str]]] = {}
        with self._errors():
            for english, occurrence, name, version, parameters, text in self._connection.execute(
                query, (lang, HUMAN, HUMAN)
            ):
                candidates.setdefault((english, occurrence), []).append(
                    (Translator(name, version, parameters), text)
                )
        return candidates

    def backs(self, lang: str) -> dict[tuple[str, str], str]:
        """Return (English hash, hash of the translation) -> back-translation for one language."""
        query = (
            "SELECT english_hash, input_hash, text FROM translation WHERE lang = ? AND direction = 'back' "
            "ORDER BY backend, version, parameters, occurrence"
        )
        backs: dict[tuple[str, str], str] = {}
        with self._errors():
            for english, given, text in self._connection.execute(query, (lang,)):
                backs.setdefault((english, given), text)
        return backs

    def record_choices(self, lang: str, ranked: Iterable[Ranked]) -> None:
        """Replace what is recorded of the choices among candidates for the prompts of `ranked`."""
        rows = [
            (
                lang,
                text_hash(own.english),
                own.occurrence,
                own.place,
                *astuple(own.translator),
                own.text,
                own.reason,
            )
            for own in ranked
        ]
        with self._errors(), self._transaction():
            self._connection.execute(CHOICE_TABLE)
            keys = {row[:3] for row in rows}
            self._connection.executemany(
                "DELETE FROM choice WHERE lang = ? AND english_hash = ? AND occurrence = ?", sorted(keys)
            )
            self._connection.executemany("INSERT INTO choice VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def choices(self) -> Iterator[Ranked]:
        """Yield the candidates of all recorded choices by language and prompt, the one taken first."""
        query = (
            "SELECT s.text, c.lang, occurrence, place, backend, version, parameters, c.text, reason "
            "FROM choice c JOIN source_text s ON s.hash = c.english_hash "
            "ORDER BY c.lang, c.english_hash, c.occurrence, c.place"
        )
        with self._errors():
            known = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'choice'"
            if not self._connection.execute(known).fetchone()[0]:
                return
            for (
                english,
                lang,
                occurrence,
                place,
                name,
                version,
                parameters,
                text,
                reason,
            ) in self._connection.execute(query):
                yield Ranked(
                    english=english,
                    lang=lang,
                    occurrence=occurrence,
                    place=place,
                    translator=Translator(name, version, parameters),
                    text=text,
                    reason=reason,
                )

    def entries(self) -> Iterator[Entry]:
        """Yield all entries in the order of their keys."""
        query = (
            "SELECT e.text, t.lang, t.direction, g.text, t.occurrence, t.backend, t.version, t.parameters, "
            "t.text, t.note FROM translation t JOIN source_text e ON e.hash = t.english_hash "
            "JOIN source_text g ON g.hash = t.input_hash "
            "ORDER BY t.lang, t.direction DESC, t.english_hash, t.occurrence, t.backend, t.version, "
            "t.parameters, t.input_hash"
        )
        with self._errors():
            for row in self._connection.execute(query):
                english, lang, direction, given, occurrence, backend, version, parameters, text, note = row
                texts = (english, lang, given, backend, version, parameters, text, note)
                if not all(isinstance(value, str) for value in texts):
                    raise MemoryFileError(
                        f"translation memory {self.path} holds an entry that is not text; restore a copy"
                    )
                translator = Translator(backend, version, parameters)
                yield Entry(english, lang, translator, text, direction, given, occurrence, note)

    def stats(self) -> list[tuple[str, str, str, str, int]]:
        """Return (language, direction, backend, version, entries), in that order."""
        query = (
            "SELECT lang, direction, backend, version, count(*) FROM translation "
            "GROUP BY 1, 2, 3, 4 ORDER BY 1, 2 DESC, 3, 4"
        )
        with self._errors():
            return [tuple(row) for row in self._connection.execute(query)]

    def backends(self) -> list[str]:
        """Return the names of all backends with an entry."""
        with self._errors():
            return [
                row[0]
                for row in self._connection.execute("SELECT DISTINCT backend FROM translation ORDER BY 1")
            ]

    def require_backend(self, name: str) -> None:
        """Raise `UnknownNameError` unless `name` translated something in this memory."""
        known = self.backends()
        if name not in known:
            raise unknown_name(f"backend in {self.path}", name, known or ["none yet"])
