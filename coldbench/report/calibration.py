"""The calibration page: every reading of the Degraded cells beside the paper's numbers, and how firmly each fits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import atomic, write_text
from coldbench.core.logs import log
from coldbench.report.inputs import PaperCell
from coldbench.report.navigation import CALIBRATION, render

FIRMNESS = ("exact", "within sampling error", "close", "not reproduced", "not judged")
MEANS = {
    "exact": "rounds to every printed digit of both cells",
    "within sampling error": "the operator is random; both cells lie within 3 standard deviations of one evaluation",
    "close": "both cells lie within 0.002, for which chance or a subset of images may account",
    "not reproduced": "a cell lies further away",
    "not judged": "a perturbed copy of the data, without true images to correct it",
}
CLOSE = 0.002
SIGMAS = 3
COUNTS = ("table", "n", "draws")
"""The columns of whole numbers, which a table with lines that lack them stores as others."""


@dataclass(frozen=True)
class Value:
    """One metric of one reading: our value, the spread of one evaluation (0: not random), and the paper's cell."""

    metric: str
    value: float
    spread: float
    subset_spread: float
    draws: int
    paper: PaperCell | None

    @property
    def gap(self) -> float:
        return self.value - self.paper.value if self.paper else float("nan")

    @property
    def doubted(self) -> bool:
        """Whether the printed number is no target, being a suspected misprint."""
        return self.paper is not None and self.paper.erratum in ("misprint", "swapped")

    @property
    def firmness(self) -> str:
        """How firmly our value agrees with the printed one, one of FIRMNESS."""
        if self.paper is None:
            return "not judged"
        decimals = len(self.paper.printed.partition(".")[2])
        if self.spread == 0 and f"{self.value:.{decimals}f}" == self.paper.printed:
            return "exact"
        allowed = SIGMAS * self.spread * (1 + 1 / self.draws) ** 0.5 + 0.5 * 10**-decimals
        if self.spread and abs(self.gap) <= allowed:
            return "within sampling error"
        return "close" if abs(self.gap) <= CLOSE + 0.5 * 10**-decimals else "not reproduced"


@dataclass(frozen=True)
class Reading:
    """One reading on the best source there is; `others` are the copies behind a corrected value."""

    name: str
    rationale: str
    fitted_after: bool
    metric: str
    source: str
    values: tuple[Value, Value]
    others: tuple[tuple[str, float, float], ...]
    n: int
    draws: int

    @property
    def firmness(self) -> str:
        """The worse of its two cells, a suspected misprint left out unless the reading is about that very number."""
        if self.source.endswith(("_jpeg", "_part")):
            return "not judged"
        judged = [v.firmness for v in self.values if not v.doubted or self.metric != "paper"]
        return max(judged, key=FIRMNESS.index)

    @property
    def label(self) -> str:
        """The firmness, unless the reading was chosen because it fits."""
        chosen = self.fitted_after and self.firmness in FIRMNESS[:3]
        return "fitted after the fact" if chosen else self.firmness


@dataclass(frozen=True)
class Row:
    """One row of the paper with all its readings; `missing` says what data it would need."""

    name: str
    table: int
    label: str
    printed: tuple[PaperCell | None, PaperCell | None]
    readings: tuple[Reading, ...]
    missing: str

    @property
    def fits(self) -> tuple[Reading, ...]:
        """The readings that agree most firmly, in the order of the file; none if nothing is even close."""
        ranked = [r for r in self.readings if r.firmness in FIRMNESS[:3]]
        best = min((FIRMNESS.index(r.firmness) for r in ranked), default=None)
        return tuple(r for r in ranked if FIRMNESS.index(r.firmness) == best)


def rows(records: Sequence[dict[str, Any]], paper: Iterable[PaperCell]) -> list[Row]:
    """The records of `calibrate.run` beside the paper's Degraded cells."""
    cells = {(cell.table, cell.row, cell.metric): cell for cell in paper if cell.column == "degraded"}
    grouped: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        grouped.setdefault(record["cell"], []).append(record)
    return [_row(name, group, cells) for name, group in grouped.items()]


def _row(name: str, group: list[dict[str, Any]], cells: dict[tuple[str, str, str], PaperCell]) -> Row:
    first = group[0]
    ssim, rmse = (cells.get((str(first["table"]), first["row"], metric)) for metric in ("ssim", "rmse"))
    by_reading: dict[str, list[dict[str, Any]]] = {}
    for record in group:
        if not record["missing"]:
            by_reading.setdefault(record["interpretation"], []).append(record)
    readings = tuple(_reading(reading, found, (ssim, rmse)) for reading, found in by_reading.items())
    return Row(name, first["table"], first["row"], (ssim, rmse), readings, first["missing"])


def _reading(name: str, found: list[dict[str, Any]], printed: tuple[PaperCell | None, PaperCell | None]) -> Reading:
    by_source: dict[str, list[dict[str, Any]]] = {}
    for record in found:
        by_source.setdefault(record["source"], []).append(record)
    best = next((s for s in by_source if s.endswith("(corrected)")), next(iter(by_source)))
    fields = ("metric", "value", "spread", "subset_spread", "draws")
    one, two = (
        Value(**{field: record[field] for field in fields}, paper=cell)
        for record, cell in zip(by_source[best], printed, strict=True)
    )
    others = tuple((s, pair[0]["value"], pair[1]["value"]) for s, pair in by_source.items() if s != best)
    first = by_source[best][0]
    told = first["rationale"], first["fitted_after"], first["measured"]
    return Reading(name, *told, best, (one, two), others, first["n"], first["draws"])


def table(records: Sequence[dict[str, Any]], judged: Iterable[Row]) -> pd.DataFrame:
    """Every record with the printed number, the difference, and the verdicts on its cell and on its reading."""
    verdicts = {(row.name, reading.name): reading for row in judged for reading in row.readings}
    lines = []
    for record in records:
        reading = verdicts.get((record["cell"], record.get("interpretation", "")))
        extra: dict[str, Any] = {"printed": "", "gap": float("nan"), "agreement": "", "verdict": ""}
        if reading and record["source"] == reading.source:
            value = reading.values[0 if record["metric"] == "ssim" else 1]
            extra = {
                "printed": value.paper.printed if value.paper else "",
                "gap": value.gap,
                "agreement": "misprint suspected" if value.doubted else value.firmness,
                "verdict": reading.label,
            }
        lines.append({**record, **extra})
    return pd.DataFrame(lines)


def write_table(
    records: Sequence[dict[str, Any]], paper: Iterable[PaperCell], out: Path, facts: dict[str, Any]
) -> None:
    """Write the table to `out` (parquet, with `facts` in every row) and beside it as CSV."""
    judged = rows(records, paper)
    frame = table(records, judged)
    with atomic(out.with_suffix(".csv")) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6f")
    with atomic(out) as temporary:
        frame.assign(provenance=json.dumps(facts, sort_keys=True)).to_parquet(temporary, index=False)
    for row in judged:
        best = row.fits[0] if row.fits else None
        told = ", ".join(reading.name for reading in row.fits) or "none fits"
        log.info("%s: %s", row.name, (row.missing and "no data") or (f"{told} ({best.label})" if best else told))


def load_table(path: Path | None) -> list[dict[str, Any]]:
    """The lines that `write_table` wrote; none where there is no file."""
    if path is None:
        return []
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        raise ColdbenchError(f"{path} does not exist; `coldbench calibrate` makes it") from None
    except (OSError, ValueError) as error:
        raise ColdbenchError(f"{path} is not a readable calibration: {error}") from error
    lines = [{str(key): value for key, value in line.items()} for line in frame.to_dict("records")]
    return [line | {key: int(line[key]) for key in COUNTS if not pd.isna(line.get(key))} for line in lines]


def write_page(lines: Sequence[dict[str, Any]], paper: Iterable[PaperCell], page: Path, pages: Iterable[str]) -> None:
    """Write the page of a table that was loaded; `pages` are those that it may link to.

    Where not all images were taken, the page is marked.
    """
    facts = json.loads(lines[0]["provenance"]) if lines else {}
    first = facts.get("first_images")
    note = f"A quick look at the first {first:,} images of each set; the verdicts mean nothing." if first else ""
    judged = rows(lines, paper)
    write_text(
        page, render("calibration.html", CALIBRATION, pages, rows=judged, meanings=MEANS, facts=facts, note=note)
    )
