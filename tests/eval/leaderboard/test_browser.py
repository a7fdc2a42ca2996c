"""The page in headless Chromium, as people use it: with a mouse, a keyboard, wide and narrow."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import math
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from leaderboard_runs import JUDGE, write_harmfulness, write_run
from leaderboard_site import HOSTILE, resolve, site

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (the test extra)")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.select import Select  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium; install it with: apt-get install chromium chromium-driver"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of two comparable models in 14 languages, and of one on other data."""
    runs = tmp_path_factory.mktemp("runs")
    return site(
        tmp_path_factory.mktemp("sites") / "site",
        write_harmfulness(write_run(runs / "a", n=60, layers=12, seed=1, strength=0.8)),
        write_run(
            runs / "b", model="example/model-with-a-long-name-7b-instruct", n=60, layers=12, seed=2,
            strength=0.2, judges=(JUDGE, "wildguard"),
        ),
        write_run(runs / "organism", model="organism", n=60, digest="e" * 64, layers=4, seed=3),
    )  # fmt: skip


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--force-prefers-reduced-motion",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield browser
    browser.quit()


@pytest.fixture
def open_page(chromium: Any, folder: Path) -> Any:
    """Return what opens the page at a width; nothing may be logged, nothing requested, at the end."""
    opened: list[str] = []

    def open_page(width: int = 1600, address: Path | None = None) -> Any:
        chromium.get("about:blank")
        for kind in ("browser", "performance"):
            chromium.get_log(kind)
        chromium.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        opened.append((address or folder / "index.html").as_uri())
        chromium.get(opened[-1])
        return chromium

    yield open_page
    assert chromium.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    requested = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert {address.partition("#")[0] for address in requested} <= set(opened)
    assert bool(requested) is bool(opened), "what is opened stands in the log"


def shown(scope: Any, selector: str) -> list[Any]:
    return [found for found in scope.find_elements(By.CSS_SELECTOR, selector) if found.is_displayed()]


def column(table: Any, number: int) -> list[float]:
    cells = table.find_elements(By.CSS_SELECTOR, f"tbody tr > :nth-child({number})")
    return [float(cell.get_attribute("data-value")) for cell in cells]


def press(browser: Any, *keys: str) -> Any:
    for key in keys:
        browser.switch_to.active_element.send_keys(key)
    return browser.switch_to.active_element


def tip(browser: Any) -> str:
    found = browser.find_element(By.ID, "tip")
    WebDriverWait(browser, 10).until(lambda _: found.is_displayed())
    return str(found.text)


def test_the_table_sorts_by_mouse_and_by_keyboard(open_page: Any) -> None:
    browser = open_page()
    table = shown(browser, "#models table")[0]
    headings = table.find_elements(By.CSS_SELECTOR, "thead th")
    assert headings[1].get_attribute("aria-sort") == "descending"
    first = column(table, 2)
    assert first == sorted(first, reverse=True)
    button = headings[1].find_element(By.TAG_NAME, "button")
    button.click()
    assert headings[1].get_attribute("aria-sort") == "ascending"
    assert column(table, 2) == sorted(first) != first
    over = headings[5].find_element(By.TAG_NAME, "button")
    browser.execute_script("arguments[0].focus()", over)
    press(browser, Keys.ENTER)
    assert headings[1].get_attribute("aria-sort") is None
    assert headings[5].get_attribute("aria-sort") == "ascending"
    assert column(table, 6) == sorted(column(table, 6))
    press(browser, Keys.SPACE)
    assert column(table, 6) == sorted(column(table, 6), reverse=True)


def test_the_language_switches_and_its_numbers_are_those_of_the_json(open_page: Any, folder: Path) -> None:
    browser = open_page()
    select = Select(browser.find_element(By.ID, "choose-language"))
    assert len(select.options) == 15, "all, and each of 14"
    seen = set()
    for lang in ("yo", "zh"):
        select.select_by_value(lang)
        tables = shown(browser, "#models table")
        assert len(tables) == 3, "a table for each group"
        row = tables[0].find_elements(By.CSS_SELECTOR, "tbody tr")[0]
        rate = row.find_elements(By.CSS_SELECTOR, "td a.n")[1]
        address = rate.get_dom_attribute("href")
        value = resolve(folder, address)
        assert rate.text == f"{100 * value:.1f} %"
        record = resolve(folder, address.rpartition("/")[0])
        assert (record["lang"], record["label"], record["condition"]) == (lang, "harmful", "baseline")
        seen.add(address)
    assert len(seen) == 2


def test_a_cell_tells_its_signature_on_hover_and_leads_to_its_json(open_page: Any, folder: Path) -> None:
    browser = open_page()
    Select(browser.find_element(By.ID, "choose-run")).select_by_visible_text(f"organism · organism · {JUDGE}")
    grid = shown(browser, "#detail table.grid")[0]
    assert len(grid.find_elements(By.CSS_SELECTOR, "tbody tr")) == 17, "no edit, 14 languages, 2 controls"
    cell = grid.find_elements(By.CSS_SELECTOR, "tbody tr")[3].find_elements(By.CSS_SELECTOR, "a.n")[5]
    ActionChains(browser).move_to_element(cell).perform()
    told = tip(browser)
    record = resolve(folder, cell.get_dom_attribute("href").rpartition("/")[0])
    assert (record["condition"], record["lang"]) == ("ablation:en", "it")
    assert cell.text == f"{100 * record['refusal_rate']:.0f}"
    interval = f"[{100 * record['low']:.1f}, {100 * record['high']:.1f}]"
    for part in (
        f"{100 * record['refusal_rate']:.1f} % {interval}",
        "Italian (it), harmful prompts, direction of en ablated",
        f"{record['n']} judged, {record['n_unjudged']} undecided",
        "organism@0123456789abcdef (test organism, not a real model)",
        "a" * 16 + "…", "e" * 16 + "…", JUDGE, "max_new_tokens 512", "transformers 5.14.1",
        "data/organism.json#/results/",
    ):  # fmt: skip
        assert part in told, part
    assert cell.get_attribute("aria-describedby") == "tip"
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not browser.find_element(By.ID, "tip").is_displayed()
    cell.click()
    WebDriverWait(browser, 10).until(lambda one: "data/organism.json" in one.current_url)
    browser.get_log("performance")
    open_page()


def test_a_first_tap_tells_and_a_second_opens_the_json(open_page: Any) -> None:
    browser = open_page(400)
    cell = shown(browser, "#detail table.grid")[0].find_elements(By.CSS_SELECTOR, "a.n")[3]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", cell)
    place = browser.execute_script("return arguments[0].getBoundingClientRect()", cell)
    point = {"x": place["x"] + place["width"] / 2, "y": place["y"] + place["height"] / 2}

    def tap() -> None:
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        tap()
        assert "no edit" in tip(browser)
        assert browser.current_url.endswith("index.html")
        tap()
        WebDriverWait(browser, 10).until(lambda one: "data/a.json#/results/" in one.current_url)
    finally:
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    open_page()


def test_the_keyboard_reaches_everything_in_order(open_page: Any) -> None:
    browser = open_page()
    assert press(browser, Keys.TAB).text == "Skip to the table of models"
    press(browser, Keys.ENTER)
    assert browser.switch_to.active_element.get_attribute("id") == "models"
    assert press(browser, Keys.TAB).get_attribute("id") == "choose-language"
    grid = shown(browser, "#detail table.grid")[0]
    links = grid.find_elements(By.CSS_SELECTOR, "a.n")
    assert [link.get_attribute("tabindex") for link in links].count("0") == 1
    browser.execute_script("arguments[0].focus()", links[0])
    assert "no edit" in tip(browser)
    assert press(browser, Keys.ARROW_RIGHT) == links[1]
    assert press(browser, Keys.ARROW_DOWN) == links[15]
    assert "direction of ar ablated" in tip(browser)
    outline = browser.execute_script("return getComputedStyle(arguments[0]).outlineStyle", links[15])
    assert outline == "solid"
    assert press(browser, Keys.END) == links[-1]
    assert press(browser, Keys.ARROW_DOWN) == links[-1]
    press(browser, Keys.ESCAPE)
    assert not browser.find_element(By.ID, "tip").is_displayed()
    left = press(browser, Keys.TAB)
    assert left not in links
    chart = shown(browser, "#detail svg.chart")[-1]
    layers = chart.find_elements(By.CSS_SELECTOR, "a.slice")
    browser.execute_script("arguments[0].focus()", layers[0])
    press(browser, Keys.ARROW_RIGHT)
    assert "layer 1: refusal, steering, KL" in tip(browser)


def test_a_link_to_a_run_opens_it(open_page: Any) -> None:
    browser = open_page()
    assert [one.get_attribute("id") for one in shown(browser, "#detail article")] == ["run-1"]
    browser.find_element(By.LINK_TEXT, "organism@0123456789ab").click()
    WebDriverWait(browser, 10).until(
        lambda one: [article.get_attribute("id") for article in shown(one, "#detail article")] == ["run-4"]
    )
    assert browser.find_element(By.ID, "choose-run").get_attribute("value") == "3"


def test_harmfulness_has_a_language_of_its_own(open_page: Any) -> None:
    browser = open_page()
    Select(browser.find_element(By.ID, "choose-harmfulness-0")).select_by_value("en")
    assert shown(browser, "#harmfulness h4")[0].text.startswith("English (en)")
    number = shown(browser, "#harmfulness a.n")[0]
    ActionChains(browser).move_to_element(number).perform()
    assert "test prompts, English (en), harmful, refused" in tip(browser)
    assert "c" * 16 + "…" in tip(browser)


def choose(browser: Any, control: str, value: str) -> None:
    found = browser.find_element(By.ID, control)
    if found.tag_name == "select":
        Select(found).select_by_value(value)
    else:
        found.clear()
        found.send_keys(value)


def names_in(browser: Any, selector: str) -> set[str]:
    names = [row.text.split("\n")[0] for row in shown(browser, f"{selector} tbody th")]
    return {name.partition("@")[0].partition(" judge ")[0] for name in names}


LONG = "example/model-with-a-long-name-7b-instruct"


def test_filters_hide_what_does_not_match_and_the_address_keeps_them(open_page: Any, folder: Path) -> None:
    browser = open_page()
    assert names_in(browser, "#models") == {"example/model-a", LONG, "organism"}
    choose(browser, "choose-size", "1 to 10 billion")
    assert names_in(browser, "#models") == names_in(browser, "#overview") == {LONG}
    assert browser.find_element(By.ID, "matches").text == "2 of 4 lines match", "two judges"
    assert len(shown(browser, "#models h3")) == 2, "groups without a line are hidden"
    choose(browser, "find-model", "nothing of the kind")
    assert names_in(browser, "#models") == set()
    choose(browser, "find-model", "LONG-name")
    choose(browser, "choose-language", "yo")
    Select(browser.find_element(By.ID, "choose-run")).select_by_index(3)
    address = browser.current_url
    link = browser.find_element(By.CSS_SELECTOR, "#filters .permalink").get_attribute("href")
    assert link == f"{address}&at=models"
    page = folder / "index.html"
    open_page(1600).get("about:blank")
    browser.get(link)
    assert browser.current_url.startswith(page.as_uri())
    assert browser.find_element(By.ID, "choose-size").get_attribute("value") == "1 to 10 billion"
    assert browser.find_element(By.ID, "find-model").get_attribute("value") == "LONG-name"
    assert names_in(browser, "#models") == {LONG}
    assert shown(browser, "#models h3")[0].text.startswith("yo · Yoruba")
    assert [article.get_attribute("id") for article in shown(browser, "#detail article")] == ["run-4"]
    assert browser.switch_to.active_element.get_attribute("id") == "models"
    browser.find_element(By.CSS_SELECTOR, "#filters [type=reset]").click()
    WebDriverWait(browser, 10).until(lambda one: len(names_in(one, "#models")) == 3)
    assert "size" not in browser.current_url


def test_an_order_is_kept_and_what_is_gone_from_the_page_is_passed_over(open_page: Any, folder: Path) -> None:
    browser = open_page()
    for fragment in (
        "sort=Undecided&order=ascending&run=gone+judge&family=none",
        "sort=Nonsense&order=x&at=gone",
    ):
        browser.get("about:blank")
        browser.get(f"{(folder / 'index.html').as_uri()}#{fragment}")
        assert len(names_in(browser, "#models")) == 3
        table = shown(browser, "#models table")[0]
        if "Undecided" in fragment:
            assert column(table, 8) == sorted(column(table, 8))
            heading = table.find_elements(By.CSS_SELECTOR, "thead th")[7]
            assert heading.get_attribute("aria-sort") == "ascending"


def test_two_models_are_compared_language_by_language(open_page: Any, folder: Path) -> None:
    browser = open_page()
    second = browser.find_element(By.ID, "compare-second")
    possible = [option.text for option in Select(second).options if option.is_enabled()]
    assert possible == [f"{LONG} · b · {JUDGE}"], "not itself, nor one of another judge or data"
    rows = shown(browser, "#compare table.compared tbody tr")
    assert len(rows) == 14
    cells = rows[1].find_elements(By.TAG_NAME, "td")
    rates = [
        resolve(
            folder, cells[place].find_element(By.TAG_NAME, "a").get_dom_attribute("href").rpartition("/")[0]
        )
        for place in (0, 1)
    ]
    assert [rate["lang"] for rate in rates] == ["de", "de"]
    left, right = ((rate["refusal_rate"], rate["low"], rate["high"]) for rate in rates)
    between = left[0] - right[0]
    low = between - math.hypot(left[0] - left[1], right[2] - right[0])
    high = between + math.hypot(left[2] - left[0], right[0] - right[1])
    shown_ends = (float(cells[2].get_attribute(f"data-{name}")) for name in ("value", "low", "high"))
    assert tuple(shown_ends) == pytest.approx((between, low, high))
    expected = f"{100 * between:.1f} points [{100 * low:.1f}, {100 * high:.1f}]".replace("-", "\u2212")
    assert cells[2].text.replace("\n", " ") == expected
    differing = [
        cell.get_attribute("data-label").partition(":")[0]
        for cell in shown(browser, "#compare td.difference")
        if cell.find_elements(By.TAG_NAME, "strong")
    ]
    status = browser.find_element(By.ID, "compared").text
    for rate in ("Refused, no edit", "Refused, direction ablated", "Over-refusal"):
        assert f"{rate}: {differing.count(rate)} of 14" in status
    ours, theirs = shown(browser, "#compared-maps table.grid")
    heads = [
        [head.text for head in each.find_elements(By.CSS_SELECTOR, "th[scope=col]")]
        for each in (ours, theirs)
    ]
    assert heads[0] == heads[1]
    link = theirs.find_elements(By.CSS_SELECTOR, "a.n")[1]
    browser.execute_script("arguments[0].focus()", link)
    assert "example/model-with-a-long-name-7b-instruct@" in tip(browser)
    press(browser, Keys.ARROW_DOWN)
    assert "direction of ar ablated" in tip(browser)
    Select(browser.find_element(By.ID, "compare-first")).select_by_index(3)
    assert "No other run has the same judge" in browser.find_element(By.ID, "compared").text
    assert not shown(browser, "#compare table.compared tbody tr")


def saved(browser: Any, folder: Path, scope: Any, kind: str) -> bytes:
    """Click the button that saves the chart of `scope` as `kind`, and return the file."""
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    (button,) = [
        each for each in scope.find_elements(By.CSS_SELECTOR, ".download button") if each.text == kind
    ]
    browser.execute_script("arguments[0].click()", button)

    def whole(_: Any) -> bytes | None:
        """Return the bytes of the file once there are some and the browser's own file beside it is gone."""
        files = list(folder.glob(f"*.{kind.lower()}"))
        content = files[0].read_bytes() if files else b""
        return content if content and not list(folder.glob("*.crdownload")) else None

    content: bytes = WebDriverWait(browser, 20).until(whole)
    return content


def test_charts_are_saved_as_pictures_and_numbers(open_page: Any, folder: Path, tmp_path: Path) -> None:
    browser = open_page()
    charts = {
        "map": shown(browser, "#overview figure")[0],
        "rates": shown(browser, "#detail .card")[0],
        "layers": shown(browser, "#detail figure[data-member^=curves]")[0],
    }
    for name, chart in charts.items():
        (tmp_path / name).mkdir()
        image = saved(browser, tmp_path / name, chart, "PNG")
        assert image[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", image[16:24])
        assert width > 500
        assert height > 200
        drawing = ElementTree.fromstring(saved(browser, tmp_path / name, chart, "SVG"))  # noqa: S314
        assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
        assert {part.tag.rpartition("}")[2] for part in drawing.iter()} <= {"svg", "path", "text"}
        texts = {part.text for part in drawing.iter() if part.text}
        assert any("digest dddddddddddd" in text for text in texts), "the data go with the picture"
        assert not any("wildguard" in text for text in texts), "its own judge, not all of the page"
    assert {"German", "de", "example/model-a@0123456789ab"} <= {
        part.text
        for part in ElementTree.parse(next((tmp_path / "map").glob("*.svg"))).iter()  # noqa: S314
    }
    entry = json.loads((folder / "leaderboard.json").read_text("utf-8"))["entries"]["a"][JUDGE]
    rows = list(
        csv.DictReader(
            io.StringIO(saved(browser, tmp_path / "map", charts["map"], "CSV").decode("utf-8-sig"))
        )
    )
    (german,) = [row for row in rows if row["column"] == "de" and row["row"].startswith("example/model-a@")]
    for name in ("value", "low", "high"):
        assert float(german[name]) == entry["languages"]["de"]["baseline"][name]
    scores = json.loads((folder / "data/a.json").read_text("utf-8"))["scores"]["ar"]
    text = saved(browser, tmp_path / "layers", charts["layers"], "CSV").decode("utf-8-sig")
    drawn = [row for row in csv.DictReader(io.StringIO(text)) if row["panel"].startswith("KL")]
    expected = [score["kl_div_score"] for score in scores if score["kl_div_score"] is not None]
    assert [float(row["value"]) for row in drawn] == pytest.approx(expected, rel=1e-5)


def axe_core() -> str:
    """Return the script of axe-core from a package that carries it."""
    for package in ("axe_playwright_python", "axe_core_python"):
        found = importlib.util.find_spec(package)
        for place in (found.submodule_search_locations or []) if found else []:
            return (Path(place) / "axe.min.js").read_text("utf-8")
    pytest.skip("axe-core-python is not installed (the test extra)")


def barriers(browser: Any, script: str) -> list[str]:
    """Return what axe-core finds on the page that is open: its rule and the first place."""
    browser.set_script_timeout(120)
    browser.execute_script(script)
    return list(
        browser.execute_async_script(
            "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then((found) =>"
            " done(found.violations.map((each) => `${each.id}: ${each.nodes[0].html.slice(0, 150)}`)))"
        )
    )


@pytest.fixture(scope="module")
def small_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything that a page has, in two languages: axe-core looks at each element."""
    runs = tmp_path_factory.mktemp("few")
    few: dict[str, Any] = {"langs": ("de", "en"), "n": 40, "layers": 4}
    folders = (
        write_harmfulness(write_run(runs / "a", **few)),
        write_run(runs / "b", model="served", endpoint=True, **few),
        write_run(runs / "organism", model="organism", digest="e" * 64, **few),
    )
    return site(tmp_path_factory.mktemp("sites") / "site", *folders) / "index.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_axe_finds_no_barrier(open_page: Any, small_page: Path, width: int, scheme: str) -> None:
    script = axe_core()
    browser = open_page(width, small_page)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        assert barriers(browser, script) == []
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_axe_would_find_barriers(open_page: Any, small_page: Path) -> None:
    browser = open_page(1600, small_page)
    browser.execute_script(
        "document.querySelector('.facts dd').id = 'pale'; const sheet = new CSSStyleSheet();"
        "sheet.replaceSync('#pale { color: #888; background: #999 }');"
        "document.adoptedStyleSheets = [sheet]; document.querySelector('label').remove()"
    )
    rules = {found.partition(":")[0] for found in barriers(browser, axe_core())}
    assert {"color-contrast", "select-name"} <= rules


def test_the_page_reads_without_its_script(open_page: Any) -> None:
    browser = open_page()
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.refresh()
        assert len(shown(browser, "#models table")) == 3 * 15
        assert len(shown(browser, "#detail article")) == 4
        assert not shown(browser, "select, .download, #compare, .permalink")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_broken_address_breaks_nothing(open_page: Any) -> None:
    browser = open_page()
    browser.execute_script("location.hash = '%E0%A4%A'")
    browser.refresh()
    table = shown(browser, "#models table")[0]
    table.find_elements(By.CSS_SELECTOR, "thead button")[1].click()
    assert column(table, 2) == sorted(column(table, 2))


@pytest.mark.parametrize("width", [400, 800, 1600])
def test_nothing_is_wider_than_the_window_or_too_small_to_read(open_page: Any, width: int) -> None:
    browser = open_page(width)
    select = Select(browser.find_element(By.ID, "choose-run"))
    for option in select.options:
        select.select_by_value(option.get_attribute("value"))
        scrolled = browser.execute_script("return document.documentElement.scrollWidth")
        assert scrolled <= width
    # Nor is text cut off: what does not fit its box may be scrolled to.
    cut = browser.execute_script(
        "return [...document.querySelectorAll('p, h1, h2, h3, h4, td, th, figcaption, li, dd')]"
        ".filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1 && e.clientWidth"
        " && getComputedStyle(e).overflowX !== 'visible').map(e => e.textContent)"
    )
    assert cut == []
    small = browser.execute_script(
        "return [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() &&"
        " [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.getClientRects().length &&"
        " parseFloat(getComputedStyle(e).fontSize) < 11 && !['SCRIPT', 'STYLE'].includes(e.tagName))"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert small == []
    for scroll in shown(browser, ".scroll"):
        scrolled = browser.execute_script(
            "return arguments[0].scrollWidth - arguments[0].clientWidth", scroll
        )
        assert scrolled <= 0, scroll.get_attribute("aria-label")
    for grid in shown(browser, ".card table.grid"):
        place = grid.find_element(By.XPATH, "parent::*")
        assert grid.size["width"] > place.size["width"] - 2, "a map of many languages fills its place"


@pytest.mark.parametrize("width", [400, 1600])
def test_maps_of_few_languages_fill_their_place_and_break_no_word(
    open_page: Any, small_page: Path, width: int
) -> None:
    browser = open_page(width, small_page)
    for grid in shown(browser, "table.grid"):
        for row in grid.find_elements(By.CSS_SELECTOR, "tbody tr"):
            assert row.size["height"] < 110, row.text
    (note,) = shown(browser, ".note")
    main = browser.find_element(By.TAG_NAME, "main")
    assert note.size["width"] == main.size["width"]
    for table in shown(browser, "#overview table.grid"):
        figure = table.find_element(By.XPATH, "ancestor::figure")
        assert table.size["width"] > 0.75 * figure.size["width"]


def test_hostile_names_do_nothing(open_page: Any, tmp_path: Path) -> None:
    folders = [
        write_run(
            tmp_path / f"runs/{number}", model=name, revision=name, langs=("de", "en"), sources=("en",),
            judges=(name,), settings={name: name}, n=8, layers=4,
        )
        for number, name in enumerate(HOSTILE)
    ]  # fmt: skip
    hostile = site(tmp_path / "site", *folders) / "index.html"
    browser = open_page(1600, hostile)
    for select in browser.find_elements(By.TAG_NAME, "select"):
        if select.is_displayed():
            for option in Select(select).options:
                if option.is_enabled():
                    Select(select).select_by_value(option.get_attribute("value"))
    for link in shown(browser, "#models a.n")[:5]:
        browser.execute_script("arguments[0].focus()", link)
        assert any(name in tip(browser) for name in HOSTILE)
    assert browser.execute_script("return window.hit") is None
    assert browser.find_elements(By.CSS_SELECTOR, "img, b") == []
    assert HOSTILE[0] in browser.find_element(By.ID, "models").text


def test_the_policy_stops_a_request_that_a_script_would_make(chromium: Any, folder: Path) -> None:
    chromium.get((folder / "index.html").as_uri())
    chromium.get_log("browser")
    chromium.execute_script("new Image().src = 'http://127.0.0.1:9/x.png'")
    WebDriverWait(chromium, 10).until(
        lambda one: any("Content Security Policy" in line["message"] for line in one.get_log("browser"))
    )


def test_dark_mode_is_dark(open_page: Any) -> None:
    browser = open_page()
    light = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    dark = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(20, 23, 27)")
