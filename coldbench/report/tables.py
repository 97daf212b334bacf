"""A table of the paper as plain data: our scores beside the printed numbers, and why a cell is empty."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coldbench.core.errors import unknown
from coldbench.report.inputs import PaperCell, Planned, Score, Scores
from coldbench.report.layout import ALSO, BUDGETS, COLUMNS, RESTORED, Column, Measure, heading, measures
from coldbench.report.verdict import LABELS, Verdict, judge, metric_name, quantity, shown, signed


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
    def label(self) -> str:
        """The name of what is measured, ours before the paper's: FD-Gabor is never called FID."""
        return LABELS.get(quantity(self.ours.metric), self.ours.metric) if self.ours else LABELS[self.measure.paper]

    @property
    def interval(self) -> str:
        if self.ours is None or self.ours.low != self.ours.low or self.ours.high != self.ours.high:  # NaN: none made
            return ""
        return f"{shown(self.ours.low)} – {shown(self.ours.high)}"

    @property
    def difference(self) -> str:
        """Ours minus the paper's, with its sign; "" where they measure different things or one is absent."""
        if self.ours is None or self.paper is None or not self.ours.finite:
            return ""
        return signed(self.ours.value - self.paper.value) if quantity(self.ours.metric) == self.paper.metric else ""

    @property
    def printed(self) -> str:
        """The paper's number, with the name of its metric where that is not ours: "0.287", "FID 438.59"."""
        if self.paper is None:
            return ""
        same = self.ours is None or quantity(self.ours.metric) == self.paper.metric
        return self.paper.printed if same else f"{LABELS[self.paper.metric]} {self.paper.printed}"


@dataclass(frozen=True)
class Row:
    """All cells of one run, or of a row of the paper for which there is none (`run` is then None)."""

    label: str
    run: Score | None  # any score of the run: its facts are the row's
    cells: tuple[Cell, ...]

    @property
    def lines(self) -> list[tuple[str, Measure, list[Cell]]]:
        """For every measure its name here, itself, and its cells."""
        measures = dict.fromkeys(cell.measure for cell in self.cells)
        lines = [(measure, [cell for cell in self.cells if cell.measure == measure]) for measure in measures]
        return [(next((metric_name(c.ours) for c in cells if c.ours), LABELS[m.paper]), m, cells) for m, cells in lines]

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
            if cell.ours and cell.measure.paper == "fid":  # a Fréchet distance depends on n: always one n
                frechet[cell.ours.n] = None
            elif cell.ours:
                counts.setdefault(cell.ours.n, {})[cell.column.label] = None
        if not counts and not frechet:
            return "no"
        if len(counts | frechet) == 1:
            return f"{next(iter(counts | frechet)):,}"
        parts = ", ".join(f"{n:,} ({', '.join(labels)})" for n, labels in counts.items())
        distance = next((c.ours.metric for c in self.cells if c.ours and c.measure.paper == "fid"), "fid")
        return f"{parts}; {LABELS[quantity(distance)]} from {' or '.join(f'{n:,}' for n in frechet)}"


@dataclass(frozen=True)
class Gap:
    """Printed numbers that are missing here for one reason: where they stand, and how many there are."""

    rows: str
    cells: int
    reason: str


@dataclass(frozen=True)
class TableView:
    """A table of the paper: `rows` hold each printed cell once, `extra` our runs beyond them."""

    number: str
    task: str
    caption: str
    rows: tuple[Row, ...]
    extra: tuple[Row, ...]
    errata: tuple[Cell, ...]

    @property
    def heading(self) -> str:
        return heading(self.number)

    @property
    def columns(self) -> tuple[Column, ...]:
        return COLUMNS[self.number]

    @property
    def notes(self) -> tuple[str, ...]:
        """The reasons of the verdicts that are not common to a row, each once, in reading order: the footnotes."""
        cells = (cell for row in self.rows + self.extra if not row.common for cell in row.cells)
        return tuple(dict.fromkeys(cell.verdict.reason for cell in cells if cell.ours or cell.paper))

    def note(self, cell: Cell) -> int:
        return self.notes.index(cell.verdict.reason) + 1

    @property
    def judged(self) -> tuple[Cell, ...]:
        """The printed cells, each once."""
        return tuple(cell for row in self.rows for cell in row.cells if cell.paper)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What is missing, by reason."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            for cell in row.cells:
                if cell.paper and cell.verdict.kind == "missing":
                    found.setdefault(cell.verdict.reason, []).append(row.label)
        return tuple(Gap(", ".join(dict.fromkeys(rows)), len(rows), reason) for reason, rows in found.items())


def table_view(number: str, scores: Scores, paper: Sequence[PaperCell], plan: Sequence[Planned] = ()) -> TableView:
    """Table `number` of the paper from whatever scores exist; ColdbenchError if it is not a table of this shape.

    `plan` tells of rows without scores which experiment makes them, and what it waits for.
    """
    printed = [cell for cell in paper if cell.table == number]
    if number not in (offered := tables_of(paper)):
        raise unknown("table", number, offered)
    runs: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        if score.table in (number, ALSO.get(number)):
            runs.setdefault((score.run, score.budget), []).append(score)
    ordered = sorted(runs.values(), key=_rank)
    labels = list(dict.fromkeys(cell.row for cell in printed))
    # the paper's row shows its selected protocol at the best budget; what else was trained stands below the table
    chosen = {label: next((run for run in ordered if run[0].row == label), None) for label in labels}
    rest = [run for run in ordered if all(run is not taken for taken in chosen.values())]
    rows = tuple(_row(number, label, run, printed, plan) for label, run in chosen.items())
    others = (_row(number, run[0].row, run, printed) for run in rest if not run[0].row or _has_model(run))
    extra = tuple(row for row in others if any(cell.ours for cell in row.cells))
    tasks = list(dict.fromkeys(cell.task for cell in printed))
    task = tasks[0] if len(tasks) == 1 else "generation"
    what = "distance of each set of images from the originals"
    if COLUMNS[number] is not RESTORED:
        what = "distance of the generated images from the training images"
    return TableView(
        number=number,
        task=task,
        caption=f"{heading(number)}. {task.capitalize()}: {what}",
        rows=rows,
        extra=extra,
        errata=tuple(cell for row in rows for cell in row.cells if cell.paper and cell.paper.erratum),
    )


def tables_of(paper: Iterable[PaperCell]) -> list[str]:
    """The tables that the paper prints, in the order of COLUMNS."""
    printed = {cell.table for cell in paper}
    return [number for number in COLUMNS if number in printed]


def _rank(run: Sequence[Score]) -> tuple[bool, int, str]:
    first = run[0]
    budget = BUDGETS.index(first.budget) if first.budget in BUDGETS else len(BUDGETS)
    return (not first.default, budget, first.run)


def _has_model(run: Iterable[Score]) -> bool:
    return any(score.method != "degraded" for score in run)


def _row(
    number: str,
    label: str,
    run: Sequence[Score] | None,
    printed: Sequence[PaperCell],
    plan: Sequence[Planned] = (),
) -> Row:
    absent = "" if run else _not_run(number, label, plan)
    cells = tuple(
        _cell(number, label, run or (), printed, column, measure, absent)
        for column in COLUMNS[number]
        for measure in measures(number)
    )
    return Row(label, run[0] if run else None, cells)


def _not_run(number: str, label: str, plan: Iterable[Planned]) -> str:
    """Why there is nothing of a row, and what would make it."""
    entry = next((p for p in plan if p.table in (number, ALSO.get(number)) and p.row == label), None)
    if entry is None:
        return f"no experiment for {label} in this configuration"
    command = f"`snakemake --config experiments={entry.experiment}`"
    if entry.why:
        return f"{entry.experiment} is left out: {entry.why}. To make it: {command}"
    return f"{entry.experiment} has not been run: {command} makes it"


def _cell(
    number: str,
    label: str,
    run: Sequence[Score],
    printed: Iterable[PaperCell],
    column: Column,
    measure: Measure,
    absent: str,
) -> Cell:
    there = {(s.metric, s.reference): s for s in run if (s.set, s.method) == (column.set, column.method)}
    ours = next((there[metric] for metric in measure.metrics if metric in there), None)
    paper = next(
        (c for c in printed if c.row == label and c.column in column.paper and c.metric == measure.paper), None
    )
    if not run:
        pass
    elif column.method == "degraded" or any((s.set, s.method) == (column.set, column.method) for s in run):
        absent = f"{run[0].run} was scored without it; `snakemake reports/table{number}.html` makes what is absent"
    else:
        absent = (
            f"no {column.label} images of {run[0].run}: `snakemake reports/table{number}.html` trains and samples it"
        )
    whole = max((s.n for s in run if s.method == "degraded"), default=0)  # SSIM and RMSE are of the whole test set
    return Cell(column, measure, ours, paper, judge(ours, paper, absent, whole))
