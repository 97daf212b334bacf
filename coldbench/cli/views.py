"""The verbs that look at finished runs: pictures, tables, the report, what is published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coldbench.cli.options import CALIBRATED, PAPER, Cache, Log, Out, Pages, Partner, Prepared, Words, setup
from coldbench.core import logs
from coldbench.core.config import RunMetadata
from coldbench.core.validation import from_json


def collect(out: Out, scores: Annotated[list[Path], typer.Argument(help="scores (.parquet)")], log: Log = None) -> None:
    """Join SCORES into one tidy table, OUT (.parquet), and beside it the same as CSV."""
    from coldbench.report import inputs

    logs.log_to(log, "[collect]")
    inputs.collect(scores, out)


def figures(
    manifest: Path,
    about: Words,
    training_log: Path,
    data: Prepared,
    out: Out,
    statistics: Cache,
    partner: Partner = None,
    log: Log = None,
) -> None:
    """Draw the pictures of one run as sprites, into `figures` beside OUT, their list."""
    setup(log, f"{manifest.parent.name} figures", "cpu", None)
    from coldbench.report import gallery

    gallery.draw(manifest, from_json(RunMetadata, about, "about"), training_log, data, out, partner, statistics)


def gallery(
    plan: Annotated[Path, typer.Option(help="which runs make which figure of the paper (YAML)")],
    out: Out,
    inputs: Annotated[list[Path] | None, typer.Argument(help="scores (.parquet) and lists of pictures (.json)")] = None,
    page: Pages = None,
    log: Log = None,
) -> None:
    """Render the page of figures, OUT, and beside it a page per run, with their images."""
    from coldbench.report import figures as paper
    from coldbench.report import gallery as drawn
    from coldbench.report import inputs as reading
    from coldbench.report import runs

    logs.log_to(log, "[gallery]")
    files = inputs or []
    scores = reading.load_scores([path for path in files if path.suffix == ".parquet"])
    pictures = drawn.load([path for path in files if path.suffix == ".json"])
    written = runs.write(paper.load_plan(plan), scores, pictures, out, page or [])
    logs.log.info("%s, and pages of %d runs", out, len(written) - 1)


def table(
    number: str,
    paper: Annotated[Path, typer.Option(help="the paper's printed numbers (CSV)")],
    out: Out,
    scores: Annotated[list[Path] | None, typer.Argument(help="scores (.parquet); none shows the paper alone")] = None,
    plan: Annotated[str, typer.Option(help="JSON: which experiment makes which row, and why it is left out")] = "[]",
    page: Pages = None,
    log: Log = None,
) -> None:
    """Render table NUMBER from SCORES as a page, and beside it as CSV, LaTeX and JSON."""
    from coldbench.core.files import write_text
    from coldbench.report import exports, inputs, latex, tables
    from coldbench.report import page as pages

    logs.log_to(log, f"[table {number}]")
    rows, folders = inputs.load_scores(scores or []), inputs.folders_of(scores or [])
    view = tables.table_view(number, rows, inputs.load_paper(paper), inputs.plan_of(plan))
    for end, text in (
        (".csv", exports.table_csv(view)),
        (".tex", latex.table_tex(view)),
        (".json", exports.table_json(view, folders)),
    ):
        write_text(out.with_name(f"{out.stem}{end}"), text)
    write_text(out, pages.table_page(view, rows, pages.Site(frozenset(page or []), folders)))


def discrepancies(
    questions: Annotated[Path, typer.Argument(help="what is in question (YAML)")],
    out: Out,
    paper: Annotated[Path, typer.Option(help="the paper's printed numbers (CSV)")],
    grid: Annotated[Path, typer.Option(help="the experiments with their protocols (YAML)")],
    readings: Annotated[Path, typer.Option(help="the readings of the calibration (YAML)")],
    scores: Annotated[list[Path] | None, typer.Argument(help="scores (.parquet)")] = None,
    calibration: Annotated[Path | None, typer.Option(help="the calibration's table (.parquet)")] = None,
    page: Pages = None,
    log: Log = None,
) -> None:
    """Render what paper, README and code say differently, what we chose, and the evidence."""
    from coldbench.core.files import write_text
    from coldbench.report import calibration as calibrated
    from coldbench.report import discrepancies as view
    from coldbench.report import inputs, tables
    from coldbench.report.page import banner

    logs.log_to(log, "[discrepancies]")
    rows, cells = inputs.load_scores(scores or []), inputs.load_paper(paper)
    views = [tables.table_view(number, rows, cells) for number in tables.tables_of(cells)]
    lines = calibrated.load_table(calibration)
    sources = view.load(questions), view.grid_of(grid), view.readings_of(readings)
    found = view.discrepancies(*sources, lines, rows, views)
    write_text(out, view.page(found, banner(rows), page or []))


def calibration(
    table: Annotated[Path, typer.Argument(help="what `coldbench calibrate` wrote (.parquet)")] = CALIBRATED,
    paper: Annotated[Path, typer.Option(help="the paper's printed numbers (CSV)")] = PAPER,
    out: Out = Path("reports/calibration.html"),
    page: Pages = None,
    log: Log = None,
) -> None:
    """Render the page of the calibration: every reading beside the paper's numbers, and how firmly each fits."""
    from coldbench.report import calibration as view
    from coldbench.report import inputs

    logs.log_to(log, "[calibration]")
    pages = page or [path.name for path in out.parent.glob("*.html")]
    view.write_page(view.load_table(table), inputs.load_paper(paper), out, pages)


def report(
    paper: Annotated[Path, typer.Option(help="the paper's printed numbers (CSV)")],
    claims: Annotated[Path, typer.Option(help="the paper's claims (YAML)")],
    out: Out,
    scores: Annotated[list[Path] | None, typer.Argument(help="scores (.parquet)")] = None,
    plan: Annotated[str, typer.Option(help="JSON: which experiment makes which row, and why it is left out")] = "[]",
    page: Pages = None,
    log: Log = None,
) -> None:
    """Render the front page: scorecard, claims, all tables, runs and hours."""
    from coldbench.core.files import write_text
    from coldbench.report import claims as claiming
    from coldbench.report import inputs, tables
    from coldbench.report import page as pages

    logs.log_to(log, "[report]")
    rows, cells = inputs.load_scores(scores or []), inputs.load_paper(paper)
    planned = inputs.plan_of(plan)
    views = [tables.table_view(number, rows, cells, planned) for number in tables.tables_of(cells)]
    judged = claiming.judged(claiming.load(claims), rows, cells)
    site = pages.Site(frozenset(page or []), inputs.folders_of(scores or []))
    write_text(out, pages.index_page(views, rows, judged, site, out.parent))
    logs.log.info("%s", out)


def publish(
    runs: Annotated[list[Path], typer.Argument(help="finished runs: results/BUDGET/RUN")],
    out: Annotated[Path, typer.Option(help="folder to write: results/published/BUDGET-DEVICE")],
    calibration: Annotated[Path | None, typer.Option(help="the calibration's table (.parquet)")] = None,
) -> None:
    """Copy what the report shows of RUNS, small enough for a repository; `--config results=OUT` renders it alone."""
    from coldbench.report import publish as publishing

    for name in publishing.publish(runs, calibration, out):
        typer.echo(f"{name} in {out}")
