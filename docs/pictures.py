"""Draw pictures of the documentation.

`python docs/pictures.py SHARED SEPARATE` draws docs/images/transfer.svg from the runs of two organisms:
those of `polyrefuse eval run --model organism` and `--model organism-per-language`, both with
`--langs de,en,ja,yo --directions de,en,ja,yo --rule mediating`.

`python docs/pictures.py site/index.html` takes docs/images/leaderboard.png of a leaderboard's page with
Chromium, from its top to the first table: that of both organisms, measured with `--langs all --directions all
--test 16 --crossed 0` or in fewer languages, and of a model behind an endpoint.

`python docs/pictures.py audit.html` takes docs/images/audit.png of the page of `polyrefuse audit
RELEASE_FOLDER --html audit.html`, without its labels by form and its findings.
"""

from __future__ import annotations

import base64
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from polyrefuse_eval.figures import explain, new_figure, save_figure
from polyrefuse_eval.report.transfer_figure import draw_matrix, rates_of
from polyrefuse_eval.results.folder import RunFolder

IMAGES = Path(__file__).parent / "images"
TITLES = ("one direction for all languages", "a direction for each language")


@dataclass(frozen=True)
class Picture:
    """A picture of the top of a page: its file, the width of the window, and the code of where it ends."""

    file: str
    width: int
    end: str


PICTURES = {
    "index.html": Picture(
        "leaderboard.png", 1600, "document.querySelector('#models table').getBoundingClientRect().bottom"
    ),
    "audit.html": Picture(
        "audit.png", 1100, "document.querySelectorAll('h2')[2].getBoundingClientRect().top - 32"
    ),
}
"""By the name of the page. Widths and ends are in pixels."""


def photograph(page: Path) -> None:
    """Take the picture of the top of `page`."""
    picture = PICTURES[page.name]
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    try:
        browser.get(page.resolve().as_uri())
        size = {"width": picture.width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        size["height"] = browser.execute_script(f"return Math.ceil({picture.end}) + 16")
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    finally:
        browser.quit()
    (IMAGES / picture.file).write_bytes(base64.b64decode(taken["data"]))


def draw_transfer(runs: list[Path]) -> None:
    """Draw the transfer matrices of the runs side by side."""
    figure, axes = new_figure(1, len(runs), 9, 4)
    for axis, run, title in zip(axes[0], runs, TITLES, strict=True):
        results = RunFolder.existing(run).results()
        langs = sorted({row.lang for row in results})
        draw_matrix(axis, rates_of(results, "harmful", "ablation"), ["baseline", *langs], langs)
        axis.set_title(f"{RunFolder.existing(run).signature['model']['model']}: {title}", fontsize=9)
        axis.set_xlabel("language of the prompt")
    axes[0][0].set_ylabel("language of the ablated direction")
    explain(
        figure,
        "% of harmful prompts that are refused: does a direction work in other languages?",
        f"n = {max(row.n for row in results)} a cell; small: 95 % Wilson intervals; embedded sample",
    )
    save_figure(figure, IMAGES / "transfer.svg")


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:]]
    if len(paths) == 1:
        photograph(paths[0])
    else:
        draw_transfer(paths)
