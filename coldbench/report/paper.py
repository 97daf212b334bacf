"""The numbers that the paper prints, as typed records."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coldbench.core.errors import ColdbenchError, unknown

TEXTS = ("cell", "table", "row", "task", "column", "metric", "erratum", "note")
"""The text columns of the paper's numbers."""
ERRATA = ("misprint", "swapped", "unresolved")


@dataclass(frozen=True)
class PaperCell:
    """One number as the paper prints it, with the tolerance of a comparison and an erratum kind ("" for none).

    `meant` is the number that seems to be meant, if two numbers look exchanged.
    """

    cell: str
    table: str
    row: str
    task: str
    column: str
    metric: str
    printed: str
    value: float
    tolerance: float
    erratum: str
    note: str
    meant: float | None = None


def load_paper(path: Path) -> list[PaperCell]:
    """The paper's cells in the order of the file; ColdbenchError if the file is missing or a line is wrong."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return _cells(path, list(csv.DictReader(stream)))
    except FileNotFoundError as error:
        raise ColdbenchError(f"{path} does not exist") from error
    except OSError as error:
        raise ColdbenchError(f"cannot read {path}: {error.strerror}") from error


def _cells(path: Path, lines: Sequence[dict[str, str]]) -> list[PaperCell]:
    cells: list[PaperCell] = []
    for number, line in enumerate(lines, start=2):
        try:
            texts: dict[str, Any] = {key: line[key] for key in TEXTS}
            numbers: dict[str, Any] = {key: float(line[key]) for key in ("value", "tolerance")}
            cell = PaperCell(**texts, **numbers, printed=line["value"])
        except (KeyError, TypeError, ValueError) as error:
            raise ColdbenchError(f"{path}, line {number}: {error}") from error
        if cell.erratum and cell.erratum not in ERRATA:
            raise unknown(f"erratum of {cell.cell}", cell.erratum, ERRATA)
        cells.append(cell)
    if twice := [cell for cell, count in Counter(c.cell for c in cells).items() if count > 1]:
        raise ColdbenchError(f"{path} has two cells {twice[0]}")
    return [_exchanged(cell, cells, path) if cell.erratum == "swapped" else cell for cell in cells]


def _exchanged(cell: PaperCell, cells: Iterable[PaperCell], path: Path) -> PaperCell:
    """A swapped cell with the number of its counterpart."""
    place = (cell.table, cell.row, cell.column, cell.erratum)
    others = [c for c in cells if (c.table, c.row, c.column, c.erratum) == place and c != cell]
    if len(others) != 1:
        raise ColdbenchError(f"{path}: cell {cell.cell} is swapped with {len(others)} cells, not with one")
    return replace(cell, meant=others[0].value)
