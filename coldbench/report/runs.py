"""The pages of pictures: the paper's figures, the plots, and a page for every run, with their images beside them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import write_text
from coldbench.report import chart_data, figures, plots
from coldbench.report.figures import Panel, Plan, Strip, View, Wanted
from coldbench.report.gallery import METHODS, Pictures
from coldbench.report.inputs import Score, Scores
from coldbench.report.layout import BUDGETS
from coldbench.report.navigation import FIGURES, render, run_file, table_file
from coldbench.report.page import banner, runs_of
from coldbench.report.sprites import Sprite
from coldbench.report.verdict import metric_name, shown

STAGE, TILE = 256, 96
"""Pixels on the screen of an image that is looked at alone, and of one among others."""
PLAIN = Panel(kind="columns", experiment="")


@dataclass(frozen=True)
class Track:
    """A trajectory for the player: its name and its sprite."""

    label: str
    sprite: Sprite


@dataclass(frozen=True)
class Part:
    """One set of samples as its section of a run's page."""

    name: str
    title: str
    words: str
    comparison: View
    headings: tuple[str, ...]
    sprite: Sprite
    tracks: tuple[Track, ...]
    chains: tuple[View, ...]
    sheet: View | None
    metrics: tuple[str, ...]
    values: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]

    @property
    def severities(self) -> tuple[str, ...]:
        return self.tracks[0].sprite.columns if self.tracks else ()


def write(plan: Plan, scores: Scores, runs: Sequence[Pictures], out: Path, pages: Iterable[str] = ()) -> list[Path]:
    """Write the page of figures to `out`, a page per run into `runs` beside it, and the images into `images`.

    `pages` are the other pages of the report that there are or will be. Returns the pages.
    """
    folder, runs = out.parent, _once(runs)
    there = {*pages, FIGURES, *(run_file(run.metadata.run) for run in runs)}
    shown = [_placed(run, folder) for run in runs]
    charts = [_drawn(chart, folder, _marks(shown)) for chart in chart_data.charts(scores, shown)]
    values = {
        "figures": figures.figures(plan, shown),
        "charts": charts,
        "runs": shown,
        "run_file": run_file,
        "banner": banner(scores),
        "tile_size": tile_size,
        "shown": shown_number,
    }
    write_text(out, render("figures.html", FIGURES, there, **values))
    written = [out]
    for run in shown:
        here = run_file(run.metadata.run)
        write_text(folder / here, _run_page(run, scores, folder, here, there))
        written.append(folder / here)
    return written


def tile_size(pixels: int, wanted: int = TILE) -> int:
    """How large an image of so many pixels is shown among others: in whole multiples, so that pixels stay square."""
    return pixels * max(1, wanted // pixels)


def shown_number(value: float) -> str:
    """A number for a table, a dash for none."""
    return shown(value) if math.isfinite(value) else "–"


def _once(runs: Sequence[Pictures]) -> list[Pictures]:
    """Of runs of one name the one at the largest budget: a page has the name of its run."""
    ranks = {budget: rank for rank, budget in enumerate(BUDGETS)}
    best: dict[str, Pictures] = {}
    for run in sorted(runs, key=lambda r: (r.metadata.run, ranks.get(r.metadata.budget, len(ranks)))):
        best.setdefault(run.metadata.run, run)
    return list(best.values())


def _marks(runs: Iterable[Pictures]) -> dict[str, str]:
    return {run.metadata.run: run.watermark for run in runs}


def _placed(run: Pictures, folder: Path) -> Pictures:
    """The run with its sprites copied into the report's folder, their paths relative to it."""
    sprites = []
    for sprite in run.sprites:
        path = Path("images", run.metadata.run, sprite.path.name)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(sprite.path, folder / path)
        except FileNotFoundError as error:
            raise ColdbenchError(f"{sprite.path} is missing; delete {sprite.path.parents[1]}/figures.json") from error
        sprites.append(replace(sprite, path=path))
    return replace(run, sprites=tuple(sprites))


def _drawn(chart: chart_data.Chart, folder: Path, marks: Mapping[str, str]) -> dict[str, Any]:
    """A chart with the files of its plots."""
    mark = next((mark for mark in marks.values() if mark), "")
    panels = [(axes, _plot(chart, axes, mark, folder)) for axes in chart.panels]
    return {"chart": chart, "panels": panels}


def _plot(chart: chart_data.Chart, axes: chart_data.Axes, mark: str, folder: Path) -> tuple[str, int, int]:
    """Draw one plot; its path in the folder, its width and its height."""
    path = f"images/plots/{axes.name}.svg"
    text, width, height = plots.svg(chart, axes, mark)
    write_text(folder / path, text)
    return path, width, height


def _run_page(run: Pictures, scores: Scores, folder: Path, here: str, there: Iterable[str]) -> str:
    mine = tuple(s for s in scores if (s.run, s.budget) == (run.metadata.run, run.metadata.budget))
    forward = run.find("forward")
    chart = chart_data.training([run])
    number = run.metadata.cell.table
    tables = {n: table_file(n) for n in ([number, "A.7"] if number == "5" else [number]) if table_file(n) in set(there)}
    return render(
        "run.html",
        here,
        there,
        run=run,
        parts=[_part(run, name, mine) for name in run.sets if run.find("methods", name)],
        forward=_whole(run, forward, "Test images, degraded") if forward else None,
        curve=[(axes, _plot(chart, axes, run.watermark, folder)) for axes in chart.panels],
        facts=_facts(run),
        provenance=runs_of(mine),
        tables=tables,
        banner=banner(mine) if mine else banner(scores),
        tile_size=tile_size,
        stage=STAGE,
        figures=FIGURES,
    )


def _facts(run: Pictures) -> list[tuple[str, str]]:
    """The experiment in words: what was degraded, how, by which network and how it was trained."""
    science, about = run.experiment, run.metadata
    origin = run.provenance.get("imported")
    return [
        ("Protocol", f"{about.protocol}: {about.rationale}" if about.rationale else about.protocol),
        ("Data", f"{science['dataset']}, {science['size']} pixels{', embedded' if run.embedded else ''}"),
        ("Degradation", _settings(science["degradation"])),
        ("Network", _settings(science["network"])),
        ("Training", f"imported from {origin}, not trained here" if origin else _settings(science["training"])),
        ("Seed", str(science["seed"])),
        ("Model", run.model[:16]),
    ]


def _settings(values: Mapping[str, Any]) -> str:
    name = values.get("name", "")
    rest = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in values.items() if key != "name")
    return f"{name}: {rest}" if name else rest


def _part(run: Pictures, name: str, scores: Scores) -> Part:
    """One set with its comparison, trajectories, samples and values."""
    sprite = run.find("methods", name)
    assert sprite is not None  # the caller looked
    generated = run.sets[name]["start"] is not None
    rows = Wanted(title=name, shows=name, rows=sprite.rows, panels=[PLAIN])
    headings, strips = figures.compared(run, name, list(METHODS), rows)
    title = f"Generated, {name.replace('_', ' ')}" if generated else f"Restored, {name.replace('_', ' ')}"
    if name in ("test", "generated"):
        title = "Restored test images" if name == "test" else "Generated images"
    kept = [s for s in (run.find("trajectory", name), run.find("naive", name)) if s]
    found = figures.sheet(run, name)
    metrics, values = _values([score for score in scores if score.set == name])
    return Part(
        name,
        title,
        _told(run.sets[name], run.T),
        View(f"{run.metadata.title}, {name}", run.metadata.name, run, headings, strips),
        headings,
        sprite,
        tuple(Track(METHODS[s.method], s) for s in kept),
        tuple(_whole(run, s, METHODS[s.method]) for s in kept),
        View(f"Samples, {name}", run.metadata.name, run, (), found) if found else None,
        metrics,
        values,
    )


def _whole(run: Pictures, sprite: Sprite, label: str) -> View:
    """All tiles of a sprite whose columns are severities."""
    strips = tuple(Strip("", tuple(sprite.place(t, row) for t in sprite.columns)) for row in range(sprite.rows))
    return View(label, run.metadata.name, run, tuple(f"t = {t}" for t in sprite.columns), strips)


def _told(part: Mapping[str, Any], T: int) -> str:
    """How a set was sampled, in a sentence."""
    if start := part["start"]:
        kinds = {
            "means": "from one colour each, drawn from the colours of the training images",
            "grid": "from four large pixels each, drawn from those of the training images",
            "colour": "from one random colour each",
            "partner": "from an image of the other data set each",
            "noise": "from pure noise",
        }
        noise = f", with noise of {start['noise_level']:g} added once" if start["noise_level"] else ""
        return f"{part['images']:,} images were generated {kinds[start['kind']]}{noise}."
    severity = part["severity"] or T
    told = [f"The first {part['images']:,} test images at severity {severity} of {T}"]
    if part["assumed_severity"]:
        told.append(f"taken for severity {part['assumed_severity']}")
    if part["known"] != "drawn":
        told.append("with another draw of what is random told to the sampler")
    if part["stride"] > 1:
        told.append(f"{part['stride']} severities at a time")
    if part["released_shift"]:
        told.append("every D one severity too low, as in the released code")
    return f"{', '.join(told)}{',' * (len(told) > 1)} were restored."


def _values(scores: Sequence[Score]) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[tuple[str, str], ...]], ...]]:
    """The scores of a set: the metrics' names, and per method its values with their intervals."""
    metrics = list(dict.fromkeys((s.metric, s.reference) for s in scores if "per_image" not in s.metric))
    names = tuple(next(metric_name(s) for s in scores if (s.metric, s.reference) == key) for key in metrics)
    labels = {"degraded": "Degraded", **METHODS, "tacos-direct": "TACoS minus direct"}
    rows = []
    for method, label in labels.items():
        mine = {(s.metric, s.reference): s for s in scores if s.method == method}
        if mine:
            rows.append((label, tuple(_cell(mine.get(key)) for key in metrics)))
    return names, tuple(rows)


def _cell(score: Score | None) -> tuple[str, str]:
    if score is None:
        return "–", ""
    interval = f"{shown(score.low)} – {shown(score.high)}" if math.isfinite(score.low + score.high) else ""
    return shown(score.value), interval
