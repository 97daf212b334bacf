"""The verbs for finished runs: merged scores, figures, pages of the report, published results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coldbench.cli.options import (
    CALIBRATED,
    PAPER,
    Log,
    Out,
    check_folder,
)
from coldbench.core import logs
from coldbench.core.provenance import page_hash

Paper = Annotated[Path, typer.Option(help="the paper's printed numbers (CSV)")]
ScoreFiles = Annotated[
    list[Path] | None, typer.Argument(help="scores (.parquet); none shows the paper's numbers alone")
]
PlannedRows = Annotated[Path | None, typer.Option(help="the experiment of each row, and why it is skipped (JSON)")]
CalibrationTable = Annotated[Path | None, typer.Option(help="the calibration's table (.parquet)")]


def merge_scores(
    out: Out, scores: Annotated[list[Path], typer.Argument(help="scores (.parquet)")], log: Log = None
) -> None:
    """Merge SCORES into one tidy table, OUT (.parquet), and write the same as CSV beside it."""
    from coldbench.evaluation.scores import merge_scores

    logs.log_to(log, "[merge-scores]")
    merge_scores(scores, out)


def render_figures(
    figures: Annotated[Path, typer.Option(help="the figures of the paper and their panels (YAML)")],
    out: Out,
    inputs: Annotated[list[Path] | None, typer.Argument(help="scores (.parquet) and lists of figures (.json)")] = None,
    paper: Paper = PAPER,
    log: Log = None,
) -> None:
    """Render the page of figures, OUT, and beside it a page for each run, with their images."""
    from coldbench.evaluation.scores import read_scores
    from coldbench.report import figure_list, run_pages
    from coldbench.report import figures as paper_figures
    from coldbench.report.paper import load_paper

    logs.log_to(log, "[render-figures]")
    files = inputs or []
    scores = read_scores([path for path in files if path.suffix == ".parquet"])
    runs = figure_list.load([path for path in files if path.suffix == ".json"])
    plan, printed = paper_figures.load_plan(figures), load_paper(paper)
    pages = run_pages.write(plan, scores, runs, out, page_hash([*files, figures, paper]), printed)
    logs.log.info("%s, and pages of %d runs", out, len(pages) - 1)


def render_table(
    number: str,
    paper: Paper,
    out: Out,
    scores: ScoreFiles = None,
    planned_rows: PlannedRows = None,
    log: Log = None,
) -> None:
    """Render table NUMBER from SCORES as a page, and beside it as CSV, LaTeX and JSON."""
    from coldbench.core.files import files_hash, write_text
    from coldbench.evaluation.scores import read_scores, without_snapshots
    from coldbench.evaluation.trainings import over_trainings
    from coldbench.report import cells, exports, pages
    from coldbench.report.navigation import ReportFolder
    from coldbench.report.paper import load_paper
    from coldbench.report.provenance import folders_of

    logs.log_to(log, f"[render-table {number}]")
    records, folders = without_snapshots(read_scores(scores or [])), folders_of(scores or [])
    frame = cells.table_frame(number, over_trainings(records), load_paper(paper), cells.load_planned(planned_rows))
    files = {
        out.with_name(f"{out.stem}.csv"): exports.table_csv(frame),
        out.with_name(f"{out.stem}.tex"): exports.table_tex(number, frame),
        out.with_name(f"{out.stem}.json"): exports.table_json(number, frame, records, folders),
    }
    for path, text in files.items():
        write_text(path, text)
    made_from = page_hash([*(scores or []), paper, *([planned_rows] if planned_rows else [])])
    folder = ReportFolder(out.parent, made_from, files_hash(files))
    write_text(out, pages.table_page(number, frame, records, folders, folder))


def render_methods(
    out: Out,
    scores: ScoreFiles = None,
    baseline: Annotated[str, typer.Option(help="the method to compare with")] = "tacos",
    log: Log = None,
) -> None:
    """Compare the methods of SCORES on the same images: OUT, and beside it CSV, LaTeX and JSON.

    The per-image values are those in images.parquet beside each file of scores.
    """
    from coldbench.core.files import files_hash, write_text
    from coldbench.evaluation.scores import read_scores, without_snapshots
    from coldbench.report import entries, exports, methods, methods_exports, methods_page
    from coldbench.report.navigation import ReportFolder
    from coldbench.report.provenance import folders_of

    logs.log_to(log, "[render-methods]")
    files = scores or []
    records, folders = without_snapshots(read_scores(files)), folders_of(files)
    tasks = methods.tasks(records, entries.load_values(files), baseline)
    written = {
        out.with_name(f"{out.stem}.csv"): exports.table_csv(methods_exports.frame_of(tasks)),
        out.with_name(f"{out.stem}.tex"): methods_exports.methods_tex(tasks),
        out.with_name(f"{out.stem}.json"): methods_exports.methods_json(tasks, baseline, records, folders),
    }
    for path, text in written.items():
        write_text(path, text)
    made_from = page_hash([*files, *entries.images_of(files)], baseline)
    folder = ReportFolder(out.parent, made_from, files_hash(written))
    methods_page.write(tasks, baseline, records, folder)
    logs.log.info("%s, %d tasks", out, len(tasks))


def render_discrepancies(
    questions: Annotated[Path, typer.Argument(help="the discrepancies (YAML)")],
    out: Out,
    paper: Paper,
    grid: Annotated[Path, typer.Option(help="the experiments with their protocols (YAML)")],
    interpretations: Annotated[Path, typer.Option(help="the interpretations of the calibration (YAML)")],
    scores: ScoreFiles = None,
    calibration: CalibrationTable = None,
    log: Log = None,
) -> None:
    """Render what the paper, its README and its code say differently, our choices, and the evidence."""
    from coldbench.core.files import write_text
    from coldbench.evaluation.scores import read_scores, without_snapshots
    from coldbench.evaluation.trainings import over_trainings
    from coldbench.report import calibration as calibrated
    from coldbench.report import cells
    from coldbench.report import discrepancies as view
    from coldbench.report.navigation import ReportFolder
    from coldbench.report.pages import banner
    from coldbench.report.paper import load_paper

    logs.log_to(log, "[render-discrepancies]")
    records = without_snapshots(read_scores(scores or []))
    frame = cells.cell_frame(over_trainings(records), load_paper(paper))
    rows = calibrated.load_calibration(calibration)
    sources = view.Sources(view.load_grid(grid), view.load_interpretations(interpretations), rows)
    entries = view.discrepancies(view.load(questions), sources, records, frame)
    files = [questions, *(scores or []), grid, paper, interpretations, *([calibration] if calibration else [])]
    write_text(out, view.page(entries, banner(records), ReportFolder(out.parent, page_hash(files))))


def render_calibration(
    table: Annotated[Path, typer.Argument(help="the table of `coldbench calibrate` (.parquet)")] = CALIBRATED,
    paper: Paper = PAPER,
    out: Out = Path("reports/calibration.html"),
    log: Log = None,
) -> None:
    """Render the calibration: every interpretation beside the paper's numbers, and their agreement."""
    from coldbench.core.files import write_text
    from coldbench.report import calibration
    from coldbench.report.navigation import ReportFolder
    from coldbench.report.paper import load_paper

    logs.log_to(log, "[render-calibration]")
    records = calibration.load_calibration(table)
    folder = ReportFolder(out.parent, page_hash([table, paper]))
    write_text(out, calibration.page(records, load_paper(paper), folder))


def render_index(
    paper: Paper,
    claims: Annotated[Path, typer.Option(help="the paper's claims (YAML)")],
    out: Out,
    scores: ScoreFiles = None,
    planned_rows: PlannedRows = None,
    calibration: CalibrationTable = None,
    log: Log = None,
) -> None:
    """Render the front page (scorecard, claims, tables, runs, hours), and link it from the pages beside it."""
    from coldbench.core.files import write_text
    from coldbench.evaluation.scores import read_scores, without_snapshots
    from coldbench.evaluation.trainings import over_trainings
    from coldbench.report import calibration as calibrated
    from coldbench.report import cells, pages
    from coldbench.report import claims as judging
    from coldbench.report.navigation import ReportFolder
    from coldbench.report.paper import load_paper
    from coldbench.report.provenance import folders_of

    logs.log_to(log, "[render-index]")
    every, printed = read_scores(scores or []), load_paper(paper)
    records = without_snapshots(every)
    planned = cells.load_planned(planned_rows)
    known = calibrated.cells(calibrated.load_calibration(calibration), printed, planned)
    frame = cells.cell_frame(over_trainings(records), printed, planned, known)
    judged = judging.judged(judging.load(claims), over_trainings(records), printed)
    files = [*(scores or []), paper, claims, *filter(None, (planned_rows, calibration))]
    folder = ReportFolder(out.parent, page_hash(files))
    write_text(out, pages.index_page(frame, every, judged, folders_of(scores or []), folder, planned))
    logs.log.info("%s", out)


def release(
    runs: Annotated[list[Path], typer.Argument(help="finished runs: results/BUDGET/RUN")],
    out: Annotated[Path, typer.Option(help="folder to write", callback=check_folder)] = Path("build/release"),
    log: Log = None,
) -> None:
    """Copy the models of RUNS to OUT with a manifest, for `coldbench fetch-model`, and print how to upload them."""
    from coldbench.report import release as releasing

    logs.log_to(log, "[release]")
    typer.echo(releasing.release(runs, out))


def publish(
    runs: Annotated[list[Path], typer.Argument(help="finished runs: results/BUDGET/RUN")],
    out: Annotated[Path, typer.Option(help="folder to write: results/published/BUDGET-DEVICE", callback=check_folder)],
    calibration: CalibrationTable = None,
) -> None:
    """Copy what the report needs of RUNS to OUT; `snakemake --config results=OUT` renders it alone."""
    from coldbench.report import publish as publishing

    for name in publishing.publish(runs, calibration, out):
        typer.echo(f"{name} in {out}")
