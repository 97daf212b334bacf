"""Calibration: values against independent code, spread against brute force, verdicts, bad files, real images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from cases import ROOT
from pytorch_msssim import ssim
from typer.testing import CliRunner

from coldbench import data, degradations
from coldbench.cli import app
from coldbench.core import logs, rng
from coldbench.core.config import Config, resolve
from coldbench.core.errors import ColdbenchError
from coldbench.core.validation import checked
from coldbench.evaluation import calibration, interpretations
from coldbench.report import calibration as view
from coldbench.report.inputs import PaperCell, load_paper

READINGS = ROOT / "workflow/config/calibration.yaml"
PAPER = ROOT / "workflow/paper/tables.csv"
REAL = ROOT.parent / "shared" / "data"
CPU = torch.device("cpu")
MASK = {"name": "inpainting", "T": 3, "std": 2.0, "rate": 1.0, "centre_low": 0, "centre_high": 31, "quantized": True}


def plan_of(**row: Any) -> interpretations.Calibration:
    """One row on the embedded digits."""
    base = {
        "table": 1,
        "row": "MNIST",
        "dataset": "digits",
        "degradation": MASK,
        "readings": {"plain": {"rationale": ""}},
    }
    return interpretations.load(yaml.safe_dump({"rows": {"row": {**base, **row}}}), "test")


def test_values_are_those_of_the_metrics_own_code() -> None:
    """One reading with crop and truncation, put together by hand from PIL's images and pytorch-msssim."""
    images = {"resize": 35, "crop": 32}
    plan = plan_of(readings={"zoom": {"rationale": "", "preprocessing": images}})
    records = calibration.run(plan, Path(), CPU, 60)
    every = data.dataset("digits").build(Path(), 35, "test")
    crop = np.stack([next(every)[:, 2:34, 2:34] for _ in range(60)])
    x = torch.from_numpy(crop) / 255.0
    d = degradations.build(MASK, 32)
    state = d.draw(torch.arange(60), rng.derive(0, "calibration 0"))
    xt = torch.trunc((d(2 * x - 1, torch.full((60,), 3), state) + 1) * 0.5 * 255) / 255
    assert records[0]["value"] == pytest.approx(float(ssim(x, xt, data_range=1)), abs=1e-6)
    assert records[1]["value"] == pytest.approx(float((x - xt).square().mean().sqrt()), abs=1e-6)


@pytest.mark.parametrize("shared", [1, 8])
def test_spread_is_that_of_whole_evaluations(shared: int) -> None:
    """From few draws per image, what many whole evaluations show, also where images share a pattern."""
    snow = {"name": "snow", "T": 4, "level": 3, "shared": shared}
    plan = plan_of(degradation=snow if shared > 1 else MASK, draws=60)
    row = plan.rows["row"]
    images = calibration.Images(Path(), 64).load("digits", 32, ("test",))
    many = calibration.score(row, row.readings["plain"], images, 60, CPU)
    whole = many.ssim.mean(axis=1).std(ddof=1), np.sqrt(many.mse.mean(axis=1)).std(ddof=1)
    few = calibration.Scores(many.ssim[:6], many.mse[:6], many.shared)
    np.testing.assert_allclose(few.spread, whole, rtol=0.45)
    np.testing.assert_allclose(many.spread, whole, rtol=0.3)
    assert calibration.Scores(many.ssim[:1], many.mse[:1], shared).spread == (0, 0)


def cell(printed: str, erratum: str = "") -> PaperCell:
    return PaperCell("c", "1", "MNIST", "task", "degraded", "ssim", printed, float(printed), 0.001, erratum, "")


@pytest.mark.parametrize(
    ("value", "spread", "printed", "firmness"),
    [
        (0.23049, 0.0, "0.231", "close"),
        (0.230502, 0.0, "0.231", "exact"),
        (0.2314, 0.0, "0.231", "exact"),
        (0.2332, 0.0, "0.231", "close"),
        (0.2336, 0.0, "0.231", "not reproduced"),
        (0.240, 0.003, "0.231", "within sampling error"),
        (0.245, 0.003, "0.231", "not reproduced"),
        (0.2325, 1e-6, "0.231", "close"),
    ],
)
def test_firmness(value: float, spread: float, printed: str, firmness: str) -> None:
    assert view.Value("ssim", value, spread, 0.0, 4, cell(printed)).firmness == firmness


def test_labels() -> None:
    """The worse cell decides; a misprint is left out; a copy is not judged; what was chosen to fit says so."""

    def reading(ssim: float, rmse: float, erratum: str = "", fitted: bool = False, source: str = "mnist") -> Any:
        one = view.Value("ssim", ssim, 0.0, 0.0, 1, cell("0.300", erratum))
        two = view.Value("rmse", rmse, 0.0, 0.0, 1, cell("0.200"))
        return view.Reading("r", "", fitted, "paper", source, (one, two), (), 1, 1)

    assert reading(0.3, 0.2).label == "exact"
    assert reading(0.3, 0.2015).label == "close"
    assert reading(0.4, 0.2).label == "not reproduced"
    assert reading(0.4, 0.2, "misprint").label == "exact"
    assert reading(0.3, 0.2, fitted=True).label == "fitted after the fact"
    assert reading(0.4, 0.2, fitted=True).label == "not reproduced"
    assert reading(0.3, 0.2, source="cifar10_jpeg").label == "not judged"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"readings": {"r": {"rationale": "", "degradatoin": {}}}}, ["degradatoin", "did you mean"]),
        (
            {"readings": {"r": {"rationale": "", "degradation": {"stdd": 1.0}}}},
            ["row, r", "'stdd'", "did you mean 'std'"],
        ),
        ({"readings": {"r": {"rationale": "", "metric": "psnr"}}}, ["metric", "psnr"]),
        ({"readings": {"r": {"rationale": "", "steps_short": 4}}}, ["row, r", "steps_short", "0…2"]),
        ({"readings": {"r": {"rationale": "", "preprocessing": {"crop": 40}}}}, ["row, r", "crop 40", "32"]),
        ({"readings": {"r": {"rationale": "", "preprocessing": {"crop": 8}}}}, ["row, r", "11"]),
        ({"dataset": "mnisst"}, ["'mnisst'", "did you mean 'mnist'"]),
        ({"degradation": {"name": "snoww"}}, ["'snoww'", "did you mean 'snow'"]),
        ({"draws": 0}, ["draws"]),
    ],
)
def test_a_bad_file_is_refused_in_one_line(change: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(ColdbenchError) as error:
        plan_of(**change)
    assert "\n" not in str(error.value)
    for words in told:
        assert words in str(error.value)


def test_readings_are_the_protocols_of_the_grid() -> None:
    """A protocol of an experiment is the reading of that name in its row."""
    raw = yaml.safe_load((ROOT / "workflow/config/paper.yaml").read_text())
    config, plan = checked(Config, raw, "config"), interpretations.load(READINGS.read_text(), "readings")
    rows = {(str(row.table), row.row): row for row in plan.rows.values()}
    compared, other = 0, []
    for name, entry in config.grid.items():
        row = rows.get((entry.cell.table, entry.cell.row))
        for protocol in sorted(entry.protocols.keys() & row.readings.keys()) if row else ():
            assert row is not None
            spec = resolve(config, name, protocol, "paper").experiment.degradation
            theirs = {**row.degradation, **row.readings[protocol].degradation}
            if degradations.build(spec, entry.size) != degradations.build(theirs, entry.size):
                other.append(f"{name} {protocol}: {spec}, but as a reading {theirs}")
            compared += 1
    assert compared >= 25
    assert not other, "\n".join(other)


def test_command_without_data(tmp_path: Path) -> None:
    """Nothing there: every row says what it needs, and nothing is judged."""
    out, page = tmp_path / "c.parquet", tmp_path / "c.html"
    common = ["--paper", str(PAPER), "--out"]
    for words in (
        ["calibrate", str(READINGS), *common, str(out), "--data", str(tmp_path)],
        ["calibration", str(out), *common, str(page)],
    ):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
    frame = pd.read_parquet(out)
    assert len(frame) == len(yaml.safe_load(READINGS.read_text())["rows"])
    assert frame.missing.str.len().min() > 10
    assert "CelebA-HQ" in page.read_text()
    assert out.with_suffix(".csv").read_text().count("\n") == len(frame) + 1


# What is known of the printed cells: SSIM and RMSE on MNIST, and on a JPEG copy of the CIFAR-10 test images.
EXACT = {
    ("T1-MNIST", "fitted"): (0.0145, 0.2866),
    ("T1-MNIST", "paper"): (0.0130, 0.2885),
    ("T1-MNIST", "released"): (None, 0.3058),
    ("T1-MNIST", "T18"): (None, 0.2857),
    ("T1-MNIST", "T25"): (None, 0.2878),
    ("T1-MNIST", "zero_pad"): (None, 0.2738),
    ("T1-MNIST", "training_images"): (None, 0.2841),
    ("T1-MNIST", "kernel_9"): (None, 0.2821),
    ("T1-MNIST", "range_2"): (0.045, None),
    ("T3-MNIST", "fitted"): (0.1781, 0.2305),
    ("T3-MNIST", "bicubic"): (0.1825, 0.2306),
    ("T3-MNIST", "zoom_112"): (0.1802, 0.2470),
    ("T3-MNIST", "float_resize"): (None, 0.23047),
    ("T3-MNIST", "per_image"): (None, 0.2280),
    ("T3-MNIST", "uniform_ssim"): (0.297, None),
    ("T3-MNIST", "signed_ssim"): (0.1785, None),
    ("T3-MNIST", "range_2"): (0.223, None),
    ("T3-MNIST", "sample_ssim"): (0.1779, None),
}
JPEG = {
    ("T1-CIFAR-10", "fitted"): (0.3118, 0.1347),
    ("T3-CIFAR-10", "fitted"): (0.2769, 0.1447),
    ("T3-CIFAR-10", "per_image"): (None, 0.1392),
    ("T3-CIFAR-10", "uniform_ssim"): (0.298, None),
    ("T3-CIFAR-10", "range_2"): (0.400, None),
    ("T6-CIFAR-10", "fitted"): (0.9577, 0.0739),
}
RANDOM = {  # value and standard deviation of one evaluation
    ("T2-MNIST", "fitted", "mnist"): ((0.4898, 0.0020), (0.2626, 0.0003)),
    ("T2-MNIST", "released", "mnist"): ((0.509, 0.0020), (0.2608, 0.0003)),
    ("T2-CIFAR-10", "fitted", "cifar10_jpeg"): ((0.6156, 0.0016), (0.1424, 0.0003)),
    ("T4-CIFAR-10", "fitted", "cifar10_jpeg"): ((0.416, 0.003), (0.327, 0.0014)),
}
SHIFT = {  # true minus JPEG
    "T1-CIFAR-10": (0.003, 0.0012),
    "T3-CIFAR-10": (0.002, 0.0012),
    "T2-CIFAR-10": (0.000, 0.0007),
    "T4-CIFAR-10": (0.0015, -0.0001),
    "T6-CIFAR-10": (-0.019, 0.0037),
}
LABELS = {
    "T1-MNIST": "exact",
    "T1-CIFAR-10": "exact",
    "T2-MNIST": "fitted after the fact",
    "T2-CIFAR-10": "fitted after the fact",
    "T3-MNIST": "exact",
    "T3-CIFAR-10": "exact",
    "T4-CIFAR-10": "within sampling error",
    "T6-CIFAR-10": "close",
}


@pytest.mark.slow
def test_real_images(tmp_path: Path) -> None:
    """Every reading on MNIST and a JPEG copy of CIFAR-10: the known values, corrections and labels come out."""
    if not all(data.available(name, REAL) for name in ("mnist", "cifar10_jpeg", "cifar10_part")):
        pytest.skip(f"needs MNIST and the CIFAR-10 copies in {REAL}")
    logs.log_to(None, "[calibrate]")
    records = calibration.run(interpretations.load(READINGS.read_text(), "readings"), REAL, CPU)
    rows = view.rows(records, load_paper(PAPER))
    view.write_table(records, load_paper(PAPER), tmp_path / "c.parquet", {})
    shown = view.rows(view.load_table(tmp_path / "c.parquet"), load_paper(PAPER))
    assert repr(shown) == repr(rows)  # repr, as a spread may be NaN
    frame = view.table(records, rows)
    found = {(r.cell, r.reading, r.source, r.metric): r for r in frame.itertuples()}

    for table, source in ((EXACT, "mnist"), (JPEG, "cifar10_jpeg")):
        for (row, reading), values in table.items():
            for metric, value in zip(("ssim", "rmse"), values, strict=True):
                got = found[row, reading, source, metric].value
                assert value is None or abs(got - value) <= 0.0006, (row, reading, metric, got, value)
    for (row, reading, source), pairs in RANDOM.items():
        for metric, (value, sd) in zip(("ssim", "rmse"), pairs, strict=True):
            got = found[row, reading, source, metric]
            assert abs(got.value - value) <= 3 * sd, (row, reading, metric, got.value, value)
            assert 0.6 * sd < got.spread < 1.6 * sd, (row, metric, got.spread, sd)
    for row, pair in SHIFT.items():
        for metric, shift in zip(("ssim", "rmse"), pair, strict=True):
            got = found[row, "fitted", "cifar10 (corrected)", metric]
            assert abs(got.shift - shift) <= (0.0006 if metric == "ssim" else 0.0001), (row, metric, got.shift)
            assert got.shift_error < 0.0003
    assert {row.name: row.readings[0].label for row in rows if row.readings} == LABELS
    assert all(row.fits[0] is row.readings[0] for row in rows if row.readings), "the recommended reading fits best"
    assert re.search("CelebA", " ".join(row.missing for row in rows))
