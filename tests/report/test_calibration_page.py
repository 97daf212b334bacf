"""The calibration page: how well a value agrees with the printed one, and the page of the published calibration."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from cases import CONFIG, PAPER, ROOT
from typer.testing import CliRunner

from coldbench.cli import app
from coldbench.report import calibration as view
from coldbench.report.calibration import Record
from coldbench.report.paper import PaperCell

PUBLISHED = ROOT / "results/published/laptop-cpu/calibration.parquet"


def cell(printed: str, erratum: str = "") -> PaperCell:
    line = {"cell": "c", "table": "1", "row": "MNIST", "task": "task", "column": "degraded", "metric": "ssim"}
    value = {"printed": printed, "value": printed, "tolerance": 0.001, "erratum": erratum, "note": ""}
    return PaperCell.model_validate({**line, **value})


def record(**facts: Any) -> Record:
    return Record(**{"cell": "T1", "table": 1, "row": "MNIST", "source": "mnist", "metric": "ssim", **facts})


@pytest.mark.parametrize(
    ("value", "spread", "printed", "agreement"),
    [
        (0.23049, 0.0, "0.231", "close"),
        (0.230502, 0.0, "0.231", "exact"),
        (0.2314, 0.0, "0.231", "exact"),
        (0.2332, 0.0, "0.231", "close"),
        (0.2336, 0.0, "0.231", "differs"),
        (0.240, 0.003, "0.231", "within sampling error"),
        (0.245, 0.003, "0.231", "differs"),
        (0.2325, 1e-6, "0.231", "close"),
    ],
)
def test_agreement_is_judged_by_digits_and_spread(value: float, spread: float, printed: str, agreement: str) -> None:
    assert view.CalibratedValue(record(value=value, spread=spread, draws=4), cell(printed)).agreement == agreement


def test_label_is_that_of_the_worse_cell() -> None:
    """A suspected misprint is left out, a copy is not judged, and an interpretation chosen to fit says so."""

    def label(ssim: float, rmse: float, erratum: str = "", fitted: bool = False, source: str = "mnist") -> str:
        facts = {"fitted_after": fitted, "source": source, "measured": "paper"}
        one = view.CalibratedValue(record(value=ssim, **facts), cell("0.300", erratum))
        two = view.CalibratedValue(record(value=rmse, **facts), cell("0.200"))
        return view.Interpretation((one, two), ()).label

    assert label(0.3, 0.2) == "exact"
    assert label(0.3, 0.2015) == "close"
    assert label(0.4, 0.2) == "differs"
    assert label(0.4, 0.2, "misprint") == "exact"
    assert label(0.3, 0.2, fitted=True) == "fitted after the fact"
    assert label(0.4, 0.2, fitted=True) == "differs"
    assert label(0.3, 0.2, source="cifar10_jpeg") == "not comparable"


def test_published_calibration_recommends_what_fits_best() -> None:
    """Rows of the JPEG copies keep their labels although no version makes them again."""
    records = view.load_calibration(PUBLISHED)
    assert set(pd.read_parquet(PUBLISHED).made_by) == {"coldbench 0.1.0, commit a9a395c50b6d"}
    rows = [row for row in view.rows(records, PAPER) if row.interpretations]
    assert all(row.fits[0] is row.interpretations[0] for row in rows)
    assert {row.facts.cell: row.interpretations[0].label for row in rows} == {
        "T1-MNIST": "exact",
        "T1-CIFAR-10": "exact",
        "T2-MNIST": "fitted after the fact",
        "T2-CIFAR-10": "fitted after the fact",
        "T3-MNIST": "exact",
        "T3-CIFAR-10": "exact",
        "T4-CIFAR-10": "within sampling error",
        "T6-CIFAR-10": "close",
    }


def test_calibration_says_what_each_row_without_data_needs(tmp_path: Path) -> None:
    out, page, plan = tmp_path / "c.parquet", tmp_path / "c.html", tmp_path / "plan.yaml"
    rows = yaml.safe_load((CONFIG / "calibration.yaml").read_text())["rows"]
    snow = {"name": "snow", "T": 2, "level": 3}
    digits = {"dataset": "digits", "degradation": snow, "interpretations": {"a": {"rationale": ""}}}
    plan.write_text(yaml.safe_dump({"rows": {**rows, "digits": {"table": 1, "row": "MNIST", **digits}}}))
    common: list[Any] = ["--paper", ROOT / "workflow/paper/tables.csv", "--out"]
    calibrate = ["calibrate", plan, *common, out, "--data", tmp_path, "--images", 2]
    run(calibrate)
    run(["render-calibration", out, *common, page])
    frame = pd.read_parquet(out)
    assert out.with_suffix(".csv").read_text().count("\n") == len(frame) + 1
    missing = frame[frame.cell != "digits"].missing
    assert len(missing) == len(rows)
    assert missing.str.len().min() > 10
    assert "CelebA-HQ" in page.read_text()

    csv, table, date = out.with_suffix(".csv"), out.read_bytes(), out.stat().st_mtime_ns
    good = csv.read_bytes()
    run(calibrate)
    assert out.stat().st_mtime_ns == date, "a finished table is kept"
    for damaged in (b"", good[:-9]):
        csv.write_bytes(damaged)
        run(calibrate)
        assert (csv.read_bytes(), out.read_bytes()) == (good, table)
    plan.write_text(plan.read_text().replace("level: 3", "level: 4"))
    run(calibrate)
    assert out.read_bytes() != table


def run(command: Iterable[Any]) -> None:
    result = CliRunner().invoke(app, list(map(str, command)))
    assert result.exit_code == 0, result.output
