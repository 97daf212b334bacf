"""One table for machines and manuscripts: its cells as CSV, as JSON with the runs' provenance, and as LaTeX."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from coldbench.core import __version__
from coldbench.evaluation.scores import Scores
from coldbench.report.cells import Cell, cells_of, in_groups, table_rows
from coldbench.report.formats import interval, shown
from coldbench.report.layout import TABLES, Table
from coldbench.report.provenance import Folders, logs_of, provenance
from coldbench.report.verdict import KINDS

RUN_FACTS = (
    *("run", "budget", "experiment", "title", "protocol", "rationale"),
    *("dataset", "dataset_title", "embedded", "seed"),
)


def table_csv(frame: pd.DataFrame) -> str:
    """The cells of a table as CSV text, a line per cell; absent values are empty."""
    return str(frame.to_csv(index=False, lineterminator="\n"))


def table_json(number: str, frame: pd.DataFrame, scores: Scores, folders: Folders) -> str:
    """The cells of a table as JSON text, with the provenance of every run; absent and infinite values are null.

    The numbers are written by `json`, because `DataFrame.to_json` keeps 15 decimals at most.
    """
    value = {
        "coldbench": __version__,
        "table": number,
        "heading": TABLES[number].heading,
        "caption": TABLES[number].caption,
        "interval": "95 % bootstrap",
        "cells": frame.astype(object).where(frame.notna(), None).to_dict("records"),
        "runs": run_records(scores, set(zip(frame.run, frame.budget, strict=True)), folders),
    }
    return json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def run_records(scores: Scores, shown_runs: set[tuple[str, str]], folders: Folders) -> list[dict[str, Any]]:
    """The facts and the provenance of the runs in `shown_runs`, by name and budget."""
    runs = {(s.run, s.budget): s for s in reversed(scores) if (s.run, s.budget) in shown_runs}
    return [
        {fact: getattr(score, fact) for fact in RUN_FACTS}
        | {"logs": logs_of(folders.get(key)) or None, "provenance": provenance(score)}
        for key, score in sorted(runs.items())
    ]


def finite(value: Any) -> Any:
    """`value` with null for every number that JSON does not know."""
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"$<$", ">": r"$>$", "|": r"$|$", '"': r"''",
    "`": r"\textasciigrave{}", "[": "{[}", "]": "{]}",
}  # fmt: skip
BEYOND_ASCII = {
    "−": r"$-$", "×": r"$\times$", "±": r"$\pm$", "–": "--", "—": "---", "…": r"\dots{}", "·": r"$\cdot$",
    "≈": r"$\approx$", "≠": r"$\neq$", "≤": r"$\leq$", "≥": r"$\geq$", "’": "'", "“": "``", "”": "''", "§": r"\S{}",
    "σ": r"$\sigma$", "β": r"$\beta$", "√": r"$\surd$", "\u00a0": "~",
}  # fmt: skip
SYMBOLS = dict(zip(KINDS, ("=", r"\neq", r"\circ", "?", ""), strict=True))
"""The symbol of each verdict, in the mathematics mode of LaTeX."""


def escaped(text: str) -> str:
    """`text` as LaTeX prints it literally, in pure ASCII."""
    return "".join(SPECIAL.get(character) or BEYOND_ASCII.get(character) or _ascii(character) for character in text)


def _ascii(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() else " "
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(SPECIAL.get(letter, letter) for letter in plain) or "?"


def table_tex(number: str, frame: pd.DataFrame) -> str:
    """The table as LaTeX for booktabs: a line of values and a line of intervals for every measure.

    Own code, because `Styler.to_latex` has neither headings across all columns nor intervals across two of them.
    """
    table, cells = TABLES[number], cells_of(frame)
    compared = [cell for cell in cells if cell.metric or cell.paper]
    notes = list(dict.fromkeys(cell.reason for cell in compared))
    lines = _head(table)
    further = False
    for row in table_rows(cells):
        if not row[0].in_paper and not further:
            further = True
            lines += [r"\midrule", _across(table, r"\textit{Further runs, beyond the paper's rows}"), r"\addlinespace"]
        lines += _row_lines(table, row, notes)
    return "\n".join(["% needs \\usepackage{booktabs}", *lines, *_foot(cells, notes)]) + "\n"


def _head(table: Table) -> list[str]:
    count = len(table.columns)
    groups = [r"\multicolumn{2}{c}{" + escaped(column.label) + "}" for column in table.columns]
    rules = "".join(rf"\cmidrule(lr){{{2 + 2 * k}-{3 + 2 * k}}}" for k in range(count))
    return [
        r"\begin{table}",
        r"\centering",
        r"\caption{" + escaped(table.caption) + ". Ours with 95\\,\\% bootstrap intervals, beside the paper's.}",
        r"\label{tab:coldbench-" + re.sub(r"[^A-Za-z0-9]+", "-", table.number) + "}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        r"\begin{tabular}{l" + "rr" * count + "}",
        r"\toprule",
        joined(["", *groups]),
        rules,
        joined(["Metric", *["Ours", "Paper"] * count]),
    ]


def _row_lines(table: Table, row: Sequence[Cell], notes: Sequence[str]) -> list[str]:
    facts = f" ({row[0].run}, {row[0].budget} budget)" if row[0].run else ""
    lines = [r"\midrule", _across(table, r"\textbf{" + escaped(row[0].title) + "}" + escaped(facts))]
    for cells in in_groups(row, "measure"):
        label = next((cell.label for cell in cells if cell.metric), cells[0].label)
        lines.append(joined([escaped(label), *[text for cell in cells for text in _values(cell, notes)]]))
        intervals = [interval(cell.low, cell.high) for cell in cells]
        if any(intervals):
            wide = (rf"\multicolumn{{2}}{{l}}{{\scriptsize {escaped(text)}}}" if text else "&" for text in intervals)
            lines.append(joined(["", *wide]))
    return lines


def _values(cell: Cell, notes: Sequence[str]) -> tuple[str, str]:
    if not (cell.metric or cell.paper):
        return "--", "--"
    ours = escaped(shown(cell.value)) if cell.metric else "--"
    dagger = r"$^{\dagger}$" if cell.erratum else ""
    note = rf"$^{{{SYMBOLS[cell.verdict]}\,{notes.index(cell.reason) + 1}}}$"
    return ours + note, (escaped(cell.printed) or "--") + dagger


def joined(parts: Sequence[str]) -> str:
    """A line of a table in LaTeX."""
    return " & ".join(parts) + r" \\"


def _across(table: Table, text: str) -> str:
    return rf"\multicolumn{{{1 + 2 * len(table.columns)}}}{{l}}{{{text}}} \\"


def _foot(cells: Sequence[Cell], notes: Sequence[str]) -> list[str]:
    legend = ", ".join(f"${symbol}$~{kind}" for kind, symbol in SYMBOLS.items() if symbol)
    errata = [f"{c.row}, {c.column}, {c.paper}: {c.note}" for c in cells if c.in_paper and c.erratum]
    return [
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip",
        r"\begin{minipage}{\linewidth}\raggedright\scriptsize",
        f"{legend}.",
        *(f"$^{{{k}}}$~{escaped(reason)}." for k, reason in enumerate(notes, start=1)),
        *(rf"$^{{\dagger}}$~{escaped(text)}." for text in errata),
        r"\end{minipage}",
        r"\end{table}",
    ]
