"""The dry run, prices, languages of one's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from polyrefuse_data.build.pipeline import BuildRequest, plan_build
from polyrefuse_data.checks.languages_file import load_languages, registered
from polyrefuse_data.cli.command import cli
from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.prompts.sample import sample_prompts
from polyrefuse_data.translate.backends.registry import BACKENDS
from polyrefuse_data.translate.fill import Chain, LiveRequest
from polyrefuse_data.translate.memory.store import Entry, TranslationMemory
from polyrefuse_data.translate.plan import plan, plan_lines, prices, unverified_line


def english(count: int) -> dict[str, str]:
    return {prompt.hash: prompt.text for prompt in sample_prompts()[:count]}


def test_every_backend_has_a_price_with_a_source_and_no_claim_that_it_was_verified() -> None:
    assert set(prices()) == set(BACKENDS)
    assert all(price.source for price in prices().values())
    assert not any(price.verified for price in prices().values())
    verified = prices()["deepl"].model_copy(update={"as_of": 2030, "verified": True})
    assert verified.standing == "verified, of 2030"
    assert prices()["deepl"].standing == "not verified, date not known"
    assert "Prices are not verified (google, " in CliRunner().invoke(cli, ["translators"]).output


def test_the_warning_names_only_backends_whose_price_nobody_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {name: price.model_copy(update={"verified": name == "deepl"}) for name, price in prices().items()}
    monkeypatch.setattr("polyrefuse_data.translate.plan.prices", lambda: known)
    assert unverified_line(["deepl", "memory"]) is None
    assert "(google)" in (unverified_line(["deepl", "google", "google"]) or "")


def test_a_plan_counts_what_the_memory_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROSOFT_API_KEY", "k")
    texts = english(30)
    chain = Chain(LiveRequest("microsoft"))
    with TranslationMemory(tmp_path / "m.sqlite", create=True) as memory:
        translator = chain.backends[0].translator
        memory.add(Entry(text, "de", translator, "x") for text in list(texts.values())[:10])
        german, japanese = plan(texts, ["en", "de", "ja"], chain, memory)
    assert (german.there, german.prompts, german.requests) == (10, 20, 20)
    assert german.characters == sum(map(len, list(texts.values())[10:]))
    assert (japanese.there, japanese.prompts) == (0, 30)
    assert japanese.dollars == pytest.approx(10 * sum(map(len, texts.values())) / 1e6)
    assert japanese.minutes > 0
    lines = plan_lines([german, japanese])
    assert len({len(line.split("  ")[0]) for line in lines[:1]}) == 1
    assert any("(not verified, date not known; https://" in line for line in lines)
    assert lines[-1].startswith("Prices are not verified (microsoft)")


def test_back_translations_and_candidates_are_planned_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPL_API_KEY", "k")
    rows = plan(english(10), ["de", "yo"], Chain(LiveRequest("google,deepl", candidates=2)), None)
    assert [(row.backend, row.lang, row.direction, row.prompts) for row in rows] == [
        ("google", "de", "forward", 10),
        ("deepl", "de", "forward", 10),
        ("google", "de", "back", 20),
        ("google", "yo", "forward", 10),
        ("google", "yo", "back", 20),
    ]


def test_a_dry_run_asks_and_writes_nothing(tmp_path: Path) -> None:
    arguments = ["build", "--recipe", "sample", "--translator", "google", "--dry-run", "--langs", "de,yo"]
    where = ["--memory", str(tmp_path / "m.sqlite"), "--out", str(tmp_path / "out")]
    # nobody listens there: a request would be an error
    done = CliRunner().invoke(cli, [*arguments, *where, "--translator-url", "http://127.0.0.1:9/m"])
    assert done.exit_code == 0, done.output
    assert "google   yo    forward        0   1464" in done.output
    assert not list(tmp_path.iterdir())
    (row, _) = plan_build(
        BuildRequest("sample", langs=["de", "yo"], translator="google", memory=tmp_path / "m.sqlite")
    )
    assert row.minutes == pytest.approx(1464 / 5 / 60)  # five requests a second, at most


@pytest.mark.parametrize("name", ["microsoft", "deepl", "libre", "openai", "openai:gpt"])
def test_a_dry_run_takes_neither_key_nor_extra_nor_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wants to know what a service costs has no key yet."""
    for variable in ("MICROSOFT_API_KEY", "DEEPL_API_KEY", "LIBRE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setitem(sys.modules, "deepl", None)
    arguments = ["build", "--recipe", "sample", "--translator", name, "--dry-run", "--langs", "de"]
    done = CliRunner().invoke(cli, [*arguments, "--memory", str(tmp_path / "m.sqlite")])
    assert done.exit_code == 0, done.exception
    assert "de    forward        0   1464" in done.output


def test_chains_that_cannot_be() -> None:
    with pytest.raises(PolyRefuseError, match="needs as many translators"):
        Chain(LiveRequest("google", candidates=2))
    with pytest.raises(PolyRefuseError, match="no backend to point"):
        Chain(LiveRequest("replay", url="http://localhost:1/"))


YAML = """
- {code: sw, name: Swahili, native_name: Kiswahili}
- {code: hi, name: Hindi, scripts: [Devanagari], codes: {nllb: hin_Deva}}
"""


def test_languages_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(YAML)
    swahili, hindi = load_languages(path)
    assert (swahili.code, swahili.scripts, hindi.scripts) == ("sw", ("Latin",), ("Devanagari",))
    with registered([swahili, hindi]):
        assert list(LANGUAGES)[-2:] == ["sw", "hi"]
        done = CliRunner().invoke(cli, ["translators"])
        assert "libre: " in done.output
        assert "14 of 16, not yo sw" in done.output
    assert "sw" not in LANGUAGES


def test_detectors_know_new_languages_and_forget_them(tmp_path: Path) -> None:
    from polyrefuse_data.checks.language import LanguageVotes

    path = tmp_path / "mine.yaml"
    path.write_text(YAML)
    swahili = "Watoto wanapenda kusoma vitabu shuleni kila siku pamoja na mwalimu wao."
    hindi = "बच्चे हर दिन स्कूल में किताबें पढ़ना पसंद करते हैं।"
    german = "Die Kinder lesen jeden Tag gerne Bücher in der Schule."
    before = LanguageVotes().scores([german, swahili], "de")
    with registered(load_languages(path)):
        assert LanguageVotes().scores([swahili, german], "sw") == [1.0, 0.0]
        assert LanguageVotes().scores([hindi, german], "hi") == [1.0, 0.0]
        assert LanguageVotes().scores([german, swahili], "de") == [1.0, 0.0]
    assert LanguageVotes().scores([german, swahili], "de") == before


def test_a_language_that_no_detector_knows_is_judged_by_its_script() -> None:
    from polyrefuse_data.checks.language import LanguageVotes
    from polyrefuse_data.core.languages import Language

    with registered([Language("hil", "Hiligaynon", "Ilonggo")]):
        assert LanguageVotes().scores(["Ang mga bata nagabasa sang libro.", "子供は本を読む。"], "hil") == [
            None,
            0.0,
        ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a list"),
        ("- {code: sw}", "row 1, name"),
        ("- {code: sw, name: Swahili, colour: red}", "row 1, colour"),
        ("- {code: de, name: German}", "'de' is there already"),
        ("- {code: sw, name: S}\n- {code: sw, name: S}", "row 2: 'sw' is there already"),
        ("- {code: SW1, name: S}", "row 1, code"),
        ("- {code: sw, name: S, scripts: [Klingon]}", "unknown script 'Klingon'"),
        ("{", "cannot read the languages"),
    ],
)
def test_language_files_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(PolyRefuseError, match=message):
        load_languages(path)
    with pytest.raises(PolyRefuseError, match=r"absent\.yaml' cannot be read"):
        load_languages(tmp_path / "absent.yaml")
