"""A table for a manuscript: LaTeX that needs booktabs and nothing else."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from coldbench.report.tables import Cell, Row, TableView
from coldbench.report.verdict import KINDS

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
MARKS = dict(zip(KINDS, (r"$=$", r"$\neq$", r"$\circ$", "?", ""), strict=True))
PREAMBLE = "% needs \\usepackage{booktabs}\n"


def escaped(text: str) -> str:
    """`text` as LaTeX prints it literally, in pure ASCII."""
    return "".join(SPECIAL.get(character) or BEYOND_ASCII.get(character) or _ascii(character) for character in text)


def _ascii(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() else " "
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(SPECIAL.get(letter, letter) for letter in plain) or "?"


def table_tex(view: TableView) -> str:
    """The table as LaTeX: two columns (ours, paper) for each of ours, a line of values and a line of intervals each."""
    notes = _notes(view)
    rows = [line for row in view.rows for line in _lines(view, row, notes)]
    for k, row in enumerate(view.extra):
        if not k:
            rows += [r"\midrule", _across(view, r"\textit{Further runs, beyond the paper's rows}"), r"\addlinespace"]
        rows += _lines(view, row, notes)
    return PREAMBLE + "\n".join([*_head(view), *rows, *_foot(view, notes)]) + "\n"


def _head(view: TableView) -> list[str]:
    count = len(view.columns)
    groups = [r"\multicolumn{2}{c}{" + escaped(column.label) + "}" for column in view.columns]
    rules = "".join(rf"\cmidrule(lr){{{2 + 2 * k}-{3 + 2 * k}}}" for k in range(count))
    return [
        r"\begin{table}",
        r"\centering",
        r"\caption{" + escaped(view.caption) + ". Ours with 95\\,\\% bootstrap intervals, beside the paper's.}",
        r"\label{tab:coldbench-" + re.sub(r"[^A-Za-z0-9]+", "-", view.number) + "}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        r"\begin{tabular}{l" + "rr" * count + "}",
        r"\toprule",
        " & ".join(["", *groups]) + r" \\",
        rules,
        " & ".join(["Metric", *["Ours", "Paper"] * count]) + r" \\",
    ]


def _lines(view: TableView, row: Row, notes: Sequence[str]) -> list[str]:
    title = row.label or (row.run.dataset_title if row.run else "")
    facts = f" ({row.run.run}, {row.run.budget} budget)" if row.run else ""
    lines = [r"\midrule", _across(view, r"\textbf{" + escaped(title) + "}" + escaped(facts))]
    for name, _, cells in row.lines:
        short = re.sub(r" \(.*", "", name)
        lines.append(_joined([escaped(short), *[part for cell in cells for part in _values(cell, notes)]]))
        if any(cell.interval for cell in cells):
            spans = [_interval(cell) for cell in cells]
            lines.append(_joined(["", *spans]))
    return lines


def _notes(view: TableView) -> list[str]:
    """The reasons of all verdicts in reading order, each once."""
    cells = (cell for row in view.rows + view.extra for cell in row.cells if cell.ours or cell.paper)
    return list(dict.fromkeys(cell.verdict.reason for cell in cells))


def _values(cell: Cell, notes: Sequence[str]) -> tuple[str, str]:
    if not (cell.ours or cell.paper):
        return "--", "--"
    mark, number = MARKS[cell.verdict.kind].strip("$"), notes.index(cell.verdict.reason) + 1
    ours = escaped(cell.value) if cell.ours else "--"
    dagger = r"$^{\dagger}$" if cell.paper and cell.paper.erratum else ""
    return rf"{ours}$^{{{mark}\,{number}}}$", (escaped(cell.printed) or "--") + dagger


def _interval(cell: Cell) -> str:
    return rf"\multicolumn{{2}}{{l}}{{\scriptsize {escaped(cell.interval)}}}" if cell.interval else "&"


def _joined(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _across(view: TableView, text: str) -> str:
    return rf"\multicolumn{{{1 + 2 * len(view.columns)}}}{{l}}{{{text}}} \\"


def _foot(view: TableView, notes: Sequence[str]) -> list[str]:
    told = [f"$^{{{k}}}$~{escaped(reason)}." for k, reason in enumerate(notes, start=1)]
    told += [
        rf"$^{{\dagger}}$~{escaped(f'{cell.paper.row}, {cell.column.label}, {cell.paper.printed}: {cell.paper.note}')}."
        for cell in view.errata
        if cell.paper
    ]
    key = ", ".join(f"{MARKS[kind]}~{kind}" for kind in KINDS if MARKS[kind])
    return [
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip",
        r"\begin{minipage}{\linewidth}\raggedright\scriptsize",
        f"{key}.",
        *told,
        r"\end{minipage}",
        r"\end{table}",
    ]
