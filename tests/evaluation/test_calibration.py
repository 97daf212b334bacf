"""Calibration: values against independent code, spread against brute force, refusals, and real images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from cases import CONFIG, REAL, ROOT
from pytorch_msssim import ssim

from coldbench import data, degradations
from coldbench.core import rng
from coldbench.core.config import Config
from coldbench.core.errors import ColdbenchError
from coldbench.core.run import resolve
from coldbench.core.validation import checked
from coldbench.evaluation import calibration, interpretations

INTERPRETATIONS = (CONFIG / "calibration.yaml").read_text()
CPU = torch.device("cpu")
MASK = {"name": "inpainting", "T": 3, "std": 2.0, "rate": 1.0, "centre_low": 0, "centre_high": 31, "quantized": True}


def plan_of(**row: Any) -> interpretations.Calibration:
    """One row of the embedded digits."""
    base = {"table": 1, "row": "MNIST", "dataset": "digits", "degradation": MASK}
    base |= {"interpretations": {"plain": {"rationale": ""}}}
    return interpretations.load(yaml.safe_dump({"rows": {"row": {**base, **row}}}), "test")


def test_values_agree_with_independent_code() -> None:
    """Crop and truncation written out, SSIM by pytorch-msssim."""
    zoom = {"rationale": "", "preprocessing": {"resize": 35, "crop": 32}}
    records = calibration.run(plan_of(interpretations={"zoom": zoom}), Path(), CPU, 60)
    images = data.dataset("digits").build(Path(), 35, "test")
    x = torch.from_numpy(np.stack([next(images)[:, 2:34, 2:34] for _ in range(60)])) / 255.0
    degradation = degradations.build(MASK, 32)
    drawn = degradation.draw(torch.arange(60), rng.derive(0, "calibration 0"))
    xt = torch.trunc((degradation(2 * x - 1, torch.full((60,), 3), drawn) + 1) * 0.5 * 255) / 255
    assert records[0]["value"] == pytest.approx(float(ssim(x, xt, data_range=1)), abs=1e-6)
    assert records[1]["value"] == pytest.approx(float((x - xt).square().mean().sqrt()), abs=1e-6)


@pytest.mark.parametrize("shared", [1, 8])
def test_spread_is_the_deviation_of_whole_evaluations(shared: int) -> None:
    """Few draws per image give it, also if images share a pattern."""
    snow = {"name": "snow", "T": 4, "level": 3, "shared": shared}
    row = plan_of(degradation=snow if shared > 1 else MASK, draws=60).rows["row"]
    images = calibration.load_images("digits", Path(), 32, "test", 64)
    many = calibration.score(row, row.interpretations["plain"], images, 60, CPU)
    expected = many.ssim.mean(axis=1).std(ddof=1), np.sqrt(many.mse.mean(axis=1)).std(ddof=1)
    few = calibration.ImageScores(many.ssim[:6], many.mse[:6], many.shared)
    np.testing.assert_allclose(few.spread, expected, rtol=0.45)
    np.testing.assert_allclose(many.spread, expected, rtol=0.3)
    assert calibration.ImageScores(many.ssim[:1], many.mse[:1], shared).spread == (0, 0)


def test_some_steps_short_is_a_shorter_degradation() -> None:
    """A mask of three steps, one step short, is the quantized mask of two steps."""
    choices = {"short": {"steps_short": 1}, "two": {"degradation": {"T": 2}}, "three": {}}
    rows = plan_of(interpretations={name: {"rationale": "", **choice} for name, choice in choices.items()})
    records = pd.DataFrame(calibration.run(rows, Path(), CPU, 20)).set_index(["interpretation", "metric"]).value
    for metric in ("ssim", "rmse"):
        assert records["short", metric] == records["two", metric] != records["three", metric]


REFUSALS: list[tuple[dict[str, Any], list[str]]] = [  # change, offending key and nearest valid choice
    (
        {"interpretations": {"r": {"rationale": "", "degradatoin": {}}}},
        ["degradatoin", "r.degradation'"],
    ),
    ({"interpretations": {"r": {"rationale": "", "degradation": {"stdd": 1.0}}}}, ["row, r", "'stdd'", "'std'"]),
    ({"interpretations": {"r": {"rationale": "", "metric": "psnr"}}}, ["metric", "psnr"]),
    ({"interpretations": {"r": {"rationale": "", "steps_short": 4}}}, ["row, r", "steps_short", "0…2"]),
    ({"interpretations": {"r": {"rationale": "", "preprocessing": {"crop": 40}}}}, ["row, r", "crop 40", "32"]),
    ({"interpretations": {"r": {"rationale": "", "preprocessing": {"crop": 8}}}}, ["row, r", "11"]),
    ({"dataset": "mnisst"}, ["'mnisst'", "'mnist'"]),
    ({"degradation": {"name": "snoww"}}, ["'snoww'", "'snow'"]),
    ({"draws": 0}, ["draws"]),
    ({"draws": 10**9}, ["draws", "1000"]),
    ({"size": 10**9}, ["row, ", "1000000000", "16 to 256"]),
    ({"interpretations": {"r": {"rationale": "", "preprocessing": {"resize": 10**9}}}}, ["row, r", "16 to 256"]),
    ({"interpretations": {"r": {"rationale": "", "preprocessing": {"pad": 10**9}}}}, ["row, r", "2…4096"]),
]


@pytest.mark.parametrize(("change", "names"), REFUSALS)
def test_wrong_calibration_is_refused_in_one_line(change: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(ColdbenchError) as error:
        plan_of(**change)
    assert "\n" not in str(error.value)
    assert [name for name in names if name not in str(error.value)] == []


def test_row_without_data_is_recorded_unless_no_row_has_any(tmp_path: Path) -> None:
    rows = {"a": plan_of().rows["row"], "b": plan_of(dataset="mnist").rows["row"]}
    records = calibration.run(interpretations.Calibration(rows=rows), tmp_path, CPU, 8)
    assert [(record["cell"], bool(record["missing"])) for record in records] == [("a", False)] * 2 + [("b", True)]
    for folder, words in ((tmp_path, "none of mnist"), (tmp_path / "absent", "absent does not exist")):
        with pytest.raises(ColdbenchError, match=words):
            calibration.run(plan_of(dataset="mnist"), folder, CPU, 8)


def test_interpretations_equal_the_protocols_of_the_grid() -> None:
    """A protocol of an experiment and the interpretation of its name in the same row build the same degradation."""
    config = checked(Config, yaml.safe_load((CONFIG / "paper.yaml").read_text()), "config")
    plan = interpretations.load(INTERPRETATIONS, "calibration")
    rows = {(str(row.table), row.row): row for row in plan.rows.values()}
    compared, different = 0, []
    for name, entry in config.grid.items():
        row = rows.get((entry.cell.table, entry.cell.row))
        for protocol in sorted(entry.protocols.keys() & row.interpretations.keys()) if row else ():
            assert row is not None
            spec = resolve(config, name, protocol, "paper").experiment.degradation
            calibrated = {**row.degradation, **row.interpretations[protocol].degradation}
            if degradations.build(spec, entry.size) != degradations.build(calibrated, entry.size):
                different.append(f"{name} {protocol}: {spec}, but calibrated {calibrated}")
            compared += 1
    assert compared >= 25
    assert not different, "\n".join(different)


MNIST = {  # SSIM and RMSE, computed once by other code
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


@pytest.mark.slow
@pytest.mark.skipif(not data.available("mnist", REAL), reason="needs the real MNIST")
def test_calibration_of_mnist_is_the_published_one() -> None:
    """Every record of the published calibration comes out again, as do the values of other code."""
    records = calibration.run(interpretations.load(INTERPRETATIONS, "calibration"), REAL, CPU)
    keys = ["cell", "interpretation", "metric"]
    new = pd.DataFrame([record for record in records if record["source"] == "mnist"]).set_index(keys)
    published = pd.read_parquet(ROOT / "results/published/laptop-cpu/calibration.parquet")
    old = published[published.source == "mnist"].set_index(keys).loc[new.index]
    for column in ("value", "spread", "draws", "n"):
        np.testing.assert_allclose(new[column], old[column], rtol=1e-5, atol=1e-7, err_msg=column)
    for label, values in MNIST.items():
        for metric, value in zip(("ssim", "rmse"), values, strict=True):
            assert value is None or new.value[(*label, metric)] == pytest.approx(value, abs=0.0006), (label, metric)
