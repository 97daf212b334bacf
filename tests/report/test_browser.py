"""The report in a real browser: silent, self-contained, readable on a phone and on a desk."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from cases import GENERATED, PAPER, PLAN, TABLES, generated, pictures, synthetic
from checkout import ROOT, Checkout
from PIL import Image

from coldbench.report import figures, runs
from coldbench.report.navigation import run_file, table_file
from coldbench.report.page import Site, index_page, table_page
from coldbench.report.tables import table_view

axe = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
AXE = Path(axe.__file__).with_name("axe.min.js")
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

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")


RESTORED, GENERATION = "E01-fitted", "E15_celeba-released"
SHOWN = ("1", "5.3", "A.7")
NAMES = ["index.html", *map(table_file, SHOWN), "figures.html", run_file(RESTORED), run_file(GENERATION)]
MADE = ["index.html", "table1.html", "table5.html", "discrepancies.html", "figures.html", run_file("E04-released")]
REAL = ("smoke", "published")
"""Reports of runs: of `make smoke`, where it was, and of the published results, real data on a laptop's budget."""
PLACES = [("", name) for name in NAMES] + [(made, name) for made in REAL for name in MADE]
PLACES.append(("published", "calibration.html"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report's folder, built from synthetic scores and small random pictures."""
    made = tmp_path_factory.mktemp("results")
    folder = tmp_path_factory.mktemp("report")
    scores = synthetic() + generated()
    drawn = [
        pictures(made, "E01", run=RESTORED),
        pictures(made, "E15_celeba", run=GENERATION, channels=3, sets=GENERATED),
    ]
    runs.write(figures.load_plan(PLAN), scores, drawn, folder / "figures.html", NAMES)
    views = {number: table_view(number, scores, PAPER) for number in TABLES}
    site = Site(frozenset(NAMES))
    for number in SHOWN:
        (folder / table_file(number)).write_text(table_page(views[number], scores, site), encoding="utf-8")
        for end in ("csv", "tex", "json"):
            (folder / f"table{number}.{end}").touch()
    html = index_page(list(views.values()), scores, site=site, folder=folder)
    (folder / "index.html").write_text(html, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the published results, made by the command of the README."""
    checkout = Checkout(tmp_path_factory.mktemp("published"))
    results = ROOT / "results/published/laptop-cpu"
    ended = checkout.snakemake("--cores", "1", "--config", f"results={results}", "reports=reports")
    assert ended.status == 0, ended.end
    return checkout.folder / "reports"


def report(made: str, request: pytest.FixtureRequest) -> Path:
    """The folder of a report; the test is skipped if `make smoke` has made none."""
    if made == "smoke":
        if not (ROOT / "reports/smoke/index.html").exists():
            pytest.skip("no smoke report yet (make smoke)")
        return ROOT / "reports/smoke"
    folder: Path = request.getfixturevalue(made or "pages")
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1000, 1600])
@pytest.mark.parametrize(("made", "name"), PLACES)
def test_page(
    browser: sync_api.Browser, request: pytest.FixtureRequest, made: str, name: str, width: int, scheme: str
) -> None:
    path = report(made, request) / name
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri(), wait_until="networkidle")

    assert complaints == []
    assert all(url.startswith(("data:", path.parents[name.count("/")].as_uri())) for url in requests)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.documentElement.lang") == "en"
    images = page.evaluate("[...document.images].filter(i => i.hasAttribute('src')).map(i => i.naturalWidth > 0)")
    assert all(images)
    assert bool(images) == (name == "figures.html" or name.startswith("runs/"))
    told = "i => i.alt.trim() || i.closest('[role=img][aria-label]') || i.closest('.viewer')"
    assert page.evaluate(f"[...document.images].every({told})")
    links = page.evaluate("[...document.links].map(a => a.href.split('#')[0])")
    assert all(Path(unquote(urlsplit(link).path)).is_file() for link in links), links
    tables = page.evaluate(
        "[...document.querySelectorAll('table')].map(t => [!!t.caption?.textContent.trim(), "
        "t.querySelectorAll('thead th[scope=col]').length > 1, [...t.querySelectorAll('th')].every(h => h.scope), "
        "t.parentElement.tabIndex === 0])"
    )
    assert len(tables) >= (2 if name.startswith(("index", "table")) else 0)
    assert all(all(table) for table in tables), tables
    dangling = page.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')].filter(a => !document.querySelector(a.hash)).length"
    )
    assert dangling == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("made", "name"), PLACES)
def test_nothing_stands_in_the_way(
    browser: sync_api.Browser, request: pytest.FixtureRequest, made: str, name: str, scheme: str
) -> None:
    """axe-core finds nothing serious: contrast, names, roles, keyboard, headings."""
    page = browser.new_page(viewport={"width": 1000, "height": 900}, color_scheme=scheme)
    page.goto((report(made, request) / name).as_uri(), wait_until="networkidle")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run().then(r => r.violations.map(v => [v.impact, v.id, v.nodes[0].html]))")
    assert not [violation for violation in found if violation[0] in ("serious", "critical")], found
    page.close()


def test_warning_is_seen_on_screen_and_in_print(browser: sync_api.Browser, pages: Path) -> None:
    page = browser.new_page()
    page.goto((pages / "index.html").as_uri())
    assert page.locator(".banner").is_visible()
    page.emulate_media(media="print")
    assert page.locator(".banner").is_visible()
    assert page.locator(".mark").is_visible()
    page.close()


def opened(browser: sync_api.Browser, path: Path, **options: Any) -> tuple[sync_api.Page, list[str]]:
    """A page and what its console said."""
    page = browser.new_page(**options)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri(), wait_until="networkidle")
    return page, said


def place(page: sync_api.Page, selector: str) -> tuple[int, int]:
    """Column and row of the tile that is looked at."""
    style = "e => ['--column', '--row'].map(n => Number(e.style.getPropertyValue(n)))"
    column, row = page.eval_on_selector(selector, style)
    return column, row


def test_images_are_compared_by_keyboard(browser: sync_api.Browser, pages: Path) -> None:
    """From degraded to original with the arrow keys; between two, the left part shows the next one."""
    page, said = opened(browser, pages / run_file(RESTORED))
    under, over = ".compare .stage .tile:not(.over) img", ".compare .over img"
    slider = page.locator(".compare input[type=range]").first
    assert slider.get_attribute("aria-valuetext") == "Degraded"
    assert place(page, under) == (0, 0)
    slider.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "30 % Direct, the rest Degraded"
    assert (place(page, under), place(page, over)) == ((0, 0), (1, 0))
    clip = page.eval_on_selector(".compare .over", "e => getComputedStyle(e).clipPath")
    assert clip.startswith("inset(0px 70% 0px 0px") or clip == "inset(0px 70% 0px 0px)"
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext") == "Original"
    assert place(page, under) == (4, 0)
    page.locator(".compare .turn button", has_text="Previous").press("Enter")
    assert place(page, under) == (4, 11)
    assert page.locator(".compare .which").inner_text() == "Image 12 of 12"
    page.locator(".compare .stops button", has_text="TACoS").press("Space")
    assert place(page, under) == (3, 11)
    assert page.locator(".compare [aria-pressed=true]").all_inner_texts() == ["TACoS"]
    assert said == []
    page.close()


def test_a_trajectory_is_played_by_keyboard(browser: sync_api.Browser, pages: Path) -> None:
    """Both methods at the same severity; played to its end, it stops there."""
    page, said = opened(browser, pages / run_file(RESTORED))
    slider, says = page.locator(".player input[type=range]"), page.locator(".player .says")
    assert says.inner_text() == "t = 6"
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert says.inner_text() == "t = 5"
    tiles = page.locator(".player .tile img")
    assert tiles.count() == 2
    assert {tile.evaluate("e => e.style.getPropertyValue('--column')") for tile in tiles.all()} == {"1"}
    assert len({tile.get_attribute("src") for tile in tiles.all()}) == 2
    page.locator(".player [data-step='-1']").press("Enter")
    assert says.inner_text() == "t = 6"
    play = page.locator(".player .play")
    play.press("Enter")
    assert play.inner_text() == "Pause"
    sync_api.expect(says).to_have_text("t = 0", timeout=20_000)
    assert play.inner_text() == "Play"
    play.press("Enter")  # again from the start
    play.press("Enter")
    assert play.inner_text() == "Play"
    assert said == []
    page.close()


def test_nothing_moves_for_who_wants_it_still(browser: sync_api.Browser, pages: Path) -> None:
    page, said = opened(browser, pages / run_file(RESTORED), reduced_motion="reduce")
    assert page.locator(".player .play").is_hidden()
    page.locator(".player [data-step='1']").press("Enter")
    assert page.locator(".player .says").inner_text() == "t = 5"
    assert said == []
    page.close()


def test_every_picture_is_there_without_a_script(browser: sync_api.Browser, pages: Path) -> None:
    page, said = opened(browser, pages / run_file(RESTORED), java_script_enabled=False)
    assert page.locator(".viewer").first.is_hidden()
    shown = page.locator("[role=img] .tile img")
    assert shown.count() == 12 * 5 + 2 * 6 * 7 + 6 * 7
    assert page.locator(".viewer img[src]").count() == 0
    assert all(box["width"] > 20 for box in (shown.nth(k).bounding_box() for k in (0, 70, 150)) if box)
    assert said == []
    page.close()


def test_a_tile_shows_its_own_pixels(browser: sync_api.Browser, pages: Path) -> None:
    """What the screen shows at a tile's place is that tile of the sprite, enlarged without smoothing."""
    page, _ = opened(browser, pages / run_file(RESTORED), viewport={"width": 1000, "height": 900})
    tile = page.locator("figure .tile").nth(5 * 2 + 3)  # the third image, TACoS
    screen = np.asarray(Image.open(io.BytesIO(tile.screenshot())).convert("L")).astype(int)
    sheet = np.asarray(Image.open(pages / "images" / RESTORED / "test-methods.png")).astype(int)
    scale = len(screen) // 8
    assert scale >= 8
    for offset in (2, scale // 2, scale - 3):  # all over a pixel, not in its middle alone
        seen = screen[offset::scale, offset::scale][:8, :8]
        assert np.abs(seen - sheet[16:24, 24:32]).max() <= 1
    page.close()
