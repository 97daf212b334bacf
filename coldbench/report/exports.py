"""A table for machines: the same cells as CSV and as JSON, numbers in full."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

from coldbench import __version__
from coldbench.report.inputs import Folders, PaperCell, Score
from coldbench.report.provenance import logs_of, provenance
from coldbench.report.tables import Cell, Row, TableView
from coldbench.report.verdict import metric_name

HEAD = (
    "table,row,run,protocol,budget,dataset,set,method,metric,reference,"
    "n,value,low,high,paper_metric,paper,verdict,reason"
)


def table_csv(view: TableView) -> str:
    """The table as CSV text, a line per cell; absent values are empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    out.write(f"{HEAD}\n")
    for row in view.rows + view.extra:
        facts = [row.run.run, row.run.protocol, row.run.budget, row.run.dataset] if row.run else [""] * 4
        for cell in row.cells:
            ours = [cell.ours.n, cell.ours.value, cell.ours.low, cell.ours.high] if cell.ours else [""] * 4
            theirs = [cell.paper.metric, cell.paper.printed] if cell.paper else ["", ""]
            metric = [cell.ours.metric, cell.ours.reference] if cell.ours else [cell.measure.paper, ""]
            where = [view.number, row.label, *facts, cell.column.set, cell.column.method, *metric]
            writer.writerow([*where, *ours, *theirs, cell.verdict.kind, cell.verdict.reason])
    return out.getvalue()


def table_json(view: TableView, folders: Folders) -> str:
    """The table as JSON text with the whole provenance of every run; what is absent or no number is null."""
    runs = {row.run.run: _run(row.run, folders) for row in view.rows + view.extra if row.run}
    value = {
        "coldbench": __version__,
        "table": view.number,
        "heading": view.heading,
        "caption": view.caption,
        "interval": "95 % bootstrap",
        "rows": [_row(row, printed=True) for row in view.rows] + [_row(row, printed=False) for row in view.extra],
        "runs": runs,
        "missing": [vars(gap) for gap in view.gaps],
    }
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _row(row: Row, printed: bool) -> dict[str, Any]:
    return {
        "row": row.label,
        "printed": printed,
        "run": row.run.run if row.run else None,
        "cells": [_cell(cell) for cell in row.cells],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "column": cell.column.label,
        "set": cell.column.set,
        "method": cell.column.method,
        "ours": _ours(cell.ours) if cell.ours else None,
        "paper": _paper(cell.paper) if cell.paper else None,
        "difference": _finite(cell.ours.value - cell.paper.value)
        if cell.difference and cell.ours and cell.paper
        else None,
        "verdict": cell.verdict.kind,
        "reason": cell.verdict.reason,
    }


def _ours(score: Score) -> dict[str, Any]:
    return {
        "metric": score.metric,
        "name": metric_name(score),
        "reference": score.reference,
        "value": _finite(score.value),
        "low": _finite(score.low),
        "high": _finite(score.high),
        "n": score.n,
        "singular": score.singular,
        "seed": score.seed,
    }


def _paper(cell: PaperCell) -> dict[str, Any]:
    kept = ("cell", "metric", "value", "printed", "tolerance", "erratum", "note")
    return {key: getattr(cell, key) for key in kept}


def _run(score: Score, folders: Folders) -> dict[str, Any]:
    kept = ("experiment", "title", "protocol", "rationale", "budget", "dataset", "dataset_title", "embedded", "seed")
    facts = {key: getattr(score, key) for key in kept}
    logs = logs_of(folders.get((score.run, score.budget)))
    return {**facts, "logs": logs or None, "provenance": _clean(provenance(score))}


def _clean(value: Any) -> Any:
    """`value` without what JSON cannot say."""
    if isinstance(value, dict):
        return {key: _clean(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_clean(part) for part in value]
    return _finite(value) if isinstance(value, float) else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
