"""What the report reads: our scores and the paper's printed numbers, as typed records."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.files import atomic

WORDS = ("cell", "table", "row", "task", "column", "metric", "erratum", "note")
"""What a line of the paper's numbers holds beside numbers."""
ERRATA = ("misprint", "swapped", "unresolved")


@dataclass(frozen=True)
class Score:
    """One measured value; the fields are the columns of a scores file.

    `table` and `row` say where the paper prints its counterpart, "" where it has none; `set` names the way of sampling,
    `method` the method, degraded, or a difference of two; `reference` is the split that a distance of features is taken
    to; `low` and `high` bound the 95 % interval and may be NaN; `singular` marks a Fréchet distance from fewer images
    than its features have dimensions; `provenance` is JSON text.
    """

    run: str
    experiment: str
    title: str
    table: str
    row: str
    protocol: str
    default: bool
    rationale: str
    budget: str
    dataset: str
    dataset_title: str
    embedded: bool
    set: str
    method: str
    metric: str
    reference: str
    value: float
    low: float
    high: float
    n: int
    singular: bool
    seed: int
    provenance: str

    @property
    def finite(self) -> bool:
        return math.isfinite(self.value)


Scores = tuple[Score, ...]


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


FIELDS = {field.name: str(field.type) for field in fields(Score)}
CASTS: dict[str, Callable[[Any], Any]] = {"str": str, "int": int, "float": float, "bool": bool}
NULLS = {"str": "", "float": math.nan}  # what a null stands for; a null count or flag is an error


def scores_of(frame: pd.DataFrame) -> Scores:
    """The records of a scores frame; ColdbenchError for a missing column or two values for one cell."""
    if absent := [name for name in FIELDS if name not in frame.columns]:
        raise ColdbenchError(f"scores lack the column{'s' * (len(absent) > 1)} {', '.join(absent)}")
    columns = {name: [_cast(name, value) for value in frame[name]] for name in FIELDS}
    scores = tuple(Score(*values) for values in zip(*columns.values(), strict=True))
    keys = Counter((s.run, s.budget, s.set, s.method, s.metric, s.reference) for s in scores)
    for (run, budget, part, method, metric, _), count in keys.items():
        if count > 1:
            raise ColdbenchError(
                f"{run}: {count} values for {part} {method} {metric} at the {budget} budget; give each file once"
            )
    return scores


def _cast(name: str, value: Any) -> Any:
    kind = FIELDS[name]
    try:
        return NULLS[kind] if kind in NULLS and pd.isna(value) else CASTS[kind](value)
    except (TypeError, ValueError) as error:
        raise ColdbenchError(f"scores hold a {name} of the wrong kind: {value!r}") from error


def load_scores(paths: Iterable[Path]) -> Scores:
    """All records of the parquet files at `paths`; ColdbenchError if one cannot be read."""
    frames: list[pd.DataFrame] = []
    for path in paths:
        try:
            frames.append(pd.read_parquet(path))
        except FileNotFoundError as error:
            raise ColdbenchError(f"{path} does not exist") from error
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise ColdbenchError(f"{path} is not a readable scores file: {error}") from error
    return scores_of(pd.concat(frames, ignore_index=True)) if frames else ()


Folders = dict[tuple[str, str], Path]
"""Where the files of each run and budget lie."""


def folders_of(paths: Iterable[Path]) -> Folders:
    """Of every run in the scores files at `paths` the folder that it lies in."""
    found: Folders = {}
    for path in paths:
        frame = pd.read_parquet(path, columns=["run", "budget"]).drop_duplicates()
        found |= {(str(run), str(budget)): path.parent for run, budget in frame.itertuples(index=False)}
    return found


def collect(paths: Iterable[Path], out: Path) -> None:
    """Write all records as one table, sorted, to `out` (parquet) and beside it as CSV without the provenance."""
    keys = ["experiment", "run", "budget", "set", "method", "metric", "reference"]
    frame = pd.DataFrame([vars(score) for score in load_scores(paths)], columns=list(FIELDS)).sort_values(keys)
    with atomic(out.with_suffix(".csv")) as temporary:
        frame.drop(columns="provenance").to_csv(temporary, index=False)
    with atomic(out) as temporary:
        frame.to_parquet(temporary, index=False)


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
            words: dict[str, Any] = {key: line[key] for key in WORDS}
            numbers: dict[str, Any] = {key: float(line[key]) for key in ("value", "tolerance")}
            cell = PaperCell(**words, **numbers, printed=line["value"])
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
