"""The paper's figures from our runs: what `workflow/paper/figures.yaml` asks for, as rows of tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from coldbench.core.files import read_yaml
from coldbench.core.validation import Strict, checked
from coldbench.report.gallery import METHODS, Pictures
from coldbench.report.layout import BUDGETS
from coldbench.report.sprites import Sprite, Tile

STEPS = 9
"""Columns of a progressive figure for which the paper lists no steps."""
CHAIN = 5
"""Frames of a chain in either direction, as in the paper's first figure."""
SIDE_BY_SIDE = 8


class Panel(Strict):
    """One run's part of a figure; what it leaves out is the figure's."""

    kind: Literal["columns", "steps", "chain", "sheet", "rows"]
    experiment: str
    set: str = "test"
    sets: list[str] | None = None
    label: str = ""
    methods: list[str] | None = None
    steps: list[int] | None = None


class Wanted(Strict):
    """A figure: its words, and the panels that it is made of."""

    title: str
    shows: str
    differs: str = ""
    first: int = Field(default=0, ge=0)
    rows: int = Field(default=3, ge=1)
    original: bool = False
    methods: list[str] | None = None
    panels: list[Panel] = Field(min_length=1)


class Plan(Strict):
    """The file: the paper's figures by number, and those of our own by name."""

    figures: dict[int, Wanted]
    beyond: dict[str, Wanted] = Field(default_factory=dict)


@dataclass(frozen=True)
class Strip:
    """A row of tiles and what stands at its left; None leaves a gap."""

    label: str
    tiles: tuple[Tile | None, ...]


@dataclass(frozen=True)
class View:
    """A panel ready to show: labelled columns of tiles. Without a run, `missing` says what is not there."""

    label: str
    experiment: str
    run: Pictures | None
    columns: tuple[str, ...] = ()
    strips: tuple[Strip, ...] = ()
    missing: str = ""

    @property
    def tile(self) -> int:
        """Pixels of a tile in the sprite."""
        return next(tile.sprite.tile for strip in self.strips for tile in strip.tiles if tile)

    @property
    def alt(self) -> str:
        """What a reader is told who does not see it."""
        rows = "; ".join(dict.fromkeys(strip.label for strip in self.strips if strip.label))
        columns = ", ".join(dict.fromkeys(filter(None, self.columns)))
        count = sum(tile is not None for strip in self.strips for tile in strip.tiles)
        told = [self.label, f"{count} images", f"columns: {columns}" * bool(columns), f"rows: {rows}" * bool(rows)]
        return "; ".join(filter(None, told))


@dataclass(frozen=True)
class Figure:
    """A figure and its panels; `number` is the paper's, or 0."""

    name: str
    number: int
    wanted: Wanted
    views: tuple[View, ...]

    @property
    def absent(self) -> tuple[str, ...]:
        """The experiments that are not there."""
        return tuple(dict.fromkeys(view.experiment for view in self.views if view.run is None))


def load_plan(path: Path) -> Plan:
    """The plan in a YAML file; ColdbenchError if it is missing, damaged or asks for what is unknown."""
    return checked(Plan, read_yaml(path), str(path))


def figures(plan: Plan, runs: Sequence[Pictures]) -> list[Figure]:
    """Every figure of the plan from the runs that there are, the paper's in their order."""
    numbered = [(f"figure{number}", number, wanted) for number, wanted in sorted(plan.figures.items())]
    own = [(name, 0, wanted) for name, wanted in plan.beyond.items()]
    return [
        Figure(name, number, wanted, tuple(_view(panel, wanted, runs) for panel in wanted.panels))
        for name, number, wanted in numbered + own
    ]


def chosen(experiment: str, runs: Iterable[Pictures]) -> Pictures | None:
    """The run that stands for an experiment: of its chosen protocol, at the largest budget, of the smallest seed."""
    mine = [run for run in runs if run.metadata.name == experiment and run.metadata.default]
    ranks = {budget: rank for rank, budget in enumerate(BUDGETS)}
    return min(mine, key=lambda r: (ranks.get(r.metadata.budget, len(ranks)), r.experiment["seed"]), default=None)


def _view(panel: Panel, wanted: Wanted, runs: Sequence[Pictures]) -> View:
    run, label = chosen(panel.experiment, runs), panel.label or panel.experiment
    if run is None:
        return View(label, panel.experiment, None, missing=f"run {panel.experiment} missing")
    sets = panel.sets or [panel.set]
    if lacking := [name for name in sets if name not in run.sets]:
        return View(label, panel.experiment, None, missing=f"run {run.metadata.run} has no set {lacking[0]}")
    methods = panel.methods or wanted.methods
    if panel.kind == "columns":
        columns, strips = compared(run, panel.set, methods or ["direct", best(run, panel.set)], wanted)
    elif panel.kind == "steps":
        columns, strips = _steps(run, panel, methods, wanted)
    elif panel.kind == "chain":
        columns, strips = _chain(run, panel.set)
    elif panel.kind == "sheet":
        columns, strips = (), sheet(run, panel.set)
    else:
        columns, strips = (), _rows(run, sets, methods or ["tacos"])
    if not any(tile for strip in strips for tile in strip.tiles):
        return View(label, panel.experiment, None, missing=f"run {run.metadata.run} kept no such images")
    return View(label, panel.experiment, run, columns, strips)


def best(run: Pictures, part: str) -> str:
    """The method whose trajectory was kept."""
    sprite = run.find("trajectory", part)
    return sprite.method if sprite else "tacos"


def heading(column: str, generated: bool) -> str:
    """What stands above a column of a comparison."""
    return {"degraded": "Start" if generated else "Degraded", "original": "Original"}.get(column) or METHODS[column]


def compared(run: Pictures, part: str, methods: Sequence[str], wanted: Wanted) -> tuple[tuple[str, ...], Strips]:
    """The input, some methods and the original, a row per image."""
    sprite = run.find("methods", part)
    if sprite is None:
        return (), ()
    keys = [key for key in ("degraded", *methods, "original") if key in sprite.columns]
    generated = run.sets[part]["start"] is not None
    rows = range(wanted.first, min(wanted.first + wanted.rows, sprite.rows))
    strips = tuple(Strip("", tuple(sprite.place(key, row) for key in keys)) for row in rows)
    return tuple(heading(key, generated) for key in keys), strips


Strips = tuple[Strip, ...]


def _steps(run: Pictures, panel: Panel, methods: list[str] | None, wanted: Wanted) -> tuple[tuple[str, ...], Strips]:
    """Trajectories: a row per method of one image, or per image of one method."""
    own = run.find("trajectory", panel.set)
    if own is None:
        return (), ()
    sprites = [s for m in methods or [own.method] for s in (own, run.find("naive", panel.set)) if s and s.method == m]
    picks = _picked(own.columns, panel.steps)
    original = run.find("methods", panel.set) if wanted.original else None
    strips = []
    for sprite in sprites:
        for row in range(min(1 if len(sprites) > 1 or wanted.original else wanted.rows, sprite.rows)):
            label = METHODS[sprite.method] if len(sprites) > 1 else ""
            first = [original.place("original", row)] if original and "original" in original.columns else []
            strips.append(Strip(label, (*first, *(sprite.place(severity, row) for severity in picks))))
    extra = ("Original",) if original and "original" in original.columns else ()
    return (*extra, *(f"t = {severity}" for severity in picks)), tuple(strips)


def _picked(severities: Sequence[str], steps: Sequence[int] | None) -> list[str]:
    """The severities after the listed numbers of steps, as far as they were kept, and the last; else even ones."""
    if steps:
        wanted = {str(int(severities[0]) - step) for step in steps}
        found = [severity for severity in severities if severity in wanted]
        if len(found) > len(steps) // 2:
            return list(dict.fromkeys([*found, severities[-1]]))
    return [severities[k] for k in _even(len(severities), STEPS)]


def _even(count: int, wanted: int) -> list[int]:
    picks = np.linspace(0, count - 1, min(count, wanted)).round().astype(int)
    return [int(k) for k in np.unique(picks)]


def _chain(run: Pictures, part: str) -> tuple[tuple[str, ...], Strips]:
    """Forward on a test image, then a trajectory back."""
    ahead, back = run.find("forward"), run.find("trajectory", part)
    if ahead is None or back is None:
        return (), ()
    there = [ahead.columns[k] for k in _even(len(ahead.columns), CHAIN)]
    home = [back.columns[k] for k in _even(len(back.columns), CHAIN)]
    tiles = (*(ahead.place(t, 0) for t in there), None, *(back.place(t, 0) for t in home))
    return (*(f"t = {t}" for t in there), "", *(f"t = {t}" for t in home)), (Strip("", tiles),)


def sheet(run: Pictures, part: str) -> Strips:
    """Samples of one set."""
    sprite = run.find("gallery", part)
    return _sheet(sprite) if sprite else ()


def _sheet(sprite: Sprite) -> Strips:
    wide = len(sprite.columns)
    tiles = [sprite.tile_at(k) for k in range(sprite.count)]
    return tuple(Strip("", tuple(tiles[k : k + wide])) for k in range(0, len(tiles), wide))


def _rows(run: Pictures, sets: Sequence[str], methods: Sequence[str]) -> Strips:
    """Results from the same starts, a row per set and method."""
    strips = []
    for part in sets:
        for method in methods:
            sprite = run.find("methods", part)
            if sprite is None or method not in sprite.columns:
                continue
            name = f"{part.capitalize()} symmetry" if len(sets) > 1 else METHODS[method]
            strips.append(
                Strip(name, tuple(sprite.place(method, row) for row in range(min(sprite.rows, SIDE_BY_SIDE))))
            )
    return tuple(strips)
