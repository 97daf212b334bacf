"""The page "Methods": the ranking of every task, differences from the baseline, and plots of quality against NFE."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from coldbench.core.files import write_text
from coldbench.evaluation.scores import Scores
from coldbench.report.chart_data import Axes, Chart, Point, Series
from coldbench.report.entries import KNOWN, Quantity
from coldbench.report.formats import p_value, seconds_each
from coldbench.report.layout import method_title
from coldbench.report.methods import Row, Task
from coldbench.report.navigation import METHODS, ReportFolder
from coldbench.report.pages import banner
from coldbench.report.run_pages import draw_plots


def write(tasks: Sequence[Task], baseline: str, scores: Scores, folder: ReportFolder) -> None:
    """Write the page and its plots into the folder of the report."""
    charts = {task.name: draw_plots(quality_against_nfe(task), folder.path) for task in tasks}
    without = sorted({run for task in tasks for run in task.without_values})
    html = folder.render(
        "methods.html",
        METHODS,
        tasks=tasks,
        charts=charts,
        baseline=method_title(baseline),
        without=without,
        banner=banner(scores),
        p_value=p_value,
        seconds_each=seconds_each,
    )
    write_text(folder.path / METHODS, html)


def quality_against_nfe(task: Task) -> Chart:
    """For every metric of a task: its values against NFE, and the degraded images as a level. No panel without NFE."""
    panels = tuple(axes for quantity in task.quantities for axes in _axes(task, quantity))
    return Chart(task.name, "Quality against NFE", "", "network evaluations per image", "line", panels, log=True)


def _axes(task: Task, quantity: Quantity) -> Iterable[Axes]:
    lines: dict[tuple[Any, ...], list[Row]] = {}
    for row in task.rows:
        score, estimate = row.entry.score, row.estimates.get(quantity.metric)
        if estimate and math.isfinite(estimate.value) and math.isfinite(row.entry.nfe) and row.entry.nfe > 0:
            # Several strides of one model are a line, unless the sampler assumes something else.
            entry, model = row.entry, row.entry.facts.get("model")
            other = entry.settings.get("assumed_severity"), entry.settings.get("released_shift")
            lines.setdefault((score.method, score.known, model, score.budget, other), []).append(row)
    series = [_series(rows, quantity) for rows in lines.values()]
    levels = [(row.entry.title, row.estimates[quantity.metric].value) for row in task.rows if _is_level(row, quantity)]
    if series:
        title = f"{quantity.label}: {task.title}"
        yield Axes(
            f"methods-{task.name}-{quantity.metric}",
            title,
            quantity.label,
            tuple(series),
            tuple(levels[:1]),
            task.watermark,
        )


def _is_level(row: Row, quantity: Quantity) -> bool:
    return row.entry.degraded and math.isfinite(row.estimates[quantity.metric].value)


def _series(rows: Sequence[Row], quantity: Quantity) -> Series:
    points = []
    for row in sorted(rows, key=lambda row: row.entry.nfe):
        estimate, nfe = row.estimates[quantity.metric], row.entry.nfe
        label = f"{nfe:,.0f} evaluations"
        points.append(Point(row.entry.score.method, nfe, estimate.value, estimate.low, estimate.high, label))
    entry = rows[0].entry
    redrawn = entry.score.known == "redrawn"
    label = entry.title + (f", {KNOWN['redrawn']}" if redrawn else "")
    return Series(entry.score.method, label, tuple(points), hollow=redrawn)
