"""The report in a real browser: silent, self-contained, readable on a phone and on a desk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_report import PAPER, TABLES, generated, synthetic

from coldbench.report.figures import Figure, four_columns, progressive, training_curve
from coldbench.report.page import index_page, table_page
from coldbench.report.tables import table_view

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",  # containers run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

SMOKE = Path(__file__).parents[1] / "reports" / "smoke" / "index.html"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with index.html and pages of tables, built from synthetic scores and small figures."""
    folder = tmp_path_factory.mktemp("report")
    images = np.random.default_rng(0).random((3, 1, 32, 32))
    four_columns(
        dict.fromkeys(("degraded", "direct", "sampled", "original"), images), folder / "four_columns.png", "smoke"
    )
    progressive([3, 2, 1], np.stack([images] * 3), images, folder / "progressive.png", "smoke", original=images)
    training_curve([{"updates": 1, "loss": 0.2, "images_per_second": 9}], folder / "training.png", "smoke")
    figures = [
        Figure(
            "E01-fitted",
            "Deblurring, MNIST",
            kind,
            folder / f"{kind}.png",
            f"A caption of {kind}.",
            f"Test images: {kind}",
        )
        for kind in ("four_columns", "progressive", "training")
    ]
    scores = synthetic() + generated()
    views = {number: table_view(number, scores, PAPER) for number in TABLES}
    (folder / "index.html").write_text(index_page(list(views.values()), scores, figures), encoding="utf-8")
    for number in ("1", "5.3", "A.7"):
        (folder / f"table{number}.html").write_text(table_page(views[number], scores), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("name", ["index.html", "table1.html", "table5.3.html", "tableA.7.html", "the smoke run's"])
def test_page(browser: sync_api.Browser, pages: Path, name: str, width: int, scheme: str) -> None:
    path = pages / name if name.endswith(".html") else SMOKE
    if not path.exists():
        pytest.skip("no smoke report yet (make smoke)")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri(), wait_until="networkidle")

    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.documentElement.lang") == "en"
    images = page.evaluate("[...document.images].map(i => [i.alt.trim() !== '', i.naturalWidth > 0])")
    assert images == [[True, True]] * (
        3 if name == "index.html" else 0 if name.startswith("table") else len(images) or 1
    )
    tables = page.evaluate(
        "[...document.querySelectorAll('table')].map(t => [!!t.caption?.innerText.trim(), "
        "t.querySelectorAll('thead th[scope=col]').length > 1, [...t.querySelectorAll('th')].every(h => h.scope), "
        "t.parentElement.tabIndex === 0])"
    )
    assert len(tables) >= 3
    assert all(all(table) for table in tables), tables
    dangling = page.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')].filter(a => !document.querySelector(a.hash)).length"
    )
    assert dangling == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    page.close()


def test_warning_is_seen_on_screen_and_in_print(browser: sync_api.Browser, pages: Path) -> None:
    page = browser.new_page()
    page.goto((pages / "index.html").as_uri())
    assert page.locator(".banner").is_visible()
    page.emulate_media(media="print")
    assert page.locator(".banner").is_visible()
    assert page.locator(".mark").is_visible()
    page.close()
