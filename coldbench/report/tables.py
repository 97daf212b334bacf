"""A table of the paper as plain data: our scores beside the printed numbers, and why a cell is empty."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coldbench.errors import unknown
from coldbench.report.inputs import PaperCell, Score, Scores
from coldbench.report.verdict import LABELS, Verdict, judge, shown, signed


@dataclass(frozen=True)
class Column:
    """A group of the table: our method, the paper's word for it ("" if it has none), and what to write above it."""

    method: str
    paper: str
    label: str
    hint: str


@dataclass(frozen=True)
class Measure:
    """A line of the table: our metric, the paper's metric beside it, and whether more or less of it is better."""

    metric: str
    paper: str
    label: str
    hint: str


COLUMNS = (
    Column("degraded", "degraded", "Degraded", "the input of the network"),
    Column("tacos", "sampled", "Sampled", "TACoS, Algorithm 2"),
    Column("direct", "direct", "Direct", "one step"),
    Column("naive", "", "Naive", "Algorithm 1; not in the paper"),
)
MEASURES = (
    Measure("frechet_gabor", "fid", LABELS["frechet_gabor"], "less is better"),
    Measure("ssim", "ssim", LABELS["ssim"], "more is better"),
    Measure("rmse", "rmse", LABELS["rmse"], "less is better"),
)
BUDGETS = ("paper", "laptop", "smoke")  # where one run was made at several, the first of these stands in the table


@dataclass(frozen=True)
class Cell:
    """One place of a table: our value, the paper's number, and the verdict on the pair; either value may be absent."""

    column: Column
    measure: Measure
    ours: Score | None
    paper: PaperCell | None
    verdict: Verdict

    @property
    def value(self) -> str:
        return shown(self.ours.value) if self.ours else ""

    @property
    def interval(self) -> str:
        if self.ours is None or self.ours.low != self.ours.low or self.ours.high != self.ours.high:  # NaN: none made
            return ""
        return f"{shown(self.ours.low)} – {shown(self.ours.high)}"

    @property
    def printed(self) -> str:
        """The paper's number, with the name of its metric where that is not ours: "0.287", "FID 438.59"."""
        if self.paper is None:
            return ""
        same = self.paper.metric == self.measure.metric
        return self.paper.printed if same else f"{LABELS[self.paper.metric]} {self.paper.printed}"

    @property
    def gap(self) -> str:
        return signed(self.ours.value - self.paper.value) if self.ours and self.paper and self.ours.finite else ""


@dataclass(frozen=True)
class Row:
    """All cells of one run, or of a row of the paper for which there is none (`run` is then None)."""

    label: str
    run: Score | None  # any score of the run: its facts are the row's
    cells: tuple[Cell, ...]

    @property
    def lines(self) -> list[tuple[Measure, list[Cell]]]:
        return [(measure, [cell for cell in self.cells if cell.measure == measure]) for measure in MEASURES]

    @property
    def common(self) -> Verdict | None:
        """The verdict that all cells share, if they do: said once, beside the name of the row."""
        verdicts = {cell.verdict for cell in self.cells}
        return verdicts.pop() if len(verdicts) == 1 else None

    @property
    def images(self) -> str:
        """How many images were scored: "10,000", or "10,000 (Degraded), 500 (Sampled, Direct); FD-Gabor from 500"."""
        counts: dict[int, dict[str, None]] = {}
        frechet: dict[int, None] = {}
        for cell in self.cells:
            if cell.ours and cell.ours.metric != cell.measure.paper:  # a Fréchet distance depends on n: always one n
                frechet[cell.ours.n] = None
            elif cell.ours:
                counts.setdefault(cell.ours.n, {})[cell.column.label] = None
        if len(counts | frechet) == 1:
            return f"{next(iter(counts | frechet)):,}"
        parts = ", ".join(f"{n:,} ({', '.join(labels)})" for n, labels in counts.items())
        return f"{parts}; {LABELS['frechet_gabor']} from {' or '.join(f'{n:,}' for n in frechet)}"


@dataclass(frozen=True)
class Reading:
    """The Degraded column under one protocol: which reading of the paper gives its printed numbers."""

    label: str
    run: Score
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class TableView:
    """A table of the paper: `rows` hold each printed cell once, `extra` our runs beyond them."""

    number: int
    task: str
    caption: str
    rows: tuple[Row, ...]
    extra: tuple[Row, ...]
    readings: tuple[Reading, ...]
    errata: tuple[Cell, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """The reasons of the verdicts that are not common to a row, each once, in reading order: the footnotes."""
        cells = (cell for row in self.rows + self.extra if not row.common for cell in row.cells)
        return tuple(dict.fromkeys(cell.verdict.reason for cell in cells if cell.ours or cell.paper))

    def note(self, cell: Cell) -> int:
        return self.notes.index(cell.verdict.reason) + 1


def table_view(number: int, scores: Scores, paper: Sequence[PaperCell]) -> TableView:
    """Table `number` of the paper from whatever scores exist; ColdbenchError if it is not a table of this shape."""
    printed = [cell for cell in paper if cell.table == str(number)]
    if number not in (offered := tables_of(paper)):
        raise unknown("table", number, map(str, offered))
    runs: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        if score.table == number:
            runs.setdefault((score.run, score.budget), []).append(score)
    ordered = sorted(runs.values(), key=_rank)
    labels = list(dict.fromkeys(cell.row for cell in printed))
    # the paper's row shows its selected protocol at the best budget; what else was trained stands below the table
    chosen = {label: next((run for run in ordered if run[0].row == label), None) for label in labels}
    rest = [run for run in ordered if all(run is not taken for taken in chosen.values())]
    rows = tuple(_row(number, label, run, printed) for label, run in chosen.items())
    extra = tuple(_row(number, run[0].row, run, printed) for run in rest if not run[0].row or _has_model(run))
    task = printed[0].task
    return TableView(
        number=number,
        task=task,
        caption=f"Table {number}. {task.capitalize()}: distance of each set of images from the originals",
        rows=rows,
        extra=extra,
        readings=tuple(
            _reading(number, label, run, printed) for label in labels for run in ordered if run[0].row == label
        ),
        errata=tuple(cell for row in rows for cell in row.cells if cell.paper and cell.paper.erratum),
    )


def tables_of(paper: Iterable[PaperCell]) -> list[int]:
    """The numbers of the tables that have the columns of COLUMNS."""
    known = {column.paper for column in COLUMNS}
    columns: dict[str, set[str]] = {}
    for cell in paper:
        columns.setdefault(cell.table, set()).add(cell.column)
    return sorted(int(table) for table, names in columns.items() if table.isdecimal() and names <= known)


def _rank(run: Sequence[Score]) -> tuple[bool, int, str]:
    first = run[0]
    budget = BUDGETS.index(first.budget) if first.budget in BUDGETS else len(BUDGETS)
    return (not first.default, budget, first.run)


def _has_model(run: Iterable[Score]) -> bool:
    return any(score.method != "degraded" for score in run)


def _row(number: int, label: str, run: Sequence[Score] | None, printed: Iterable[PaperCell]) -> Row:
    cells = tuple(
        _cell(number, label, run or (), printed, column, measure) for column in COLUMNS for measure in MEASURES
    )
    return Row(label, run[0] if run else None, cells)


def _reading(number: int, label: str, run: Sequence[Score], printed: Iterable[PaperCell]) -> Reading:
    pair = [measure for measure in MEASURES if measure.metric == measure.paper]  # what the paper's own code can settle
    return Reading(label, run[0], tuple(_cell(number, label, run, printed, COLUMNS[0], measure) for measure in pair))


def _cell(
    number: int, label: str, run: Sequence[Score], printed: Iterable[PaperCell], column: Column, measure: Measure
) -> Cell:
    ours = next((s for s in run if (s.method, s.metric) == (column.method, measure.metric)), None)
    paper = next((c for c in printed if (c.row, c.column, c.metric) == (label, column.paper, measure.paper)), None)
    if not run:
        absent = f"no experiment for {label} in this configuration"
    elif column.method == "degraded" or any(s.method == column.method for s in run):
        absent = f"{run[0].run} was scored without it; `snakemake reports/table{number}.html` makes what is absent"
    else:
        absent = (
            f"no {column.label} images of {run[0].run}: `snakemake reports/table{number}.html` trains and samples it"
        )
    return Cell(column, measure, ours, paper, judge(ours, paper, absent))


def table_csv(view: TableView) -> str:
    """The table as CSV text, a line per cell, numbers in full; absent values are empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    out.write(
        "table,row,run,protocol,budget,dataset,method,metric,n,value,low,high,paper_metric,paper,verdict,reason\n"
    )
    for row in view.rows + view.extra:
        facts = [row.run.run, row.run.protocol, row.run.budget, row.run.dataset] if row.run else [""] * 4
        for cell in row.cells:
            ours = [cell.ours.n, cell.ours.value, cell.ours.low, cell.ours.high] if cell.ours else [""] * 4
            theirs = [cell.paper.metric, cell.paper.printed] if cell.paper else ["", ""]
            where = [view.number, row.label, *facts, cell.column.method, cell.measure.metric]
            writer.writerow([*where, *ours, *theirs, cell.verdict.kind, cell.verdict.reason])
    return out.getvalue()
