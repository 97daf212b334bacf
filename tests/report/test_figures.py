"""The figures of the paper from any set of runs, the plots, and their pages."""

from __future__ import annotations

import itertools
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
import yaml
from cases import FIGURES, GENERATED, PAPER, PLAIN, ROOT, run_figures, score
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coldbench.core.config import TableCell
from coldbench.core.sampling_settings import Sampling
from coldbench.evaluation.scores import Score, read_scores, without_snapshots
from coldbench.report import chart_data, figure_list, figures, plots, run_pages
from coldbench.report.curves import learning_curves
from coldbench.report.figure_list import Distance, LogLine, RunFigures
from coldbench.report.figures import FigureSpec, PanelSpec, comparison
from coldbench.report.layout import in_order
from coldbench.report.sprites import Sheet, write

PLAN = figures.load_plan(FIGURES)

# --- the paper's figures


def test_grid_makes_everything_that_the_figures_show() -> None:
    assert list(PLAN.figures) == list(range(1, 21))
    grid = yaml.safe_load((ROOT / "workflow/config/paper.yaml").read_text())["grid"]
    for spec in [*PLAN.figures.values(), *PLAN.additional.values()]:
        for panel in spec.panels:
            sampling = grid[panel.experiment].get("sampling", {})
            sets = sampling.get("sets", {"test": {}})
            for name in panel.sets or [panel.set]:
                assert name in sets, (spec.title, panel)
                methods = sets[name].get("methods") or sampling.get("methods") or Sampling().methods
                assert set(panel.methods or spec.methods or []) <= set(methods), (spec.title, panel)


def test_every_kind_of_panel_shows_the_right_tiles(tmp_path: Path) -> None:
    runs = [run_figures(tmp_path, name) for name in ("E01", "E04", "E07")]
    runs.append(run_figures(tmp_path, "E15_celeba", T=300, channels=3, sets=GENERATED))
    by_name = {figure.name: figure for figure in figures.figures(PLAN, runs)}
    assert len(by_name) == 23
    first = {name: figure.panels[0] for name, figure in by_name.items()}

    comparison = first["figure3"]
    assert comparison.columns == ("Degraded", "Direct", "TACoS", "Original")
    tiles = [[(tile.sprite.columns[tile.column], tile.row) for tile in row.tiles if tile] for row in comparison.rows]
    assert tiles[1] == [("degraded", 1), ("direct", 1), ("tacos", 1), ("original", 1)]
    assert [row.tiles[0].row for row in first["figure9"].rows if row.tiles[0]] == list(range(3, 12))
    assert [panel.run is None for panel in by_name["figure3"].panels] == [False, True, True]
    assert by_name["figure3"].missing == ("E02", "E03")

    steps = [2, 4, 8, 16, 32, 64, 128, 192, 256]
    both = first["figure2"]
    assert both.columns == (*(f"t = {300 - step}" for step in steps), "t = 0")
    labels = [(row.label, row.tiles[0].sprite.kind) for row in both.rows if row.tiles[0]]
    assert labels == [("Algorithm 1", "naive"), ("TACoS", "trajectory")]
    there, back = (tuple(f"t = {t}" for t in order) for order in ((0, 75, 150, 225, 300), (300, 225, 150, 75, 0)))
    assert by_name["figure1"].panels[1].columns == (*there, "", *back)
    assert first["figure12"].columns[:2] == ("Original", "t = 6")
    assert len(first["figure7"].rows) == 2
    assert "16 images" in first["figure7"].alt
    assert [row.label for row in first["figure18"].rows] == ["Algorithm 1", "TACoS"]
    assert [row.label for row in first["symmetry"].rows] == ["Perfect symmetry", "Broken symmetry"]
    assert first["figure17"].columns == ("Start", "Direct", "TACoS")
    assert len(first["figure17"].rows) == 6
    lacking = runs[-1].model_copy(update={"sets": {"perfect": GENERATED["perfect"]}})
    panel = figures.figures(PLAN, [lacking])[1].panels[0]
    assert panel.missing == "run E15_celeba-a has no set broken"


def test_default_protocol_at_the_fullest_budget_represents_an_experiment(tmp_path: Path) -> None:
    smoke = run_figures(tmp_path, "E01")
    paper = run_figures(tmp_path, "E01", budget="paper")
    other = run_figures(tmp_path, "E01", budget="paper", default=False)
    assert figures.selected_run("E01", [other, smoke, paper]) is paper
    assert figures.selected_run("E01", [other]) is None


# --- plots


def scored(run: str, set_name: str, method: str, value: float, **changes: Any) -> Score:
    return score(**{"run": run, "set": set_name, "method": method, "metric": "ssim", "value": value, "budget": "smoke",
                    **changes})  # fmt: skip


@pytest.fixture
def measured(tmp_path: Path) -> tuple[list[RunFigures], tuple[Score, ...]]:
    """A model that was sampled normally, in larger steps, and with a wrong severity; distances of fewer images."""
    base = run_figures(tmp_path, "E01", T=20)
    few = Distance(
        set="test", method="tacos", metric="frechet_gabor", reference="test", value=9.0, low=8.0, high=10.0, n=4,
        singular=True,
    )  # fmt: skip
    base = base.model_copy(update={"distances": (few,)})
    changes = {"every_9": {"stride": 9}, "half": {"severity": 10}, "wrong": {"severity": 10, "assumed_severity": 5}}
    sets = {name: PLAIN.model_copy(update=change) for name, change in changes.items()}
    other = run_figures(tmp_path, "A4", T=20, sets=sets, cell=TableCell()).model_copy(update={"model": base.model})
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


def test_charts_hold_the_scores(measured: tuple[list[RunFigures], tuple[Score, ...]]) -> None:
    runs, scores = measured
    charts = {chart.name: chart for chart in chart_data.charts(scores, runs)}
    steps = charts["steps"].panels[0]
    points = {line.label: [(point.x, point.y) for point in line.points] for line in steps.lines}
    assert points == {"TACoS": [(3, 0.6), (20, 0.7)], "Direct": [(1, 0.8)]}
    assert steps.title == "Title E01"
    assert "TACoS 0.6000 at 3, 0.7000 at 20" in steps.alt
    (line,) = charts["number"].panels[0].lines
    assert [(point.x, point.y) for point in line.points] == [(4, 9.0), (32, 5.0)]
    fid, kid = charts["ladder"].panels
    assert [point.label for point in fid.lines[0].points] == ["clean, test", "legacy_pytorch, train"]
    assert [point.y for point in kid.lines[0].points] == [0.1]
    wrong = charts["wrong"].panels[0].lines[0]
    assert [(p.label, p.y) for p in wrong.points][1:] == [("true severity", 0.9), ("assumes 5, true 10", 0.3)]
    assert [axes.title.split(":")[0] for axes in charts["training"].panels] == ["Title E01"]  # one model, once
    empty = chart_data.charts((), [])
    assert all(chart.missing and chart.command.startswith("snakemake") and not chart.panels for chart in empty)


def test_every_plot_has_a_file_and_a_title_of_its_own_and_the_watermark_of_its_run() -> None:
    """On the published runs, which hold several seeds of one experiment, and on copies of them at other budgets."""
    folders = sorted((ROOT / "results/published").glob("*/*/*/figures.json"))
    runs, scores = figure_list.load(folders), read_scores([path.with_name("scores.parquet") for path in folders])
    assert len({run.experiment.seed for run in runs}) > 1
    for run in list(runs):
        about = run.metadata.model_copy(update={"budget": f"longer-{run.metadata.budget}"})
        runs += (run.model_copy(update={"metadata": about, "model": f"longer {run.model}"}),)
    scores += tuple(replace(score, budget=f"longer-{score.budget}") for score in scores)
    distances = {"fid_clean": 9.0, "kid_clean": 0.1}
    scores += tuple(
        replace(score, metric=metric, value=value)
        for score in scores
        for metric, value in distances.items()
        if score.metric == "frechet_gabor" and not score.snapshot
    )
    files = []
    for chart in [learning_curves(scores, PAPER), *chart_data.charts(without_snapshots(scores), runs)]:
        assert chart.panels or chart.name == "wrong"
        titles = [(axes.title, axes.axis) for axes in chart.panels]
        assert len(set(titles)) == len(titles), chart.name
        for axes in chart.panels:
            budget = axes.name.partition("/")[0]
            assert axes.watermark == f"{budget} budget: not a replication"
            assert f"{budget} budget" in axes.title
            files.append(axes.name)
    assert {"laptop", "longer-laptop"} <= {name.partition("/")[0] for name in files}
    assert len(set(files)) == len(files)


def test_plot_is_valid_reproducible_themed_and_self_contained(
    measured: tuple[list[RunFigures], tuple[Score, ...]],
) -> None:
    for chart in chart_data.charts(measured[1], measured[0]):
        for axes in chart.panels:
            text, width, height = plots.svg(chart, axes)
            assert ElementTree.fromstring(text).tag.endswith("svg")
            assert width > 200 < height
            assert not re.findall(r"(?:href|src)=\"(?!#)", text), axes.name
            body = text.partition("</style>")[2]
            assert not set(re.findall(r": (#[0-9a-f]{6})", body)) - {"#ffffff"}, axes.name  # colours have names
            assert "prefers-color-scheme: dark" in text
            assert text == plots.svg(chart, axes)[0]


@pytest.mark.parametrize("losses", [[0.3], [0.3, math.nan, 0.1], [0.3, 0.2, 0.0], [2.0, 0.004]])
def test_any_training_log_has_a_curve(tmp_path: Path, losses: list[float]) -> None:
    log = tuple(LogLine(float(k), loss, 9.0, 1.0) for k, loss in enumerate(losses))
    run = run_figures(tmp_path, "E01").model_copy(update={"training": log})
    chart = chart_data.training([run])
    assert ElementTree.fromstring(plots.svg(chart, chart.panels[0])[0]).tag.endswith("svg")
    assert not chart_data.training([run.model_copy(update={"training": ()})]).panels


def test_learning_curves_hold_snapshots_and_finished_models_with_the_papers_numbers() -> None:
    def at(steps: int, value: float, **changes: Any) -> Score:
        own = {"run": f"E01-fitted-{steps}steps", "table": "", "row": "", "snapshot": True, "default": False}
        return score(
            method="tacos", metric="ssim", value=value, steps=steps, **({} if steps == 2000 else own), **changes
        )

    scores = (at(500, 0.6), at(1000, 0.7), at(2000, 0.72), at(2000, 0.1, set="half"), score(metric="ssim"))
    (axes,) = learning_curves((*scores, at(9, 0.5, seed=1)), PAPER).panels  # one model is no curve
    lines = {line.label: [(point.x, point.y) for point in line.points] for line in axes.lines}
    printed = next(c.value for c in PAPER if (c.table, c.row, c.column, c.metric) == ("1", "MNIST", "sampled", "ssim"))
    assert lines == {
        "TACoS": [(500, 0.6), (1000, 0.7), (2000, 0.72)],
        "paper, TACoS": [(500, printed), (2000, printed)],
    }
    assert not learning_curves((at(2000, 0.72),), PAPER).panels
    (axes,) = learning_curves((scores[0], scores[1], score(metric="ssim", seed=1)), PAPER).panels  # under way
    assert [[(p.x, p.y) for p in line.points] for line in axes.lines] == [
        [(500, 0.6), (1000, 0.7)],
        [(500, printed), (1000, printed)],
    ]
    assert without_snapshots(scores) == scores[2:]


@given(steps=st.sets(st.integers(1, 10**6), min_size=2, max_size=8))
@example(steps={6_000, 15_000, 30_000, 45_000, 60_000})
@settings(max_examples=20, deadline=None)
def test_the_labels_of_steps_do_not_touch(steps: set[int]) -> None:
    """And those of the first and the last one are always there."""
    first, *_, last = sorted(steps)
    scores = [
        score(run=f"E01-{k}", method="tacos", metric="ssim", value=0.5, steps=k, snapshot=True, table="", row="")
        for k in steps
    ]
    chart = learning_curves(scores, PAPER)
    figure = plots.drawn(chart, chart.panels[0])
    figure.draw_without_rendering()
    labels = figure.axes[0].get_xticklabels()
    assert [labels[0].get_text(), labels[-1].get_text()] == [f"{first:,}", f"{last:,}"]
    places = [label.get_window_extent() for label in labels]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(places))


# --- pages


def test_pages_show_existing_images_and_name_the_missing_ones(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out" / "figures.html"
    runs = [run_figures(source, "E01"), run_figures(source, "E15_celeba", channels=3, sets=GENERATED)]
    pages = run_pages.write(PLAN, (), runs, out)
    names = ["figures.html", "runs/smoke/E01-a.html", "runs/smoke/E15_celeba-a.html"]
    assert [str(path.relative_to(out.parent)) for path in pages] == names
    html = out.read_text()
    assert html.count("<h2>Figure ") == 20
    command = "<code>snakemake --config experiments=E02</code>"
    assert f"is missing: there is no run of E02. To run it: {command}" in html
    assert html.count("Smoke budget: not a replication") == html.count("<figcaption><strong>") > 10
    for path in pages:
        text = path.read_text()
        assert "://" not in re.sub(r"http://www.w3.org/\S+", "", text)
        for target in re.findall(r"(?:src|href)=\"([^\"#]+)", text):
            assert target.startswith("data:") or (path.parent / unquote(target)).is_file(), target
    static = re.sub(r"<div class=\"viewer.*?\n</div>\n", "", pages[1].read_text(), flags=re.DOTALL)
    assert static.count('<span class="tile"><img src=') == 12 * 5 + 2 * 6 * 7 + 6 * 7  # all, also without a script
    assert "script-src 'sha256-" in pages[1].read_text()
    assert "script-src 'none'" in html


def test_pages_of_figures_escape_names(tmp_path: Path) -> None:
    script = "<script>alert('x')</script>"
    run = run_figures(tmp_path / "in", "E01", title=script, rationale=script)
    experiment = run.experiment.model_copy(update={"dataset": script})
    run = run.model_copy(update={"experiment": experiment, "provenance": {"imported": script}})
    out = tmp_path / "out" / "figures.html"
    for path in run_pages.write(PLAN, (), [run], out):
        assert "<script>alert" not in path.read_text()
    assert not [path for path in out.parent.rglob("*.svg") if "<script" in path.read_text()]
    assert "&lt;script&gt;" in (out.parent / "runs/smoke/E01-a.html").read_text()


def test_run_at_two_budgets_has_a_page_for_each(tmp_path: Path) -> None:
    smoke, paper = run_figures(tmp_path / "a", "E01"), run_figures(tmp_path / "b", "E01", budget="paper")
    scores = tuple(
        score(run="E01-a", budget=budget, provenance=json.dumps({"device": f"device of {budget}"}))
        for budget in ("smoke", "paper")
    )
    pages = run_pages.write(PLAN, scores, [smoke, paper], tmp_path / "out" / "figures.html")
    assert [path.parent.name for path in pages[1:]] == ["paper", "smoke"]
    for path, budget, other in zip(pages[1:], ("paper", "smoke"), ("smoke", "paper"), strict=True):
        html = path.read_text()
        assert f"at the {budget} budget" in html
        assert f"device of {budget}" in html
        assert f"device of {other}" not in html
    images = {path.parent.parent.name for path in (tmp_path / "out/images").rglob("*.png")}
    assert images >= {"paper", "smoke"}


def test_page_without_runs_has_no_image_and_missing_sprite_is_an_error(tmp_path: Path) -> None:
    run_pages.write(PLAN, (), [], tmp_path / "figures.html")
    html = (tmp_path / "figures.html").read_text()
    assert "0 of 20 figures are complete" in html
    assert "<img" not in html
    assert "No results yet" in html


def test_methods_of_plug_ins_are_shown_after_those_of_the_suite(tmp_path: Path) -> None:
    """Tiles, scores and charts name them by their labels."""
    run = run_figures(tmp_path, "X1", sets={"test": PLAIN.model_copy(update={"methods": ["mine_a1", "tacos"]})})
    columns = ("degraded", *in_order(["mine_a1", "tacos"]), "original")
    assert columns == ("degraded", "tacos", "mine_a1", "original")
    tiles = np.random.default_rng(0).random((8, 1, 8, 8))
    sprite = write(Sheet("test-methods", tiles, "methods", columns, "test"), tmp_path)
    run = run.model_copy(update={"sprites": (sprite,)})
    spec = FigureSpec(title="", caption="", image_rows=2, panels=[PanelSpec(kind="comparison", experiment="X1")])
    headings, _ = comparison(run, "test", ["tacos", "mine_a1"], spec)
    assert headings == ("Degraded", "TACoS", "mine_a1", "Original")
    own = [
        score(run=run.metadata.run, budget=run.metadata.budget, method=method, metric="ssim", value=value)
        for method, value in (("mine_a1", 0.9), ("tacos", 0.8), ("degraded", 0.1), ("tacos-direct", 0.2))
    ]
    _, rows = run_pages._values(own)
    assert [label for label, _ in rows] == ["Degraded", "TACoS", "mine_a1", "TACoS minus direct"]
    assert [s.method for s in chart_data._scores_of(tuple(own), run, "test", "ssim")] == ["mine_a1", "tacos"]
    points = [chart_data._point(4, each, "4") for each in own[:2]]
    (axes,) = chart_data.by_method("x", chart_data.Subject("x", "x", ""), "ssim", points)
    assert [line.label for line in axes.lines] == ["TACoS", "mine_a1"]
    chart = chart_data.Chart("x", "x", "", "NFE", "line", (axes,))
    assert plots.svg(chart, axes)[0].count("<svg ") == 1
