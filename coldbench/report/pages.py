"""The pages of the tables and the front page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from coldbench.evaluation.scores import Score, Scores, without_snapshots
from coldbench.evaluation.trainings import over_trainings
from coldbench.report.ablations import ablations
from coldbench.report.cells import Cell, PlannedRow, cells_of, in_groups, planned_row, printed_cells, table_rows
from coldbench.report.chart_data import subject_of
from coldbench.report.claims import Claim
from coldbench.report.curves import newest
from coldbench.report.formats import duration, first_up
from coldbench.report.layout import TABLES, Table, budget_of, budget_rank
from coldbench.report.navigation import CALIBRATION, FIGURES, INDEX, METHODS, ReportFolder
from coldbench.report.provenance import Folders, RunRecord, facts_of, runs_of, spent
from coldbench.report.verdict import KINDS

COMMANDS = (
    ("make smoke", "everything on embedded images at the smoke budget, in minutes"),
    ("snakemake", "everything at this machine's budget: networks trained for minutes, on the paper's data"),
    ("snakemake reports/table1.html", "one table; only what is missing is run"),
    ("snakemake --config experiments=E03", "one experiment"),
    ("snakemake reports/calibration.html", "the interpretations of the Degraded columns, without a trained network"),
    ("snakemake --profile slurm all", "the paper's budget on a cluster"),
    ("make test", "the tests of the suite"),
)


@dataclass(frozen=True)
class Banner:
    """What a reader must know before any number; every printed page repeats `watermark`."""

    title: str
    text: str
    watermark: str


@dataclass(frozen=True)
class Hours:
    """The time spent on one device at one budget, as text."""

    device: str
    budget: str
    runs: int
    training: str
    sampling: str
    scoring: str


@dataclass(frozen=True)
class Progress:
    """A training's SSIM and RMSE after growing numbers of `steps`: a line of scores for each metric and method."""

    title: str
    steps: tuple[int, ...]
    lines: tuple[tuple[Score, ...], ...]


@dataclass(frozen=True)
class Gap:
    """The number of printed cells that one reason leaves empty, and the labels of their rows."""

    rows: str
    cells: int
    reason: str


@dataclass(frozen=True)
class TableView:
    """A table as its template shows it: the layout, the cells, and what the page says below them.

    `folded` leaves out why cells are missing, which the page then says once for all tables.
    """

    table: Table
    cells: tuple[Cell, ...]
    folded: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """The footnotes: the reasons of the verdicts, each once, except those that a whole row shares."""
        apart = [cell for row in table_rows(self.cells) if not shared_verdict(row) for cell in row]
        noted = (cell for cell in apart if not (self.folded and cell.verdict == "missing"))
        return tuple(dict.fromkeys(cell.reason for cell in noted if cell.metric or cell.paper))

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The empty cells with a printed number, by reason."""
        empty = [c for c in self.cells if c.in_paper and c.paper and c.verdict == "missing"]
        groups = in_groups(empty, "reason")
        return tuple(
            Gap(", ".join(dict.fromkeys(cell.row for cell in group)), len(group), group[0].reason) for group in groups
        )

    @property
    def errata(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if cell.in_paper and cell.erratum)


def shared_verdict(row: Sequence[Cell]) -> Cell | None:
    """A cell with the verdict and reason of all cells of a row, if they agree: the page states them once."""
    return row[0] if len({(cell.verdict, cell.reason) for cell in row}) == 1 else None


def images_text(row: Iterable[Cell]) -> str:
    """The number of scored images: "10,000", or "10,000 (Degraded), 500 (Sampled, Direct); FD-Gabor from 500"."""
    counts: dict[int, dict[str, None]] = {}
    distances: dict[int, str] = {}
    for cell in row:
        if cell.n is None:
            continue
        if cell.measure == "fid":  # a Fréchet distance depends on n, so all its images are the same number
            distances[cell.n] = cell.label
        else:
            counts.setdefault(cell.n, {})[cell.column] = None
    if len(counts | distances) < 2:
        return next((f"{n:,}" for n in counts | distances), "no")
    texts = ", ".join(f"{n:,} ({', '.join(columns)})" for n, columns in counts.items())
    label = next(iter(distances.values()), "FID")
    return f"{texts}; {label} from {' or '.join(f'{n:,}' for n in distances)}"


def trainings_count(row: Iterable[Cell]) -> str:
    """The number of trainings behind a row: "one training", or "3 trainings"."""
    count = max(cell.trainings for cell in row)
    return f"{count} trainings" if count > 1 else "one training"


def table_page(number: str, frame: pd.DataFrame, scores: Scores, runs: Folders, folder: ReportFolder) -> str:
    """The page of one table, from its part of the frame: every value has a card with its provenance.

    `runs` are the folders of the runs.
    """
    table = TABLES[number]
    own = tuple(score for score in scores if score.table in table.sources)
    values = _shared(frame, own, runs)
    records = {(record.score.run, record.score.budget): record for record in values["runs"]}
    facts = {
        (s.run, s.budget, s.set, s.method, s.metric, s.reference): facts_of(s, records[s.run, s.budget]) for s in own
    }
    return folder.render("table.html", table.page, **values, facts=facts)


def index_page(
    frame: pd.DataFrame,
    scores: Scores,
    claims: Sequence[Claim],
    runs: Folders,
    folder: ReportFolder,
    planned: Sequence[PlannedRow] = (),
) -> str:
    """The front page: scorecard, what is missing, claims, tables, learning curves, runs, hours, errata and commands.

    It comes last and states the size of the report's `folder`, so all other pages get their links to it before. Of
    models on the way of a training only the learning curves show something.
    """
    finished = without_snapshots(scores)
    values = _shared(frame, finished, runs)
    views = [replace(view, folded=True) for view in values["views"]]
    values |= {"views": views, "missing": folded_gaps(frame, planned), "trained": trainings_text(finished)}
    values |= {"knowing": [view.table.heading for view in views if any(cell.known == "drawn" for cell in view.cells)]}
    values |= {"progress": progress(over_trainings(scores)), "CALIBRATION": CALIBRATION}
    values |= {"claims": claims, "ablations": ablations(over_trainings(finished))}
    values |= {"FIGURES": FIGURES, "METHODS": METHODS}
    folder.refresh([INDEX])
    files, size = folder.size(without=INDEX)
    html = folder.render("index.html", INDEX, **values, files=0, size=0)
    size += len(html.encode(errors="backslashreplace"))
    return folder.render("index.html", INDEX, **values, files=files + 1, size=size)


def _shared(frame: pd.DataFrame, scores: Scores, folders: Folders) -> dict[str, Any]:
    """What a table's page and the front page show."""
    parts = frame.groupby("table", sort=False)
    card, runs = scorecard(frame), runs_of(scores, folders)
    return {
        "views": [TableView(TABLES[str(number)], tuple(cells_of(part))) for number, part in parts],
        "banner": banner(scores),
        "runs": runs,
        "hours": hours(runs),
        "scorecard": card,
        "calibrated": {str(number): int((part.calibrated != "").sum()) for number, part in parts},
        "totals": {kind: sum(counts[kind] for counts in card.values()) for kind in KINDS},
        "spent": spent,
        "shared_verdict": shared_verdict,
        "images_text": images_text,
        "trainings_count": trainings_count,
        "commands": COMMANDS,
    }


def scorecard(frame: pd.DataFrame) -> dict[str, dict[str, int]]:
    """For every table, the number of printed cells with each kind of verdict."""
    printed = printed_cells(frame)
    counts = pd.crosstab(printed.table, printed.verdict).reindex(printed.table.unique(), columns=KINDS, fill_value=0)
    return {str(number): dict(zip(KINDS, map(int, row), strict=True)) for number, *row in counts.itertuples()}


def folded_gaps(frame: pd.DataFrame, planned: Sequence[PlannedRow]) -> list[Gap]:
    """The missing printed cells of all tables, one line for each reason."""
    missing = printed_cells(frame)
    places: dict[str, dict[str, int]] = {}
    experiments: dict[str, dict[str, None]] = {}
    for cell in cells_of(missing[missing.verdict == "missing"]):
        entry = planned_row(TABLES[cell.table], cell.row, planned) if not cell.run else None
        reason = (entry.skipped or "not run yet") if entry else cell.reason
        place = f"{TABLES[cell.table].heading}, {cell.row}"
        counts = places.setdefault(reason, {})
        counts[place] = counts.get(place, 0) + 1
        if entry:
            experiments.setdefault(reason, {})[entry.experiment] = None
    gaps = []
    for reason, counts in places.items():
        names = ",".join(experiments.get(reason, ()))
        run = f". To run it: `snakemake --config experiments='[{names}]'`" if names else ""
        gaps.append(Gap("; ".join(counts), sum(counts.values()), reason + run))
    return sorted(gaps, key=lambda gap: -gap.cells)


def trainings_text(scores: Scores) -> str:
    """How often each model of the paper's rows was trained: "E01-fitted once, E07-fitted 3 times"."""
    trained = [score for score in scores if score.row and score.method != "degraded"]
    groups = in_groups(trained, "experiment", "protocol", "budget")
    counts = [len({score.seed for score in group}) for group in groups]
    if set(counts) == {1}:
        return "each model once"
    first = [group[0] for group in groups]
    budgets = {run: len({score.budget for score in first if score.run == run}) for run in {s.run for s in first}}
    names = [run.run + (f" at the {run.budget} budget" if budgets[run.run] > 1 else "") for run in first]
    times = ["once" if count == 1 else f"{count} times" for count in counts]
    return ", ".join(map(" ".join, zip(names, times, strict=True)))


def progress(scores: Scores) -> list[Progress]:
    """SSIM and RMSE of direct and TACoS after each number of steps, of the trainings with snapshots."""
    found = []
    usable = [s for s in scores if s.steps and s.metric in ("ssim", "rmse") and s.method in ("direct", "tacos")]
    for training in in_groups(usable, "experiment", "protocol", "budget", "set"):
        steps = sorted({score.steps for score in training})
        if len(steps) < 2 or not any(score.snapshot for score in training):
            continue
        title = subject_of(newest(training, scores), scores).title
        by_steps = sorted(training, key=lambda score: score.steps)
        lines = (tuple({s.steps: s for s in line}.values()) for line in in_groups(by_steps, "metric", "method"))
        found.append(Progress(title, tuple(steps), tuple(line for line in lines if len(line) == len(steps))))
    return found


def hours(runs: Iterable[RunRecord]) -> list[Hours]:
    """The time spent, by device and budget; a dash without any record."""
    groups: dict[tuple[str, str], list[RunRecord]] = {}
    for run in runs:
        groups.setdefault((run.devices, run.score.budget), []).append(run)
    return [
        Hours(device, budget, len(group), *(_total(group, stage) for stage in ("training", "sampling", "scoring")))
        for (device, budget), group in sorted(groups.items())
    ]


def _total(runs: Iterable[RunRecord], stage: str) -> str:
    seconds = [spent for run in runs if (spent := getattr(run.work, stage)) is not None]
    return duration(sum(seconds)) if seconds else "–"


def banner(scores: Scores) -> Banner | None:
    """The warning that `scores` need; None if all come from the paper's budget and the paper's data."""
    if not scores:
        return Banner("No results yet", "No run of this configuration has been scored.", "no results")
    short = sorted({score.budget for score in scores if score.budget != "paper"}, key=budget_rank, reverse=True)
    embedded = any(score.embedded for score in scores)
    if not short and not embedded:
        return None
    title = " and ".join(budget_of(budget).title for budget in short) or "Embedded images"
    limits = list(dict.fromkeys(budget_of(budget).training for budget in short))
    limits += ["embedded images in place of the paper's data"] * embedded
    if any(score.budget == "paper" and not score.embedded and score.method != "degraded" for score in scores):
        title = f"{title}, in part"
        scope = "These rows are not a replication of the paper; the other rows are judged."
    elif any(score.method == "degraded" and not score.embedded and score.row for score in scores):
        scope = (
            "Results of these networks are not a replication of the paper. The Degraded columns on the paper's data "
            "need no network and are judged."
        )
    else:
        scope = "Nothing on this page is a replication of the paper."
    return Banner(title, f"{first_up('; '.join(limits))}. {scope}", f"{title}: not a replication")
