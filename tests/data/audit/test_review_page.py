"""The review page in headless Chromium: corrected by keyboard, exported, imported, rebuilt."""

from __future__ import annotations

import html
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polyrefuse_data.audit.review import export_review, import_review
from polyrefuse_data.audit.review_cells import COLUMNS, review_row
from polyrefuse_data.audit.review_page import review_page
from polyrefuse_data.build.package import read_rows
from polyrefuse_data.build.pipeline import BuildRequest, build
from polyrefuse_data.core.errors import PolyRefuseError

SMALL = {"train": 16, "validation": 16, "test": 24}
HOSTILE = "</script><script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"

CANDIDATES = [
    {"text": f"{HOSTILE} one", "reason": "deepl; errors: script against none"},
    {"text": "two", "reason": "google; equal scores"},
]


def row_cells(folder: Path, lang: str, number: int, **changes: str) -> dict[str, Any]:
    row = replace(read_rows(folder, lang, "test")[number], **changes)  # type: ignore[arg-type]
    return {**review_row(row), "scores": "fit 0.01", "back": "come back", "candidates": CANDIDATES}


def test_texts_cannot_leave_their_block_of_data(small_build: Path) -> None:
    page = review_page(HOSTILE, COLUMNS, [row_cells(small_build, "ja", 0, text=HOSTILE)])
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    block = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert block is not None
    assert json.loads(block[1])["rows"][0]["text"] == HOSTILE
    assert "default-src 'none'" in html.unescape(page)
    assert not re.search(r"https?://", page)


def test_a_memory_is_for_a_page_alone(small_build: Path, tmp_path: Path) -> None:
    with pytest.raises(PolyRefuseError, match=r"--out FILE\.html"):
        export_review(small_build, tmp_path / "review.csv", False, memory=tmp_path / "m.sqlite")
    assert not (tmp_path / "review.csv").exists()


webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (the test extra)")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium; install it with: apt-get install chromium chromium-driver"
)


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield browser
    browser.quit()


def text_of(browser: Any, name: str) -> str:
    return str(browser.find_element(By.ID, name).text)


@needs_browser
def test_50_rows_are_corrected_by_keyboard_exported_imported_and_rebuilt(
    small_build: Path, tmp_path: Path, chromium: Any
) -> None:
    page, memory = tmp_path / "review.html", tmp_path / "m.sqlite"
    rows = export_review(small_build, page, flagged=False, langs=["ja"])
    assert rows == 2 * sum(SMALL.values())
    chromium.get(page.as_uri())
    corrected = []
    for number in range(50):
        assert text_of(chromium, "place") == f"{number + 1} of {rows}"
        text = f"これは{number}番目の行の、人が書き直した正しい翻訳です。"
        field = chromium.switch_to.active_element
        assert field.get_attribute("id") == "correction"
        field.send_keys(text)
        corrected.append(text)
        ActionChains(chromium).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    assert text_of(chromium, "done") == "50 corrected"
    chromium.refresh()
    assert text_of(chromium, "done") == "50 corrected", "corrections outlive a reload"
    chromium.find_element(By.ID, "who").send_keys("Aki")
    ActionChains(chromium).key_down(Keys.ALT).send_keys("e").key_up(Keys.ALT).perform()
    export = tmp_path / "review.csv"
    for _ in range(300):
        if export.exists() and export.stat().st_size:
            break
        time.sleep(0.1)
    assert chromium.get_log("browser") == []
    assert import_review(export, memory).added == 50
    build(BuildRequest("sample", langs=["en", "ja"], size=SMALL, out=tmp_path / "out", memory=memory))
    texts = {row.text for split in SMALL for row in read_rows(tmp_path / "out", "ja", split)}
    assert set(corrected) <= texts


@needs_browser
def test_hostile_texts_are_shown_and_arabic_runs_from_right_to_left(
    sample_build: Path, tmp_path: Path, chromium: Any
) -> None:
    cells = [
        row_cells(sample_build, "ar", 0, text_en=HOSTILE),
        row_cells(sample_build, "de", 1, text=HOSTILE),
    ]
    page = tmp_path / "page.html"
    page.write_text(review_page("two rows", COLUMNS, cells), encoding="utf-8")
    chromium.get(page.as_uri())
    assert text_of(chromium, "text_en") == HOSTILE
    assert text_of(chromium, "back") == "come back"
    correction = chromium.find_element(By.ID, "correction")
    assert correction.value_of_css_property("direction") == "rtl"
    assert text_of(chromium, "candidates").splitlines()[0].startswith(f"Take (Alt+1) {HOSTILE} one (deepl; ")
    ActionChains(chromium).key_down(Keys.ALT).send_keys("2").key_up(Keys.ALT).perform()
    assert correction.get_attribute("value") == "two"
    assert text_of(chromium, "done") == "1 corrected"
    ActionChains(chromium).key_down(Keys.ALT).send_keys("3").key_up(Keys.ALT).perform()
    assert correction.get_attribute("value") == "two", "there is no third candidate"
    correction.clear()
    correction.send_keys("=1+1")
    ActionChains(chromium).key_down(Keys.ALT).send_keys(Keys.ARROW_DOWN).key_up(Keys.ALT).perform()
    assert text_of(chromium, "text") == HOSTILE
    assert correction.value_of_css_property("direction") == "ltr"
    assert chromium.title == "Review: two rows"
    assert '"\'=1+1"' in chromium.execute_script("return exported()")
