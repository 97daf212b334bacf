"""On the real MNIST test set the Degraded cells come out as printed: no model is involved, so this is exact science.

Needs the data (COLDBENCH_TEST_DATA, or a `shared/data` beside the checkout); skipped visibly without it.
"""

import os
from pathlib import Path

import pytest
import torch
import yaml
from cases import ROOT

from coldbench import data
from coldbench.core.config import Config, resolve
from coldbench.core.validation import checked
from coldbench.evaluation import calibration, evaluate, interpretations

FOLDER = Path(os.environ.get("COLDBENCH_TEST_DATA", ROOT.parent / "shared" / "data"))
pytestmark = pytest.mark.skipif(not data.available("mnist", FOLDER), reason="no real MNIST at hand")

CASES = {  # images of 32 px, not cut from larger ones: SSIM, RMSE, tolerances (3 standard deviations where D is random)
    ("E01", "fitted"): (0.0145, 0.2866, 0.0006, 0.0006),
    ("E01", "paper"): (0.0130, 0.2885, 0.0006, 0.0006),
    ("E04", "released"): (0.509, 0.2608, 0.006, 0.0009),
    ("E04", "fitted"): (0.490, 0.2626, 0.006, 0.0009),
    ("E07", "fitted"): (0.1781, 0.2305, 0.0006, 0.0006),
    ("E07", "released"): (0.1825, 0.2306, 0.0006, 0.0006),
}


CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folders = {size: tmp_path_factory.mktemp(f"mnist-{size}") for size in (32, 35)}
    for size, folder in folders.items():
        data.prepare("mnist", FOLDER, size, folder)
    return folders


def degraded(name, protocol, folder):
    """SSIM and RMSE of the Degraded cell of one protocol."""
    config = checked(Config, yaml.safe_load((ROOT / "workflow/config/paper.yaml").read_text()), "paper.yaml")
    run = resolve(config, name, protocol, "laptop")
    rows = evaluate._degraded(evaluate.Scorer(run.experiment, folder, folder, [], CPU), "test", None, 500, None)
    assert {row["n"] for row in rows} == {10_000}
    values = {row["metric"]: row["value"] for row in rows}
    return values["ssim"], values["rmse"]


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_degraded_cells(prepared, name, protocol):
    ssim, rmse = degraded(name, protocol, prepared[32])
    expected_ssim, expected_rmse, ssim_tolerance, rmse_tolerance = CASES[name, protocol]
    assert ssim == pytest.approx(expected_ssim, abs=ssim_tolerance)
    assert rmse == pytest.approx(expected_rmse, abs=rmse_tolerance)


@pytest.mark.parametrize(("name", "row"), [("E01", "T1-MNIST"), ("E07", "T3-MNIST")])
def test_images_cut_from_larger_ones_are_those_of_the_calibration(prepared, name, row):
    """The released loader's zoom, by the pipeline of training and by the calibration's own."""
    plan = yaml.safe_load((ROOT / "workflow/config/calibration.yaml").read_text())
    only = {**plan["rows"][row], "interpretations": {"released": plan["rows"][row]["interpretations"]["released"]}}
    records = calibration.run(interpretations.load(yaml.safe_dump({"rows": {row: only}}), row), FOLDER, CPU, None)
    assert degraded(name, "released", prepared[35]) == pytest.approx([r["value"] for r in records], abs=1e-6)
