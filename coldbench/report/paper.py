"""The numbers that the paper prints, as typed records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import FiniteFloat, PositiveFloat

from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.validation import Strict, checked
from coldbench.report.layout import TABLES


class PaperCell(Strict):
    """One number as the paper prints it, with the tolerance of a comparison and an erratum kind ("" for none).

    `meant` is the number that seems to be meant, if two numbers look exchanged.
    """

    cell: str
    table: str
    row: str
    task: str
    column: str
    metric: Literal["fid", "ssim", "rmse"]
    printed: str
    value: FiniteFloat
    tolerance: PositiveFloat
    erratum: Literal["", "misprint", "swapped", "unresolved"]
    note: str
    meant: float | None = None


def load_paper(path: Path) -> list[PaperCell]:
    """The paper's cells in the order of the file; ColdbenchError if the file is missing or a line is wrong."""
    try:
        lines = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise ColdbenchError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise ColdbenchError(f"cannot read {path}: {error}") from error
    if lines.empty:
        raise ColdbenchError(f"{path} holds no numbers of the paper")
    cells = []
    for number, line in enumerate(lines.to_dict("records"), start=2):
        fields = {**line, "printed": line.get("value", "")}
        cell = checked(PaperCell, {str(key): value for key, value in fields.items()}, f"{path}, line {number}")
        if cell.table not in TABLES:
            raise unknown(f"table of {cell.cell} in {path}", cell.table, TABLES)
        cells.append(cell)
    if twice := [cell for cell, count in Counter(c.cell for c in cells).items() if count > 1]:
        raise ColdbenchError(f"{path} has two cells {twice[0]}")
    return [_exchanged(cell, cells, path) if cell.erratum == "swapped" else cell for cell in cells]


def _exchanged(cell: PaperCell, cells: Sequence[PaperCell], path: Path) -> PaperCell:
    place = (cell.table, cell.row, cell.column, cell.erratum)
    others = [c for c in cells if (c.table, c.row, c.column, c.erratum) == place and c != cell]
    if len(others) != 1:
        raise ColdbenchError(f"{path}: cell {cell.cell} is swapped with {len(others)} cells, not with one")
    return cell.model_copy(update={"meant": others[0].value})
