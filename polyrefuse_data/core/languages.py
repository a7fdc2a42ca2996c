"""The languages of the data set: one row a language. A new language is a new row here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from polyrefuse_data.core.errors import UnknownNameError, unknown_name


@dataclass(frozen=True)
class Language:
    """One language: its ISO 639-1 code, names, scripts, and its codes where a service's differ.

    `scripts` are Unicode script names (Unicode Standard Annex 24). `required_script` must occur in
    every text of more than a few letters, where `scripts` alone cannot tell the language from a
    neighbour: Kana in Japanese, which shares Han with Chinese. `diacritics` marks languages whose
    standard orthography cannot do without them, so that their absence is a defect.
    `spaced` is False where words are not divided by spaces. `codes` maps a service to its
    name for the language where that is not `code`; None says that the service does not know it.
    """

    code: str
    name: str
    native_name: str
    scripts: tuple[str, ...] = ("Latin",)
    required_script: str | None = None
    diacritics: bool = False
    spaced: bool = True
    codes: Mapping[str, str | None] = field(default_factory=dict, hash=False)

    def code_for(self, service: str) -> str | None:
        """Return what `service` calls this language, or None where it does not know it."""
        return self.codes.get(service, self.code)


_ROWS = (
    Language("ar", "Arabic", "العربية", ("Arabic",)),
    Language("de", "German", "Deutsch"),
    Language("en", "English", "English"),
    Language("es", "Spanish", "español"),
    Language("fr", "French", "français"),
    Language("it", "Italian", "italiano"),
    Language("ja", "Japanese", "日本語", ("Hiragana", "Katakana", "Han"), "Kana", spaced=False),
    Language("ko", "Korean", "한국어", ("Hangul",)),
    Language("nl", "Dutch", "Nederlands"),
    Language("pl", "Polish", "polski"),
    Language("ru", "Russian", "русский", ("Cyrillic",)),
    Language("th", "Thai", "ไทย", ("Thai",), spaced=False),
    Language("yo", "Yoruba", "Yorùbá", diacritics=True, codes={"langdetect": None}),
    Language("zh", "Chinese", "中文", ("Han",), spaced=False, codes={"langdetect": "zh-cn"}),
)

LANGUAGES: dict[str, Language] = {language.code: language for language in _ROWS}
"""The languages that are known, by code: the 14 of PolyRefuse in published order, then a user's own."""

PUBLISHED_LANGUAGES = tuple(LANGUAGES)
"""The 14 languages of PolyRefuse."""

SOURCE_LANGUAGE = "en"


_OWN = "add one of your own with --languages-file"


def language(code: str) -> Language:
    """Return the language of `code`; raises `UnknownNameError` with the nearest code and the way out."""
    if code in LANGUAGES:
        return LANGUAGES[code]
    for row in LANGUAGES.values():
        if len(code) > 2 and row.name.lower().startswith(code.lower()):
            raise UnknownNameError(
                f"unknown language '{code}'; did you mean '{row.code}' ({row.name})? "
                f"available: {', '.join(LANGUAGES)}; {_OWN}"
            )
    raise UnknownNameError(f"{unknown_name('language', code, LANGUAGES)}; {_OWN}")


def parse_languages(text: str) -> list[str]:
    """Return the codes named by `text`: `all`, or codes separated by commas or spaces.

    Codes come back in published order, each once.
    """
    names = text.replace(",", " ").split()
    if not names:
        raise UnknownNameError(f"no language in '{text}'; expected 'all' or codes such as 'de,yo,zh'")
    if "all" in names:
        return list(LANGUAGES)
    wanted = {language(name).code for name in names}
    return [code for code in LANGUAGES if code in wanted]
