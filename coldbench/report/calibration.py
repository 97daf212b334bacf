"""The calibration page: every interpretation of the Degraded cells beside the paper's numbers, and their agreement."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import ConfigDict, Field, Json, NonNegativeFloat, NonNegativeInt, model_validator

from coldbench.core.errors import ColdbenchError
from coldbench.core.logs import log
from coldbench.core.validation import Strict, checked
from coldbench.evaluation.tables import csv_fits, read_made_from, read_table, write_table
from coldbench.report.cells import Calibrated, CalibratedCells, PlannedRow, in_groups
from coldbench.report.navigation import CALIBRATION, ReportFolder
from coldbench.report.paper import PaperCell

AGREEMENTS = ("exact", "within sampling error", "close", "differs", "not comparable")
MEANINGS = {
    "exact": "both values round to every printed digit",
    "within sampling error": "the operator is random; both values lie within 3 standard deviations of one evaluation",
    "close": "both values lie within 0.002, a difference that chance or a subset of the images can cause",
    "differs": "a value lies further away",
    "not comparable": "the images are perturbed copies, without true images to correct the values",
}
CLOSE = 0.002
SIGMAS = 3
METRICS = ("ssim", "rmse")


class Record(Strict):
    """What the report reads of one line of the table: one metric of one interpretation, on one source of images.

    A row without data has a single line, with `missing`. A null in the table stands for the default.
    """

    model_config = ConfigDict(extra="ignore")

    cell: str
    table: int
    row: str
    source: str
    missing: str = ""
    interpretation: str = ""
    rationale: str = ""
    fitted_after: bool = False
    measured: str = ""
    metric: Literal["", "ssim", "rmse"] = ""
    value: float = math.nan
    spread: NonNegativeFloat = 0.0
    """Standard deviation of one evaluation; 0 if the operator is not random."""
    subset_spread: float = math.nan
    draws: NonNegativeInt = 0
    n: NonNegativeInt = 0
    printed: str = ""
    verdict: str = ""
    provenance: Annotated[Json[dict[str, Any]], Field(default_factory=dict)]

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, line: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in line.items() if not pd.isna(value)}

    @model_validator(mode="after")
    def _has_a_value(self) -> Record:
        if not self.missing and (not self.metric or math.isnan(self.value)):
            raise ValueError("a row with data has no value")
        return self


@dataclass(frozen=True)
class CalibratedValue:
    """One metric of an interpretation beside the paper's cell."""

    record: Record
    paper: PaperCell | None

    @property
    def gap(self) -> float:
        return self.record.value - self.paper.value if self.paper else math.nan

    @property
    def doubted(self) -> bool:
        """Whether the printed number is a suspected misprint."""
        return self.paper is not None and self.paper.erratum in ("misprint", "swapped")

    @property
    def agreement(self) -> str:
        """The agreement of our value with the printed one, one of AGREEMENTS."""
        if self.paper is None:
            return "not comparable"
        value, spread = self.record.value, self.record.spread
        decimals = len(self.paper.printed.partition(".")[2])
        if spread == 0 and f"{value:.{decimals}f}" == self.paper.printed:
            return "exact"
        allowed = SIGMAS * spread * (1 + 1 / max(1, self.record.draws)) ** 0.5 + 0.5 * 10**-decimals
        if spread and abs(self.gap) <= allowed:
            return "within sampling error"
        return "close" if abs(self.gap) <= CLOSE + 0.5 * 10**-decimals else "differs"


@dataclass(frozen=True)
class Interpretation:
    """One interpretation: SSIM and RMSE on its best source of images, and on the other sources."""

    values: tuple[CalibratedValue, ...]
    others: tuple[tuple[Record, ...], ...]

    @property
    def facts(self) -> Record:
        """What both values share: name, rationale, source of the images and their number."""
        return self.values[0].record

    @property
    def agreement(self) -> str:
        """The worse agreement of the two values; a suspected misprint counts only if the interpretation explains it."""
        if self.facts.source.endswith(("_jpeg", "_part")):
            return "not comparable"
        judged = [v.agreement for v in self.values if not v.doubted or self.facts.measured != "paper"]
        return max(judged, key=AGREEMENTS.index, default="not comparable")

    @property
    def label(self) -> str:
        """The agreement, or a note that the interpretation was selected because it agrees."""
        chosen = self.facts.fitted_after and self.agreement in AGREEMENTS[:3]
        return "fitted after the fact" if chosen else self.agreement


@dataclass(frozen=True)
class CalibratedRow:
    """One row of the paper with its interpretations; `facts` is its first line in the table."""

    facts: Record
    printed: tuple[PaperCell | None, ...]
    interpretations: tuple[Interpretation, ...]

    @property
    def fits(self) -> tuple[Interpretation, ...]:
        """The interpretations with the best agreement, in the order of the file; none if no value is close."""
        ranked = [r for r in self.interpretations if r.agreement in AGREEMENTS[:3]]
        best = min((AGREEMENTS.index(r.agreement) for r in ranked), default=None)
        return tuple(r for r in ranked if AGREEMENTS.index(r.agreement) == best)


def rows(records: Iterable[Record], paper: Iterable[PaperCell]) -> list[CalibratedRow]:
    """The records of a calibration beside the paper's Degraded cells.

    Raises ColdbenchError if an interpretation lacks one of its two metrics.
    """
    degraded = [cell for cell in paper if cell.column == "degraded"]
    judged = []
    for group in in_groups(records, "cell"):
        facts = group[0]
        cells = {cell.metric: cell for cell in degraded if (cell.table, cell.row) == (str(facts.table), facts.row)}
        printed = (cells.get("ssim"), cells.get("rmse"))
        scored = in_groups((record for record in group if not record.missing), "interpretation")
        judged.append(CalibratedRow(facts, printed, tuple(_interpretation(each, printed) for each in scored)))
    return judged


def cells(records: Sequence[Record], paper: Sequence[PaperCell], planned: Iterable[PlannedRow]) -> CalibratedCells:
    """The values of degraded images by the selected protocol of each planned row; none of a quick look."""
    protocols = {(row.table, row.row): row.protocol for row in planned}
    found: dict[tuple[str, str, str], Calibrated] = {}
    for row in rows(records, paper):
        place = str(row.facts.table), row.facts.row
        for interpretation in row.interpretations:
            facts = interpretation.facts
            quick = "first_images" in facts.provenance
            if facts.interpretation != protocols.get(place) or quick or interpretation.label == "not comparable":
                continue
            source = f"{facts.source}, fitted after the fact" if facts.fitted_after else facts.source
            for record in (value.record for value in interpretation.values):
                known = Calibrated(facts.interpretation, source, record.value, record.n)
                found[*place, record.metric] = known
    return found


def _interpretation(records: list[Record], printed: tuple[PaperCell | None, ...]) -> Interpretation:
    pairs = in_groups(records, "source")
    if any(tuple(record.metric for record in pair) != METRICS for pair in pairs):
        raise ColdbenchError(f"the calibration of {records[0].cell} has no pair of SSIM and RMSE")
    best = next((pair for pair in pairs if pair[0].source.endswith("(corrected)")), pairs[0])
    values = tuple(map(CalibratedValue, best, printed))
    return Interpretation(values, tuple(tuple(pair) for pair in pairs if pair is not best))


def table(records: Sequence[dict[str, Any]], judged: Iterable[CalibratedRow]) -> pd.DataFrame:
    """Every record with the printed number, the difference, and the agreement of the cell and the interpretation."""
    verdicts = {
        (row.facts.cell, interpretation.facts.interpretation): interpretation
        for row in judged
        for interpretation in row.interpretations
    }
    lines = []
    for record in records:
        interpretation = verdicts.get((record["cell"], record.get("interpretation", "")))
        extra: dict[str, Any] = {"printed": "", "gap": float("nan"), "agreement": "", "verdict": ""}
        if interpretation and record["source"] == interpretation.facts.source:
            value = interpretation.values[METRICS.index(record["metric"])]
            extra = {
                "printed": value.paper.printed if value.paper else "",
                "gap": value.gap,
                "agreement": "misprint suspected" if value.doubted else value.agreement,
                "verdict": interpretation.label,
            }
        lines.append({**record, **extra})
    return pd.DataFrame(lines)


def write_calibration(
    records: Sequence[dict[str, Any]],
    paper: Iterable[PaperCell],
    out: Path,
    facts: dict[str, Any],
    made_from: dict[str, Any],
) -> None:
    """Write the table to `out` (parquet, with `facts` in every row) and beside it as CSV; it states `made_from`."""
    judged = rows([checked(Record, record, "the calibration") for record in records], paper)
    frame = table(records, judged).assign(provenance=json.dumps(facts, sort_keys=True))
    write_table(frame, out, made_from, _csv(frame))
    for row in judged:
        names = ", ".join(each.facts.interpretation for each in row.fits) or "no interpretation agrees"
        agreement = f" ({row.fits[0].label})" if row.fits else ""
        log.info("%s: %s", row.facts.cell, "no data" if row.facts.missing else names + agreement)


def keep_calibration(out: Path, made_from: dict[str, Any]) -> bool:
    """Whether the table in `out` was made from that, so that nothing needs to be calibrated.

    It may also hold data sets that are absent now. A CSV that is missing or damaged is written again from it.
    """
    try:
        stated = read_made_from(out)
        if stated != {**made_from, "data": {**stated.get("data", {}), **made_from["data"]}}:
            return False
        if not csv_fits(out):
            frame = read_table(out)
            write_table(frame, out, stated, _csv(frame))
    except ColdbenchError:
        return False
    log.info("%s is finished: it was made from these interpretations and data", out)
    return True


def _csv(frame: pd.DataFrame) -> str:
    return str(frame.drop(columns="provenance").to_csv(index=False, float_format="%.6f"))


def load_calibration(path: Path | None) -> list[Record]:
    """The lines that `write_calibration` wrote; none without a path. Raises ColdbenchError if the file is damaged."""
    if path is None:
        return []
    lines = read_table(path).to_dict("records")
    return [checked(Record, {str(key): value for key, value in line.items()}, str(path)) for line in lines]


def page(records: Sequence[Record], paper: Iterable[PaperCell], folder: ReportFolder) -> str:
    """The page of a loaded table; a calibration on a part of the images has a warning."""
    facts = records[0].provenance if records else {}
    note = ""
    if isinstance(first := facts.get("first_images"), int):
        note = f"This calibration used only the first {first:,} images of each set, so its verdicts mean nothing."
    values: dict[str, Any] = {"rows": rows(records, paper), "meanings": MEANINGS, "facts": facts}
    return folder.render("calibration.html", CALIBRATION, **values, note=note)
