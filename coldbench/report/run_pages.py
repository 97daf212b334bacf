"""The page of the paper's figures and the plots, and a page for every run; their images lie in the report's folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coldbench.core.files import copy, write_text
from coldbench.evaluation.scores import Score, Scores, without_snapshots
from coldbench.report import chart_data, figures, plots
from coldbench.report.curves import learning_curves
from coldbench.report.figure_list import RunFigures
from coldbench.report.figures import FigurePlan, FigureSpec, ImageRow, Panel, PanelSpec
from coldbench.report.formats import interval, metric_name, settings_text, shown
from coldbench.report.layout import TABLES, budget_rank, in_order, method_title, run_page
from coldbench.report.navigation import FIGURES, ReportFolder
from coldbench.report.pages import banner
from coldbench.report.paper import PaperCell
from coldbench.report.provenance import runs_of
from coldbench.report.sprites import Sprite
from coldbench.sampling.manifest import SampledSet

STAGE, TILE = 256, 96
"""CSS pixels of an image that stands alone, and of one among others."""
STARTS = {
    "means": "from one colour each, drawn from the colours of the training images",
    "grid": "from four large pixels each, drawn from those of the training images",
    "colour": "from one random colour each",
    "partner": "from an image of the other data set each",
    "noise": "from pure noise",
}
TITLES = {"test": "Restored test images", "generated": "Generated images"}
LABELS = {"degraded": "Degraded", "tacos-direct": "TACoS minus direct"}
"""The titles of what the scores name beside methods."""


@dataclass(frozen=True)
class Plot:
    """An SVG file in the folder of the report, and its size in CSS pixels."""

    path: str
    width: int
    height: int


@dataclass(frozen=True)
class SampleSet:
    """One set of samples as a section of a run's page; `values` are the scores, a row per method."""

    name: str
    title: str
    text: str
    comparison: Panel
    sprite: Sprite
    trajectories: tuple[Sprite, ...]
    chains: tuple[Panel, ...]
    samples: Panel | None
    metrics: tuple[str, ...]
    values: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]

    @property
    def severities(self) -> tuple[str, ...]:
        return self.trajectories[0].columns if self.trajectories else ()


def write(
    plan: FigurePlan,
    scores: Scores,
    runs: Sequence[RunFigures],
    out: Path,
    made_from: str = "",
    paper: Sequence[PaperCell] = (),
) -> list[Path]:
    """Write the page of figures to `out`, a page for each run into `runs` beside it, and images into `images`.

    `paper` holds the printed numbers, for the learning curves.

    Returns the paths of the pages. Nothing else in the folder changes, so pages of other runs stay.
    """
    folder = ReportFolder(out.parent, made_from)
    ordered = sorted(runs, key=lambda run: (run.metadata.run, budget_rank(run.metadata.budget)))
    placed = [_with_images(run, folder.path) for run in ordered]
    every = [learning_curves(scores, paper), *chart_data.charts(without_snapshots(scores), placed)]
    charts = [(chart, draw_plots(chart, folder.path)) for chart in every]
    pages = [run_page(run.metadata.budget, run.metadata.run) for run in placed]
    for run, page in zip(placed, pages, strict=True):
        write_text(folder.path / page, _run_page(run, scores, folder, [FIGURES, *pages]))
    values = {"figures": figures.figures(plan, placed), "charts": charts, "banner": banner(scores)}
    html = folder.render("figures.html", FIGURES, pages, **values, tile_size=tile_size)
    write_text(out, html)
    return [out, *(folder.path / page for page in pages)]


def tile_size(pixels: int, at_most: int = TILE) -> int:
    """CSS pixels of a tile of so many pixels: a whole multiple, so that all pixels are equal squares."""
    return pixels * max(1, at_most // pixels)


def _with_images(run: RunFigures, folder: Path) -> RunFigures:
    """The run with its sprites copied into the folder of the report, and their paths relative to it."""
    sprites = []
    for sprite in run.sprites:
        path = Path("images", run.metadata.budget, run.metadata.run, sprite.path.name)
        copy(sprite.path, folder / path)
        sprites.append(sprite.model_copy(update={"path": path}))
    return run.model_copy(update={"sprites": tuple(sprites)})


def draw_plots(chart: chart_data.Chart, folder: Path) -> list[tuple[chart_data.Axes, Plot]]:
    """Write the plots of a chart into `images/plots` in the folder of the report; each with its file."""
    drawn = []
    for axes in chart.panels:
        path = f"images/plots/{axes.name}.svg"
        text, width, height = plots.svg(chart, axes)
        write_text(folder / path, text)
        drawn.append((axes, Plot(path, width, height)))
    return drawn


def _run_page(run: RunFigures, scores: Scores, folder: ReportFolder, soon: Iterable[str]) -> str:
    own = tuple(s for s in scores if (s.run, s.budget) == (run.metadata.run, run.metadata.budget))
    forward = run.find("forward")
    sets = [_sample_set(run, name, own) for name in run.sets if run.find("methods", name)]
    values = {
        "run": run,
        "sets": sets,
        "forward": _all_tiles(run, forward, "Test images, degraded") if forward else None,
        "curves": draw_plots(chart_data.training([run]), folder.path),
        "facts": _facts(run),
        "provenance": runs_of(own, {}),
        "tables": [table for table in TABLES.values() if run.metadata.cell.table in table.sources],
        "banner": banner(own) if own else banner(scores),
    }
    values |= {"tile_size": tile_size, "stage": STAGE, "FIGURES": FIGURES}
    return folder.render("run.html", run_page(run.metadata.budget, run.metadata.run), soon, **values)


def _facts(run: RunFigures) -> list[tuple[str, str]]:
    experiment, metadata = run.experiment, run.metadata
    imported = run.provenance.get("imported")
    rationale = f": {metadata.rationale}" if metadata.rationale else ""
    embedded = ", embedded" if run.embedded else ""
    training = settings_text(experiment.training.model_dump())
    return [
        ("Protocol", metadata.protocol + rationale),
        ("Data", f"{experiment.dataset}, {experiment.size} pixels{embedded}"),
        ("Degradation", settings_text(experiment.degradation)),
        ("Network", settings_text(experiment.network.model_dump())),
        ("Training", f"imported from {imported}, not trained here" if imported else training),
        ("Seed", str(experiment.seed)),
        ("Model", run.model[:16]),
    ]


def _sample_set(run: RunFigures, name: str, scores: Scores) -> SampleSet:
    sprite = run.find("methods", name)
    assert sprite is not None  # the caller has looked
    generated = run.sets[name].start is not None
    methods = [column for column in sprite.columns if column not in ("degraded", "original")]
    every_row = FigureSpec(
        title=name, caption="", image_rows=sprite.rows, panels=[PanelSpec(kind="comparison", experiment="")]
    )
    columns, rows = figures.comparison(run, name, methods, every_row)
    experiment, title = run.metadata.name, f"{'Generated' if generated else 'Restored'}, {name.replace('_', ' ')}"
    sprites = [sprite for sprite in (run.find("trajectory", name), run.find("naive", name)) if sprite]
    samples = figures.samples(run, name)
    metrics, values = _values([score for score in scores if score.set == name])
    return SampleSet(
        name=name,
        title=TITLES.get(name, title),
        text=_sampling_text(run.sets[name], run.T),
        comparison=Panel(f"{run.metadata.title}, {name}", experiment, run, columns, rows),
        sprite=sprite,
        trajectories=tuple(sprites),
        chains=tuple(_all_tiles(run, sprite, method_title(sprite.method)) for sprite in sprites),
        samples=Panel(f"Samples, {name}", experiment, run, (), samples) if samples else None,
        metrics=metrics,
        values=values,
    )


def _all_tiles(run: RunFigures, sprite: Sprite, label: str) -> Panel:
    """All tiles of a sprite whose columns are severities."""
    rows = tuple(ImageRow("", tuple(sprite.place(t, row) for t in sprite.columns)) for row in range(sprite.rows))
    return Panel(label, run.metadata.name, run, tuple(f"t = {t}" for t in sprite.columns), rows)


def _sampling_text(sampled: SampledSet, T: int) -> str:
    if start := sampled.start:
        noise = f", with noise of {start.noise_level:g} added to the start" if start.noise_level else ""
        return f"{sampled.images:,} images were generated {STARTS[start.kind]}{noise}."
    severity = sampled.severity or T
    sentences = [f"The first {sampled.images:,} test images were degraded at severity {severity} of {T} and restored"]
    if sampled.assumed_severity:
        sentences.append(f"The sampler assumed severity {sampled.assumed_severity}")
    if sampled.known != "drawn":
        sentences.append("The sampler used another random draw than the degradation")
    if sampled.stride > 1:
        sentences.append(f"Each step of the sampler took {sampled.stride} severities")
    if sampled.released_shift:
        sentences.append("Every D had a severity that is one too low, as in the released code")
    return " ".join(f"{sentence}." for sentence in sentences)


def _values(scores: Sequence[Score]) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[tuple[str, str], ...]], ...]]:
    """The scores of a set: the names of the metrics, and for each method its values with their intervals."""
    shown_scores = [score for score in scores if "per_image" not in score.metric]
    names = {(score.metric, score.reference): metric_name(score) for score in reversed(shown_scores)}
    columns = dict.fromkeys((score.metric, score.reference) for score in shown_scores)
    rows = []
    methods = in_order(s.method for s in scores if s.method not in LABELS)
    for method in ("degraded", *methods, "tacos-direct"):
        texts = {
            (s.metric, s.reference): (shown(s.value), interval(s.low, s.high)) for s in scores if s.method == method
        }
        if texts:
            label = LABELS.get(method) or method_title(method)
            rows.append((label, tuple(texts.get(column, ("–", "")) for column in columns)))
    return tuple(names[column] for column in columns), tuple(rows)
