"""The paper's first claim about its samplers, on a trained small model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cases import sampled

from coldbench import data
from coldbench.core.experiment import Experiment, Network, Training
from coldbench.evaluation.metrics import intervals, similarity
from coldbench.sampling.manifest import read_images
from coldbench.training import loop

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small model that deblurs the embedded digits, and the prepared digits."""
    folder = tmp_path_factory.mktemp("trained")
    data.prepare("digits", None, 16, folder / "digits")
    experiment = Experiment(
        name="blur",
        protocol="test",
        budget="smoke",
        dataset="digits",
        size=16,
        seed=0,
        degradation={"name": "blur", "T": 20, "kernel": 7, "std": 1.5, "schedule": "constant"},
        network=Network(dim=16, dim_mults=[1, 2, 4]),
        training=Training(
            max_steps=600,
            batch_size=32,
            grad_accumulation=1,
            learning_rate=2e-3,
            ema_decay=0.98,
            ema_update_every=1,
            ema_start=100,
        ),
    )
    loop.train(experiment, loop.TrainingPaths(folder / "digits", folder / "model.safetensors", folder / "work"), CPU)
    return folder / "model.safetensors", folder / "digits"


@pytest.mark.slow
def test_algorithm_1_has_a_larger_error_than_tacos_and_more_with_more_steps(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    """Section 3.2: errors of the network add up in Algorithm 1. Judged by paired intervals over test images."""
    model, digits = trained
    manifest = sampled(tmp_path, model, digits, images=200, sets={"test": {}, "strides": {"stride": 10}})
    original = torch.from_numpy(data.load(digits, "test")[:200] / np.float32(255))

    def errors(method: str, name: str = "test") -> np.ndarray:
        return similarity.mse_per_image(original, torch.from_numpy(read_images(manifest, name, method)))

    many = intervals.difference(errors("naive"), errors("tacos"), "root_mean", 0)
    assert many.low > 0.02, "Algorithm 1 has a larger RMSE than TACoS"
    assert intervals.difference(errors("tacos"), errors("direct"), "root_mean", 0).low > 0, (
        "direct reconstruction has the smallest RMSE, as in Tables 1 to 3"
    )
    few = intervals.difference(errors("naive", "strides"), errors("tacos", "strides"), "root_mean", 0)
    assert many.low > few.high, "the error of Algorithm 1 grows with the number of steps"
