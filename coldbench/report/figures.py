"""The paper's figures from our runs: the panels that `workflow/paper/figures.yaml` specifies, as rows of images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from coldbench.core.files import read_yaml
from coldbench.core.sampling_settings import Method
from coldbench.core.validation import Name, Strict, checked
from coldbench.report.figure_list import RunFigures
from coldbench.report.layout import budget_rank, method_title
from coldbench.report.sprites import Tile

STEPS = 9
"""Columns of a trajectory for which the paper lists no steps."""
CHAIN = 5
"""Frames of a chain in either direction, as in the paper's first figure."""
RESULTS = 8
"""Images of a row of results."""


class PanelSpec(Strict):
    """One run's part of a figure; the head of the file explains the keys."""

    kind: Literal["comparison", "trajectory", "chain", "samples", "results"]
    experiment: str
    set: str = "test"
    sets: list[str] | None = None
    label: str = ""
    methods: list[Method] | None = None
    steps: list[int] | None = None


class FigureSpec(Strict):
    """A figure: its title, its caption and its panels."""

    title: str
    caption: str
    difference: str = ""
    first_image: int = Field(default=0, ge=0)
    image_rows: int = Field(default=3, ge=1)
    original: bool = False
    methods: list[Method] | None = None
    panels: list[PanelSpec] = Field(min_length=1)


class FigurePlan(Strict):
    """The file: the paper's figures by number, and additional ones by name."""

    figures: dict[int, FigureSpec]
    additional: dict[Name, FigureSpec] = Field(default_factory=dict)


@dataclass(frozen=True)
class ImageRow:
    """A row of tiles and the label at its left; None leaves a gap."""

    label: str
    tiles: tuple[Tile | None, ...]


Columns = tuple[tuple[str, ...], tuple[ImageRow, ...]]
"""The headings of the columns, and the rows below them."""


@dataclass(frozen=True)
class Panel:
    """Labelled columns of tiles. Without a run, `missing` gives the reason."""

    label: str
    experiment: str
    run: RunFigures | None
    columns: tuple[str, ...] = ()
    rows: tuple[ImageRow, ...] = ()
    missing: str = ""

    @property
    def tile(self) -> int:
        """Pixels of a tile in the sprite."""
        return next(tile.sprite.tile for row in self.rows for tile in row.tiles if tile)

    @property
    def alt(self) -> str:
        """The panel as text."""
        rows = "; ".join(dict.fromkeys(row.label for row in self.rows if row.label))
        columns = ", ".join(dict.fromkeys(filter(None, self.columns)))
        count = sum(tile is not None for row in self.rows for tile in row.tiles)
        parts = [self.label, f"{count} images", f"columns: {columns}" * bool(columns), f"rows: {rows}" * bool(rows)]
        return "; ".join(filter(None, parts))


@dataclass(frozen=True)
class Figure:
    """A figure and its panels; `number` is the paper's, or 0."""

    name: str
    number: int
    spec: FigureSpec
    panels: tuple[Panel, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """The experiments without a usable run."""
        return tuple(dict.fromkeys(panel.experiment for panel in self.panels if panel.run is None))


def load_plan(path: Path) -> FigurePlan:
    """The figures in the YAML file `path`. Raises ColdbenchError if the file is missing or invalid."""
    return checked(FigurePlan, read_yaml(path), str(path))


def figures(plan: FigurePlan, runs: Sequence[RunFigures]) -> list[Figure]:
    """Every figure of the plan from the given runs; the paper's figures come first, in their order."""
    numbered = [(f"figure{number}", number, spec) for number, spec in sorted(plan.figures.items())]
    additional = [(name, 0, spec) for name, spec in plan.additional.items()]
    return [
        Figure(name, number, spec, tuple(_panel(panel, spec, runs) for panel in spec.panels))
        for name, number, spec in numbered + additional
    ]


def selected_run(experiment: str, runs: Iterable[RunFigures]) -> RunFigures | None:
    """The run that represents an experiment: of the default protocol, the fullest budget, the smallest seed."""
    candidates = [run for run in runs if run.metadata.name == experiment and run.metadata.default]
    return min(candidates, key=lambda r: (budget_rank(r.metadata.budget), r.experiment.seed), default=None)


def _panel(panel: PanelSpec, spec: FigureSpec, runs: Sequence[RunFigures]) -> Panel:
    run, label = selected_run(panel.experiment, runs), panel.label or panel.experiment
    if run is None:
        missing = f"there is no run of {panel.experiment}"
    elif lacking := [name for name in panel.sets or [panel.set] if name not in run.sets]:
        missing = f"run {run.metadata.run} has no set {lacking[0]}"
    else:
        columns, rows = _images(panel, spec, run)
        if any(tile for row in rows for tile in row.tiles):
            return Panel(label, panel.experiment, run, columns, rows)
        missing = f"run {run.metadata.run} has no such images"
    return Panel(label, panel.experiment, None, missing=missing)


def _images(panel: PanelSpec, spec: FigureSpec, run: RunFigures) -> Columns:
    methods = panel.methods or spec.methods
    if panel.kind == "comparison":
        return comparison(run, panel.set, methods or ["direct", _best(run, panel.set)], spec)
    if panel.kind == "trajectory":
        return _trajectories(run, panel, methods, spec)
    if panel.kind == "chain":
        return _chain(run, panel.set)
    if panel.kind == "samples":
        return (), samples(run, panel.set)
    return (), _results(run, panel.sets or [panel.set], methods or ["tacos"])


def _best(run: RunFigures, set_name: str) -> str:
    """The method whose trajectory a run keeps."""
    sprite = run.find("trajectory", set_name)
    return sprite.method if sprite else "tacos"


def comparison(run: RunFigures, set_name: str, methods: Sequence[str], spec: FigureSpec) -> Columns:
    """The input, some methods and the original, a row per image."""
    sprite = run.find("methods", set_name)
    if sprite is None:
        return (), ()
    keys = [key for key in ("degraded", *methods, "original") if key in sprite.columns]
    generated = run.sets[set_name].start is not None
    labels = {"degraded": "Start" if generated else "Degraded", "original": "Original"}
    images = range(spec.first_image, min(spec.first_image + spec.image_rows, sprite.rows))
    rows = tuple(ImageRow("", tuple(sprite.place(key, image) for key in keys)) for image in images)
    return tuple(labels.get(key) or method_title(key) for key in keys), rows


def _trajectories(run: RunFigures, panel: PanelSpec, methods: Sequence[str] | None, spec: FigureSpec) -> Columns:
    """A row per method for one image, or a row per image for one method."""
    best = run.find("trajectory", panel.set)
    if best is None:
        return (), ()
    available = [sprite for sprite in (best, run.find("naive", panel.set)) if sprite]
    sprites = [sprite for method in methods or [best.method] for sprite in available if sprite.method == method]
    severities = _severities(best.columns, panel.steps)
    comparisons = run.find("methods", panel.set)
    originals = comparisons if spec.original and comparisons and "original" in comparisons.columns else None
    one_image = len(sprites) > 1 or spec.original
    rows = []
    for sprite in sprites:
        for image in range(min(1 if one_image else spec.image_rows, sprite.rows)):
            first = [originals.place("original", image)] if originals else []
            tiles = (*first, *(sprite.place(severity, image) for severity in severities))
            rows.append(ImageRow(method_title(sprite.method) if len(sprites) > 1 else "", tiles))
    headings = ("Original",) if originals else ()
    return (*headings, *(f"t = {severity}" for severity in severities)), tuple(rows)


def _severities(available: Sequence[str], steps: Sequence[int] | None) -> list[str]:
    """The available severities after the listed numbers of steps, and the last; evenly spaced ones without a list."""
    if steps:
        listed = {str(int(available[0]) - step) for step in steps}
        matching = [severity for severity in available if severity in listed]
        if len(matching) > len(steps) // 2:
            return list(dict.fromkeys([*matching, available[-1]]))
    return [available[k] for k in _evenly(len(available), STEPS)]


def _evenly(count: int, at_most: int) -> list[int]:
    indices = np.linspace(0, count - 1, min(count, at_most)).round().astype(int)
    return [int(k) for k in np.unique(indices)]


def _chain(run: RunFigures, set_name: str) -> Columns:
    """The forward process on a test image, then a trajectory back to an image."""
    forward, backward = run.find("forward"), run.find("trajectory", set_name)
    if forward is None or backward is None:
        return (), ()
    degraded = [forward.columns[k] for k in _evenly(len(forward.columns), CHAIN)]
    restored = [backward.columns[k] for k in _evenly(len(backward.columns), CHAIN)]
    tiles = (*(forward.place(t, 0) for t in degraded), None, *(backward.place(t, 0) for t in restored))
    return (*(f"t = {t}" for t in degraded), "", *(f"t = {t}" for t in restored)), (ImageRow("", tiles),)


def samples(run: RunFigures, set_name: str) -> tuple[ImageRow, ...]:
    """The first samples of a set, row by row; none if the run keeps no sheet of them."""
    sprite = run.find("samples", set_name)
    if sprite is None:
        return ()
    width = len(sprite.columns)
    tiles = [sprite.tile_at(k) for k in range(sprite.count)]
    return tuple(ImageRow("", tuple(tiles[k : k + width])) for k in range(0, len(tiles), width))


def _results(run: RunFigures, sets: Sequence[str], methods: Sequence[str]) -> tuple[ImageRow, ...]:
    """Results from the same starts, a row per set and method."""
    rows = []
    for set_name in sets:
        sprite = run.find("methods", set_name)
        for method in methods:
            if sprite and method in sprite.columns:
                label = f"{set_name.capitalize()} symmetry" if len(sets) > 1 else method_title(method)
                tiles = tuple(sprite.place(method, image) for image in range(min(sprite.rows, RESULTS)))
                rows.append(ImageRow(label, tiles))
    return tuple(rows)
