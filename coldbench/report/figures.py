"""Figures as PNG files: grids of images at whole-number magnification, and the training curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from coldbench.errors import ColdbenchError
from coldbench.files import atomic

Images = NDArray[np.floating[Any]]

DPI = 100
TILE = 96  # pixels on paper per image: 32-pixel images are magnified three times
GAP = 6
SOURCE_PIXELS = 60_000  # per figure: bounds the size of the file, whatever the images hold
COLUMNS = {"degraded": "Degraded", "direct": "Direct", "sampled": "Sampled", "original": "Original"}
STEPS = 8  # columns of a progressive figure before its last two
INK, PALE, BLUE, ORANGE = "#1c2126", "#6b7480", "#0072b2", "#d55e00"


@dataclass(frozen=True)
class Figure:
    """A PNG file of a run and its words; `kind` is four_columns, progressive or training."""

    run: str
    title: str
    kind: str
    path: Path
    caption: str
    alt: str


def four_columns(images: Mapping[str, Images], out: Path, budget: str) -> None:
    """Write the grid Degraded | Direct | Sampled | Original, a row per image, to `out`.

    `images` maps the keys of COLUMNS to arrays (N, C, H, W) in [0, 1]; generated images have no original.
    ColdbenchError if another lacks or shapes differ.
    """
    if absent := [key for key in COLUMNS if key not in images and key != "original"]:
        raise ColdbenchError(f"{out.name}: no {' or '.join(absent)} images")
    shown = [key for key in COLUMNS if key in images]
    labels = {**COLUMNS, "degraded": "Start"} if "original" not in images else COLUMNS
    _grid([images[key] for key in shown], [labels[key] for key in shown], out, budget)


def progressive(
    steps: Sequence[int], states: Images, final: Images | None, out: Path, budget: str, original: Images | None = None
) -> None:
    """Write how sampling proceeds, a row per image, a column per state, then the final and the original images.

    `states` is (K, N, C, H, W) in [0, 1], labelled by `steps` (K severities); of many, evenly spaced ones are shown.
    `final` and `original` are (N, C, H, W). ColdbenchError if the shapes disagree.
    """
    if len(steps) != len(states) or not len(steps):
        raise ColdbenchError(f"{out.name}: {len(steps)} step labels for {len(states)} states")
    picks = np.unique(np.linspace(0, len(steps) - 1, min(STEPS, len(steps))).round().astype(int))
    columns = [states[k] for k in picks]
    labels = [f"t = {steps[k]}" for k in picks]
    for array, label in ((final, "Final"), (original, "Original")):
        if array is not None:
            columns.append(array)
            labels.append(label)
    _grid(columns, labels, out, budget)


def training_curve(log: Sequence[Mapping[str, float]], out: Path, budget: str) -> None:
    """Write loss and throughput over updates; a line of `log` has `updates`, `loss` and `images_per_second`."""
    canvas = Canvas(figsize=(6.4, 4.0), dpi=DPI, layout="constrained")
    FigureCanvasAgg(canvas)
    loss, speed = canvas.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    updates = [line["updates"] for line in log]
    mark = "o" if len(log) < 3 else ""  # a line needs two points
    for axes, key, label, colour in (
        (loss, "loss", "training loss", BLUE),
        (speed, "images_per_second", "images/s", ORANGE),
    ):
        values = np.array([line[key] for line in log], dtype=float)
        axes.plot(updates, values, color=colour, linewidth=1.4, marker=mark)
        axes.set_ylabel(label, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
        axes.tick_params(which="both", colors=PALE)
        if key == "loss" and len(values) and bool(np.all(values > 0)):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    speed.set_ylim(bottom=0)
    speed.set_xlabel("updates", color=INK)
    if not len(log):
        loss.text(0.5, 0.5, "no training log", transform=loss.transAxes, ha="center", color=PALE)
    if mark := _watermark(budget):
        loss.set_title(mark, loc="right", fontsize=8, color=PALE)
    _save(canvas, out)


def _grid(columns: Sequence[Images], labels: Sequence[str], out: Path, budget: str) -> None:
    shapes = {column.shape for column in columns}
    if len(shapes) != 1 or columns[0].ndim != 4 or columns[0].shape[1] not in (1, 3) or not columns[0].size:
        raise ColdbenchError(f"{out.name}: images of shapes {sorted(shapes)}; wanted one (N, 1 or 3, H, W) for all")
    count, _, height, width = columns[0].shape
    rows = int(np.clip(SOURCE_PIXELS // (len(columns) * height * width), 1, count))
    scale = max(1, TILE // width)
    mosaic = _mosaic([column[:rows] for column in columns], scale)
    head, foot = 26, 22 if budget != "paper" else 4
    high, wide = mosaic.shape[0] + head + foot, mosaic.shape[1]
    canvas = Canvas(figsize=(wide / DPI, high / DPI), dpi=DPI)
    FigureCanvasAgg(canvas)
    axes = canvas.add_axes((0, foot / high, 1, mosaic.shape[0] / high))
    axes.imshow(mosaic, interpolation="none", aspect="auto")
    axes.set_axis_off()
    for k, label in enumerate(labels):
        centre = (GAP + width * scale / 2 + k * (width * scale + GAP)) / wide
        canvas.text(centre, 1 - head / 2 / high, label, ha="center", va="center", fontsize=9, color=INK)
    canvas.text(1 - GAP / wide, foot / 2 / high, _watermark(budget), ha="right", va="center", fontsize=7.5, color=PALE)
    _save(canvas, out)


def _mosaic(columns: Sequence[Images], scale: int) -> NDArray[np.uint8]:
    """The images side by side on white, `scale` times magnified: (rows·tile, columns·tile, 3)."""
    rows, _, height, width = columns[0].shape
    high, wide = height * scale, width * scale
    mosaic = np.full((GAP + rows * (high + GAP), GAP + len(columns) * (wide + GAP), 3), 255, dtype=np.uint8)
    for k, column in enumerate(columns):
        pixels = (np.nan_to_num(column).clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
        for n, image in enumerate(pixels.repeat(scale, axis=1).repeat(scale, axis=2)):
            top, left = GAP + n * (high + GAP), GAP + k * (wide + GAP)
            mosaic[top : top + high, left : left + wide] = image
    return mosaic


def _watermark(budget: str) -> str:
    return "" if budget == "paper" else f"{budget} budget: not a replication"


def _save(canvas: Canvas, out: Path) -> None:
    with atomic(out) as temporary:
        canvas.savefig(temporary, format="png", facecolor="white", metadata={"Software": None})
