"""Learning curves: every metric against the steps of a training, from its snapshots and its finished model.

A training under way has a curve too, so that one sees when it could stop.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from coldbench.evaluation.scores import Score, Scores
from coldbench.report.cells import in_groups
from coldbench.report.chart_data import DISTANCE, Axes, Chart, Point, Series, by_method, subject_of
from coldbench.report.formats import quantity
from coldbench.report.layout import TABLES, is_method, method_title
from coldbench.report.paper import PaperCell

METRICS = ("ssim", "rmse", DISTANCE)
"""The quantities of the curves, before the FIDs that a run has."""


def learning_curves(scores: Scores, paper: Sequence[PaperCell]) -> Chart:
    """The chart of all trainings with snapshots."""
    return Chart(
        "curves", "Quality against training",
        "The averaged weights at several steps of one training restore the same images. Dotted lines are the numbers "
        "that the paper prints for the row, after its own training.",
        "training steps", "line", tuple(_curves(scores, paper)), "no training has snapshots",
        "snakemake --config budgets='{laptop: {training: {snapshots: [250, 500, 1000]}}}'", log=True,
    )  # fmt: skip


def _curves(scores: Scores, paper: Sequence[PaperCell]) -> Iterator[Axes]:
    usable = [score for score in scores if score.steps and score.finite and is_method(score.method)]
    for training in in_groups(usable, "experiment", "protocol", "budget", "seed"):
        sets = {(score.set, score.n) for score in training if score.snapshot}
        own = [score for score in training if (score.set, score.n) in sets]
        if len({score.steps for score in own}) < 2:
            continue
        last = newest(own, scores)
        fids = sorted({score.metric for score in own if quantity(score.metric) == "fid"})
        subject = subject_of(last, scores)
        for metric in (*METRICS, *fids):
            points = [
                Point(each.method, each.steps, each.value, each.low, each.high, f"{each.steps:,} steps")
                for each in own
                if each.metric == metric and each.reference in ("", "test" if last.set == "test" else "train")
            ]
            plots = by_method(f"curves-{metric}", subject, metric, points)
            yield from _with_paper(plots, last, metric, paper)


def newest(training: Sequence[Score], scores: Scores) -> Score:
    """A score of the model after the most steps of a training, in the row of its experiment.

    A snapshot has no row of its own: it gets the row of a finished model of its experiment among `scores`, if any.
    """
    last = max(training, key=lambda score: score.steps)
    row = next((score for score in (last, *scores) if score.experiment == last.experiment and score.table), last)
    return replace(last, table=row.table, row=row.row)


def _with_paper(plots: Iterable[Axes], whole: Score, metric: str, paper: Sequence[PaperCell]) -> Iterator[Axes]:
    """The plots with the paper's numbers of the row, as lines across the steps."""
    for axes in plots:
        steps = sorted({point.x for line in axes.lines for point in line.points})
        printed = [
            Series(
                line.method, f"paper, {method_title(line.method)}", _level(line.method, cell.value, steps), hollow=True
            )
            for line in axes.lines
            if (cell := printed_cell(whole, line.method, metric, paper))
        ]
        yield replace(axes, lines=(*axes.lines, *printed))


def _level(method: str, value: float, steps: Sequence[float]) -> tuple[Point, ...]:
    return tuple(Point(method, x, value, math.nan, math.nan, f"{x:,.0f} steps") for x in (steps[0], steps[-1]))


def printed_cell(whole: Score, method: str, metric: str, paper: Sequence[PaperCell]) -> PaperCell | None:
    """What the paper prints for a method in the row of a run, in the same quantity; None if nothing."""
    columns = TABLES[whole.table].columns if whole.table in TABLES else ()
    names = {name for column in columns if column.method == method for name in column.paper}
    here = (cell for cell in paper if (cell.table, cell.row) == (whole.table, whole.row) and cell.column in names)
    return next((cell for cell in here if cell.metric == quantity(metric)), None)
