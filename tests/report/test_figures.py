"""The pictures of the report: sprites without loss, the paper's figures from whatever runs there are, plots, pages."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from cases import ABOUT, GENERATED, MARK, PLAIN, PLAN, ROOT, SCORE, pictures, untrained
from PIL import Image

from coldbench import data
from coldbench.core.config import Sampling, TableCell
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.report import chart_data, figures, gallery, plots, runs, sprites
from coldbench.report.gallery import Pictures
from coldbench.report.inputs import Score
from coldbench.report.sprites import Sprite
from coldbench.sampling import manifest as sampled
from coldbench.sampling import trajectories
from coldbench.sampling.shards import SamplingPaths, sample_run

CPU = torch.device("cpu")
LOG = '{"step": 1, "loss": 0.5, "images_per_second": 3.0, "seconds": 61.0}\n'


def tiles_of(sprite: Sprite) -> np.ndarray:
    """The tiles of a sprite as they lie on disk: (N, C, H, W)."""
    pixels = np.asarray(Image.open(sprite.path))
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    assert pixels.shape[:2] == (sprite.height, sprite.width)
    side, wide = sprite.tile, len(sprite.columns)
    places = [divmod(k, wide) for k in range(sprite.count)]
    return np.stack(
        [pixels[r * side : (r + 1) * side, c * side : (c + 1) * side].transpose(2, 0, 1) for r, c in places]
    )


def shown(images: np.ndarray) -> np.ndarray:
    return (images.clip(0, 1) * 255).round().astype(np.uint8)


# --- sprites


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mark", ["", MARK])
def test_sprites_lose_nothing(tmp_path: Path, channels: int, mark: str) -> None:
    """Every pixel of every tile is where its place says; what is watermarked bears the words below the tiles."""
    values = np.random.default_rng(0).integers(0, 256, (6, channels, 9, 9))
    sprite = sprites.write(values / 255, tmp_path / "s.png", "methods", ("degraded", "direct", "original"), mark)
    assert (sprite.rows, sprite.width) == (2, 27)
    assert np.array_equal(tiles_of(sprite), values)
    below = np.asarray(Image.open(sprite.path))[18:]
    assert (len(below) > 0) == bool(mark)
    if mark:
        letters = below[1:]
        assert (letters < 128).any()
        assert len(below) > 2 * sprites.LINE  # the words need several lines here
    place = sprite.place("direct", 1)
    assert (place.column, place.row) == (1, 1)
    assert sprite.tile_at(5) == sprite.place("original", 1)


def test_sprites_show_what_is_no_picture(tmp_path: Path) -> None:
    """Values outside [0, 1] are clipped, what is no number is black, and an unfinished row is filled with white."""
    images = np.array([-3.0, math.nan, 7.0]).reshape(3, 1, 1, 1) * np.ones((3, 1, 4, 4))
    sprite = sprites.write(images, tmp_path / "s.png", "gallery", ("", ""), "")
    assert [int(tile.max()) for tile in tiles_of(sprite)] == [0, 0, 255]
    assert (np.asarray(Image.open(sprite.path))[4:, 4:] == 255).all()
    for bad in (np.zeros((0, 1, 4, 4)), np.zeros((2, 2, 4, 4)), np.zeros((2, 1, 4, 5)), np.zeros((4, 4))):
        with pytest.raises(ColdbenchError, match="images of shape"):
            sprites.write(bad, tmp_path / "bad.png", "gallery", ("",), "")
    with pytest.raises(ColdbenchError, match="unknown kind of sprite odd"):
        replace(sprite, kind="odd")
    assert [path.name for path in tmp_path.iterdir()] == ["s.png"]


def test_sprites_are_bounded() -> None:
    assert sprites.rows_that_fit(5, 32, 12) == 12
    assert 5 * 128**2 * sprites.rows_that_fit(5, 128, 12) <= sprites.PIXELS < 5 * 128**2 * 12
    assert sprites.rows_that_fit(300, 128, 6) == 1


# --- the pictures of a run


@pytest.fixture
def drawn(digits: Path, experiment: Experiment, tmp_path: Path) -> Path:
    """The folder of a tiny run that restores, with its pictures."""
    model = untrained(tmp_path / "model.safetensors", experiment)
    sets = {"test": {}, "half": {"severity": 2}, "leaps": {"stride": 3, "methods": ["tacos"]}}
    sampling = Sampling(images=17, sets=sets, max_frames=3)
    sample_run(SamplingPaths(model, digits, tmp_path / "shards"), sampling, CPU, tmp_path / "samples.json")
    (tmp_path / "model.jsonl").write_text(LOG)
    gallery.draw(
        tmp_path / "samples.json", ABOUT, tmp_path / "model.jsonl", digits, tmp_path / "figures.json",
        statistics=tmp_path / "statistics",
    )  # fmt: skip
    return tmp_path


def test_a_comparison_shows_the_samples_themselves(drawn: Path, digits: Path) -> None:
    (found,) = gallery.load([drawn / "figures.json"])
    manifest = drawn / "samples.json"
    sprite = found.find("methods", "test")
    assert sprite is not None
    assert sprite.columns == ("degraded", "direct", "naive", "tacos", "original")
    columns = tiles_of(sprite).reshape(12, 5, 1, 16, 16).swapaxes(0, 1)
    for k, method in enumerate(("direct", "naive", "tacos"), start=1):
        assert np.array_equal(columns[k], shown(sampled.read_images(manifest, "test", method)[:12])), method
    assert np.array_equal(columns[4], data.load(digits, "test")[:12])
    with np.load(drawn / sampled.read_manifest(manifest).sets["test"].trajectory) as arrays:
        assert np.array_equal(columns[0][:6], shown(arrays["degraded"]))
    half = found.find("methods", "half")
    assert half is not None
    assert not np.array_equal(tiles_of(half)[::5], columns[0])  # its input is less degraded
    leaps = found.find("methods", "leaps")
    assert leaps is not None
    assert leaps.columns == ("degraded", "direct", "tacos", "original")  # R(x_T) is known without being sampled
    assert leaps.rows == trajectories.SHOWN


def test_trajectories_run_from_the_start_to_the_samples(drawn: Path) -> None:
    """Both algorithms' from the same start at the same severities, each to its own result."""
    (found,) = gallery.load([drawn / "figures.json"])
    ends = {}
    for kind, method in (("trajectory", "tacos"), ("naive", "naive")):
        sprite = found.find(kind, "test")
        assert sprite is not None
        assert (sprite.columns, sprite.method) == (("4", "2", "0"), method)
        tiles = tiles_of(sprite).reshape(6, 3, 1, 16, 16)
        ends[method] = tiles
        assert np.array_equal(tiles[:, -1], shown(sampled.read_images(drawn / "samples.json", "test", method, first=6)))
    assert np.array_equal(ends["tacos"][:, 0], ends["naive"][:, 0])
    assert found.find("naive", "leaps") is None


def test_the_forward_process_begins_with_the_original(drawn: Path, digits: Path) -> None:
    (found,) = gallery.load([drawn / "figures.json"])
    sprite, start = found.find("forward"), found.find("methods", "test")
    assert sprite is not None
    assert start is not None
    assert sprite.columns == ("0", "1", "2", "3", "4")
    tiles = tiles_of(sprite).reshape(6, 5, 1, 16, 16)
    assert np.array_equal(tiles[:, 0], data.load(digits, "test")[:6])
    assert np.array_equal(tiles[:, -1], tiles_of(start)[::5][:6])


def test_distances_of_fewer_images(drawn: Path, digits: Path, experiment: Experiment) -> None:
    """Nested parts of the same samples against one reference, with intervals."""
    from coldbench.evaluation import scoring
    from coldbench.evaluation.metrics.frechet import Statistics, frechet_distance

    (found,) = gallery.load([drawn / "figures.json"])
    mine = [row for row in found.distances if (row["set"], row["method"]) == ("test", "tacos")]
    assert [row["n"] for row in mine] == [4, 8] == [17 // 4, 17 // 2]
    (gabor,) = scoring.extractors([], None, CPU)
    features = gabor.features(torch.from_numpy(sampled.read_images(drawn / "samples.json", "test", "tacos")))
    there = (
        scoring.Scorer(experiment, digits, drawn / "statistics", [gabor], CPU).reference(gabor, "test", 17).statistics
    )
    for row in mine:
        assert row["value"] == pytest.approx(frechet_distance(Statistics.of(features[: row["n"]]), there), rel=1e-6)
        assert row["low"] < row["high"]


def test_a_generation_has_no_originals_but_a_sheet(photos: Path, experiment: Experiment, tmp_path: Path) -> None:
    degradation = {"name": "blur", "T": 3, "kernel": 5, "std": 1.0, "schedule": "constant", "padding": "circular",
                   "quantized": True}  # fmt: skip
    science = experiment.model_copy(update={"degradation": degradation, "dataset": "photos"})
    model = untrained(tmp_path / "model.safetensors", science, channels=3)
    sampling = Sampling(images=19, sets={"broken": {"start": {"kind": "means", "noise_level": 0.002}}})
    sample_run(SamplingPaths(model, photos, tmp_path / "shards"), sampling, CPU, tmp_path / "samples.json")
    (tmp_path / "model.jsonl").write_text("")
    with pytest.raises(ColdbenchError, match="is no training log of this version"):
        gallery.draw(tmp_path / "samples.json", ABOUT, tmp_path / "model.jsonl", photos, tmp_path / "figures.json")
    (tmp_path / "model.jsonl").write_text(LOG)
    gallery.draw(tmp_path / "samples.json", ABOUT, tmp_path / "model.jsonl", photos, tmp_path / "figures.json")
    (found,) = gallery.load([tmp_path / "figures.json"])
    sheet, methods = found.find("gallery", "broken"), found.find("methods", "broken")
    assert sheet is not None
    assert methods is not None
    assert np.array_equal(tiles_of(sheet), shown(sampled.read_images(tmp_path / "samples.json", "broken", "tacos")))
    assert methods.columns == ("degraded", "direct", "naive", "tacos")
    assert (found.distances, found.watermark) == ((), MARK)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    data.prepare("photos", None, 16, folder)
    return folder


def test_pictures_of_other_images_are_refused(drawn: Path, photos: Path) -> None:
    with pytest.raises(ColdbenchError, match="was sampled from other test images"):
        gallery.draw(drawn / "samples.json", ABOUT, drawn / "model.jsonl", photos, drawn / "figures.json")
    (drawn / "old.json").write_text("[]")
    with pytest.raises(ColdbenchError, match="no list of pictures of this version"):
        gallery.load([drawn / "old.json"])


# --- the paper's figures


def test_the_plan_asks_for_what_the_grid_has() -> None:
    """Twenty figures, and each panel's experiment makes the set and the methods that it shows."""
    plan = figures.load_plan(PLAN)
    assert list(plan.figures) == list(range(1, 21))
    grid = yaml.safe_load((ROOT / "workflow/config/paper.yaml").read_text())["grid"]
    for wanted in [*plan.figures.values(), *plan.beyond.values()]:
        for panel in wanted.panels:
            sampling = grid[panel.experiment].get("sampling", {})
            sets = sampling.get("sets", {"test": {}})
            for name in panel.sets or [panel.set]:
                assert name in sets, (wanted.title, panel)
                made = sets[name].get("methods") or sampling.get("methods") or Sampling().methods
                assert set(panel.methods or wanted.methods or []) <= {*made}, (wanted.title, panel)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("figures: {1: {title: a, shows: b, panels: []}}", "panels: list should have at least 1 item"),
        ("figures: {1: {title: a, shows: b, panels: [{kind: row, experiment: E}]}}", "kind: input should be"),
        ("figures: {1: {title: a, show: b, panels: [{kind: rows, experiment: E}]}}", "shows"),
        ("figures: [", "is not YAML"),
    ],
)
def test_a_wrong_plan_is_told_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "figures.yaml").write_text(text)
    with pytest.raises(ColdbenchError, match=says):
        figures.load_plan(tmp_path / "figures.yaml")
    with pytest.raises(ColdbenchError, match="cannot read"):
        figures.load_plan(tmp_path / "none.yaml")


def test_every_kind_of_panel(tmp_path: Path) -> None:
    """Which image stands where: the right column of the right sprite, in the paper's layout."""
    made = [pictures(tmp_path, name) for name in ("E01", "E04", "E07")] + [
        pictures(tmp_path, "E15_celeba", T=300, channels=3, sets=GENERATED)
    ]
    found = {figure.name: figure for figure in figures.figures(figures.load_plan(PLAN), made)}
    assert len(found) == 23

    view = found["figure3"].views[0]
    assert view.columns == ("Degraded", "Direct", "TACoS", "Original")
    assert [[(t.sprite.columns[t.column], t.row) for t in strip.tiles if t] for strip in view.strips][1] == [
        ("degraded", 1), ("direct", 1), ("tacos", 1), ("original", 1),
    ]  # fmt: skip
    more = found["figure9"].views[0]
    assert [strip.tiles[0].row for strip in more.strips if strip.tiles[0]] == list(range(3, 12))
    assert [view.run is None for view in found["figure3"].views] == [False, True, True]
    assert found["figure3"].absent == ("E02", "E03")

    both = found["figure2"].views[0]
    steps = [2, 4, 8, 16, 32, 64, 128, 192, 256]
    assert both.columns == (*(f"t = {300 - step}" for step in steps), "t = 0")
    assert [(strip.label, strip.tiles[0].sprite.kind) for strip in both.strips if strip.tiles[0]] == [
        ("Algorithm 1", "naive"), ("TACoS", "trajectory"),
    ]  # fmt: skip
    chain = found["figure1"].views[1]
    assert chain.columns == (*(f"t = {t}" for t in (0, 75, 150, 225, 300)), "", *(
        f"t = {t}" for t in (300, 225, 150, 75, 0)))  # fmt: skip
    assert found["figure12"].views[0].columns[:2] == ("Original", "t = 6")
    assert len(found["figure7"].views[0].strips) == 2
    assert [strip.label for strip in found["figure18"].views[0].strips] == ["Algorithm 1", "TACoS"]
    assert [strip.label for strip in found["symmetry"].views[0].strips] == ["Perfect symmetry", "Broken symmetry"]
    assert found["figure17"].views[0].columns == ("Start", "Direct", "TACoS")
    assert len(found["figure17"].views[0].strips) == 6
    assert "16 images" in found["figure7"].views[0].alt
    lacking = replace(made[-1], sets={"perfect": GENERATED["perfect"]})
    assert (
        figures.figures(figures.load_plan(PLAN), [lacking])[1].views[0].missing == "run E15_celeba-a has no set broken"
    )


def test_the_chosen_run_is_of_the_default_protocol_and_the_largest_budget(tmp_path: Path) -> None:
    smoke = pictures(tmp_path, "E01")
    paper = pictures(tmp_path, "E01", budget="paper")
    other = pictures(tmp_path, "E01", budget="paper", default=False)
    assert figures.chosen("E01", [other, smoke, paper]) is paper
    assert figures.chosen("E01", [other]) is None


# --- plots


def scored(run: str, part: str, method: str, value: float, **changes: Any) -> Score:
    given = {"run": run, "set": part, "method": method, "metric": "ssim", "value": value, "budget": "smoke", **changes}
    return replace(SCORE, **given)


@pytest.fixture
def measured(tmp_path: Path) -> tuple[list[Pictures], tuple[Score, ...]]:
    """A model sampled as it should be, in larger steps, and with a wrong severity; distances of fewer images."""
    base = pictures(tmp_path, "E01", T=20)
    row = {"set": "test", "method": "tacos", "reference": "test", "value": 9.0, "low": 8.0, "high": 10.0, "n": 4}
    base = replace(base, distances=(row,))
    told = {"every_9": {**PLAIN, "stride": 9}, "half": {**PLAIN, "severity": 10},
            "wrong": {**PLAIN, "severity": 10, "assumed_severity": 5}}  # fmt: skip
    other = replace(pictures(tmp_path, "A4", T=20, sets=told, cell=TableCell()), model=base.model)
    scores = (
        scored("E01-a", "test", "tacos", 0.7),
        scored("E01-a", "test", "direct", 0.8),
        scored("E01-a", "test", "tacos-direct", -0.1),
        scored("A4-a", "every_9", "tacos", 0.6, table=""),
        scored("A4-a", "every_9", "naive", math.nan, table=""),
        scored("A4-a", "half", "tacos", 0.9, table=""),
        scored("A4-a", "wrong", "tacos", 0.3, table=""),
        scored("E01-a", "test", "tacos", 5.0, metric="frechet_gabor", reference="test", n=32),
        scored("E01-a", "test", "tacos", 6.0, metric="frechet_gabor", reference="train", n=32),
        scored("E01-a", "test", "tacos", 7.0, metric="fid_clean", reference="test"),
        scored("E01-a", "test", "tacos", 8.0, metric="fid_legacy_pytorch", reference="train"),
        scored("E01-a", "test", "tacos", 0.1, metric="kid_clean", reference="test"),
    )
    return [other, base], scores


def test_series_hold_the_scores(measured: tuple[list[Pictures], tuple[Score, ...]]) -> None:
    found, scores = measured[0], measured[1]
    charts = {chart.name: chart for chart in chart_data.charts(scores, found)}
    steps = charts["steps"].panels[0]
    assert {line.label: [(p.x, p.y) for p in line.points] for line in steps.lines} == {
        "TACoS": [(3, 0.6), (20, 0.7)], "Direct": [(1, 0.8)],
    }  # fmt: skip
    assert steps.title == "Title E01"
    (line,) = charts["number"].panels[0].lines
    assert [(p.x, p.y) for p in line.points] == [(4, 9.0), (32, 5.0)]
    fid, kid = charts["ladder"].panels
    assert [p.label for p in fid.lines[0].points] == ["clean, test", "legacy_pytorch, train"]
    assert [p.y for p in kid.lines[0].points] == [0.1]
    told = charts["told"].panels[0]
    assert [(p.label, p.y) for p in told.lines[0].points][1:] == [("told the truth", 0.9), ("told 5, is 10", 0.3)]
    assert [axes.title.split(":")[0] for axes in charts["training"].panels] == ["Title E01"]  # one model, once
    assert "TACoS 0.6000 at 3, 0.7000 at 20" in steps.alt
    empty = chart_data.charts((), [])
    assert all(chart.missing and chart.command.startswith("snakemake") and not chart.panels for chart in empty)


def test_plots_are_light_or_dark_and_alone(measured: tuple[list[Pictures], tuple[Score, ...]]) -> None:
    """Well-formed SVG that asks for nothing, whose every colour has a dark counterpart, the same from run to run."""
    for chart in chart_data.charts(measured[1], measured[0]):
        for axes in chart.panels:
            text, width, height = plots.svg(chart, axes, MARK)
            assert ElementTree.fromstring(text).tag.endswith("svg")
            assert width > 200 < height
            assert not re.findall(r"(?:href|src)=\"(?!#)", text), axes.name
            body = text.partition("</style>")[2]
            assert not set(re.findall(r": (#[0-9a-f]{6})", body)) - {"#ffffff"}, axes.name
            assert "prefers-color-scheme: dark" in text
            assert text == plots.svg(chart, axes, MARK)[0]


@pytest.mark.parametrize("losses", [[0.3], [0.3, math.nan, 0.1], [0.3, 0.2, 0.0], [2.0, 0.004]])
def test_a_training_curve_of_any_log(tmp_path: Path, losses: list[float]) -> None:
    run = replace(
        pictures(tmp_path, "E01"), training=tuple((float(k), loss, 9.0, 1.0) for k, loss in enumerate(losses))
    )
    chart = chart_data.training([run])
    assert ElementTree.fromstring(plots.svg(chart, chart.panels[0], "")[0]).tag.endswith("svg")
    assert not chart_data.training([replace(run, training=())]).panels


# --- pages


def test_pages_say_what_is_missing_and_show_what_is_there(tmp_path: Path) -> None:
    made = [pictures(tmp_path / "in", "E01"), pictures(tmp_path / "in", "E15_celeba", channels=3, sets=GENERATED)]
    out = tmp_path / "out" / "figures.html"
    written = runs.write(figures.load_plan(PLAN), (), made, out, ["index.html"])
    assert [str(path.relative_to(out.parent)) for path in written] == [
        "figures.html", "runs/E01-a.html", "runs/E15_celeba-a.html",
    ]  # fmt: skip
    html = out.read_text()
    assert html.count("<h2>Figure ") == 20
    assert "not made: run E02 missing; command: <code>snakemake --config experiments=E02</code>" in html
    assert html.count("Smoke budget: not a replication") == html.count("<figcaption><strong>") > 10
    for path in written:
        text = path.read_text()
        assert "://" not in re.sub(r"http://www.w3.org/\S+", "", text)
        for target in re.findall(r"(?:src|href)=\"([^\"#]+)", text):
            if not target.startswith("data:") and not target.endswith("index.html"):
                assert (path.parent / unquote(target)).is_file(), target
    page = written[1].read_text()
    static = re.sub(r"<div class=\"viewer.*?\n</div>\n", "", page, flags=re.DOTALL)
    assert static.count('<span class="tile"><img src=') == 12 * 5 + 2 * 6 * 7 + 6 * 7  # all, also without a script
    assert "script-src 'sha256-" in page
    assert "script-src 'none'" in html


def test_pages_escape_names(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    run = pictures(tmp_path / "in", "E01", title=evil, rationale=evil)
    run = replace(run, experiment={**run.experiment, "dataset": evil}, provenance={"imported": evil})
    out = tmp_path / "out" / "figures.html"
    for path in runs.write(figures.load_plan(PLAN), (), [run], out):
        assert "<script>alert" not in path.read_text()
    for path in out.parent.rglob("*.svg"):
        assert "<script" not in path.read_text()
    assert "&lt;script&gt;" in (out.parent / "runs/E01-a.html").read_text()


def test_a_run_made_at_two_budgets_has_the_page_of_the_larger(tmp_path: Path) -> None:
    smoke, paper = pictures(tmp_path / "a", "E01"), pictures(tmp_path / "b", "E01", budget="paper")
    written = runs.write(figures.load_plan(PLAN), (), [smoke, paper], tmp_path / "out" / "figures.html")
    assert len(written) == 2
    assert "at the paper budget" in written[1].read_text()


def test_no_runs_at_all(tmp_path: Path) -> None:
    runs.write(figures.load_plan(PLAN), (), [], tmp_path / "figures.html")
    html = (tmp_path / "figures.html").read_text()
    assert "0 of 20 are whole" in html
    assert "<img" not in html
    assert "No results yet" in html


def test_a_vanished_sprite_is_told(tmp_path: Path) -> None:
    run = pictures(tmp_path / "in", "E01")
    run.sprites[0].path.unlink()
    with pytest.raises(ColdbenchError, match=r"test-methods.png is missing; delete .*figures.json"):
        runs.write(figures.load_plan(PLAN), (), [run], tmp_path / "out" / "figures.html")


def test_the_list_is_plain_data(drawn: Path) -> None:
    """Other programs may read it; and paths are relative, so that a folder can be moved."""
    record = json.loads((drawn / "figures.json").read_text())
    assert {part["path"] for part in record["sprites"]} == {
        f"figures/{path.name}" for path in (drawn / "figures").iterdir()
    }
    moved = drawn.rename(drawn.with_name(f"{drawn.name}-moved"))
    (found,) = gallery.load([moved / "figures.json"])
    assert all(sprite.path.is_file() for sprite in found.sprites)
