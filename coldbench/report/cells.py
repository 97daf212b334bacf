"""All places of all tables as one DataFrame: our values beside the printed numbers, with verdicts and reasons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import pandas as pd

from coldbench.core.errors import unknown
from coldbench.core.files import read_json
from coldbench.core.sampling_settings import REDRAWN
from coldbench.core.validation import Strict, checked
from coldbench.evaluation.scores import Score, Scores
from coldbench.report.formats import LABELS, metric_label, metric_name, quantity
from coldbench.report.layout import TABLES, Column, Measure, Table, budget_rank
from coldbench.report.paper import PaperCell
from coldbench.report.verdict import judge, judge_calibrated


@dataclass(frozen=True)
class Cell:
    """One place of a table: a column of the frame is a field.

    `in_paper` marks the rows of the paper, and `row` is their label; the other rows are further runs. Without a run,
    `run` is "". Without a value of ours, `metric` is "" and the numbers are NaN or None; `measure` is the paper's
    metric of the line in any case. Without a printed number, `paper` is "". `difference` is ours minus the paper's, and
    NaN if the two measure different quantities. `known` is what the sampler knew of the degradation, as in `Score`, and
    `redrawn` our value where it knows another draw than that of the image, with the bounds of its interval. A value is
    the mean over `trainings` with their standard deviation `spread`, NaN for one training. `calibrated` names the
    interpretation of the calibration that gave a value of degraded images without a run, "" for any other value.
    """

    table: str
    in_paper: bool
    row: str
    run: str
    protocol: str
    budget: str
    dataset: str
    dataset_title: str
    column: str
    set: str
    method: str
    measure: str
    metric: str
    metric_name: str
    reference: str
    n: int | None
    seed: int | None
    singular: bool
    trainings: int
    spread: float
    value: float
    low: float
    high: float
    known: str
    redrawn: float
    redrawn_low: float
    redrawn_high: float
    paper_cell: str
    paper_metric: str
    paper: str
    paper_value: float
    tolerance: float
    erratum: str
    note: str
    difference: float
    verdict: str
    reason: str
    calibrated: str

    @property
    def title(self) -> str:
        """The name of the row."""
        return self.row or self.dataset_title

    @property
    def label(self) -> str:
        """The name of the measured quantity; only without a value of ours it is the paper's metric."""
        return metric_label(self.metric or self.measure)

    @property
    def printed(self) -> str:
        """The paper's number, with the name of its metric if ours measures another quantity: "FID 438.59"."""
        same = not self.metric or quantity(self.metric) == self.paper_metric
        return self.paper if same or not self.paper else f"{LABELS[self.paper_metric]} {self.paper}"


@dataclass(frozen=True)
class Calibrated:
    """A value of degraded images from the calibration: by one interpretation of the paper, of `n` images."""

    interpretation: str
    source: str
    value: float
    n: int


CalibratedCells = Mapping[tuple[str, str, str], Calibrated]
"""By table, row and metric."""


class PlannedRow(Strict):
    """A row of the paper that the configuration knows: its experiment, and why that is skipped ("" if it is not).

    `protocol` is the selected one.
    """

    experiment: str
    protocol: str = ""
    table: str
    row: str
    skipped: str


class PlannedRows(Strict):
    """The whole file."""

    rows: list[PlannedRow]


def load_planned(path: Path | None) -> list[PlannedRow]:
    """The planned rows in a JSON file; none without a file. Raises ColdbenchError if the file is damaged."""
    return checked(PlannedRows, {"rows": read_json(path)}, str(path)).rows if path else []


def cell_frame(
    scores: Scores,
    paper: Sequence[PaperCell],
    planned: Sequence[PlannedRow] = (),
    calibrated: CalibratedCells = MappingProxyType({}),
) -> pd.DataFrame:
    """The cells of every table that the paper prints, in reading order: a row per Cell.

    `planned` names the experiment of each row of the paper, which the reason of a missing cell states. Cells of
    degraded images without a run are filled from `calibrated`.
    """
    printed = {cell.table for cell in paper}
    cells = [
        cell
        for table in TABLES.values()
        if table.number in printed
        for cell in _table_cells(table, scores, [c for c in paper if c.table == table.number], planned, calibrated)
    ]
    frame = pd.DataFrame(map(vars, cells), columns=[field.name for field in fields(Cell)])
    return frame.astype({"n": "Int64", "seed": "Int64"})


def table_frame(
    number: str, scores: Scores, paper: Sequence[PaperCell], planned: Sequence[PlannedRow] = ()
) -> pd.DataFrame:
    """The cells of one table. Raises ColdbenchError if the paper has no such table."""
    frame = cell_frame(scores, paper, planned)
    if number not in set(frame.table):
        raise unknown("table", number, list(frame.table.unique()))
    return frame[frame.table == number]


def cells_of(frame: pd.DataFrame) -> list[Cell]:
    """The cells of a part of the frame as records."""
    rows: Iterable[tuple[Any, ...]] = frame.astype({"n": object, "seed": object}).itertuples(index=False, name=None)
    values: Iterable[list[Any]] = ([None if value is pd.NA else value for value in row] for row in rows)
    return [Cell(*row) for row in values]


Entry = TypeVar("Entry")


def in_groups(entries: Iterable[Entry], *names: str) -> list[list[Entry]]:
    """The entries that agree in the named attributes together, in the order of the first of each group."""
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(tuple(getattr(entry, name) for name in names), []).append(entry)
    return list(groups.values())


def table_rows(cells: Iterable[Cell]) -> list[list[Cell]]:
    """The cells of one table by row."""
    return in_groups(cells, "in_paper", "row", "run", "budget")


def line_name(cells: Sequence[Cell]) -> str:
    """The name of a line of a table: our metric with everything that it depends on, or else the paper's metric."""
    return next((cell.metric_name for cell in cells if cell.metric), cells[0].label)


def printed_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells with a number of the paper, each once: a further run repeats the numbers of its row."""
    return frame[frame.in_paper & (frame.paper != "")]


def _table_cells(
    table: Table,
    scores: Scores,
    printed: Sequence[PaperCell],
    planned: Sequence[PlannedRow],
    calibrated: CalibratedCells,
) -> Iterator[Cell]:
    runs = in_groups((score for score in scores if score.table in table.sources), "run", "budget")
    runs.sort(key=_rank)
    labels = dict.fromkeys(cell.row for cell in printed)
    # A row of the paper shows the selected protocol at the fullest budget. All other runs stand below the table.
    selected = {label: next((run for run in runs if run[0].row == label), []) for label in labels}
    for label, run in selected.items():
        not_run = "" if run else _not_run(table, label, planned)
        for cell in _row_cells(table, label, True, run, printed, not_run):
            yield _with_calibration(cell, printed, calibrated)
    for run in runs:
        further = all(run is not other for other in selected.values())
        if further and (not run[0].row or any(score.method != "degraded" for score in run)):
            cells = list(_row_cells(table, run[0].row, False, run, printed, ""))
            if any(cell.metric for cell in cells):
                yield from cells


def _rank(run: Sequence[Score]) -> tuple[bool, int, str]:
    return not run[0].default, budget_rank(run[0].budget), run[0].run


def planned_row(table: Table, label: str, planned: Iterable[PlannedRow]) -> PlannedRow | None:
    """The planned row of a table's row, or None."""
    return next((row for row in planned if row.table in table.sources and row.row == label), None)


def _not_run(table: Table, label: str, planned: Iterable[PlannedRow]) -> str:
    """Why a row has no run, and the command that makes one."""
    entry = planned_row(table, label, planned)
    if entry is None:
        return f"this configuration has no experiment for {label}"
    command = f"`snakemake --config experiments={entry.experiment}`"
    if entry.skipped:
        return f"{entry.experiment} is skipped: {entry.skipped}. To run it: {command}"
    return f"{entry.experiment} has not been run. To run it: {command}"


def _row_cells(
    table: Table, label: str, in_paper: bool, run: Sequence[Score], printed: Sequence[PaperCell], not_run: str
) -> Iterator[Cell]:
    # SSIM and RMSE are computed on the whole test set, so the degraded images tell its size.
    whole = max((score.n for score in run if score.method == "degraded"), default=0)
    for column in table.columns:
        sampled = [score for score in run if (score.set, score.method) == (column.set, column.method)]
        other_set = REDRAWN.format(column.set)
        redrawn = [score for score in run if (score.set, score.method) == (other_set, column.method)]
        missing = not_run or _missing(table, column, run[0].run, bool(sampled))
        for measure in table.measures:
            by_metric = {(score.metric, score.reference): score for score in sampled}
            ours = next((by_metric[metric] for metric in measure.metrics if metric in by_metric), None)
            same = (ours.metric, ours.reference) if ours else None
            other = next((score for score in redrawn if (score.metric, score.reference) == same), None)
            paper = next((cell for cell in printed if _is_at(cell, label, column, measure)), None)
            verdict = judge(ours, paper, missing, whole)
            place: dict[str, Any] = {"table": table.number, "in_paper": in_paper, "row": label, "column": column.label}
            place |= {"set": column.set, "method": column.method, "measure": measure.paper}
            yield Cell(
                **place, **_run_fields(run), **_our_fields(ours, other), **_paper_fields(paper),
                difference=_difference(ours, paper), verdict=verdict.kind, reason=verdict.reason, calibrated="",
            )  # fmt: skip


def _with_calibration(cell: Cell, printed: Sequence[PaperCell], calibrated: CalibratedCells) -> Cell:
    """The cell, with the calibration's value if it is of degraded images and without a run."""
    known = calibrated.get((cell.table, cell.row, cell.measure)) if cell.method == "degraded" else None
    paper = next((each for each in printed if each.cell == cell.paper_cell), None)
    if cell.metric or known is None or paper is None:
        return cell
    verdict = judge_calibrated(known.value, known.n, f"{known.interpretation}, {known.source}", paper)
    name = LABELS[cell.measure]
    return replace(
        cell, metric=cell.measure, metric_name=name, n=known.n, value=known.value, difference=known.value - paper.value,
        verdict=verdict.kind, reason=verdict.reason, calibrated=known.interpretation,
    )  # fmt: skip


def _is_at(cell: PaperCell, label: str, column: Column, measure: Measure) -> bool:
    return cell.row == label and cell.column in column.paper and cell.metric == measure.paper


def _missing(table: Table, column: Column, run: str, sampled: bool) -> str:
    """Why a run has no value at a place."""
    command = f"`snakemake reports/{table.page}`"
    if sampled or column.method == "degraded":
        return f"the scores of {run} lack this value; {command} computes it"
    return f"{run} has no {column.label} images; {command} trains and samples it"


def _run_fields(run: Sequence[Score]) -> dict[str, Any]:
    names = ("run", "protocol", "budget", "dataset", "dataset_title")
    return {name: getattr(run[0], name) if run else "" for name in names}


def _our_fields(score: Score | None, redrawn: Score | None) -> dict[str, Any]:
    bounds = ("value", "low", "high")
    names = ("redrawn", "redrawn_low", "redrawn_high")
    other = {name: getattr(redrawn, bound, math.nan) for name, bound in zip(names, bounds, strict=True)}
    if score is None:
        nothing: dict[str, Any] = {
            "metric": "",
            "metric_name": "",
            "reference": "",
            "known": "",
            "n": None,
            "seed": None,
        }
        nothing |= {"singular": False, "trainings": 1, "spread": math.nan, **dict.fromkeys(bounds, math.nan)}
        return nothing | other
    facts = ("metric", "reference", "known", "n", "seed", "singular", "trainings", "spread")
    own = {name: getattr(score, name) for name in (*facts, *bounds)}
    return {**own, "metric_name": metric_name(score), **other}


def _paper_fields(cell: PaperCell | None) -> dict[str, Any]:
    return {
        "paper_cell": cell.cell if cell else "",
        "paper_metric": cell.metric if cell else "",
        "paper": cell.printed if cell else "",
        "paper_value": cell.value if cell else math.nan,
        "tolerance": cell.tolerance if cell else math.nan,
        "erratum": cell.erratum if cell else "",
        "note": cell.note if cell else "",
    }


def _difference(ours: Score | None, paper: PaperCell | None) -> float:
    if ours is None or paper is None or not ours.finite or quantity(ours.metric) != paper.metric:
        return math.nan
    return ours.value - paper.value
