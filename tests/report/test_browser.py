"""The report in a real browser: silent, self-contained, accessible, readable on a phone and on a desk."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from cases import FIGURES, GENERATED, PAPER, generated, run_figures, synthetic
from checkout import ROOT, Checkout
from PIL import Image

from coldbench.report import figures, methods_page, run_pages
from coldbench.report.cells import cell_frame
from coldbench.report.layout import TABLES, run_page
from coldbench.report.methods import tasks
from coldbench.report.navigation import ReportFolder
from coldbench.report.pages import index_page, table_page

axe = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
AXE = Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
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
RESTORED_PAGE = run_page("smoke", RESTORED)
NAMES = [
    "index.html",
    *(TABLES[n].page for n in SHOWN),
    "methods.html",
    "figures.html",
    RESTORED_PAGE,
    run_page("smoke", GENERATION),
]
REAL_NAMES = [
    "index.html",
    "table1.html",
    "table5.html",
    "discrepancies.html",
    "methods.html",
    "figures.html",
]
REAL = {"smoke": "smoke", "published": "laptop"}
"""Reports of real runs, and a budget: of `make smoke`, if it has run, and of the published results."""
PLACES = [("synthetic", name) for name in NAMES] + [(kind, name) for kind in REAL for name in REAL_NAMES]
PLACES += [(kind, run_page(budget, "E04-released")) for kind, budget in REAL.items()]
PLACES.append(("published", "calibration.html"))
WIDTHS = (400, 1000, 1600)


@pytest.fixture(scope="session")
def synthetic_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report from synthetic scores and small random images."""
    source, folder = tmp_path_factory.mktemp("results"), tmp_path_factory.mktemp("report")
    scores = synthetic() + generated()
    runs = [
        run_figures(source, "E01", run=RESTORED),
        run_figures(source, "E15_celeba", run=GENERATION, channels=3, sets=GENERATED),
    ]
    run_pages.write(figures.load_plan(FIGURES), scores, runs, folder / "figures.html")
    frame = cell_frame(scores, PAPER)
    for number in SHOWN:
        html = table_page(number, frame[frame.table == number], scores, {}, ReportFolder(folder))
        (folder / TABLES[number].page).write_text(html, encoding="utf-8")
        for ending in ("csv", "tex", "json"):
            (folder / f"table{number}.{ending}").touch()
    methods_page.write(tasks(scores, {}), "tacos", scores, ReportFolder(folder))
    for ending in ("csv", "tex", "json"):
        (folder / f"methods.{ending}").touch()
    (folder / "index.html").write_text(index_page(frame, scores, (), {}, ReportFolder(folder)), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def published_report(published: Checkout) -> Path:
    """The report of the published results, rendered by the command of the README."""
    return published.folder / "pages"


@pytest.fixture(scope="session")
def smoke_report() -> Path:
    if not (ROOT / "reports/smoke/index.html").exists():
        pytest.skip("no smoke report yet (make smoke)")
    return ROOT / "reports/smoke"


@pytest.fixture(scope="session")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser: sync_api.Browser) -> Iterator[sync_api.Page]:
    """A page of the browser, whose console must stay silent."""
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    page.close()
    assert complaints == []


STRUCTURE = """() => ({
  language: document.documentElement.lang,
  images: [...document.images].filter(i => i.hasAttribute('src')).map(i => i.naturalWidth > 0),
  named: [...document.images].every(i => i.alt.trim() || i.closest('[role=img][aria-label]') || i.closest('.viewer')),
  links: [...document.links].map(a => a.href.split('#')[0]),
  dangling: [...document.querySelectorAll('a[href^="#"]')].filter(a => !document.querySelector(a.hash)).length,
  ids: [...document.querySelectorAll('[id]')].map(e => e.id),
  tables: [...document.querySelectorAll('table')].map(t => !!t.caption?.textContent.trim()
    && t.querySelectorAll('thead th[scope=col]').length > 1 && [...t.querySelectorAll('th')].every(h => h.scope)
    && t.parentElement.tabIndex === 0),
})"""


@pytest.mark.parametrize(("kind", "name"), PLACES)
def test_page_is_self_contained_and_accessible(
    tab: sync_api.Page, request: pytest.FixtureRequest, kind: str, name: str
) -> None:
    """No dead link or image, no request elsewhere, no wider than the screen, and no serious finding of axe-core.

    Widths and colour schemes change only the style sheet, so one load of the page serves them all.
    """
    folder: Path = request.getfixturevalue(f"{kind}_report")
    requests: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto((folder / name).as_uri(), wait_until="load")
    page = tab.evaluate(STRUCTURE)
    assert all(url.startswith(("data:", folder.as_uri())) for url in requests)
    assert page["language"] == "en"
    assert all(page["images"])
    plots = kind != "synthetic" and name == "methods.html"  # quality against NFE, which synthetic scores do not know
    assert bool(page["images"]) == (plots or name == "figures.html" or name.startswith("runs/"))
    assert page["named"]
    assert all(Path(unquote(urlsplit(link).path)).is_file() for link in page["links"]), page["links"]
    assert page["dangling"] == 0
    assert len(page["ids"]) == len(set(page["ids"]))
    assert len(page["tables"]) >= (2 if name.startswith(("index", "table")) else 0)
    assert all(page["tables"])
    for width in WIDTHS:
        tab.set_viewport_size({"width": width, "height": 900})
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
    tab.set_viewport_size({"width": 1000, "height": 900})
    tab.evaluate(AXE)
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        found = tab.evaluate("axe.run().then(r => r.violations.map(v => [v.impact, v.id, v.nodes[0].html]))")
        assert not [violation for violation in found if violation[0] in ("serious", "critical")], (scheme, found)


BEYOND = """() => [...document.body.querySelectorAll('*')].filter(e => {
  for (let p = e.parentElement; p; p = p.parentElement)
    if (getComputedStyle(p).overflowX !== 'visible' || p.tagName === 'svg') return false;
  const box = e.getBoundingClientRect();
  return box.width > 0 && !e.matches('.skip, .unseen') && (box.right > innerWidth + 1 || box.left < -1);
}).map(e => e.outerHTML.slice(0, 120))"""
"""Elements beyond the screen that lie in no scroll container of their own."""


@pytest.mark.parametrize(("kind", "name"), PLACES)
def test_phone_shows_everything_or_lets_it_be_scrolled(
    tab: sync_api.Page, request: pytest.FixtureRequest, kind: str, name: str
) -> None:
    """At 400 pixels nothing is cut off: what is wider than the screen stands in a container that scrolls."""
    tab.set_viewport_size({"width": 400, "height": 800})
    tab.goto((request.getfixturevalue(f"{kind}_report") / name).as_uri())
    assert tab.evaluate(BEYOND) == []
    wide = "e => e.scrollWidth > e.clientWidth + 1 && !['auto', 'scroll'].includes(getComputedStyle(e).overflowX)"
    assert tab.eval_on_selector_all(".scroll, .tiles", f"all => all.filter({wide}).length") == 0


# Print

SHEET = {"a4": (695, 1009), "letter": (718, 942)}
"""Width and height in CSS pixels of a sheet of A4 and of US letter, without the margins of the style sheet."""
ON_SHEETS = """([width, height]) => {
  const style = document.body.style;
  const columns = `columns: ${width}px; column-gap: 0; column-fill: auto`;
  style.cssText = `margin: 0; width: ${width}px; height: ${height}px; ${columns}`;
  const seen = e => e.getClientRects().length > 0 && e.getBoundingClientRect().height > 0 && !e.closest('.unseen');
  const sheets = e => [...new Set([...e.getClientRects()].filter(r => r.height > 1)
    .map(r => Math.floor((r.left + scrollX + 1) / width)))];
  const all = selector => [...document.body.querySelectorAll(selector)].filter(seen);
  const named = e => `${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 60)}`;
  const next = e => {
    for (let p = e; p; p = p.parentElement)
      for (let s = p.nextElementSibling; s; s = s.nextElementSibling) if (seen(s)) return s;
  };
  const first = e => Math.min(...sheets(e)), last = e => Math.max(...sheets(e));
  const bottoms = {};
  for (const e of all('p, tr, figure, h1, h2, h3, li, dt, dd'))
    for (const r of e.getClientRects()) {
      const sheet = Math.floor((r.left + scrollX + 1) / width);
      bottoms[sheet] = Math.max(bottoms[sheet] ?? 0, (r.bottom + scrollY) / height);
    }
  const heads = all('thead th').map(e => e.getBoundingClientRect());
  return {
    split: all('tr, figure, caption, h1, h2, h3, .tile, img, .banner').filter(e => sheets(e).length > 1).map(named),
    lone: all('h1, h2, h3, caption, thead, tr.group').filter(e => next(e) && last(e) !== first(next(e))).map(named),
    filled: Object.values(bottoms).slice(0, -1),
    covered: all('*').filter(e => ['fixed', 'absolute', 'sticky'].includes(getComputedStyle(e).position)
      && !e.closest('thead, .tile, caption') && heads.some(h => {
        const r = e.getBoundingClientRect();
        return r.left < h.right - 1 && r.right > h.left + 1 && r.top < h.bottom - 1 && r.bottom > h.top + 1;
      })).map(named),
  };
}"""
"""Lays the page out as its sheets, which are columns here: both break by the same rules of the same engine."""


@pytest.mark.parametrize("paper", SHEET)
@pytest.mark.parametrize(("kind", "name"), PLACES)
def test_print_splits_no_picture_row_or_heading(
    tab: sync_api.Page, request: pytest.FixtureRequest, kind: str, name: str, paper: str
) -> None:
    """No lone heading or header, no covered header, and no nearly empty sheet but the last."""
    width, height = SHEET[paper]
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": width, "height": height})
    tab.goto((request.getfixturevalue(f"{kind}_report") / name).as_uri())
    laid = tab.evaluate(ON_SHEETS, [width, height])
    assert laid["split"] == []
    assert laid["lone"] == []
    assert laid["covered"] == []
    assert min(laid["filled"], default=1) > 0.3, laid["filled"]


PAGE_RULES = """() => [...document.styleSheets].flatMap(sheet => [...sheet.cssRules])
  .filter(rule => rule.type === CSSRule.PAGE_RULE).map(rule => rule.cssText).join(' ')"""


def test_warning_is_visible_on_screen_and_in_print(tab: sync_api.Page, synthetic_report: Path) -> None:
    """In print every sheet repeats it in its margin, where no text can be."""
    tab.goto((synthetic_report / "index.html").as_uri())
    assert tab.locator(".banner").is_visible()
    tab.emulate_media(media="print")
    assert tab.locator(".banner").is_visible()
    rules = tab.evaluate(PAGE_RULES)
    assert "@bottom-right" in rules
    assert f'"{tab.locator(".banner strong").inner_text().rstrip(".")}: not a replication"' in rules
    assert (
        tab.evaluate("[...document.querySelectorAll('*')].filter(e => getComputedStyle(e).position == 'fixed').length")
        == 0
    )


def place(page: sync_api.Page, selector: str) -> tuple[int, int]:
    """Column and row of a visible tile."""
    style = "e => ['--column', '--row'].map(n => Number(e.style.getPropertyValue(n)))"
    column, row = page.eval_on_selector(selector, style)
    return column, row


def test_images_are_compared_by_keyboard(tab: sync_api.Page, synthetic_report: Path) -> None:
    """The arrow keys go from degraded to original; between two, the left part shows the next one."""
    tab.goto((synthetic_report / RESTORED_PAGE).as_uri())
    under, over = ".compare .stage .tile:not(.over) img", ".compare .over img"
    slider = tab.locator(".compare input[type=range]").first
    assert slider.get_attribute("aria-valuetext") == "Degraded"
    assert place(tab, under) == (0, 0)
    slider.focus()
    for _ in range(6):
        tab.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "30 % Direct, the rest Degraded"
    assert (place(tab, under), place(tab, over)) == ((0, 0), (1, 0))
    clip = tab.eval_on_selector(".compare .over", "e => getComputedStyle(e).clipPath")
    assert clip.startswith("inset(0px 70% 0px 0px") or clip == "inset(0px 70% 0px 0px)"
    tab.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext") == "Original"
    assert place(tab, under) == (4, 0)
    tab.locator(".compare .turn button", has_text="Previous").press("Enter")
    assert place(tab, under) == (4, 11)
    assert tab.locator(".compare .which").inner_text() == "Image 12 of 12"
    tab.locator(".compare .stops button", has_text="TACoS").press("Space")
    assert place(tab, under) == (3, 11)
    assert tab.locator(".compare [aria-pressed=true]").all_inner_texts() == ["TACoS"]


def test_trajectory_is_played_by_keyboard(tab: sync_api.Page, synthetic_report: Path) -> None:
    """Both methods are at the same severity, and the player stops at the end."""
    tab.goto((synthetic_report / RESTORED_PAGE).as_uri())
    slider, severity = tab.locator(".player input[type=range]"), tab.locator(".player .says")
    assert severity.inner_text() == "t = 6"
    slider.focus()
    tab.keyboard.press("ArrowRight")
    assert severity.inner_text() == "t = 5"
    tiles = tab.locator(".player .tile img")
    assert tiles.count() == 2
    assert {tile.evaluate("e => e.style.getPropertyValue('--column')") for tile in tiles.all()} == {"1"}
    assert len({tile.get_attribute("src") for tile in tiles.all()}) == 2
    tab.locator(".player [data-step='-1']").press("Enter")
    assert severity.inner_text() == "t = 6"
    play = tab.locator(".player .play")
    play.press("Enter")
    assert play.inner_text() == "Pause"
    sync_api.expect(severity).to_have_text("t = 0", timeout=20_000)
    assert play.inner_text() == "Play"
    play.press("Enter")  # plays again from the start
    play.press("Enter")
    assert play.inner_text() == "Play"


def test_player_is_hidden_for_reduced_motion(tab: sync_api.Page, synthetic_report: Path) -> None:
    tab.emulate_media(reduced_motion="reduce")
    tab.goto((synthetic_report / RESTORED_PAGE).as_uri())
    assert tab.locator(".player .play").is_hidden()
    tab.locator(".player [data-step='1']").press("Enter")
    assert tab.locator(".player .says").inner_text() == "t = 5"


def test_every_image_is_visible_without_a_script(browser: sync_api.Browser, synthetic_report: Path) -> None:
    options: dict[str, Any] = {"java_script_enabled": False}
    page = browser.new_page(**options)
    page.goto((synthetic_report / RESTORED_PAGE).as_uri())
    assert page.locator(".viewer").first.is_hidden()
    images = page.locator("[role=img] .tile img")
    assert images.count() == 12 * 5 + 2 * 6 * 7 + 6 * 7
    assert page.locator(".viewer img[src]").count() == 0
    assert all(box["width"] > 20 for box in (images.nth(k).bounding_box() for k in (0, 70, 150)) if box)
    page.close()


def test_tile_on_the_screen_has_the_pixels_of_its_sprite(tab: sync_api.Page, synthetic_report: Path) -> None:
    """A tile is enlarged without smoothing."""
    tab.goto((synthetic_report / RESTORED_PAGE).as_uri())
    tile = tab.locator("figure .tile").nth(5 * 2 + 3)  # the third image, TACoS
    screen = np.asarray(Image.open(io.BytesIO(tile.screenshot())).convert("L")).astype(int)
    sheet = np.asarray(Image.open(synthetic_report / "images/smoke" / RESTORED / "test-methods.png")).astype(int)
    scale = len(screen) // 8
    assert scale >= 8
    for offset in (2, scale // 2, scale - 3):  # three places of every pixel
        seen = screen[offset::scale, offset::scale][:8, :8]
        assert np.abs(seen - sheet[16:24, 24:32]).max() <= 1


@pytest.fixture(scope="session")
def documentation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built documentation."""
    out = tmp_path_factory.mktemp("documentation")
    command = [Path(sys.executable).with_name("sphinx-build"), "--quiet", "--fail-on-warning", "-b", "html"]
    subprocess.run([*command, ROOT / "docs", out], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return out


@pytest.mark.parametrize("name", ["index", "start", "results", "commands", "configuration", "own_sampler"])
def test_documentation_is_accessible_and_fits_a_phone(tab: sync_api.Page, documentation: Path, name: str) -> None:
    tab.goto((documentation / f"{name}.html").as_uri(), wait_until="load")
    tab.evaluate(AXE)
    for width in WIDTHS:
        tab.set_viewport_size({"width": width, "height": 900})
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        found = tab.evaluate(
            "axe.run({preload: false}).then(r => r.violations.map(v => [v.impact, v.id, v.nodes[0].html]))"
        )
        assert found == [], width
