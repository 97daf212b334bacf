"""On the real MNIST test set the Degraded cells come out as printed. No model is involved.

The data lie in the folder COLDBENCH_TEST_DATA, or in `shared/data` beside the checkout; without them, these tests skip.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from cases import CONFIG, METADATA, REAL

from coldbench import data
from coldbench.core.config import Config
from coldbench.core.run import resolve
from coldbench.core.validation import checked
from coldbench.evaluation import calibration, interpretations
from coldbench.evaluation.evaluator import Evaluator
from coldbench.sampling.manifest import Manifest, SampledSet, write_manifest

pytestmark = pytest.mark.skipif(not data.available("mnist", REAL), reason="needs the real MNIST")

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
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folders = {size: tmp_path_factory.mktemp(f"mnist-{size}") for size in (32, 35)}
    for size, folder in folders.items():
        data.prepare("mnist", REAL, size, folder)
    return folders


def degraded(name: str, protocol: str, folder: Path, out: Path) -> list[float]:
    """SSIM and RMSE of the Degraded cell of one protocol: the scores of a set without methods."""
    config = checked(Config, yaml.safe_load((CONFIG / "paper.yaml").read_text()), "paper.yaml")
    experiment = resolve(config, name, protocol, "laptop").experiment
    sampled = SampledSet(methods=[], images=500, trajectory="")
    run = Manifest(
        model="", sampling="", trajectories={"test": ""}, data=data.info(folder)["hash"], partner=None,
        seed=0, device="", inference_batch=1, precision="",
        compile=False, shard_size=1, signed_metrics=False, experiment=experiment, provenance={},
        sets={"test": sampled}, shards=[],
    )  # fmt: skip
    write_manifest(out / "samples.json", run)
    scores = Evaluator(out / "samples.json", folder, out, [], CPU).evaluate(METADATA)
    assert {score.n for score in scores} == {10_000}
    return [score.value for score in scores if score.metric in ("ssim", "rmse")]


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_degraded_cells_are_the_printed_ones(
    prepared: dict[int, Path], tmp_path: Path, name: str, protocol: str
) -> None:
    ssim, rmse = degraded(name, protocol, prepared[32], tmp_path)
    expected_ssim, expected_rmse, ssim_tolerance, rmse_tolerance = CASES[name, protocol]
    assert ssim == pytest.approx(expected_ssim, abs=ssim_tolerance)
    assert rmse == pytest.approx(expected_rmse, abs=rmse_tolerance)


@pytest.mark.parametrize(("name", "row"), [("E01", "T1-MNIST"), ("E07", "T3-MNIST")])
def test_crop_of_the_pipeline_is_that_of_the_calibration(
    prepared: dict[int, Path], tmp_path: Path, name: str, row: str
) -> None:
    """The zoom of the released loader, in two implementations."""
    plan = interpretations.load((CONFIG / "calibration.yaml").read_text(), "calibration").rows[row]
    only = plan.model_copy(update={"interpretations": {"released": plan.interpretations["released"]}})
    records = calibration.run(interpretations.Calibration(rows={row: only}), REAL, CPU)
    expected = [record["value"] for record in records]
    assert degraded(name, "released", prepared[35], tmp_path) == pytest.approx(expected, abs=1e-6)
