"""The parts of README.md and docs/ that are results: of the published runs, the calibration and the plan."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from coldbench.evaluation.scores import Score, Scores, read_scores, without_snapshots
from coldbench.evaluation.trainings import over_trainings
from coldbench.planning import cost, layers, plan
from coldbench.planning.workflow import planned_rows
from coldbench.report import calibration as calibrated
from coldbench.report import cells, provenance
from coldbench.report.cells import Cell
from coldbench.report.formats import LABELS, duration, quantity, shown, signed
from coldbench.report.layout import TABLES
from coldbench.report.paper import PaperCell, load_paper

ROOT = Path(__file__).parents[1]
PUBLISHED = sorted((ROOT / "results" / "published").glob("*/*/*/scores.parquet"))
CALIBRATION = ROOT / "results/published/laptop-cpu/calibration.parquet"
GPUS = 8


def paper() -> list[PaperCell]:
    return load_paper(ROOT / "workflow/paper/tables.csv")


@cache
def finished_scores() -> Scores:
    """The published scores, those of several trainings as one."""
    return over_trainings(without_snapshots(read_scores(PUBLISHED)))


def budget_suffix(of: Score | Cell) -> str:
    """The budget of a score or cell, as the end of a name; "" if its experiment is published at one budget alone."""
    runs = {(score.run, score.budget) for score in finished_scores()}
    return f", {of.budget} budget" if len({budget for run, budget in runs if run == of.run}) > 1 else ""


def table_cells() -> dict[str, list[Cell]]:
    """The cells of every table from the published scores and the published calibration."""
    grid = plan.resolved(layers.read([ROOT / "workflow/config/paper.yaml"]) | {"results": "nothing-is-there-yet"})
    planned = [cells.PlannedRow(**row) for row in planned_rows(grid)]
    known = calibrated.cells(calibrated.load_calibration(CALIBRATION), paper(), planned)
    frame = cells.cell_frame(finished_scores(), paper(), planned, known)
    return {str(number): cells.cells_of(part) for number, part in frame.groupby("table", sort=False)}


def contract() -> str:
    """Per table the command, what it costs on GPUs, and how far it has come."""
    on = cost.device(ROOT / "workflow/config/devices.yaml", "h100")
    grid = layers.read([ROOT / "workflow/config/paper.yaml"]) | {"results": "nothing-is-there-yet"}
    jobs = plan.jobs(plan.resolved(grid), on)
    lines = [
        "| table | command | jobs | GPU-hours | wall hours | disk | printed cells | so far, of the paper's data |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, entries in table_cells().items():
        table, printed = TABLES[number], [cell for cell in entries if cell.in_paper and cell.paper]
        command = f"`snakemake --profile slurm reports/{table.page}`"
        price = _price(plan.total(_asked(number, jobs), GPUS))
        lines.append(f"| {table.heading} | {command} | {price} | {len(printed)} | {_so_far(printed)} |")
    total = _price(plan.total(jobs, GPUS))
    lines.append(f"| all, with ablations and data sets | `snakemake --profile slurm all` | {total} | | |")
    return "\n".join(lines) + "\n"


def _asked(table: str, jobs: list[plan.Job]) -> list[plan.Job]:
    """The jobs that a table's command runs where nothing is there yet: its own, and whatever they need."""
    own = {job.name for job in jobs if job.table == (TABLES[table].models_of or table)}
    for job in reversed(jobs):  # needs are listed first
        if job.name in own:
            own.update(job.needs)
    return [job for job in jobs if job.name in own]


def _price(row: plan.Total) -> str:
    return f"{row.jobs} | {row.hours:,.0f} | {row.wall:,.0f} | {row.disk / 1e9:,.0f} GB"


def status() -> str:
    """Three lines: how many printed numbers are judged, what the calibration says, what has been trained."""
    printed = [cell for entries in table_cells().values() for cell in entries if cell.in_paper and cell.paper]
    judged = [cell for cell in printed if cell.verdict in ("reproduced", "differs", "misprint suspected")]
    rows = [row for row in calibration_rows() if row.interpretations]
    agree = [row for row in rows if row.fits]
    every = calibration_rows()
    scores = finished_scores()
    trained: dict[str, set[str]] = {}
    for score in scores:
        if score.table and score.method == "tacos":
            trained.setdefault(score.budget, set()).add(score.run)
    models = "; ".join(f"{', '.join(sorted(runs))} at the budget `{budget}`" for budget, runs in trained.items())
    devices = {run.devices.split(",")[0] for run in provenance.runs_of(scores, provenance.folders_of(PUBLISHED))}
    open_points = [
        "No row has been trained at the paper's budget yet" * all(score.budget != "paper" for score in scores),
        "no FID has been computed with the true weights" * all(quantity(score.metric) != "fid" for score in scores),
        "no GPU has run any of it" * (devices == {"CPU"}),
    ]
    return (
        f"- Of the paper's {len(printed)} printed numbers, {len(judged)} are judged so far ({_so_far(judged)}). "
        f"{sum(bool(cell.calibrated) for cell in judged)} of them need no network. "
        f"The others wait for data or for the paper's budget.\n"
        f"- Of {len(every)} rows of degraded images, which need no training, {len(rows)} could be computed; "
        f"an interpretation of the paper agrees in {len(agree)} of them ([calibration](docs/calibration.md)).\n"
        f"- Trained so far: {models}. "
        f"**{'; '.join(filter(None, open_points))}.**\n"
    )


def calibration_rows() -> list[calibrated.CalibratedRow]:
    """The rows of the published calibration."""
    return calibrated.rows(calibrated.load_calibration(CALIBRATION), paper())


def calibration() -> str:
    """Every row of degraded images: the printed pair, ours by the best interpretation, and which ones agree."""
    lines = ["| row | paper | ours | agreement | interpretations that agree |", "|---|---|---|---|---|"]
    missing = []
    for row in calibration_rows():
        name = f"{TABLES[str(row.facts.table)].heading}, {row.facts.row}"
        if not row.interpretations:
            missing.append(name)
            continue
        best = (row.fits or row.interpretations)[0]
        printed = " / ".join(cell.printed if cell else "–" for cell in row.printed)
        ours = " / ".join(_calibrated(value) for value in best.values)
        doubt = "; a printed value is a suspected misprint" if any(value.doubted for value in best.values) else ""
        fits = ", ".join(f"`{each.facts.interpretation}`" for each in row.fits) or "none"
        lines.append(f"| {name} | {printed} | {ours} | {best.label}{doubt} | {fits} |")
    facts = next(row.facts.provenance for row in calibration_rows() if row.interpretations)
    lines += ["", f"Without data: {'; '.join(missing)}."] if missing else []
    lines += ["", f"It took {duration(facts['seconds'])} on {facts['device']}."] if "seconds" in facts else []
    return "\n".join(lines) + "\n"


def _calibrated(value: calibrated.CalibratedValue) -> str:
    spread = value.record.spread
    return f"{value.record.value:.3f} ± {spread:.3f}" if spread >= 5e-4 else f"{value.record.value:.4f}"


def summary() -> str:
    """A line for SSIM and RMSE of each row with a model: direct and TACoS beside the paper's, and their difference."""
    lines = ["| row | metric | direct: ours (paper) | TACoS: ours (paper) | TACoS − direct, 95 % interval | rests on |"]
    lines += ["|---|---|---|---|---|---|"]
    differences = (score for score in finished_scores() if score.method == "tacos-direct")
    pairs = {(score.run, score.budget, score.metric): score for score in differences}
    rows = [row for entries in table_cells().values() for row in cells.table_rows(entries) if row[0].run]
    for line in (line for row in rows for line in cells.in_groups(row, "measure")):
        metric = next((cell.metric for cell in line if cell.metric in ("ssim", "rmse")), "")
        pair = pairs.get((line[0].run, line[0].budget, metric))
        if pair is None:
            continue
        values = {cell.column: _value(cell) for cell in line}
        difference = f"{signed(pair.value)} ({signed(pair.low)} to {signed(pair.high)})"
        rests = f"{trainings_count(pair.trainings)}, {pair.n:,} images"
        name = f"{TABLES[pair.table].task}, {pair.row}{budget_suffix(pair)}"
        numbers = f"{values['Direct']} | {values['Sampled']} | {difference}"
        lines.append(f"| {name} | {LABELS[metric]} | {numbers} | {rests} |")
    return "\n".join(lines) + "\n"


def trainings_count(count: int) -> str:
    """The number of trainings as text."""
    return "one training" if count == 1 else f"{count} trainings"


def _so_far(printed: Iterable[Cell]) -> str:
    kinds = [cell.verdict for cell in printed if cell.metric]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), key=lambda item: -item[1])) or "none"


def results() -> str:
    """The published runs with their times, and the rows of every table that have a run."""
    scores, folders = finished_scores(), provenance.folders_of(PUBLISHED)
    lines = ["| run | on | what it took |", "|---|---|---|"]
    for run in provenance.runs_of(scores, folders):
        lines.append(f"| {run.score.run}, {run.score.budget} budget | {run.devices} | {provenance.spent(run.work)} |")
    for number, entries in table_cells().items():
        table, rows = TABLES[number], [row for row in cells.table_rows(entries) if row[0].run]
        if rows:
            head = ["row", "metric", *(column.label for column in table.columns), "verdict"]
            lines += ["", f"**{table.heading}: {table.task}**", "", _line(head), _line(["---"] * len(head))]
            lines += [_line(line) for row in rows for line in _lines(row)]
    return "\n".join(lines) + "\n"


def errata() -> str:
    """The printed numbers that contradict each other or every reading."""
    lines = ["| cells | printed | why it is in doubt |", "|---|---|---|"]
    doubts: dict[tuple[str, str, str], list[PaperCell]] = {}
    for cell in paper():
        if cell.erratum:
            doubts.setdefault((cell.table, cell.row, cell.column), []).append(cell)
    for (table, row, column), doubted in doubts.items():
        metrics = " and ".join(LABELS[cell.metric] for cell in doubted)
        printed = " / ".join(cell.printed for cell in doubted)
        notes = "; ".join(dict.fromkeys(cell.note for cell in doubted))
        lines.append(f"| {TABLES[table].heading}, {row}, {column}: {metrics} | {printed} | {notes} |")
    return "\n".join(lines) + "\n"


def _lines(row: Iterable[Cell]) -> Iterable[list[str]]:
    for line in cells.in_groups(row, "measure"):
        verdicts: dict[str, list[str]] = {}
        for cell in line:
            if cell.metric and cell.paper:
                verdicts.setdefault(cell.verdict, []).append(cell.column)
        text = "; ".join(f"{kind}: {', '.join(columns)}" for kind, columns in verdicts.items())
        name = (line[0].row or line[0].run) + budget_suffix(line[0])
        yield [name, cells.line_name(line), *map(_value, line), text]


def _value(cell: Cell) -> str:
    return shown(cell.value) + (f" ({cell.printed})" if cell.paper else "") if cell.metric else "–"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
