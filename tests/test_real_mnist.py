"""On the real MNIST test set the Degraded cells come out as printed: no model is involved, so this is exact science.

Needs the data (COLDBENCH_TEST_DATA, or a `shared/data` beside the checkout); skipped visibly without it.
"""

import os
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from coldbench import data, evaluate
from coldbench.experiment import Config, checked, resolve

ROOT = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("COLDBENCH_TEST_DATA", ROOT.parent / "shared" / "data"))
pytestmark = pytest.mark.skipif(not data.available("mnist", FOLDER), reason="no real MNIST at hand")

CASES = {  # SSIM, RMSE, tolerances: three standard deviations where the operator is random
    ("E01", "fitted"): (0.0145, 0.2866, 0.0006, 0.0006),
    ("E01", "paper"): (0.0130, 0.2885, 0.0006, 0.0006),
    ("E04", "released"): (0.509, 0.2608, 0.006, 0.0009),
    ("E04", "fitted"): (0.490, 0.2626, 0.006, 0.0009),
    ("E07", "fitted"): (0.1781, 0.2305, 0.0006, 0.0006),
    ("E07", "released"): (0.1825, 0.2306, 0.0006, 0.0006),
}


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mnist")
    data.prepare("mnist", FOLDER, 32, folder)
    return folder


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_degraded_cells(mnist, tmp_path, name, protocol):
    config = checked(Config, yaml.safe_load((ROOT / "workflow/config/paper.yaml").read_text()), "paper.yaml")
    run = resolve(config, name, protocol, "laptop")
    evaluate.degraded(run.experiment, run.about, 500, mnist, tmp_path / "out.parquet", torch.device("cpu"))
    values = pd.read_parquet(tmp_path / "out.parquet").set_index("metric").value
    ssim, rmse, ssim_tolerance, rmse_tolerance = CASES[name, protocol]
    assert values["ssim"] == pytest.approx(ssim, abs=ssim_tolerance)
    assert values["rmse"] == pytest.approx(rmse, abs=rmse_tolerance)
