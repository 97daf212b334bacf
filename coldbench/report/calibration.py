"""The calibration page: every interpretation of the Degraded cells beside the paper's numbers, and their agreement."""

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
from coldbench.report.navigation import CALIBRATION, render
from coldbench.report.paper import PaperCell

AGREEMENTS = ("exact", "within sampling error", "close", "not reproduced", "not judged")
MEANINGS = {
    "exact": "both values round to every printed digit",
    "within sampling error": "the operator is random; both values lie within 3 standard deviations of one evaluation",
    "close": "both values lie within 0.002, a difference that chance or a subset of the images can cause",
    "not reproduced": "a value lies further away",
    "not judged": "the images are perturbed copies, without true images to correct the values",
}
CLOSE = 0.002
SIGMAS = 3
COUNTS = ("table", "n", "draws")
"""The columns of integers, which a table with rows without them stores as floats."""


@dataclass(frozen=True)
class CalibratedValue:
    """One metric of an interpretation: our value, the spread of one evaluation (0: not random), the paper's cell."""

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
        """Whether the printed number is a suspected misprint."""
        return self.paper is not None and self.paper.erratum in ("misprint", "swapped")

    @property
    def agreement(self) -> str:
        """The agreement of our value with the printed one, one of AGREEMENTS."""
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
class Interpretation:
    """One interpretation on its best source of images; `others` are the copies that a corrected value comes from."""

    name: str
    rationale: str
    fitted_after: bool
    metric: str
    source: str
    values: tuple[CalibratedValue, CalibratedValue]
    others: tuple[tuple[str, float, float], ...]
    n: int
    draws: int

    @property
    def agreement(self) -> str:
        """The worse agreement of the two values; a suspected misprint counts only if the interpretation explains it."""
        if self.source.endswith(("_jpeg", "_part")):
            return "not judged"
        judged = [v.agreement for v in self.values if not v.doubted or self.metric != "paper"]
        return max(judged, key=AGREEMENTS.index)

    @property
    def label(self) -> str:
        """The agreement, or a note that the interpretation was selected because it agrees."""
        chosen = self.fitted_after and self.agreement in AGREEMENTS[:3]
        return "fitted after the fact" if chosen else self.agreement


@dataclass(frozen=True)
class CalibratedRow:
    """One row of the paper with its interpretations; `missing` names the data that it needs."""

    name: str
    table: int
    label: str
    printed: tuple[PaperCell | None, PaperCell | None]
    interpretations: tuple[Interpretation, ...]
    missing: str

    @property
    def fits(self) -> tuple[Interpretation, ...]:
        """The interpretations with the best agreement, in the order of the file; none if no value is close."""
        ranked = [r for r in self.interpretations if r.agreement in AGREEMENTS[:3]]
        best = min((AGREEMENTS.index(r.agreement) for r in ranked), default=None)
        return tuple(r for r in ranked if AGREEMENTS.index(r.agreement) == best)


def rows(records: Sequence[dict[str, Any]], paper: Iterable[PaperCell]) -> list[CalibratedRow]:
    """The records of `evaluation.calibration.run` beside the paper's Degraded cells."""
    cells = {(cell.table, cell.row, cell.metric): cell for cell in paper if cell.column == "degraded"}
    grouped: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        grouped.setdefault(record["cell"], []).append(record)
    return [_row(name, group, cells) for name, group in grouped.items()]


def _row(name: str, group: list[dict[str, Any]], cells: dict[tuple[str, str, str], PaperCell]) -> CalibratedRow:
    first = group[0]
    ssim, rmse = (cells.get((str(first["table"]), first["row"], metric)) for metric in ("ssim", "rmse"))
    by_interpretation: dict[str, list[dict[str, Any]]] = {}
    for record in group:
        if not record["missing"]:
            by_interpretation.setdefault(record["interpretation"], []).append(record)
    interpretations = tuple(
        _interpretation(interpretation, records, (ssim, rmse)) for interpretation, records in by_interpretation.items()
    )
    return CalibratedRow(name, first["table"], first["row"], (ssim, rmse), interpretations, first["missing"])


def _interpretation(
    name: str, records: list[dict[str, Any]], printed: tuple[PaperCell | None, PaperCell | None]
) -> Interpretation:
    by_source: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_source.setdefault(record["source"], []).append(record)
    best = next((s for s in by_source if s.endswith("(corrected)")), next(iter(by_source)))
    fields = ("metric", "value", "spread", "subset_spread", "draws")
    one, two = (
        CalibratedValue(**{field: record[field] for field in fields}, paper=cell)
        for record, cell in zip(by_source[best], printed, strict=True)
    )
    others = tuple((s, pair[0]["value"], pair[1]["value"]) for s, pair in by_source.items() if s != best)
    first = by_source[best][0]
    settings = first["rationale"], first["fitted_after"], first["measured"]
    return Interpretation(name, *settings, best, (one, two), others, first["n"], first["draws"])


def table(records: Sequence[dict[str, Any]], judged: Iterable[CalibratedRow]) -> pd.DataFrame:
    """Every record with the printed number, the difference, and the agreement of the cell and the interpretation."""
    verdicts = {
        (row.name, interpretation.name): interpretation for row in judged for interpretation in row.interpretations
    }
    lines = []
    for record in records:
        interpretation = verdicts.get((record["cell"], record.get("interpretation", "")))
        extra: dict[str, Any] = {"printed": "", "gap": float("nan"), "agreement": "", "verdict": ""}
        if interpretation and record["source"] == interpretation.source:
            value = interpretation.values[0 if record["metric"] == "ssim" else 1]
            extra = {
                "printed": value.paper.printed if value.paper else "",
                "gap": value.gap,
                "agreement": "misprint suspected" if value.doubted else value.agreement,
                "verdict": interpretation.label,
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
        names = ", ".join(interpretation.name for interpretation in row.fits) or "no interpretation agrees"
        log.info("%s: %s", row.name, (row.missing and "no data") or (f"{names} ({best.label})" if best else names))


def load_table(path: Path | None) -> list[dict[str, Any]]:
    """The rows that `write_table` wrote; none without a path. Raises ColdbenchError if the file is unreadable."""
    if path is None:
        return []
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        raise ColdbenchError(f"{path} does not exist; `coldbench calibrate` writes it") from None
    except (OSError, ValueError) as error:
        raise ColdbenchError(f"{path} is not a readable calibration: {error}") from error
    lines = [{str(key): value for key, value in line.items()} for line in frame.to_dict("records")]
    return [line | {key: int(line[key]) for key in COUNTS if not pd.isna(line.get(key))} for line in lines]


def write_page(lines: Sequence[dict[str, Any]], paper: Iterable[PaperCell], page: Path) -> None:
    """Write the page of a loaded table; a calibration on a part of the images has a warning."""
    facts = json.loads(lines[0]["provenance"]) if lines else {}
    first = facts.get("first_images")
    note = (
        f"This calibration used only the first {first:,} images of each set, so its verdicts mean nothing."
        if first
        else ""
    )
    judged = rows(lines, paper)
    write_text(
        page,
        render("calibration.html", CALIBRATION, page.parent, rows=judged, meanings=MEANINGS, facts=facts, note=note),
    )
