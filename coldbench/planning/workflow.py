"""What the workflow checks and writes before it plans jobs. The rules themselves hold no logic."""

from __future__ import annotations

import csv
import itertools
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.files import check_writable, read_yaml, write_text
from coldbench.core.run import Run, chosen_protocol
from coldbench.planning.grid import Finished, Grid, build

RUN_FILES = "runs"
"""The folder of the run files inside the results."""


def check_checkout(folder: Path) -> None:
    """Raise ColdbenchError if Snakemake would read a part of the checkout's path as a wildcard."""
    if set("{}") & set(str(folder)):
        raise ColdbenchError(
            f"the path of the checkout, {folder}, holds braces, in which Snakemake sees wildcards; rename it"
        )


def run_file(run: Run, results: Path) -> Path:
    """The JSON file with the facts of a run, for its jobs."""
    return results / RUN_FILES / run.file_name


def write_run_files(runs: Iterable[Run], results: Path) -> None:
    """Write the run files that do not exist or are damaged; the name of a file holds a hash of its content."""
    for run in runs:
        path, text = run_file(run, results), run.model_dump_json(indent=1) + "\n"
        if not path.exists() or path.read_bytes() != text.encode():
            write_text(path, text)


def check_places(files: Iterable[str]) -> None:
    """Raise ColdbenchError if one of `files`, which jobs will write, could not be written."""
    for folder in sorted({Path(file).parent for file in files}):
        check_writable(folder, folder=True)


def keep_outputs(backups: Any) -> None:
    """Make Snakemake leave the outputs of a failed job as they are; `backups` is its `FileBackupMixin`.

    It copies an update() output before its job and, after a failure, copies it back, or deletes an output that was not
    there before. Where two checkouts share their results, another job may have finished it meanwhile. Commands write
    whole files, so whatever is there is complete and says what it was made from.
    """
    backups.backup_output = lambda self, path: None
    backups.restore_output = lambda self, path: path.exists()


def unfiltered(raw: Mapping[str, Any], finished: Finished) -> Grid:
    """The grid that the configuration would have without its filters, with or without data.

    It says which other results are finished, so what only its unselected runs lack is no mistake.
    """
    everything = {**raw, "experiments": [], "datasets": []}
    return build(everything, finished, check_operators=False, check_sources=False, check_counts=False)


def calibrated_datasets(interpretations: Path) -> list[str]:
    """The data sets of a calibration, in the file of its interpretations."""
    rows = read_yaml(interpretations).get("rows", {})
    return sorted({str(row["dataset"]) for row in rows.values()})


def check_paper_rows(grid: Grid, paper: Path) -> None:
    """Raise ColdbenchError if a cell of the grid names a row that `paper`, the printed numbers (CSV), does not hold."""
    with paper.open(encoding="utf-8", newline="") as stream:
        rows = {(line["table"], line["row"]) for line in csv.DictReader(stream)}
    for name, entry in grid.config.grid.items():
        table, row = entry.cell.table, entry.cell.row
        if row and (table, row) not in rows:
            of_table = [other for number, other in rows if number == table]
            raise unknown(f"row of table {table} in grid.{name}.cell", row, of_table)


def refuse_unknown_targets(
    valid: Iterable[str], folders: Sequence[str], arguments: Sequence[str] | None = None
) -> None:
    """Raise ColdbenchError, with the nearest valid target, for a mistyped target inside one of `folders`.

    `arguments` are Snakemake's; None takes the command line, because Snakemake reads its targets after the rules.
    """
    valid, words = set(valid), sys.argv if arguments is None else ["snakemake", *arguments]
    for option, word in itertools.pairwise(words):
        target = os.path.relpath(word) if word.startswith("./") else word
        inside = option != "--report" and target.startswith(tuple(f"{folder}/" for folder in folders))
        if inside and target not in valid and not Path(target).exists():
            close = get_close_matches(target, valid, n=1, cutoff=0.3)
            raise ColdbenchError(f"unknown target '{target}'" + (f": did you mean '{close[0]}'?" if close else ""))


def planned_rows(grid: Grid) -> list[dict[str, str]]:
    """The experiment of every printed row of the grid, and the reason if the report skips it."""
    in_report = {run.metadata.name for run in grid.report_runs.values()}
    unselected = "it is not among the chosen experiments and data sets"
    return [
        {
            "experiment": name,
            "protocol": chosen_protocol(grid.config, name),
            "table": entry.cell.table,
            "row": entry.cell.row,
            "skipped": "" if name in in_report else grid.skipped.get(name, unselected),
        }
        for name, entry in grid.config.grid.items()
        if entry.cell.row
    ]
